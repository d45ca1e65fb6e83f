"""The loop is watched by a thread, and agents by what they have got on with."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import dataclass

import pytest
from support.apps import Bench, running, until

import streamer
from streamer.worker import watch
from streamer.worker.counters import Lately
from streamer.worker.watch import Place, Stalls, Watch, place_of, users_place

LIMIT_S = 0.2
BLOCKED_S = 0.6


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        one.getMessage() for one in caplog.records if one.message.startswith("The loop")
    ]


async def test_code_that_holds_up_the_loop_is_named_once_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stalls: list[float] = []
    watching = Watch(LIMIT_S, stalls.append)
    watching.start()

    async def blocks() -> None:
        time.sleep(BLOCKED_S)  # noqa: ASYNC251 - that is the point

    await asyncio.create_task(blocks(), name="shop.count-0")
    await until(lambda: stalls)
    watching.stop()

    begun, over = told(caplog)
    assert re.match(
        r"The loop has not turned for \d\.\d s, held up by shop.count-0, at", begun
    )
    assert f"{__file__}:" in begun
    assert "in blocks: `time.sleep(BLOCKED_S)" in begun
    assert re.match(r"The loop turns again, after \d\.\d s: shop.count-0, at", over)
    assert 0.5 < stalls[0] < 5.0


async def test_each_time_is_told(caplog: pytest.LogCaptureFixture) -> None:
    over = asyncio.Event()
    watching = Watch(LIMIT_S, lambda _: over.set())
    watching.start()
    for _ in range(2):
        time.sleep(BLOCKED_S)  # noqa: ASYNC251
        await over.wait()
        over.clear()
    watching.stop()

    assert len(told(caplog)) == 4


async def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    watching = Watch(1.0, lambda _: None)
    watching.start()
    await asyncio.sleep(0.6)
    watching.stop()

    assert told(caplog) == []


async def test_a_handler_that_blocks_is_named_by_the_worker_that_runs_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    source = await bench.topic()
    app = bench.app(loop_blocked_ms=200)

    @app.agent(app.topic(source), name="shop.count")
    async def count(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            time.sleep(BLOCKED_S)  # noqa: ASYNC251

    async with app:
        await bench.send(source, 1)
        await until(lambda: running(app).counters.stalls == 1)
        seconds = running(app).counters.stalled_seconds

    assert "held up by shop.count-0" in told(caplog)[0]
    assert "in count: `time.sleep(BLOCKED_S)" in told(caplog)[0]
    assert 0.5 < seconds < 5.0


USERS, OURS = Place("/home/me/shop.py", 7, "count"), Place(f"{watch.OURS}stream.py", 1, "x")
STDLIB = Place(f"{watch.STDLIB[0]}json/decoder.py", 1, "decode")
LOOP = Place(watch.LOOP[0], 1, "_run")
LIBRARY = Place(f"{watch.LIBRARIES[0]}requests/api.py", 1, "get")


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        ([USERS, OURS], USERS),
        ([STDLIB, USERS, OURS], USERS),
        ([STDLIB, LIBRARY, USERS, OURS], USERS),
        ([STDLIB, LIBRARY, OURS, STDLIB], LIBRARY),
        ([OURS, STDLIB], OURS),
        ([OURS, LOOP, STDLIB, USERS], OURS),
        ([USERS, OURS, LOOP, STDLIB, USERS._replace(function="main")], USERS),
        ([LOOP], LOOP),
        ([Place("<frozen importlib>", 1, "x"), USERS], USERS),
        ([], None),
    ],
)
def test_the_place_is_the_innermost_of_the_users_own(
    stack: list[Place], place: Place | None
) -> None:
    assert users_place(stack) == place


def test_a_frame_has_a_place() -> None:
    place = place_of(sys._getframe())

    assert place is not None
    assert (place.file, place.function) == (__file__, "test_a_frame_has_a_place")


@dataclass
class Fed:
    """A feed, as far as `Stalls` sees it."""

    mark: object
    name: str = "count"


def test_an_agent_is_stuck_since_it_last_got_on() -> None:
    feed, now = Fed(1), [100.0]
    stalls = Stalls(lambda: [feed], lambda: now[0])

    stalls.look()
    now[0] = 130.0
    stalls.look()
    assert stalls.stuck_s("count") == 30.0

    feed.mark = 2
    stalls.look()
    assert stalls.stuck_s("count") == 0.0


def test_an_agent_with_nothing_to_do_is_not_stuck() -> None:
    feed, now = Fed(1), [100.0]
    stalls = Stalls(lambda: [feed], lambda: now[0])
    assert stalls.stuck_s("count") == 0.0

    stalls.look()
    feed.mark = None
    now[0] = 130.0
    stalls.look()
    now[0] = 200.0
    stalls.look()

    assert stalls.stuck_s("count") == 0.0


async def test_an_agent_that_waits_for_a_full_batch_is_not_stuck(bench: Bench) -> None:
    source = await bench.topic()
    app = bench.app()

    @app.agent(app.topic(source))
    async def batches(stream: streamer.Stream[int]) -> None:
        async for _ in stream.take(100, within=3600):
            pass

    async with app:
        (feed,) = running(app).all_feeds()
        await bench.send(source, 1, 2)
        await until(lambda: feed.waiting == 2)
        await until(lambda: feed.mark is None)


async def test_the_mark_of_a_feed_changes_with_each_record_that_is_done(
    bench: Bench,
) -> None:
    source = await bench.topic()
    app = bench.app()
    turn = asyncio.Semaphore(0)

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            await turn.acquire()

    async with app:
        (feed,) = running(app).all_feeds()
        await bench.send(source, 1, 2, 3)
        await until(lambda: feed.in_hand and feed.in_hand + feed.waiting == 3)
        before = feed.mark
        await asyncio.sleep(0.01)
        assert feed.mark == before
        turn.release()
        await until(lambda: feed.in_hand and feed.in_hand + feed.waiting == 2)
        assert feed.mark != before
        assert feed.oldest_s > 0
        turn.release()
        turn.release()
        await until(lambda: feed.taken == 3 and not feed.in_hand)
        await until(lambda: feed.mark is None)
        assert feed.oldest_s == 0.0


def test_what_was_measured_lately_is_forgotten_after_a_minute_at_most() -> None:
    now = [0.0]
    lately = Lately(lambda: now[0])
    assert (lately.average_s, lately.longest_s) == (0.0, 0.0)

    lately.add(1.0)
    now[0] = 31.0
    lately.add(3.0)
    assert (lately.average_s, lately.longest_s) == (2.0, 3.0)

    now[0] = 62.0
    assert (lately.average_s, lately.longest_s) == (3.0, 3.0)
    now[0] = 200.0
    assert (lately.average_s, lately.longest_s) == (0.0, 0.0)
