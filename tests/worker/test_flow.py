"""How records flow: what is undone is read again, nobody waits for what is slow, and what
is full holds up no more than it must."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from support.apps import Bench, commit_fails, running, until, values
from support.clients import committed

import streamer
from streamer.worker.positions import NOTE_BYTES_MAX


async def test_after_an_abort_all_since_the_last_commit_is_handled_again(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(2), await bench.topic()
    app = bench.app(commit_interval_ms=60_000)
    out, seen = app.topic(sink), Counter[int]()
    sums: streamer.Table[str, int] = app.Table("sums", default=int)
    lists: streamer.Table[str, list[int]] = app.Table("lists", default=list)

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.events():
            seen[event.value] += 1
            sums[str(event.partition)] += event.value
            lists[str(event.partition)] = [*lists[str(event.partition)], event.value]
            await out.send(value=[event.value, sums[str(event.partition)]])

    async with app:
        await until(lambda: running(app).assignment.settled.is_set())
        await bench.send(source, 1, 2, 3)
        await bench.outputs(sink, 3)
        with commit_fails(app):
            await bench.send(source, 4, 5)
            await until(lambda: seen[4] == 2 and seen[5] == 2)
        await bench.send(source, 6, partition=1)
        await bench.outputs(sink, 6)
        await until(lambda: dict(sums.items()) == {"0": 15, "1": 6})
        assert dict(lists.items()) == {"0": [1, 2, 3, 4, 5], "1": [6]}
        assert running(app).counters.aborts == 1

    assert seen == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 1}
    found = values(await bench.read(sink))
    assert sorted(found) == [[1, 1], [2, 3], [3, 6], [4, 10], [5, 15], [6, 6]]


async def test_handlers_in_the_middle_of_a_record_begin_it_again_after_an_abort(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out, begun, done = app.topic(sink), Counter[int](), Counter[int]()
    go_on = asyncio.Event()

    @app.agent(app.topic(source), concurrency=3)
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            begun[order] += 1
            await out.send(value=order)
            if order == 0:
                await go_on.wait()
            done[order] += 1

    async with app:
        await until(lambda: running(app).assignment.settled.is_set())
        with commit_fails(app):
            await bench.send(source, *range(6))
            await until(lambda: begun[0] == 2)
        go_on.set()
        await bench.outputs(sink, 6)

    assert done[0] == 1
    assert sorted(values(await bench.read(sink))) == list(range(6))


async def test_a_full_queue_of_the_producer_holds_up_but_loses_nothing(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out = app.topic(sink)
    counts: streamer.Table[str, int] = app.Table("counts", default=int)
    calls = [0, 0]

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            counts[str(order)] += 1
            await out.send(value=order)

    async with app:
        producer: Any = running(app).transaction._producer
        produce = producer.produce

        def full_now_and_then(*arguments: Any) -> None:
            calls[0] += 1
            if calls[0] % 5 == 0:
                calls[1] += 1
                raise BufferError
            produce(*arguments)

        producer.produce = full_now_and_then
        await bench.send(source, *range(100))
        await bench.outputs(sink, 100)
        await until(lambda: len(counts) == 100)
        assert set(counts.values()) == {1}

    assert calls[1] >= 40
    assert values(await bench.read(sink)) == list(range(100))


async def test_while_a_commit_does_not_end_no_more_is_begun_than_may_wait(
    bench: Bench, monkeypatch: Any
) -> None:
    monkeypatch.setattr("streamer.worker.transaction.OUTBOX_MAX", 200)
    monkeypatch.setattr("streamer.stream.RUN_RECORDS_MAX", 50)
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out, seen = app.topic(sink), list[int]()

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            seen.append(order)
            await out.send(value=order)

    async with app:
        producer: Any = running(app).transaction._producer
        commit, held, waiting = producer.commit, asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow_commit() -> None:
            loop.call_soon_threadsafe(waiting.set)
            asyncio.run_coroutine_threadsafe(held.wait(), loop).result(10)
            commit()

        producer.commit = slow_commit
        await bench.send(source, 0)
        await waiting.wait()
        await bench.send(source, *range(1, 1000))
        await until(lambda: len(seen) > 200)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(seen) <= 1 + 200 + 50
        held.set()
        await bench.outputs(sink, 1000)

    assert values(await bench.read(sink)) == list(range(1000))


async def test_a_partition_that_is_too_far_behind_is_paused_and_loses_nothing(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(2), await bench.topic()
    app = bench.app(buffered_records_per_partition=50)
    out, go_on = app.topic(sink), asyncio.Event()

    @app.agent(app.topic(source), isolated_partitions=True)
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.events():
            if event.partition == 0:
                await go_on.wait()
            await out.send(value=[event.partition, event.value])

    async with app:
        worker = running(app)
        for part in range(5):
            numbers = range(part * 400, part * 400 + 400)
            await bench.send(source, *numbers, partition=0)
            await bench.send(source, *numbers, partition=1)
            # All of the one, while the other is paused with no more than it may hold.
            await bench.outputs(sink, part * 400 + 400)
        await until(lambda: worker.pump._paused)
        assert worker.waiting < 1500
        go_on.set()
        await bench.outputs(sink, 4000)
        await until(lambda: not worker.pump._paused)

    found = values(await bench.read(sink))
    for partition in range(2):
        assert [one for at, one in found if at == partition] == list(range(2000))


async def test_a_list_larger_than_what_may_wait_comes_when_it_is_old_enough(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app(buffered_records_per_partition=100)
    out, got = app.topic(sink), list[int]()

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for some in stream.take(1_000_000, within=0.1):
            await out.send(value=some)
            got.extend(some)

    async with app:
        await bench.send(source, *range(3000))
        await until(lambda: len(got) == 3000)

    found = values(await bench.read(sink))
    assert [one for some in found for one in some] == list(range(3000))


async def test_no_more_is_begun_beyond_the_lowest_than_can_be_noted(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out, held = app.topic(sink), list[streamer.Event[int]]()

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.noack().events():
            await out.send(value=event.value)
            if event.value % 2:
                event.ack()
            else:
                held.append(event)

    async with app:
        await bench.send(source, *range(3000))
        worker = running(app)
        feed = worker.feeds(source)[0]
        await until(lambda: feed.starving and feed.waiting)
        await until(lambda: not worker.positions_to_commit())
        position = await asyncio.to_thread(committed, bench.address, app.conf.id, source)
        assert position.offset == 0
        assert NOTE_BYTES_MAX / 2 < len(position.metadata or "") < NOTE_BYTES_MAX + 200
        # Done by somebody else than the handler, which waits for a place.
        while len(values(await bench.read(sink))) < 3000:
            some, held[:] = held[:], []
            assert all(event.ack() for event in some)
            await asyncio.sleep(0)

    assert sorted(values(await bench.read(sink))) == list(range(3000))
