"""`take_events`: batches whose records are known by their place."""

from __future__ import annotations

from support.apps import Bench, until

import streamer


async def test_a_batch_of_events_is_of_one_partition_and_knows_where_it_ends(
    bench: Bench,
) -> None:
    source = await bench.topic(partitions=2)
    app, batches = bench.app(), list[list[tuple[int, int, int]]]()

    @app.agent(app.topic(source, value_type=int))
    async def note(stream: streamer.Stream[int]) -> None:
        async for found in stream.filter(lambda n: n != 2).take_events(3, within=0.05):
            batches.append([(one.partition, one.offset, one.value) for one in found])

    await bench.send(source, 1, 2, 3, 4, partition=0)
    await bench.send(source, 5, partition=1)
    async with app:
        await until(lambda: sum(map(len, batches)) == 4)

    assert sorted(batches) == [[(0, 0, 1), (0, 2, 3)], [(0, 3, 4)], [(1, 0, 5)]]


async def test_a_batch_that_fails_comes_again_whole_and_its_effects_once(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app, tries = bench.app(), list[list[int]]()
    out = app.topic(sink)

    @app.agent(app.topic(source, value_type=int), on_error=streamer.retry(2, backoff=0.01))
    async def add(stream: streamer.Stream[int]) -> None:
        async for found in stream.take_events(2, within=0.05):
            await out.send(value=sum(one.value for one in found))
            tries.append([one.value for one in found])
            if len(tries) == 1:
                raise RuntimeError("after it has sent")

    await bench.send(source, 1, 2)
    async with app:
        await bench.outputs(sink, 1)

    assert tries == [[1, 2], [1, 2]]
    assert [one.value for one in await bench.read(sink)] == [3]


async def test_an_event_that_cannot_be_read_is_left_out_of_its_batch(bench: Bench) -> None:
    source = await bench.topic()
    app, seen = bench.app(), list[int]()

    @app.agent(app.topic(source, value_type=int), on_error="skip")
    async def note(stream: streamer.Stream[int]) -> None:
        async for found in stream.take_events(10, within=0.05):
            seen.extend(one.value for one in found)

    await bench.send(source, 1, "two", 3)
    async with app:
        await until(lambda: len(seen) == 2)

    assert seen == [1, 3]
