"""Which Kafka a command talks to, and how it gets in: -b and --set.

    flag  >  environment  >  the app that -A names  >  [app] in streamer.toml  >  default

The settings are those that workers have, by the same names and from the same places: what
lets a worker in lets the commands in. Where none of them names a broker, it is the one that
apps here have started for themselves (`client/embedded.py`) if it runs, or else Kafka's
usual port. Commands of an app go by all settings of the app instead: `app/target.py`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from streamer.cli.app.target import Target, target_of
from streamer.cli.options import DEFAULT_PORT, Address, Assignment
from streamer.client.librdkafka import Settings

if TYPE_CHECKING:
    from streamer.client.interface import Admin
    from streamer.conf import Conf

F = TypeVar("F", bound=Callable[..., Any])


class Access(NamedTuple):
    """A broker, and what every client of it is to be given."""

    bootstrap: str
    settings: Settings

    def admin(self) -> Admin:
        from streamer.client.confluent.admin import ConfluentAdmin

        return ConfluentAdmin(self.bootstrap, self.settings)


def nearest_broker() -> str:
    """The broker of the nearest .streamer folder while it runs; else Kafka's usual port."""
    from streamer.client.embedded import home
    from streamer.client.embedded_process import BrokerProcess

    running = BrokerProcess(home(os.environ, Path.cwd())).address()
    return running or f"127.0.0.1:{DEFAULT_PORT}"


def pass_access(command: F) -> F:
    """-b and --set; the command receives an `Access` as its first argument."""

    @click.option(
        "-b",
        "--bootstrap-server",
        "--broker",
        "bootstrap",
        type=Address(),
        envvar="STREAMER_BROKER",
        show_default="that of the app or of streamer.toml; else the one of the apps here"
        f" while it runs, or 127.0.0.1:{DEFAULT_PORT}",
        show_envvar=True,
        help="A broker of the cluster, ours or any other Kafka.",
    )
    @click.option(
        "--set",
        "settings",
        type=Assignment(),
        multiple=True,
        help="How to get in, by Kafka's names: security.protocol=SASL_SSL, sasl.mechanism,"
        " sasl.username, ssl.ca.location, ...; secrets rather as STREAMER_SASL_PASSWORD,"
        " or in streamer.toml. May be repeated.",
    )
    @functools.wraps(command)
    def with_access(
        *arguments: Any,
        bootstrap: str | None,
        settings: Sequence[tuple[str, str]],
        **options: Any,
    ) -> Any:
        target = target_of(click.get_current_context())
        access = access_by(target, bootstrap, dict(settings))
        return command(access, *arguments, **options)

    return cast(F, with_access)


def pass_admin(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same; the command receives an `Admin` of that broker instead."""

    @functools.wraps(command)
    def with_admin(access: Access, *arguments: Any, **options: Any) -> Any:
        return command(access.admin(), *arguments, **options)

    return pass_access(with_admin)


def access_by(target: Target, bootstrap: str | None, settings: Mapping[str, str]) -> Access:
    """By these flags, and whatever else says how."""
    from streamer.cli.environment import check_for_app

    check_for_app(os.environ)
    flags = {**settings, "broker": bootstrap} if bootstrap else settings
    conf = _conf(target, flags)
    return Access(conf.brokers or nearest_broker(), conf.client_settings)


def _conf(target: Target, flags: Mapping[str, str]) -> Conf:
    from streamer.conf import load_access

    # Looked at in any case: a flag that means nothing for a command is a mistake.
    alone = load_access(flags=flags, environment=os.environ, directory=Path.cwd())
    if not target.is_named:
        return alone
    target.app.set_flags(flags)
    return target.app.conf
