"""A worker that starts again: what it finds, what it reads again, what it says."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.apps import Bench, running, until
from support.clients import new_name

import streamer
from streamer.state.changelog import MissingChangelogs, WrongPartitions
from streamer.worker.errors import WorkerFailed
from streamer.worker.topics import MissingTopics

KEYS = [f"k{number}" for number in range(20)]


class Sale(streamer.Record):
    item: str
    price: int


def counting(
    bench: Bench, topic: str, id: str, *, table: str = "counts", **settings: Any
) -> streamer.App:
    """Counts values, in an app whose state is found again under its `id`."""
    app = bench.app(id, **settings)
    words: streamer.Topic[str] = app.topic(topic)
    counts = app.Table(table, default=int, value_type=int)

    @app.agent(words, name="count")
    async def count(stream: streamer.Stream[str]) -> None:
        async for word in stream:
            counts[word] += 1

    return app


def selling(bench: Bench, topic: str, id: str, kind: type[Any]) -> streamer.App:
    """Keeps the last sale of each item."""
    app = bench.app(id)
    sales = app.topic(topic, value_type=kind)
    last = app.Table("last", value_type=kind)

    @app.agent(sales, name="keep")
    async def keep(stream: streamer.Stream[Any]) -> None:
        async for sale in stream:
            last[sale.item] = sale

    return app


def table_of(app: streamer.App, name: str = "counts") -> dict[Any, Any]:
    return dict(app.tables[name].items())


def replayed(app: streamer.App) -> int:
    """Records of changelogs that were read at the start."""
    recovered = running(app).tables.recovered
    assert recovered is not None
    return recovered.records


async def settled(app: streamer.App) -> None:
    await until(lambda: running(app).assignment.settled.is_set())


async def counted(app: streamer.App, expected: dict[str, int]) -> None:
    try:
        await until(lambda: table_of(app) == expected)
    except AssertionError:
        assert table_of(app) == expected


def state_of(tmp_path: Path, id: str) -> Path:
    return tmp_path / "state" / id


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_restart_reads_no_changelog_again(bench: Bench, guarantee: str) -> None:
    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, *KEYS * 5)
    async with counting(bench, topic, id, processing_guarantee=guarantee) as app:
        await counted(app, dict.fromkeys(KEYS, 5))

    async with counting(bench, topic, id, processing_guarantee=guarantee) as app:
        await settled(app)
        assert table_of(app) == dict.fromkeys(KEYS, 5)
        assert replayed(app) == 0


async def test_state_that_is_gone_is_brought_back(bench: Bench, tmp_path: Path) -> None:
    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, *KEYS * 5)
    async with counting(bench, topic, id) as app:
        await counted(app, dict.fromkeys(KEYS, 5))
    shutil.rmtree(state_of(tmp_path, id))

    async with counting(bench, topic, id) as app:
        await settled(app)
        assert table_of(app) == dict.fromkeys(KEYS, 5)
        assert replayed(app) > 0


async def test_state_in_memory_is_brought_back_at_each_start(bench: Bench) -> None:
    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, *KEYS)
    async with counting(bench, topic, id, store="memory") as app:
        await counted(app, dict.fromkeys(KEYS, 1))

    await bench.send(topic, *KEYS)
    async with counting(bench, topic, id, store="memory") as app:
        await counted(app, dict.fromkeys(KEYS, 2))
        assert replayed(app) > 0


async def test_state_of_another_app_is_not_used(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic, mine, other = await bench.topic(), new_name("app"), new_name("app")
    await bench.send(topic, *KEYS)
    for id in (mine, other):
        async with counting(bench, topic, id) as app:
            await counted(app, dict.fromkeys(KEYS, 1))
    await bench.send(topic, "more")
    async with counting(bench, topic, other) as app:
        await counted(app, dict.fromkeys(KEYS, 1) | {"more": 1})
    shutil.rmtree(state_of(tmp_path, mine))
    shutil.copytree(state_of(tmp_path, other), state_of(tmp_path, mine))

    async with counting(bench, topic, mine) as app:
        await counted(app, dict.fromkeys(KEYS, 1) | {"more": 1})
        assert "is rebuilt: it belongs to app" in caplog.text
        assert replayed(app) > 0


async def test_state_that_is_older_than_its_changelog_is_brought_up_to_date(
    bench: Bench, tmp_path: Path
) -> None:
    topic, id = await bench.topic(), new_name("app")
    state, kept = state_of(tmp_path, id), tmp_path / "kept"
    await bench.send(topic, *KEYS)
    async with counting(bench, topic, id) as app:
        await counted(app, dict.fromkeys(KEYS, 1))
    shutil.copytree(state, kept)
    await bench.send(topic, "more")
    async with counting(bench, topic, id) as app:
        await counted(app, dict.fromkeys(KEYS, 1) | {"more": 1})
    shutil.rmtree(state)
    shutil.copytree(kept, state)

    async with counting(bench, topic, id) as app:
        await settled(app)
        assert table_of(app) == dict.fromkeys(KEYS, 1) | {"more": 1}
        assert replayed(app) == 1


async def test_a_table_that_was_renamed_begins_empty_and_that_is_said(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, "tea")
    async with counting(bench, topic, id) as app:
        await counted(app, {"tea": 1})

    async with counting(bench, topic, id, table="sold") as app:
        await settled(app)

    assert "state of a table 'counts', which the app does not have" in caplog.text
    assert f"{id}-counts-changelog" in caplog.text


async def test_another_number_of_partitions_is_refused_and_the_way_out_is_said(
    bench: Bench,
) -> None:
    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, "tea")
    async with counting(bench, topic, id) as app:
        await counted(app, {"tea": 1})

    with pytest.raises(WrongPartitions) as caught:
        await counting(bench, await bench.topic(partitions=2), id).start()

    assert "its changelog" in caught.value.problem
    assert f"streamer topic delete {id}-counts-changelog" in caught.value.remedy


async def test_a_record_with_a_new_field_that_has_a_default_is_read_and_said(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Sold(streamer.Record):
        item: str
        price: int
        currency: str = "EUR"

    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, {"item": "tea", "price": 3})
    async with selling(bench, topic, id, Sale) as app:
        await until(lambda: table_of(app, "last"))

    with caplog.at_level(logging.INFO):
        async with selling(bench, topic, id, Sold) as app:
            await settled(app)
            assert table_of(app, "last") == {"tea": Sold("tea", 3, "EUR")}

    assert "field currency is new" in caplog.text


async def test_a_record_that_cannot_read_the_old_values_is_refused(bench: Bench) -> None:
    class Sold(streamer.Record):
        item: str
        price: int
        buyer: str

    topic, id = await bench.topic(), new_name("app")
    await bench.send(topic, {"item": "tea", "price": 3})
    async with selling(bench, topic, id, Sale) as app:
        await until(lambda: table_of(app, "last"))

    async with selling(bench, topic, id, Sold) as app:
        with pytest.raises(WorkerFailed) as caught:
            await running(app).wait()
    assert "table 'last'" in caught.value.problem
    assert "field buyer is new and has no default" in caught.value.problem
    assert "default" in caught.value.remedy

    # Nothing has happened to it: the old type has it as it was.
    async with selling(bench, topic, id, Sale) as app:
        await settled(app)
        assert table_of(app, "last") == {"tea": Sale("tea", 3)}


async def test_what_may_not_be_made_is_listed_with_the_commands_that_do(
    bench: Bench,
) -> None:
    topic, missing = await bench.topic(partitions=3), new_name("topic")

    with pytest.raises(MissingTopics) as topics:
        await counting(bench, missing, new_name("app"), topic_allow_declare=False).start()
    assert f"streamer topic create {missing}" in topics.value.remedy

    id = new_name("app")
    with pytest.raises(MissingChangelogs) as changelogs:
        await counting(bench, topic, id, topic_allow_declare=False).start()
    wanted = f"streamer topic create {id}-counts-changelog -p 3 -c cleanup.policy=compact"
    assert wanted in changelogs.value.remedy


async def test_the_changelog_holds_each_key(bench: Bench, tmp_path: Path) -> None:
    topic, id = await bench.topic(), new_name("app")
    keys = [f"k{number}" for number in range(30_000)]
    await bench.send(topic, *keys)
    async with counting(bench, topic, id) as app:
        await until(lambda: len(app.tables["counts"]) == len(keys))
    shutil.rmtree(state_of(tmp_path, id))

    async with counting(bench, topic, id) as app:
        await settled(app)
        assert table_of(app) == dict.fromkeys(keys, 1)


async def test_at_least_once_commits_a_position_once_its_outputs_have_arrived(
    bench: Bench,
) -> None:
    topic, out = await bench.topic(), await bench.topic()
    # Records wait in the producer, unless somebody wants them to be sent.
    app = bench.app(processing_guarantee="at_least_once", linger_ms=3000)
    sent = app.topic(out)

    @app.agent(app.topic(topic), name="copy")
    async def copy(stream: streamer.Stream[str]) -> None:
        async for word in stream:
            await sent.send(value=word)

    async with app:
        await settled(app)
        await bench.send(topic, "tea")
        await until(lambda: running(app).transaction.committed.values())
        await until(
            lambda: all(one.offset for one in running(app).transaction.committed.values())
        )
        assert [one.value for one in await bench.read(out)] == ["tea"]
