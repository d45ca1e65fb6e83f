"""`table get`: a key of a table, as the worker has it that owns it.

Workers are found through their group: each has the address of its pages in its client id
(`APP@HOST:PORT/SLOT`). Any of them answers, and asks the others if it has not got the key:
`web/tables.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import click

from streamer.app import App
from streamer.cli.app.target import broker_of, pass_app, required_target
from streamer.cli.output import show_json
from streamer.client.interface import Admin, NoSuchGroup
from streamer.errors import StreamerError
from streamer.web.peers import Answer, Peer, ask, peer_of, table_path

FOUND, BAD, ABSENT = 200, 400, 404


class NoValue(StreamerError):
    """There is none, or nobody could be asked."""


@click.group("table")
def table_group() -> None:
    """Look into tables.

    \b
    Example: how much tea has been sold?
      streamer -A shop table get sold tea
    """


@table_group.command("get")
@click.argument("table")
@click.argument("key")
@click.option("--json", "is_json", is_flag=True, help="KEY is JSON, such as 17 or [1, 2].")
@click.option("--at", help="Of a windowed table: at this time, in seconds since 1970.")
@pass_app
def get_command(app: App, table: str, key: str, is_json: bool, at: str | None) -> None:
    """Print the value of KEY in TABLE as JSON; a worker must run.

    Of a windowed table it is the latest windows that have the key. Exit code 1 says that
    there is none.

    \b
    Example:
      streamer -A shop table get sold tea
    """
    if table not in app.tables:
        raise NoValue(
            f"{app.conf.id} has no table {table!r}.",
            remedy=f"It has {', '.join(app.tables) or 'none'}: `tables` lists them.",
        )
    words = required_target(click.get_current_context()).words
    query = ({"json": "1"} if is_json else {}) | ({"at": at} if at else {})
    with broker_of(app) as broker:
        peers = workers(broker.admin, app.conf.id)
        if not peers:
            raise NoValue(
                f"No worker of {app.conf.id} runs, and they have the tables.",
                remedy=f"Start one: {words} worker",
            )
        answer = asyncio.run(first_answer(peers, table_path(table, key, **query)))
    told = _json(answer.body)
    if answer.status == FOUND:
        show_json(told["value"] if "value" in told else told["windows"])
        return
    raise NoValue(
        told.get("error") or f"The worker answers {answer.status}.",
        remedy=(
            "Keys are written as in the table; --json takes any: '17', '[1, 2]'."
            if answer.status in (ABSENT, BAD)
            else f"Try again in a moment. {'; '.join(told.get('because', []))}"
        ),
    )


def workers(admin: Admin, group: str) -> list[Peer]:
    """Those that serve pages."""
    try:
        members = admin.group(group).members
    except NoSuchGroup:
        return []
    return [peer for peer in map(peer_of, members) if peer.address]


async def first_answer(peers: Sequence[Peer], path: str) -> Answer:
    for peer in peers:
        answer = await ask(peer, path)
        if answer.status:
            return answer
    raise NoValue(
        f"No worker answers at {', '.join(peer.address for peer in peers)}.",
        remedy="Those that have just ended are forgotten after session.timeout.ms; one that"
        " runs must be reachable from here (web.bind).",
    )


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
