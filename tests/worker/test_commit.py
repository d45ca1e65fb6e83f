"""A commit waits for nobody, and nothing that is done beyond the lowest is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from support.apps import Bench, commit_fails, running, until, values
from support.clients import committed

import streamer
from streamer.client.interface import TopicPartition


async def test_what_is_done_is_seen_while_a_slow_handler_still_works(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    slow_may_end = asyncio.Event()

    @app.agent(orders, concurrency=2)
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            if order == 0:
                await slow_may_end.wait()
            await out.send(value=order)

    async with app:
        await bench.send(source, *range(50))
        # The slow one is not done, and cannot be before these are read.
        assert values(await bench.outputs(sink, 49)) == list(range(1, 50))
        slow_may_end.set()
        await bench.outputs(sink, 50)

    assert values(await bench.read(sink)) == [*range(1, 50), 0]


async def test_what_was_done_beyond_the_lowest_is_not_done_again_after_a_restart(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    handled: Counter[int] = Counter()
    never = asyncio.Event()

    def declared(id: str | None, blocks: bool) -> streamer.App:
        app = bench.app(id)
        orders, out = app.topic(source), app.topic(sink)
        counts: streamer.Table[str, int] = app.Table("counts", default=int)

        @app.agent(orders, concurrency=4)
        async def work(stream: streamer.Stream[int]) -> None:
            async for order in stream:
                handled[order] += 1
                if blocks and order in (3, 11):
                    await never.wait()
                counts[str(order)] += 1
                await out.send(value=order)

        return app

    app = declared(None, blocks=True)
    async with app:
        await bench.send(source, *range(20))
        await bench.outputs(sink, 18)
        await until(lambda: not running(app).positions_to_commit())
    position = await asyncio.to_thread(committed, bench.address, app.conf.id, source)
    assert position.offset == 3
    assert position.metadata

    app = declared(app.id, blocks=False)
    async with app:
        await bench.send(source, 20)
        await bench.outputs(sink, 21)
        table = app.tables["counts"]
        await until(lambda: len(table) == 21)
        assert set(table.values()) == {1}

    assert sorted(values(await bench.read(sink))) == list(range(21))
    assert handled == Counter([*range(21), 3, 11])


async def test_a_hundred_handlers_at_once_do_each_record_once(bench: Bench) -> None:
    source, sink = await bench.topic(4), await bench.topic(4)
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink, key_type=str)
    at_once, most = 0, 0

    @app.agent(orders, concurrency=100)
    async def work(stream: streamer.Stream[int]) -> None:
        nonlocal at_once, most
        async for order in stream:
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01 * (order % 7))
            await out.send(key=str(order), value=order)
            at_once -= 1

    async with app:
        for partition in range(4):
            numbers = range(partition * 250, partition * 250 + 250)
            await bench.send(source, *numbers, partition=partition)
        await bench.outputs(sink, 1000, 4)

    assert most == 100
    assert sorted(values(await bench.read(sink, 4))) == list(range(1000))


async def test_two_agents_of_different_pace_each_go_on_where_they_were(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    never = asyncio.Event()

    def declared(id: str | None, blocks: bool) -> streamer.App:
        app = bench.app(id)
        orders, out = app.topic(source), app.topic(sink)

        @app.agent(orders, name="fast")
        async def fast(stream: streamer.Stream[int]) -> None:
            async for order in stream:
                await out.send(value=["fast", order])

        @app.agent(orders, name="slow")
        async def slow(stream: streamer.Stream[int]) -> None:
            async for order in stream:
                if blocks and order == 2:
                    await never.wait()
                await out.send(value=["slow", order])

        return app

    app = declared(None, blocks=True)
    async with app:
        await bench.send(source, *range(10))
        await bench.outputs(sink, 12)
    position = await asyncio.to_thread(committed, bench.address, app.conf.id, source)
    assert position.offset == 2

    async with declared(app.id, blocks=False):
        await bench.send(source, 10)
        await bench.outputs(sink, 22)

    found = values(await bench.read(sink))
    assert [order for name, order in found if name == "fast"] == list(range(11))
    assert [order for name, order in found if name == "slow"] == list(range(11))


async def test_isolated_partitions_do_not_wait_for_each_other_and_keep_their_order(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(3), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    go_on = asyncio.Event()

    @app.agent(orders, isolated_partitions=True)
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.events():
            if event.partition == 0:
                await go_on.wait()
            await asyncio.sleep(0)
            await out.send(value=[event.partition, event.value])

    async with app:
        for partition in range(3):
            await bench.send(source, *range(30), partition=partition)
        await bench.outputs(sink, 60)
        go_on.set()
        await bench.outputs(sink, 90)

    found = values(await bench.read(sink))
    for partition in range(3):
        assert [order for number, order in found if number == partition] == list(range(30))


async def test_isolated_partitions_are_handled_once_after_an_abort_and_a_restart(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(2), await bench.topic()

    def declared(id: str | None) -> streamer.App:
        app = bench.app(id)
        orders, out = app.topic(source), app.topic(sink)

        @app.agent(orders, isolated_partitions=True)
        async def work(stream: streamer.Stream[int]) -> None:
            async for event in stream.events():
                await asyncio.sleep(0)
                await out.send(value=[event.partition, event.value])

        return app

    app = declared(None)
    async with app:
        await until(lambda: running(app).assignment.settled.is_set())
        with commit_fails(app):
            for partition in range(2):
                await bench.send(source, *range(20), partition=partition)
            await until(lambda: running(app).counters.aborts)
        await bench.outputs(sink, 40)
    async with declared(app.id):
        await bench.send(source, 20)
        await bench.outputs(sink, 41)

    found = values(await bench.read(sink))
    assert [order for number, order in found if number == 0] == list(range(21))
    assert [order for number, order in found if number == 1] == list(range(20))


async def test_a_record_that_is_not_acknowledged_comes_again(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()

    def declared(id: str | None, acked: set[int]) -> tuple[streamer.App, list[int]]:
        app, seen = bench.app(id), list[int]()
        orders, out = app.topic(source), app.topic(sink)

        @app.agent(orders)
        async def work(stream: streamer.Stream[int]) -> None:
            events: dict[int, streamer.Event[int]] = {}
            async for event in stream.noack().events():
                await out.send(value=event.value)
                seen.append(event.value)
                events[event.value] = event
                if len(seen) == 10:
                    # In an order of its own, some of them long after.
                    for number in sorted(acked, reverse=True):
                        assert not events[number].acked
                        assert events[number].ack()
                        assert not events[number].ack()
                        assert events[number].acked

        return app, seen

    app, seen = declared(None, {1, 2, 5, 9})
    async with app:
        await bench.send(source, *range(10))
        assert sorted(values(await bench.outputs(sink, 4))) == [1, 2, 5, 9]
        await until(lambda: not running(app).positions_to_commit())

    again, seen = declared(app.id, set())
    async with again:
        await until(lambda: len(seen) == 6)
        await bench.send(source, 10)
        await until(lambda: len(seen) == 7)
    assert seen == [0, 3, 4, 6, 7, 8, 10]
    assert sorted(values(await bench.read(sink))) == [1, 2, 5, 9]


async def test_what_a_function_that_has_failed_did_not_acknowledge_comes_to_the_next(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    failed: list[int] = []

    @app.agent(orders, on_error=streamer.retry(3, backoff=0.0))
    async def work(stream: streamer.Stream[int]) -> None:
        held = []
        async for event in stream.noack().events():
            await out.send(value=event.value)
            held.append(event)
            if event.value == 3 and not failed:
                failed.append(3)
                raise RuntimeError("with four in hand")
            if len(held) == 5:
                for one in held:
                    one.ack()
                held.clear()

    async with app:
        await bench.send(source, *range(5))
        found = await bench.outputs(sink, 5)

    assert values(found) == [0, 1, 2, 3, 4]


async def test_a_record_given_twice_and_acknowledged_by_the_first_has_its_effects_once(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    events: list[streamer.Event[int]] = []
    given_again, go_on = asyncio.Event(), asyncio.Event()

    @app.agent(orders, on_error=streamer.retry(1, backoff=0.0))
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.noack().events():
            await out.send(value=event.value)
            events.append(event)
            if len(events) == 2:
                raise RuntimeError("with the first still open")
            if len(events) == 3:
                given_again.set()
                await go_on.wait()

    async with app:
        await bench.send(source, 1, 2)
        await given_again.wait()
        assert events[0].ack()
        go_on.set()
        await until(lambda: len(events) == 4)
        assert not events[2].ack()
        assert events[3].ack()
        await bench.outputs(sink, 2)

    assert values(await bench.read(sink)) == [1, 2]


async def test_sends_after_an_acknowledgement_are_not_lost(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.noack().events():
            await out.send(value=["before", event.value])
            stream.ack(event)
            await out.send(value=["after", event.value])

    async with app:
        await bench.send(source, 1, 2)
        found = await bench.outputs(sink, 4)

    assert values(found) == [["before", 1], ["after", 1], ["before", 2], ["after", 2]]


async def test_an_acknowledgement_of_what_is_read_again_has_no_effect(bench: Bench) -> None:
    source, other, sink = await bench.topic(), await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    events: list[streamer.Event[int]] = []

    @app.agent(app.topic(other))
    async def pass_by(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.noack().events():
            await out.send(value=event.value)
            events.append(event)

    async with app:
        await bench.send(source, 1)
        await until(lambda: len(events) == 1)
        with commit_fails(app):
            await bench.send(other, 1)
            await until(lambda: len(events) == 2)
        assert not events[0].ack()
        assert events[1].ack()
        await bench.outputs(sink, 1)

    assert values(await bench.read(sink)) == [1]


async def test_async_with_an_event_is_harmless_where_records_are_acknowledged_anyway(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(orders, on_error="skip")
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.events():
            async with event:
                counts["all"] += 1
                await out.send(value=event.value)
            if event.value == 4:
                raise RuntimeError("after it was acknowledged")

    async with app:
        await bench.send(source, *range(10))
        await bench.outputs(sink, 9)
        await until(lambda: counts["all"] == 9)  # the store comes after the commit
        at = TopicPartition(source, 0)
        await until(lambda: running(app).transaction.committed[at].offset == 10)

    assert values(await bench.read(sink)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


async def test_a_function_that_leaves_its_loop_has_done_the_record_in_hand(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for first in stream:
            await out.send(value=["first", first])
            break
        async for second in stream:
            await out.send(value=["second", second])
            if second == 3:
                return

    async with app:
        await bench.send(source, *range(6))
        found = await bench.outputs(sink, 6)

    expected: list[Any] = [["first", 0], ["second", 1], ["second", 2], ["second", 3]]
    assert values(found) == [*expected, ["first", 4], ["second", 5]]
