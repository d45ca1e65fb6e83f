"""The `streamer` command: which subcommands there are, and how each one ends.

A subcommand is imported when it is called, by the name in `COMMANDS`, so that
`streamer broker` never loads what only a client needs (librdkafka, rich). Inside
the command modules the same holds: what is heavy is imported where it is used.

Rules for every command:

    data goes to stdout, words go to stderr
    exit code 0: done   1: failed, and stderr says why   2: the command line is wrong
    an error is `problem`, then `-> way out`, which names the next command to try
    a reader who closes the pipe early has seen enough: that is no error
"""

import os
import sys
from collections.abc import Mapping
from importlib import import_module

import click

import streamer
from streamer.errors import StreamerError

# name → (where it is, what `streamer --help` says about it without importing it)
COMMANDS = {
    "broker": ("streamer.cli.broker:broker_command", "Serve a log to Kafka clients."),
    "topic": ("streamer.cli.topic:topic_group", "Create, list, change and delete topics."),
    "produce": ("streamer.cli.produce:produce_command", "Write lines to a topic."),
    "consume": ("streamer.cli.consume:consume_command", "Print the records of a topic."),
    "group": (
        "streamer.cli.group:group_group",
        "See how far consumer groups are; move them.",
    ),
    "txn": ("streamer.cli.txn:txn_group", "See transactions; abort one that hangs."),
    "cluster": (
        "streamer.cli.cluster:cluster_command",
        "Show which broker answers.",
    ),
    "log": ("streamer.cli.log:log_group", "Look into log files, without a broker."),
    "bench": (
        "streamer.cli.bench.main:bench_group",
        "Measure a broker: rates, latencies, CPU.",
    ),
}


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports them one by one."""

    def __init__(self, name: str, lazy: Mapping[str, tuple[str, str]], help: str) -> None:
        super().__init__(name, help=help, epilog=EPILOG)
        self.lazy = lazy

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.lazy:
            return None
        module, attribute = self.lazy[name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.lazy.items()])

    def invoke(self, context: click.Context) -> object:
        """Run the subcommand; turn what can go wrong in the world into an exit code."""
        try:
            result = super().invoke(context)
            sys.stdout.flush()
            return result
        except StreamerError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            # Python flushes stdout once more while it exits; give it somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)
        except KeyboardInterrupt:
            context.exit(130)


EPILOG = """\b
Every command takes -b host:port (or STREAMER_BROKER): ours or any other Kafka.
To complete commands with <Tab>, for bash, zsh or fish:
  eval "$(_STREAMER_COMPLETE=bash_source streamer)"
"""

main = LazyGroup(
    "streamer",
    COMMANDS,
    help="""A log that speaks the Kafka protocol, and the tools to work with it.

    \b
    Start here:
      streamer broker                        # leave it running; Ctrl-C stops it
      streamer topic create orders -p 4
      echo 'alice 3 apples' | streamer produce orders -f '%k %v'
      streamer consume orders -e -f '%p %o %k %v\\n'
    """,
)
click.version_option(streamer.__version__, prog_name="streamer")(main)
