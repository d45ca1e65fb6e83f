"""Channels: queues in memory, and agents over them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial

import pytest
from support.apps import Bench, until, values

import streamer


class Order(streamer.Record):
    item: str
    quantity: int = 1


async def test_an_agent_over_a_channel_gets_what_is_sent_as_it_is(bench: Bench) -> None:
    app = bench.app()
    channel = app.channel(value_type=Order)
    got: dict[str, Order] = {}

    @app.agent(channel)
    async def take(stream: streamer.Stream[Order]) -> None:
        async for order in stream:
            got[order.item] = order

    first, second = Order("tea"), Order("milk", 2)
    await channel.send(value=first)
    async with app:
        await take.send(value=second)
        await until(lambda: len(got) == 2)

    assert got["tea"] is first
    assert got["milk"] is second


async def test_what_it_sends_goes_at_once_and_it_writes_to_no_table(bench: Bench) -> None:
    sink, app = await bench.topic(), bench.app(commit_interval_ms=60_000)
    channel, out = app.channel(), app.topic(sink)
    table: streamer.Table[str, int] = app.Table("counts", default=int, partitions=1)
    refused: list[str] = []
    offsets: list[int] = []

    @app.agent(channel)
    async def pass_on(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            offsets.append((await out.send(value=value)).offset)
            try:
                table["all"] += 1
            except streamer.StreamerError as error:
                refused.append(str(error))

    async with app:
        await channel.send(value=1)
        await channel.put(2)
        await until(lambda: len(refused) == 2)

    assert offsets == [0, 1], "it is there when `send` returns"
    assert values(await bench.read(sink)) == [1, 2]
    assert "can be changed by an agent only" in refused[0]


async def test_a_record_that_fails_is_tried_again_and_then_a_dead_letter(
    bench: Bench,
) -> None:
    letters = await bench.topic()
    app = bench.app(dead_letter_topic=letters)
    channel = app.channel(value_type=Order)
    tries: list[str] = []

    @app.agent(channel, on_error=streamer.retry(1, backoff=0.01, then="dead_letter"))
    async def check(stream: streamer.Stream[Order]) -> None:
        async for order in stream:
            tries.append(order.item)
            if order.quantity < 0:
                raise ValueError("less than nothing")

    async with app:
        await channel.send(value=Order("tea", -1))
        await channel.send(value=Order("milk"))
        await until(lambda: len(tries) == 3)
        (dead,) = await bench.outputs(letters, 1)

    assert tries == ["tea", "tea", "milk"]
    assert dead.value == {"item": "tea", "quantity": -1}
    assert dead.headers["__streams.errors.message"] == b"less than nothing"


async def test_records_pass_from_a_topic_through_a_channel_and_by_a_sink(
    bench: Bench,
) -> None:
    source, app = await bench.topic(), bench.app()
    numbers = app.topic(source, value_type=int)
    middle, end = app.channel(value_type=int), app.channel(value_type=int)

    @app.agent(numbers, sink=[end])
    async def double(stream: streamer.Stream[int]) -> AsyncIterator[int]:
        async for event in stream.filter(lambda n: n != 2).through(middle).events():
            assert event.message.topic() == middle.name
            yield 2 * event.value

    got: list[int] = []

    @app.agent(end)
    async def take(stream: streamer.Stream[int]) -> None:
        async for batch in stream.take(2, within=0.05):
            got.extend(batch)

    async with app:
        await bench.send(source, 1, 2, 3, 4)
        await until(lambda: len(got) == 3)

    assert got == [2, 6, 8]


async def test_records_of_a_channel_can_be_grouped_into_tables(bench: Bench) -> None:
    app = bench.app(topic_partitions=2)
    channel = app.channel(value_type=Order)
    sold: streamer.Table[str, int] = app.Table("sold", default=int)

    @app.agent(channel)
    async def count(stream: streamer.Stream[Order]) -> None:
        async for order in stream.group_by(Order.item):
            sold[order.item] += order.quantity

    async with app:
        for order in (Order("tea"), Order("milk", 2), Order("tea", 4)):
            await channel.send(value=order)
        await until(lambda: dict(sold.items()) == {"tea": 5, "milk": 2})


async def test_each_agent_gets_every_record_also_when_the_app_runs_again(
    bench: Bench,
) -> None:
    app = bench.app()
    channel = app.channel(value_type=int)
    got: dict[str, list[int]] = {"one": [], "other": []}

    @app.agent(channel, name="one")
    async def one(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            got["one"].append(value)

    @app.agent(channel, name="other", concurrency=3)
    async def other(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            await asyncio.sleep(0.01 * (3 - value))
            got["other"].append(value)

    def has_got(name: str, wanted: list[int]) -> bool:
        return sorted(got[name]) == wanted

    for wanted in ([0, 1, 2], [0, 0, 1, 1, 2, 2]):
        async with app:
            for value in range(3):
                await channel.send(value=value)
            await until(partial(has_got, "other", wanted))
            assert sorted(got["one"]) == wanted


async def test_a_record_in_hand_when_its_agent_is_stopped_is_handled_again(
    bench: Bench,
) -> None:
    app = bench.app()
    channel = app.channel(value_type=int)
    begun: list[int] = []
    done: list[int] = []

    @app.agent(channel)
    async def take(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            begun.append(value)
            if begun == [1, 2]:
                await asyncio.sleep(60)
            done.append(value)

    async with app:
        for value in (1, 2, 3):
            await channel.send(value=value)
        await until(lambda: begun == [1, 2])
    async with app:
        await until(lambda: len(done) == 3)

    assert begun == [1, 2, 2, 3]
    assert done == [1, 2, 3]


# Without a worker.


def channel_of(maxsize: int | None = None) -> streamer.Channel[int]:
    return streamer.App("alone").channel(value_type=int, maxsize=maxsize)


async def test_without_agents_one_gets_what_another_puts() -> None:
    channel = channel_of()

    await channel.send(key="a", value=1, timestamp=12.5, headers={"from": b"here"})
    event = await channel.get()

    assert (event.key, event.value, event.timestamp) == ("a", 1, 12.5)
    assert event.headers == {"from": b"here"}
    assert channel.empty()
    with pytest.raises(TimeoutError):
        await channel.get(timeout=0.01)


async def test_an_event_is_put_with_all_that_it_brings() -> None:
    first, second = channel_of(), channel_of()
    await first.send(key="a", value=1, timestamp=12.5)

    await second.put(await first.get())

    event = await second.get()
    assert (event.key, event.value, event.timestamp) == ("a", 1, 12.5)


async def test_a_full_channel_lets_senders_wait() -> None:
    channel = channel_of(maxsize=2)
    channel.send_soon(value=1)
    channel.send_soon(value=2)

    with pytest.raises(streamer.StreamerError, match="2 records wait in it"):
        channel.send_soon(value=3)
    waiting = asyncio.create_task(channel.put(3))
    await asyncio.sleep(0.01)
    assert not waiting.done()

    assert [(await channel.get()).value for _ in range(3)] == [1, 2, 3]
    await waiting


async def test_a_channel_is_read_by_iterating() -> None:
    channel = channel_of()
    for value in range(3):
        channel.send_soon(value=value)

    got = []
    async for event in channel:
        got.append(event.value)
        if event.value == 2:
            break

    assert got == [0, 1, 2]


async def test_bytes_become_what_they_stand_for() -> None:
    channel = streamer.App("alone").channel(value_type=Order)

    await channel.send_raw(b"a", json.dumps({"item": "tea"}).encode(), None)

    assert (await channel.get()).value == Order("tea")


def test_what_needs_a_name_in_the_log_says_so() -> None:
    with pytest.raises(streamer.StreamerError, match="in memory only"):
        channel_of().get_topic_name()


def test_a_channel_has_no_partitions_to_be_isolated() -> None:
    app = streamer.App("alone")

    with pytest.raises(streamer.StreamerError, match="which has none"):

        @app.agent(app.channel(), isolated_partitions=True)
        async def take(stream: streamer.Stream[int]) -> None: ...
