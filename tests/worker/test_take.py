"""`take`: lists of records that are done as one."""

from __future__ import annotations

import asyncio

from support.apps import Bench, as_json, failing, running, until, values
from support.clients import Sent

import streamer
from streamer.client.interface import TopicPartition
from streamer.worker.errors import RecordFailed


async def test_a_full_list_comes_at_once_and_the_rest_when_it_is_old_enough(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for some in stream.take(4, within=0.1):
            await out.send(value=some)

    async with app:
        await bench.send(source, *range(10))
        await bench.outputs(sink, 3)

    assert values(await bench.read(sink)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_list_is_of_one_partition_and_may_write_to_tables(bench: Bench) -> None:
    source, sink = await bench.topic(3), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    sums: streamer.Table[str, int] = app.Table("sums", default=int)

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for some in stream.take(100, within=0.05):
            partition = stream.current_event.partition
            sums[f"of {partition}"] += sum(some)
            await out.send(value=[partition, some])

    async with app:
        for partition in range(3):
            await bench.send(source, *range(5), partition=partition)
        await until(lambda: sorted(sums.items()) == [(f"of {n}", 10) for n in range(3)])
        await bench.outputs(sink, 3)

    found = values(await bench.read(sink))
    assert sorted((number for number, some in found for _ in some)) == sorted([0, 1, 2] * 5)
    for partition in range(3):
        assert [
            one for number, some in found if number == partition for one in some
        ] == list(range(5))


async def test_a_list_that_fails_is_given_again_as_a_whole_and_counts_once(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    sums: streamer.Table[str, int] = app.Table("sums", default=int)
    lists: list[list[int]] = []

    @app.agent(orders, on_error=streamer.retry(2, backoff=0.0))
    async def work(stream: streamer.Stream[int]) -> None:
        async for some in stream.take(3, within=10.0):
            lists.append(some)
            sums["all"] += sum(some)
            await out.send(value=some)
            if len(lists) == 1:
                raise RuntimeError("the first time")

    async with app:
        await bench.send(source, *range(6))
        await bench.outputs(sink, 2)
        assert sums["all"] == 15

    assert lists == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert values(await bench.read(sink)) == [[0, 1, 2], [3, 4, 5]]


async def test_what_cannot_be_decoded_is_a_dead_letter_and_missing_from_its_list(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source, value_type=int), app.topic(sink)

    @app.agent(orders, on_error="dead_letter")
    async def work(stream: streamer.Stream[int]) -> None:
        async for some in stream.take(5, within=10.0):
            assert stream.current_event.offset % 5 == 0
            await out.send(value=some)

    async with app:
        bad, tombstone = Sent(value=b"no number"), Sent(value=None)
        await bench.send(source, 0, 1, bad, 3, 4, 5, tombstone, 7, 8, bad)
        await bench.outputs(sink, 2)

    assert values(await bench.read(sink)) == [[0, 1, 3, 4], [5, None, 7, 8]]
    letters = await bench.read(f"{app.conf.id}-dead-letters", 4)
    assert [letter.data for letter in letters] == [b"no number"] * 2
    named = sorted(letter.headers["__streams.errors.offset"] for letter in letters)
    assert named == [b"2", b"9"]


async def test_an_undecodable_record_in_a_list_is_named_by_its_own_offset(
    bench: Bench,
) -> None:
    source = await bench.topic()
    app = bench.app()
    orders = app.topic(source, value_type=int)

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for _ in stream.take(5, within=0.02):
            pass

    await bench.send(source, 0, 1, Sent(value=b"no number"), 3)
    async with failing(app) as reasons:
        pass

    assert isinstance(reasons[0], RecordFailed)
    assert f"{source}:0@2" in str(reasons[0])


async def test_a_list_in_hand_at_the_stop_is_done_and_what_waits_comes_later(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()

    def declared(id: str | None) -> tuple[streamer.App, asyncio.Event]:
        app, begun = bench.app(id, drain_timeout_ms=5000), asyncio.Event()
        orders, out = app.topic(source), app.topic(sink)

        @app.agent(orders)
        async def work(stream: streamer.Stream[int]) -> None:
            async for some in stream.take(4, within=0.02):
                begun.set()
                await asyncio.sleep(0.05)
                await out.send(value=some)

        return app, begun

    await bench.send(source, *range(10))
    app, begun = declared(None)
    async with app:
        await begun.wait()
    assert values(await bench.read(sink)) == [[0, 1, 2, 3]]

    again, _ = declared(app.id)
    async with again:
        await bench.outputs(sink, 3)
    assert values(await bench.read(sink)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_several_actors_take_lists_at_once(bench: Bench) -> None:
    source, sink = await bench.topic(2), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)

    @app.agent(orders, concurrency=5)
    async def work(stream: streamer.Stream[int]) -> None:
        async for some in stream.take(7, within=0.02):
            await asyncio.sleep(0.001 * len(some))
            await out.send(value=some)

    async with app:
        for partition in range(2):
            numbers = range(partition * 100, partition * 100 + 100)
            await bench.send(source, *as_json(*numbers, partition=partition))
        at = [TopicPartition(source, partition) for partition in range(2)]
        await until(lambda: running(app).assignment.settled.is_set())
        committed = running(app).transaction.committed
        await until(lambda: [committed[one].offset for one in at] == [100, 100])

    found = [one for some in values(await bench.read(sink)) for one in some]
    assert sorted(found) == list(range(200))
