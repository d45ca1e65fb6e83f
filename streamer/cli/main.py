"""The `streamer` command: which subcommands there are, and how each one ends.

A subcommand is imported when it is called, by the name in `COMMANDS`, so that
`streamer broker` never loads what only a client needs (librdkafka, rich, msgspec). Inside
the command modules the same holds: what is heavy is imported where it is used.

Commands of an app are two things at once: `streamer -A shop worker`, and `python shop.py
worker` by `app.main()`, which is `app_main` here. They are in `app/`, and so are those that
a user declares with `@app.command()`.

Rules for every command:

    data goes to stdout, words go to stderr
    exit code 0: done   1: failed, and stderr says why   2: the command line is wrong
    an error is `problem`, then `-> way out`, which names the next command to try
    a reader who closes the pipe early has seen enough: that is no error
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import click

import streamer
from streamer.cli.app.target import Target, target_of
from streamer.errors import StreamerError

if TYPE_CHECKING:
    from streamer.app import App

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


# The same for what needs an app.
APP_COMMANDS = {
    "worker": ("streamer.cli.app.worker:worker_command", "Run the app; several share it."),
    "send": (
        "streamer.cli.app.send:send_command",
        "Send a record to a topic or to an agent.",
    ),
    "agents": ("streamer.cli.app.agents:agents_command", "List its agents."),
    "tables": ("streamer.cli.app.tables:tables_command", "List its tables."),
    "table": ("streamer.cli.app.table:table_group", "Look up a key of a table."),
    "config": (
        "streamer.cli.app.config:config_command",
        "Show its settings and where each comes from.",
    ),
    "reset": (
        "streamer.cli.app.reset:reset_command",
        "Forget its state and begin anew.",
    ),
}


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports them one by one.

    Those of an app come last, together with what the app declares itself.
    """

    def __init__(
        self,
        name: str | None,
        lazy: Mapping[str, tuple[str, str]],
        help: str,
        epilog: str | None = None,
    ) -> None:
        super().__init__(name, help=help, epilog=epilog)
        self.tools = lazy
        self.lazy = {**lazy, **APP_COMMANDS}

    def list_commands(self, context: click.Context) -> list[str]:
        return [*self.lazy, *self._declared(context)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.lazy:
            target = target_of(context)
            return target.commands().get(name) if target.is_named else None
        module, attribute = self.lazy[name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def _declared(self, context: click.Context) -> dict[str, str]:
        """What the app's own commands are called, and what they are for."""
        target = target_of(context)
        if not target.is_named:
            return {}
        try:
            found = target.commands()
        except StreamerError as error:
            # Help is wanted, and the rest of it stands; a command would say this as well.
            click.echo(f"{error}\n", err=True)
            return {}
        return {name: command.get_short_help_str() for name, command in found.items()}

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        if self.tools:
            with formatter.section("Commands"):
                formatter.write_dl(
                    [(name, words) for name, (_, words) in self.tools.items()]
                )
        title = "Commands of an app (-A MODULE)" if self.tools else "Commands"
        with formatter.section(title):
            formatter.write_dl([(name, words) for name, (_, words) in APP_COMMANDS.items()])
        if declared := self._declared(context):
            with formatter.section("Its own commands"):
                formatter.write_dl(list(declared.items()))

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
Every command takes -b host:port (or STREAMER_BROKER): ours or any other Kafka. Without
it, they use the broker that an app here has started for itself, if one runs. For one
that asks for TLS or a password: STREAMER_SECURITY_PROTOCOL=SASL_SSL, and likewise
sasl.mechanism, sasl.username, sasl.password, ssl.ca.location, ...; the same by --set, or
below [app] in streamer.toml. With -A, what the app says counts too.
To complete commands with <Tab>, for bash, zsh or fish:
  eval "$(_STREAMER_COMPLETE=bash_source streamer)"
"""

main = LazyGroup(
    "streamer",
    COMMANDS,
    help="""Stream processing, a log that speaks the Kafka protocol, and their tools.

    \b
    Start here, with an app in shop.py; nothing else has to run:
      streamer -A shop worker                # leave it running; Ctrl-C stops it
      streamer -A shop send orders '{"id": "1", "item": "tea"}'
      streamer -A shop table get sold tea
    \b
    Or with a broker alone:
      streamer broker                        # leave it running
      streamer topic create orders -p 4
      echo 'alice 3 apples' | streamer produce orders -f '%k %v'
      streamer consume orders -e -f '%p %o %k %v\\n'
    """,
    epilog=EPILOG,
)
click.version_option(streamer.__version__, prog_name="streamer")(main)


def _name_app(context: click.Context, _: click.Parameter, spec: str | None) -> None:
    context.obj = Target(spec)


click.option(
    "-A",
    "--app",
    metavar="MODULE[:NAME]",
    envvar="STREAMER_APP",
    show_envvar=True,
    expose_value=False,
    # Known before --help, so that this shows what the app declares.
    is_eager=True,
    callback=_name_app,
    help="Where the app is: shop for the App in shop.py; NAME if there are several.",
)(main)


def app_main(app: App) -> None:
    """The command line of one app: `python shop.py worker`."""
    from streamer.cli.app.loading import refuse_while_loading

    refuse_while_loading(app)
    group = LazyGroup(
        None, {}, help=f"Run {app.id} and look after it: a command each, see below."
    )
    click.version_option(streamer.__version__, prog_name="streamer")(group)
    group.main(obj=Target(app=app))
