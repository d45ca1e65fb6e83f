"""Which app a command is about, with the settings that the command line gives it.

`pass_app` hands a command its App, with what -b and --set say in force. `broker_of` finds
the broker that the app's settings name; for an app that names none it is the app's own,
joined, and started if need be, for as long as the command takes.

Nothing heavy is imported here: `streamer --help` and `streamer broker` come by.
"""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from streamer.cli.options import Address, Assignment
from streamer.errors import StreamerError

if TYPE_CHECKING:
    from streamer.app import App
    from streamer.client.interface import Admin
    from streamer.worker.clients import Clients


class NoApp(StreamerError):
    """A command of an app was called without one."""


class Target:
    """The app that `-A` names, imported when it is asked for; or one that is there."""

    def __init__(self, spec: str | None = None, app: App | None = None) -> None:
        self.spec = spec
        self._app = app
        self._commands: dict[str, click.Command] | None = None

    @property
    def is_named(self) -> bool:
        return bool(self.spec) or self._app is not None

    @property
    def app(self) -> App:
        if self._app is None:
            from streamer.cli.app.loading import load_app

            assert self.spec, "is_named says whether there is one"
            self._app = load_app(self.spec, Path.cwd())
        return self._app

    def commands(self) -> dict[str, click.Command]:
        """Those that the app declares."""
        if self._commands is None:
            from streamer.cli.app.own import own_commands

            self._commands = own_commands(self.app)
        return self._commands

    @property
    def words(self) -> str:
        """How a command of this app is called, for those who are told to call one."""
        if self.spec:
            return f"streamer -A {shlex.quote(self.spec)}"
        import sys

        return f"python {shlex.quote(sys.argv[0])}"


def target_of(context: click.Context) -> Target:
    found = context.find_object(Target)
    # Before -A was looked at: while words are completed, or for `--help` alone.
    return found or Target(os.environ.get("STREAMER_APP"))


def required_target(context: click.Context) -> Target:
    target = target_of(context)
    if not target.is_named:
        words = context.command_path.partition(" ")[2]
        raise NoApp(
            f"`streamer {words}` is a command of an app, and none is named.",
            remedy=f"For the App in shop.py: streamer -A shop {words}, or STREAMER_APP",
        )
    return target


def pass_app(command: Callable[..., Any]) -> Callable[..., Any]:
    """-b and --set; the command gets the App first, with these settings in force."""

    @click.option(
        "-b",
        "--broker",
        "--bootstrap-server",
        "broker",
        type=Address(),
        help="A broker of the cluster.  [default: the app's, or one of its own]",
    )
    @click.option(
        "--set",
        "settings",
        type=Assignment(),
        multiple=True,
        help="Any setting, such as commit.interval.ms=50. May be repeated; `config` lists"
        " them.",
    )
    # Where many look for it: `streamer worker -A shop`.
    @click.option("-A", "--app", "spec", hidden=True)
    @functools.wraps(command)
    def with_app(
        *arguments: Any,
        spec: str | None,
        broker: str | None,
        settings: tuple[tuple[str, str], ...],
        **options: Any,
    ) -> Any:
        from streamer.cli.environment import check_for_app

        context = click.get_current_context()
        if spec:
            context.find_root().obj = context.obj = Target(spec)
        app = required_target(context).app
        app.set_flags(dict(settings) | ({"broker": broker} if broker else {}))
        check_for_app(os.environ)
        return command(app, *arguments, **options)

    return with_app


class Connection(NamedTuple):
    """A broker that the app uses."""

    address: str
    clients: Clients

    @property
    def admin(self) -> Admin:
        return self.clients.admin


@contextmanager
def broker_of(app: App) -> Iterator[Connection]:
    """The broker of the app, there as long as this lasts."""
    from streamer.worker.clients import Clients
    from streamer.worker.worker import join_own_broker

    own = join_own_broker(app)
    try:
        address = app.conf.brokers if own is None else own.address
        clients = Clients(address, app.conf)
        if own is None:
            # Whom it does not let in hears so here, and not when a record times out.
            clients.admin.cluster()
        yield Connection(address, clients)
    finally:
        if own is not None:
            own.leave()


def checked(app: App, flags: Mapping[str, str | None]) -> None:
    """Further settings of the command line, under our names."""
    app.set_flags({name: text for name, text in flags.items() if text is not None})
    _ = app.conf
