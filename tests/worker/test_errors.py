"""What becomes of records that fail, and when a worker ends for one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.apps import Bench, as_json, failing, running, until, values
from support.clients import Sent

import streamer
from streamer.client.interface import TopicPartition
from streamer.worker import actor
from streamer.worker.errors import RecordFailed, WorkerFailed
from streamer.worker.topics import MissingTopics


@pytest.fixture(autouse=True)
def no_waiting_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamer.policy.Policy, "wait_before", lambda *_: 0.0)


def word(count: int) -> bytes:
    """So many bytes that no compression makes less."""
    return random.Random(count).randbytes(count // 2).hex().encode()


async def test_fail_ends_the_worker_and_names_the_record(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    seen: Counter[int] = Counter()

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            seen[order] += 1
            await out.send(value=order)
            if order == 2:
                raise ValueError("two is too much")

    await bench.send(source, *range(5))
    async with failing(app) as reasons:
        pass

    assert isinstance(reasons[0], RecordFailed)
    assert f"{source}:0@2" in str(reasons[0])
    assert "ValueError: two is too much" in str(reasons[0])
    assert isinstance(reasons[0].__cause__, ValueError)
    assert seen == {0: 1, 1: 1, 2: 3}
    assert values(await bench.read(sink)) in ([], [0], [0, 1])


async def test_what_was_done_before_the_failure_is_done_once_by_the_next_worker(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()

    def declared(id: str | None, breaks: bool) -> streamer.App:
        app = bench.app(id)
        orders, out = app.topic(source), app.topic(sink)
        counts: streamer.Table[str, int] = app.Table("counts", default=int)

        @app.agent(orders)
        async def work(stream: streamer.Stream[int]) -> None:
            async for order in stream:
                counts["all"] += 1
                await out.send(value=[order, counts["all"]])
                if breaks and order == 2:
                    raise ValueError("two is too much")

        return app

    await bench.send(source, *range(5))
    app = declared(None, breaks=True)
    async with failing(app):
        pass
    async with declared(app.id, breaks=False):
        await bench.outputs(sink, 5)

    assert values(await bench.read(sink)) == [[n, n + 1] for n in range(5)]


async def test_skip_goes_on_with_the_next(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source, value_type=int), app.topic(sink)

    @app.agent(orders, on_error=streamer.skip)
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await out.send(value=order)
            if order == 2:
                raise ValueError("two is too much")

    async with app:
        await bench.send(source, 1, Sent(value=b"no number"), 2, 3)
        await bench.outputs(sink, 2)
        dropped = running(app).counters.dropped
        name = next(iter(app.agents))
        assert dropped == {(name, "undecodable"): 1, (name, "failed"): 1}

    assert values(await bench.read(sink)) == [1, 3]


async def test_a_dead_letter_is_the_record_as_it_was_with_the_reason_in_headers(
    bench: Bench,
) -> None:
    source, sink, letters = await bench.topic(), await bench.topic(), await bench.topic()
    app = bench.app(dead_letter_topic=letters)
    orders, out = app.topic(source, value_type=int), app.topic(sink)

    @app.agent(orders, name="work", on_error="dead_letter")
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await out.send(value=order)
            if order == 2:
                raise ValueError("two is too much")

    async with app:
        bad = Sent(value=b"no number", key=b"k", headers=[("trace", b"7"), ("none", None)])
        await bench.send(source, 1, 2, bad, 3)
        await bench.outputs(letters, 2)
        await bench.outputs(sink, 2)

    failed, undecodable = await bench.read(letters)
    assert values(await bench.read(sink)) == [1, 3]
    assert (failed.data, failed.key) == (b"2", None)
    named = {
        name.removeprefix("__streams.errors."): data.decode()
        for name, data in failed.headers.items()
    }
    assert "work" in named.pop("stacktrace")
    assert named == {
        "exception": "builtins.ValueError",
        "message": "two is too much",
        "topic": source,
        "partition": "0",
        "offset": "1",
        "agent": "work",
    }
    assert (undecodable.data, undecodable.key) == (b"no number", b"k")
    assert undecodable.headers["trace"] == b"7"
    assert undecodable.headers["__streams.errors.exception"].endswith(b"DecodeError")
    assert undecodable.headers["__streams.errors.offset"] == b"2"


async def test_a_retry_is_tried_so_often_and_then_does_as_it_says(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)
    seen: Counter[int] = Counter()

    @app.agent(orders, on_error=streamer.retry(3, backoff=0.01, then="skip"))
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            seen[order] += 1
            await out.send(value=order)
            if order == 2 or (order == 3 and seen[3] == 1):
                raise ValueError("not yet")

    async with app:
        await bench.send(source, *range(5))
        await bench.outputs(sink, 4)

    assert seen == {0: 1, 1: 1, 2: 4, 3: 2, 4: 1}
    assert values(await bench.read(sink)) == [0, 1, 3, 4]


async def test_a_function_decides_by_the_error(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)

    async def decide(agent: streamer.Agent[Any], error: BaseException) -> str:
        await out.send(value=[agent.name, str(error)])  # dropped: the record has failed
        return "skip" if isinstance(error, KeyError) else "fail"

    @app.agent(orders, name="work", on_error=decide)
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            if order == 1:
                raise KeyError("skipped")
            if order == 3:
                raise ValueError("the end")
            await out.send(value=order)

    await bench.send(source, *range(4))
    async with failing(app) as reasons:
        await bench.outputs(sink, 2)

    assert "the end" in str(reasons[0])


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_send_that_the_broker_refuses_is_an_error_of_its_record(
    bench: Bench, guarantee: str
) -> None:
    source, letters = await bench.topic(), await bench.topic()
    sink = await bench.topic(max_message_bytes="10000")
    app = bench.app(processing_guarantee=guarantee, dead_letter_topic=letters)
    orders, out = app.topic(source), app.topic(sink, value_serializer="raw")
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(orders, on_error="dead_letter")
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            counts["all"] += 1
            await out.send(value=word(40_000) if order == 7 else b"%d" % order)

    async with app:
        await bench.send(source, *range(20))
        await bench.outputs(letters, 1)
        await bench.send(source, 20)
        await until(lambda: counts["all"] == 20)
        assert not running(app).caution.on

    (letter,) = await bench.read(letters)
    assert letter.data == b"7"
    assert b"MSG_SIZE_TOO_LARGE" in letter.headers["__streams.errors.message"]
    found = values(await bench.read(sink))
    expected = [one for one in range(21) if one != 7]
    assert sorted(set(found)) == expected
    if guarantee == "exactly_once":
        assert found == expected


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_change_that_the_changelog_refuses_is_an_error_of_its_record(
    bench: Bench, guarantee: str
) -> None:
    source = await bench.topic()
    app = bench.app(processing_guarantee=guarantee)
    texts: streamer.Table[str, str] = app.Table("texts", default=str)

    @app.agent(app.topic(source), name="keep", on_error="skip")
    async def keep(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            texts[str(order)] = word(2_000_000).decode() if order == 3 else "small"

    async with app:
        await bench.send(source, *range(5))
        await until(lambda: len(texts) == 4)
        await until(lambda: not running(app).caution.on)
        assert "3" not in texts
        assert running(app).counters.dropped["keep", "failed"] == 1


async def test_a_send_that_is_refused_at_once_is_an_error_of_its_record(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink)

    @app.agent(orders, on_error="skip")
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await out.send(value=order, partition=17 if order == 3 else 0)

    async with app:
        await bench.send(source, *range(10))
        await bench.outputs(sink, 9)
        name = next(iter(app.agents))
        assert running(app).counters.dropped == {(name, "failed"): 1}

    assert values(await bench.read(sink)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


async def test_a_refused_send_ends_the_worker_and_names_the_record_that_sent_it(
    bench: Bench,
) -> None:
    source = await bench.topic()
    sink = await bench.topic(max_message_bytes="10000")
    app = bench.app()
    orders, out = app.topic(source), app.topic(sink, value_serializer="raw")

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await out.send(value=word(40_000) if order == 7 else b"%d" % order)

    await bench.send(source, *range(10))
    async with failing(app) as reasons:
        pass

    assert isinstance(reasons[0], RecordFailed)
    assert f"{source}:0@7" in str(reasons[0])
    assert "MSG_SIZE_TOO_LARGE" in str(reasons[0])


async def test_the_refused_record_is_found_among_agents_and_beyond_a_slow_one(
    bench: Bench,
) -> None:
    source, other, out_other = (
        await bench.topic(2),
        await bench.topic(),
        await bench.topic(),
    )
    sink = await bench.topic(max_message_bytes="10000")
    app = bench.app()
    out = app.topic(sink, value_serializer="raw")
    released = asyncio.Event()

    @app.agent(app.topic(source), name="work", concurrency=5, on_error="skip")
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            if order == 0 and not released.is_set():
                await released.wait()
            await out.send(value=word(40_000) if order == 7 else b"%d" % order)
            released.set()

    @app.agent(app.topic(other), name="idle")
    async def idle(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            await app.send(out_other, value=order)

    async with app:
        await bench.send(source, *range(10))
        await bench.send(source, *range(10, 20), partition=1)
        await bench.outputs(sink, 19)
        await bench.send(other, 1)
        await bench.outputs(out_other, 1)
        assert running(app).counters.dropped == {("work", "failed"): 1}
        await until(lambda: not running(app).caution.on)

    found = sorted(int(one.data or b"") for one in await bench.read(sink))
    assert found == [one for one in range(20) if one != 7]


async def test_a_table_that_cannot_be_written_is_an_error_of_the_record_too(
    bench: Bench,
) -> None:
    source = await bench.topic()
    app = bench.app()
    table: streamer.Table[str, str] = app.Table("words")
    done: list[int] = []

    @app.agent(app.topic(source), on_error="skip")
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            size = 4_000_000 if order == 2 else 3
            table[str(order)] = word(size).decode()
            done.append(order)

    async with app:
        await bench.send(source, *range(5))
        await until(lambda: sorted(table.keys()) == ["0", "1", "3", "4"])


async def test_a_dead_letter_that_is_refused_itself_ends_the_worker(bench: Bench) -> None:
    source = await bench.topic()
    letters = await bench.topic(max_message_bytes="10000")
    app = bench.app(dead_letter_topic=letters)

    @app.agent(app.topic(source, value_type=int), on_error="dead_letter")
    async def work(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    await bench.send(source, 1, Sent(value=word(40_000)), 3)
    async with failing(app) as reasons:
        pass

    assert isinstance(reasons[0], RecordFailed)
    assert "dead letter was refused" in str(reasons[0])


async def test_dead_letters_of_an_app_that_may_make_no_topics_say_which_one_is_missing(
    bench: Bench,
) -> None:
    source = await bench.topic()
    app = bench.app(topic_allow_declare=False)

    @app.agent(app.topic(source, value_type=int), on_error="dead_letter")
    async def work(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    with pytest.raises(MissingTopics) as missing:
        await app.start()

    assert f"streamer topic create {app.conf.id}-dead-letters" in str(missing.value)


async def test_an_agent_that_returns_without_reading_ends_the_worker(bench: Bench) -> None:
    source = await bench.topic()
    app = bench.app()

    @app.agent(app.topic(source), name="work")
    async def work(stream: streamer.Stream[int]) -> None:
        await asyncio.sleep(0)

    async with failing(app) as reasons:
        pass

    assert isinstance(reasons[0], WorkerFailed)
    assert "work has returned without reading" in str(reasons[0])


async def test_an_agent_that_fails_before_its_first_record_ends_the_worker(
    bench: Bench,
) -> None:
    source = await bench.topic()
    app = bench.app()

    async def connect() -> None:
        raise OSError("no database")

    @app.agent(app.topic(source), name="work", on_error="skip")
    async def work(stream: streamer.Stream[int]) -> None:
        await connect()
        async for _ in stream:
            pass

    async with failing(app) as reasons:
        pass

    assert isinstance(reasons[0], WorkerFailed)
    assert "OSError: no database" in str(reasons[0])


async def test_an_agent_that_is_no_async_function_ends_the_worker(bench: Bench) -> None:
    source = await bench.topic()
    app = bench.app()

    def work(stream: Any) -> Any:
        return None

    app.agent(app.topic(source), name="work")(work)

    async with failing(app) as reasons:
        pass

    assert "work is no async function" in str(reasons[0])


async def test_a_cancelled_future_that_a_handler_awaits_is_an_error_like_others(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out = app.topic(sink)

    @app.agent(app.topic(source), on_error="skip")
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            if order == 1:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            await out.send(value=order)

    async with app:
        await bench.send(source, *range(3))
        await bench.outputs(sink, 2)

    assert values(await bench.read(sink)) == [0, 2]


async def test_a_sink_that_raises_is_an_error_of_the_record_and_closes_the_function(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out, closed = app.topic(sink), list[int]()

    def refuse(value: int) -> None:
        if value == 1:
            raise ValueError("not one")

    @app.agent(app.topic(source), sink=[refuse], on_error="skip")
    async def work(stream: streamer.Stream[int]) -> AsyncIterator[int]:
        try:
            async for order in stream:
                await out.send(value=order)
                yield order
        finally:
            closed.append(1)

    async with app:
        await bench.send(source, *range(3))
        await bench.outputs(sink, 2)
        assert closed == [1]

    assert values(await bench.read(sink)) == [0, 2]


async def test_a_long_traceback_is_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "TRACE_CHARACTERS_MAX", 100)
    source, letters = await bench.topic(), await bench.topic()
    app = bench.app(dead_letter_topic=letters)

    @app.agent(app.topic(source), on_error="dead_letter")
    async def work(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            raise ValueError("x" * 500)

    async with app:
        await bench.send(source, *as_json(1))
        (letter,) = await bench.outputs(letters, 1)

    assert len(letter.headers["__streams.errors.stacktrace"]) == 100


async def test_records_beyond_one_that_is_tried_again_are_committed(bench: Bench) -> None:
    source, sink = await bench.topic(2), await bench.topic()
    app = bench.app()
    out, may_pass = app.topic(sink), asyncio.Event()

    @app.agent(app.topic(source), concurrency=2, on_error=streamer.retry(10_000, backoff=0))
    async def work(stream: streamer.Stream[int]) -> None:
        async for order in stream:
            if order == 0 and not may_pass.is_set():
                await asyncio.sleep(0.001)
                raise ValueError("not yet")
            await out.send(value=order)

    async with app:
        await bench.send(source, *range(20))
        assert values(await bench.outputs(sink, 19)) == list(range(1, 20))
        may_pass.set()
        await bench.outputs(sink, 20)
        at = TopicPartition(source, 0)
        await until(lambda: running(app).transaction.committed[at].offset == 20)
