"""A record is atomic: all that its handler sends and writes, or nothing of it."""

from __future__ import annotations

import asyncio

from support.apps import Bench, until, values

import streamer


async def test_a_handler_that_raises_after_it_has_sent_and_written_leaves_nothing(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    counts: streamer.Table[str, int] = app.Table("counts", default=int)
    tries: list[int] = []

    @app.agent(orders, on_error=streamer.retry(3, backoff=0.01))
    async def count(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await out.send(value=order)
            counts["all"] += 1
            tries.append(order)
            if order == 2 and tries.count(2) < 3:
                raise RuntimeError("after it has sent and written")

    async with app:
        await bench.send(source, 1, 2, 3)
        await bench.outputs(sink, 3)
        assert counts["all"] == 3

    assert tries == [1, 2, 2, 2, 3]
    assert values(await bench.read(sink)) == [1, 2, 3]


async def test_a_record_that_is_skipped_has_sent_and_written_nothing(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    seen: streamer.Table[str, int] = app.Table("seen", default=int)

    @app.agent(orders, on_error="skip")
    async def count(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await out.send(value=order)
            seen[str(order)] += 1
            if order == 2:
                raise RuntimeError("after it has sent and written")

    async with app:
        await bench.send(source, 1, 2, 3)
        await bench.outputs(sink, 2)
        assert dict(seen.items()) == {"1": 1, "3": 1}

    assert values(await bench.read(sink)) == [1, 3]


async def test_a_record_sees_what_it_has_written_and_what_those_before_it_have(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app(commit_interval_ms=10_000)
    orders, out = app.topic(source), app.topic(sink)
    sums: streamer.Table[str, int] = app.Table("sums", default=int)

    @app.agent(orders)
    async def add(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            before = sums["all"]
            sums["all"] += order
            sums["all"] += order
            await out.send(value=[before, sums["all"], sums.get("none"), "all" in sums])

    async with app:
        await bench.send(source, 1, 2, 3)
        found = await bench.outputs(sink, 3)

    assert values(found) == [[0, 2, None, True], [2, 6, None, True], [6, 12, None, True]]


async def test_whoever_looks_from_outside_sees_what_is_committed_only(bench: Bench) -> None:
    source = await bench.topic()
    app = bench.app()
    orders = app.topic(source)
    counts: streamer.Table[str, int] = app.Table("counts", default=int)
    written, go_on = asyncio.Event(), asyncio.Event()

    @app.agent(orders)
    async def count(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            counts["all"] += 1
            written.set()
            await go_on.wait()

    async with app:
        await bench.send(source, 1)
        await written.wait()
        assert counts["all"] == 0
        go_on.set()
        await until(lambda: counts["all"] == 1)


async def test_an_actor_does_not_see_what_another_has_not_done_yet(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    marks: streamer.Table[str, int] = app.Table("marks")
    first_has_written, second_has_looked = asyncio.Event(), asyncio.Event()

    @app.agent(orders, concurrency=2)
    async def mark(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            if order == 1:
                marks["one"] = 1
                first_has_written.set()
                await second_has_looked.wait()
            else:
                await first_has_written.wait()
                await out.send(value=[order, marks.get("one"), dict(marks.items())])
                second_has_looked.set()

    async with app:
        await bench.send(source, 1, 2)
        await until(lambda: marks.get("one") == 1)
        await bench.send(source, 3)
        found = await bench.outputs(sink, 2)

    assert values(found) == [[2, None, {}], [3, 1, {"one": 1}]]


async def test_a_list_taken_from_a_table_is_a_copy(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    baskets: streamer.Table[str, list[int]] = app.Table("baskets", default=list)

    @app.agent(orders)
    async def fill(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            basket = baskets["mine"]
            basket.append(order)
            if order % 2:
                baskets["mine"] = basket
                basket.append(-1)  # too late
            await out.send(value=baskets["mine"])

    async with app:
        await bench.send(source, 1, 2, 3)
        found = await bench.outputs(sink, 3)

    assert values(found) == [[1], [1], [1, 3]]
