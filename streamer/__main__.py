"""`python -m streamer`: the `streamer` command, by the interpreter it is installed for."""

from streamer.cli.main import main

if __name__ == "__main__":
    main(prog_name="streamer")
