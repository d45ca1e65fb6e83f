"""Commands that an app declares: `@app.command(click.option("--item"))`.

    async def f(item): ...            runs in a loop, and may send and ask
    async def f(self, item): ...      the same; `self.app`, `self.say(...)`, as in Faust
    def f(item): ...                  runs as it is

It is no worker: it reads nothing, and no group notices it. The broker is looked for when
something is sent for the first time.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import click

from streamer.app import App
from streamer.cli.app.target import pass_app
from streamer.errors import StreamerError


class CommandName(StreamerError):
    remedy = "Give it another: @app.command(name='...')."


class Running:
    """What a command that takes `self` gets."""

    def __init__(self, app: App) -> None:
        self.app = app

    def say(self, words: object = "") -> None:
        """Print to stdout."""
        click.echo(words)

    def carp(self, words: object = "") -> None:
        """Print to stderr."""
        click.echo(words, err=True)

    def dumps(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, default=str)


def own_commands(app: App) -> dict[str, click.Command]:
    """By name, ready to be called."""
    # Not at the top: this module is imported by that one's group.
    from streamer.cli.main import APP_COMMANDS, COMMANDS

    found: dict[str, click.Command] = {}
    for name, fun, options in app.commands:
        if name in APP_COMMANDS or name in COMMANDS or name in found:
            raise CommandName(f"There is a command {name!r} already.")
        found[name] = _command(name, fun, options)
    return found


def _command(
    name: str, fun: Callable[..., Any], options: tuple[Callable[[Any], Any], ...]
) -> click.Command:
    wants_self = next(iter(inspect.signature(fun).parameters), "") == "self"

    def run(app: App, **given: Any) -> None:
        arguments = [Running(app)] if wants_self else []
        if inspect.iscoroutinefunction(fun):
            asyncio.run(_within_client(app, fun, arguments, given))
        else:
            fun(*arguments, **given)

    run.__doc__ = fun.__doc__
    decorated: Any = pass_app(run)
    for option in reversed(options):
        decorated = option(decorated)
    return click.command(name)(decorated)


async def _within_client(
    app: App, fun: Callable[..., Any], arguments: list[Running], given: dict[str, Any]
) -> None:
    await app.start_client()
    try:
        await fun(*arguments, **given)
    finally:
        await app.stop()
