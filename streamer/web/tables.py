"""Tables, read from outside: what is committed, wherever it is.

    GET /table/                the tables of the app, and what of them is here
    GET /table/NAME            one of them
    GET /table/NAME/KEY        the value of a key; 404 if no worker has it

    ?json=1     the key is written in JSON
    ?at=1e9     of a windowed table: the windows that hold this time, in seconds
    ?local=1    what is here only; so workers ask each other

While partitions move or are restored, a key that nobody has is answered with 503: it may
be there again in a moment.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streamer.client.interface import ClientError
from streamer.table import Table
from streamer.web.answers import json_answer, problem
from streamer.web.keys import NoKey, key_of, look_up
from streamer.web.peers import WORKER, Answer, ask_all, peer_of, table_path
from streamer.web.view import View

STABLE = "Stable"


class Tables:
    def __init__(self, view: View) -> None:
        self._view = view

    async def all(self, request: Request) -> Response:
        sizes = self._sizes()
        tables = self._view.app.tables.values()
        return json_answer({"tables": [described(one, sizes) for one in tables]})

    async def one(self, request: Request) -> Response:
        return json_answer(described(self._table(request), self._sizes()))

    def _sizes(self) -> dict[tuple[str, int], int]:
        parts = self._view.standing().tables
        return {(part.name, part.partition): part.size_bytes for part in parts}

    def _table(self, request: Request) -> Table[Any, Any]:
        name = request.path_params["name"]
        try:
            return self._view.app.tables[name]
        except KeyError:
            raise HTTPException(404, f"There is no table {name!r}") from None

    async def value(self, request: Request) -> Response:
        """Here, or else passed on from the worker that has it."""
        table, text = self._table(request), request.path_params["key"]
        asked = request.query_params
        try:
            key = key_of(table, text, is_json=is_on(asked.get("json")))
            found = look_up(table, key, moment_ms(asked.get("at")))
        except NoKey as error:
            return self._signed(problem(400, str(error)))
        if found is not None:
            who = {"worker": self._view.client_id}
            return self._signed(
                json_answer({"table": table.name, "key": key, **found, **who})
            )
        if is_on(asked.get("local")):
            return self._signed(self._absent(table, text, []))
        query = {name: asked[name] for name in ("json", "at") if name in asked}
        return self._signed(await self._elsewhere(table, text, query))

    async def _elsewhere(
        self, table: Table[Any, Any], text: str, query: dict[str, str]
    ) -> Response:
        try:
            group = await asyncio.to_thread(self._view.group)
        except ClientError as error:
            return problem(503, f"The other workers cannot be found: {error.problem}")
        peers = [
            peer_of(member)
            for member in group.members
            if member.client_id != self._view.client_id
        ]
        path = table_path(table.name, text, **query, local="1")
        answers = await ask_all(peers, path)
        for answer in answers:
            if answer.status == 200:
                return Response(answer.body, media_type="application/json")
        doubts = [doubt(answer) for answer in answers if answer.status != 404]
        if group.state != STABLE:
            doubts.append("the group is sharing out its partitions")
        return self._absent(table, text, doubts)

    def _absent(self, table: Table[Any, Any], text: str, doubts: list[str]) -> Response:
        if not self._view.ready:
            doubts = [*doubts, "this worker has not restored its partitions yet"]
        if doubts:
            return problem(
                503, f"Table {table.name}: {text!r} is not found yet.", because=doubts
            )
        return problem(404, f"Table {table.name} has no {text!r}.")

    def _signed(self, response: Response) -> Response:
        response.headers[WORKER] = self._view.client_id
        return response


def doubt(answer: Answer) -> str:
    if answer.status == 503:
        return f"{answer.peer.client_id} has not restored its partitions yet"
    if not answer.peer.address:
        return f"{answer.peer.client_id} serves no pages"
    return f"{answer.peer.client_id} does not answer"


def described(table: Table[Any, Any], sizes: dict[tuple[str, int], int]) -> dict[str, Any]:
    here = {
        str(number): {"bytes": sizes.get((table.name, number), 0)}
        for number in sorted(table.here)
    }
    told: dict[str, Any] = {
        "name": table.name,
        "help": table.help,
        "partitions": table.partitions,
        "here": here,
    }
    if table.window is not None:
        told["window"] = {
            "size": table.window.size_ms / 1000,
            "step": table.window.step_ms / 1000,
        }
    return told


def is_on(text: str | None) -> bool:
    return text is not None and text.lower() not in ("0", "false", "no", "")


def moment_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError) as error:
        raise NoKey(f"at={text!r} is no time in seconds since 1970.") from error
