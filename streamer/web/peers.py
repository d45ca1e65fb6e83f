"""The other workers of the app, and how they are asked for a key.

Each worker carries the address of its pages in its `client.id`, `app@host:port/slot`, and
the broker tells who is in the group. Which of them has a key is not computed: a key is
where the records were that changed it, and that is the producers' choice. So all are asked
at once, each for what it has itself (`?local=1`).

A worker bound to all addresses is asked at the one that the broker sees.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from streamer.client.interface import GroupMember

ASK_S = 5.0
EVERYWHERE = ("0.0.0.0", "::", "")
WORKER = "x-streamer-worker"
"""Header: the client id of the worker that answers."""

# Workers are asked directly, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Peer:
    client_id: str
    # host:port; empty: it serves no pages.
    address: str


@dataclass(frozen=True, slots=True)
class Answer:
    peer: Peer
    # 0: there was none.
    status: int
    body: bytes


def peer_of(member: GroupMember) -> Peer:
    """Where the pages of a member of the group are."""
    _, at, place = member.client_id.rpartition("@")
    address, slash, _ = place.rpartition("/")
    host, colon, port = address.rpartition(":")
    if not (at and slash and colon and port.isdigit() and int(port)):
        return Peer(member.client_id, "")
    host = member.host if host in EVERYWHERE else host
    return Peer(member.client_id, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def table_path(table: str, key: str, **query: str) -> str:
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"/table/{quote(table, safe='')}/{quote(key, safe='')}?{asked}"


async def ask_all(peers: Sequence[Peer], path: str) -> list[Answer]:
    return await asyncio.gather(*(ask(peer, path) for peer in peers))


async def ask(peer: Peer, path: str) -> Answer:
    if not peer.address:
        return Answer(peer, 0, b"")
    return await asyncio.to_thread(_ask, peer, f"http://{peer.address}{path}")


def _ask(peer: Peer, url: str) -> Answer:
    try:
        with _opener.open(url, timeout=ASK_S) as found:
            status, who, body = found.status, found.headers.get(WORKER), found.read()
    except urllib.error.HTTPError as error:
        with error:
            status, who, body = error.code, error.headers.get(WORKER), error.read()
    except (OSError, ValueError):
        return Answer(peer, 0, b"")
    # Its address may be somebody else's by now, or mean another machine there than here.
    return Answer(peer, status if who == peer.client_id else 0, body)
