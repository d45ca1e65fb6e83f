"""`app.read`: all that is committed in a topic, for whoever processes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import Producer
from support.apps import Bench, as_json
from support.clients import new_name

import streamer
from streamer.client.interface import NoSuchTopic
from streamer.codecs import DecodeError


class Order(streamer.Record):
    id: int


async def read(
    app: streamer.App,
    topic: streamer.Topic[Any],
    begin: Mapping[streamer.TopicPartition, int] | None = None,
) -> list[streamer.Event[Any]]:
    return await asyncio.to_thread(lambda: list(app.read(topic, begin)))


async def test_all_partitions_are_read_to_their_end_each_in_order(bench: Bench) -> None:
    name = await bench.topic(partitions=3)
    await bench.send(name, *as_json({"id": 1}, {"id": 2}, key=b"a", partition=0))
    await bench.send(name, *as_json({"id": 3}, key=b"b", partition=2))
    app = bench.app()

    found = await read(app, app.topic(name, key_type=str, value_type=Order))

    assert sorted((one.partition, one.offset, one.key, one.value.id) for one in found) == [
        *((0, 0, "a", 1), (0, 1, "a", 2), (2, 0, "b", 3))
    ]


async def test_it_begins_where_it_is_told_to(bench: Bench) -> None:
    name = await bench.topic(partitions=2)
    await bench.send(name, 1, 2, 3, partition=0)
    await bench.send(name, 4, partition=1)
    app = bench.app()

    found = await read(app, app.topic(name), {streamer.TopicPartition(name, 0): 2})

    assert sorted(one.value for one in found) == [3, 4]


async def test_what_was_aborted_or_is_not_committed_yet_is_not_read(bench: Bench) -> None:
    name = await bench.topic()
    settings = {"bootstrap.servers": bench.address, "transactional.id": new_name("reading")}
    producer = Producer(settings)
    await bench.send(name, 1)
    await asyncio.to_thread(producer.init_transactions, 15)
    producer.begin_transaction()
    producer.produce(name, b"2", partition=0)
    await asyncio.to_thread(producer.flush, 15)
    await asyncio.to_thread(producer.abort_transaction, 15)
    await bench.send(name, 3)
    producer.begin_transaction()
    producer.produce(name, b"4", partition=0)
    await asyncio.to_thread(producer.flush, 15)
    app = bench.app()

    # It ends with a marker, and with one who has not made up his mind.
    assert [one.value for one in await read(app, app.topic(name))] == [1, 3]

    await asyncio.to_thread(producer.commit_transaction, 15)
    assert [one.value for one in await read(app, app.topic(name))] == [1, 3, 4]


async def test_what_comes_while_it_reads_is_for_the_next_time(bench: Bench) -> None:
    name = await bench.topic()
    await bench.send(name, 1, 2)
    app = bench.app()

    reading = app.read(app.topic(name))
    first = await asyncio.to_thread(next, reading)
    await bench.send(name, 3)
    rest = await asyncio.to_thread(list, reading)

    assert [one.value for one in (first, *rest)] == [1, 2]


async def test_an_empty_topic_is_read_at_once_and_a_missing_one_is_an_error(
    bench: Bench,
) -> None:
    app = bench.app()

    assert await read(app, app.topic(await bench.topic())) == []
    with pytest.raises(NoSuchTopic):
        await read(app, app.topic(new_name()))


async def test_a_record_that_cannot_be_read_is_named(bench: Bench) -> None:
    name = await bench.topic()
    await bench.send(name, {"id": 1}, {"id": "two"})
    app = bench.app()

    with pytest.raises(DecodeError, match=f"{name}:0@1"):
        await read(app, app.topic(name, value_type=Order))
