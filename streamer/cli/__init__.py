"""The `streamer` command: each command parses, makes one call and prints."""
