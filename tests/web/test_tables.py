"""/table/: what is committed, by key, wherever in the group it is."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support import other_worker
from support.apps import running, until
from support.clients import Sent
from support.pages import WebBench, get, got

import streamer
from streamer.client.interface import GroupMember
from streamer.web.keys import NoKey, key_of
from streamer.web.peers import Peer, peer_of, table_path


async def test_the_committed_value_of_a_key_is_told(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app()
    sold: streamer.Table[str, int] = app.Table("sold", default=int)

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[str]) -> None:
        async for item in stream:
            sold[item] += 1

    async with app:
        await bench.send(source, "tea", "a/b c%", "tea")
        found = await got(app, "/table/sold/a%2Fb%20c%25", 200)
        await until(lambda: sold.get("tea") == 2)
        assert (await get(app, "/table/sold/tea")).json == {
            "table": "sold",
            "key": "tea",
            "partition": 0,
            "value": 2,
            "worker": running(app).client_id,
        }

    assert found.json["key"] == "a/b c%"


async def test_what_is_not_committed_is_not_told(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app(commit_interval_ms=60_000)
    sold: streamer.Table[str, int] = app.Table("sold", default=int)
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[int]) -> None:
        async for number in stream:
            if number == 2:
                begun.set()
                await may_end.wait()
            sold["tea"] += number

    async with app:
        await bench.send(source, 1, 2)
        await begun.wait()
        assert (await got(app, "/table/sold/tea", 404)).json == {
            "error": "Table sold has no 'tea'."
        }

        may_end.set()
        assert (await got(app, "/table/sold/tea", 200)).json["value"] == 3


async def test_tables_are_listed(bench: WebBench) -> None:
    source = await bench.topic(partitions=2)
    app = bench.app()
    app.Table("sold", default=int, help="Pieces of each item.")
    app.Table("clicks", default=int).tumbling(60.0)

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[str]) -> None:
        async for _ in stream:
            pass

    async with app:
        await got(app, "/readyz", 200)
        sold, clicks = (await get(app, "/table/")).json["tables"]
        assert (await get(app, "/table/sold")).json == sold
        assert (await get(app, "/table/nosuch")).status == 404
        assert (await get(app, "/table/nosuch/tea")).status == 404

    assert (sold["name"], sold["help"]) == ("sold", "Pieces of each item.")
    assert (sold["partitions"], sorted(sold["here"])) == (2, ["0", "1"])
    assert clicks["window"] == {"size": 60.0, "step": 60.0}


async def test_the_windows_of_a_key_are_told_the_latest_first(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app()
    clicks = app.Table("clicks", default=int).tumbling(10.0)

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[str]) -> None:
        async for page in stream:
            clicks[page] += 1

    async with app:
        times = [1_000_000, 1_001_000, 1_010_000]
        await bench.send(source, *(Sent(value=b'"home"', timestamp=at) for at in times))
        await until(lambda: clicks["home"].value() == 1)
        page = await get(app, "/table/clicks/home")
        at_once = await get(app, "/table/clicks/home?at=1005")
        never = await get(app, "/table/clicks/home?at=5")

    first = {"start": 1000.0, "end": 1010.0, "value": 2}
    second = {"start": 1010.0, "end": 1020.0, "value": 1}
    assert page.json["windows"] == [second, first]
    assert at_once.json["windows"] == [first]
    assert never.status == 404


class Order(streamer.Record):
    item: str
    day: date


def keyed(key_type: Any = None, **more: Any) -> streamer.Table[Any, Any]:
    return streamer.Table("sold", key_type=key_type, **more)


@pytest.mark.parametrize(
    ("table", "text", "key"),
    [
        (keyed(), "17", "17"),
        (keyed(str), "tea", "tea"),
        (keyed(str, key_serializer="json"), "17", "17"),
        (keyed(int), "17", 17),
        (keyed(bytes), "tea", b"tea"),
        (keyed(date), "2026-01-31", date(2026, 1, 31)),
        (keyed(UUID), f"{UUID(int=7)}", UUID(int=7)),
        (keyed(tuple[str, int]), '["tea", 2]', ("tea", 2)),
    ],
)
def test_a_key_is_written_as_text(
    table: streamer.Table[Any, Any], text: str, key: object
) -> None:
    assert key_of(table, text, is_json=False) == key


@pytest.mark.parametrize(
    ("table", "text", "key"),
    [
        (keyed(), "17", 17),
        (keyed(), '"17"', "17"),
        (keyed(), '["tea", [2]]', ("tea", (2,))),
        (keyed(str), '"tea"', "tea"),
        (keyed(int), "17", 17),
        (keyed(date), '"2026-01-31"', date(2026, 1, 31)),
    ],
)
def test_a_key_is_written_in_json(
    table: streamer.Table[Any, Any], text: str, key: object
) -> None:
    assert key_of(table, text, is_json=True) == key


def test_a_text_that_is_no_key_of_the_table_is_refused() -> None:
    with pytest.raises(NoKey, match="no key of table sold"):
        key_of(keyed(int), "tea", is_json=False)
    with pytest.raises(NoKey, match="no JSON"):
        key_of(keyed(), "{", is_json=True)


async def test_a_key_that_cannot_be_one_is_a_bad_request(bench: WebBench) -> None:
    app = bench.app()
    app.Table("sold", key_type=int, partitions=1)
    app.Table("any", partitions=1)

    @app.agent(app.topic(await bench.topic()))
    async def idle(stream: streamer.Stream[str]) -> None:
        async for _ in stream:
            pass

    async with app:
        await got(app, "/readyz", 200)
        assert (await get(app, "/table/sold/tea")).status == 400
        assert (await get(app, "/table/any/%7B%7D?json=1")).status == 400
        assert (await get(app, "/table/any/tea?at=noon")).status == 400


def member(client_id: str, host: str = "10.0.0.7") -> GroupMember:
    return GroupMember("id", None, client_id, host, ())


def test_a_worker_is_found_by_its_client_id() -> None:
    assert peer_of(member("shop@10.0.0.9:6067/1")).address == "10.0.0.9:6067"
    assert peer_of(member("a@b@127.0.0.1:6066/0")).address == "127.0.0.1:6066"
    assert peer_of(member("shop@::1:6066/0")).address == "[::1]:6066"


def test_a_worker_at_all_addresses_is_asked_where_the_broker_sees_it() -> None:
    assert peer_of(member("shop@0.0.0.0:6066/0")).address == "10.0.0.7:6066"


@pytest.mark.parametrize("client_id", ["rdkafka", "shop@127.0.0.1:0/0", "", "shop@:/0"])
def test_a_member_without_pages_has_no_address(client_id: str) -> None:
    assert peer_of(member(client_id)) == Peer(client_id, "")


def test_a_key_keeps_its_characters_on_the_way_to_another_worker() -> None:
    assert table_path("sold", "a/b ?", json="1") == "/table/sold/a%2Fb%20%3F?json=1"


@asynccontextmanager
async def another(id: str, source: str, settings: dict[str, Any]) -> AsyncIterator[None]:
    """A second worker, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(other_worker.__file__)),
        json.dumps([id, source, settings]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert (await process.stdout.readline()) == b"runs\n"
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def test_a_key_is_found_at_whichever_worker_has_it(
    bench: WebBench, tmp_path: Path
) -> None:
    source = await bench.topic(partitions=2)
    ours = bench.app()
    settings: dict[str, Any] = {
        "broker": bench.address,
        "state_dir": str(tmp_path / "state"),
        "web_port": 0,
        "commit_interval_ms": 20,
    }
    app = other_worker.make(ours.id, source, settings)

    async with app, another(ours.id, source, settings):
        await bench.send(source, Sent(key=b"tea", value=b"3", partition=0))
        await bench.send(source, Sent(key=b"milk", value=b"4", partition=1), partition=1)
        tea = await got(app, "/table/sold/tea", 200)
        milk = await got(app, "/table/sold/milk", 200)
        while tea.json["worker"] == milk.json["worker"]:  # until both have their share
            await asyncio.sleep(0.05)
            tea = await got(app, "/table/sold/tea", 200)
            milk = await got(app, "/table/sold/milk", 200)
        workers = {tea.json["worker"], milk.json["worker"]}
        (theirs,) = workers - {running(app).client_id}
        there = int(theirs.rpartition("/")[0].rpartition(":")[2])
        same = [(await get(there, f"/table/sold/{key}")).json for key in ("tea", "milk")]
        absent = await got(app, "/table/sold/salt", 404)
        elsewhere = "milk" if milk.json["worker"] == theirs else "tea"
        local = await get(app, f"/table/sold/{elsewhere}?local=1")

    assert (tea.json["value"], milk.json["value"]) == (3, 4)
    assert same == [tea.json, milk.json]
    assert absent.json == {"error": "Table sold has no 'salt'."}
    assert local.status == 404


def declare_prices(app: streamer.App, source: str) -> None:
    prices: streamer.GlobalTable[str, int] = app.GlobalTable("prices", default=int)

    @app.agent(app.topic(source, key_type=str), name="price")
    async def price(stream: streamer.Stream[int]) -> None:
        async for item, cents in stream.items():
            prices[item] = cents


async def test_every_worker_has_all_keys_of_a_global_table(bench: WebBench) -> None:
    source = await bench.topic(partitions=2)
    one = bench.app()
    other = bench.app(one.id)
    for app in (one, other):
        declare_prices(app, source)

    async with one, other:
        await bench.send(source, Sent(key=b"tea", value=b"3", partition=0))
        await bench.send(source, Sent(key=b"milk", value=b"4", partition=1), partition=1)
        for app in (one, other):
            for item, cents in {"tea": 3, "milk": 4}.items():
                page = await got(app, f"/table/prices/{item}?local=1", 200)
                assert page.json["value"] == cents
                assert page.json["worker"] == running(app).client_id


async def test_while_the_other_worker_cannot_be_asked_nothing_is_said_to_be_absent(
    bench: WebBench, tmp_path: Path
) -> None:
    source = await bench.topic(partitions=2)
    settings: dict[str, Any] = {
        "broker": bench.address,
        "state_dir": str(tmp_path / "state"),
        "web_port": 0,
    }
    id = bench.app().id
    app = other_worker.make(id, source, settings)
    mute = other_worker.make(id, source, {**settings, "web_enabled": False})

    async with app, mute:
        await until(lambda: running(app).ready and running(mute).ready)
        page = await get(app, "/table/sold/salt")

    assert page.status == 503
    assert page.json["because"] == [f"{id}@127.0.0.1:0/1 serves no pages"]


async def test_before_its_state_is_restored_a_worker_says_of_no_key_that_it_is_absent(
    bench: WebBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await bench.topic()
    app = bench.app()
    app.Table("sold", default=int)

    @app.agent(app.topic(source))
    async def idle(stream: streamer.Stream[str]) -> None:
        async for _ in stream:
            pass

    async with app:
        await got(app, "/readyz", 200)
        running(app).assignment.settled.clear()
        page = await get(app, "/table/sold/tea")
        running(app).assignment.settled.set()

    assert page.status == 503
    assert page.json["because"] == ["this worker has not restored its partitions yet"]
