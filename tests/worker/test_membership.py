"""Workers of one app that come and go, and what a worker owes its group."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.apps import Bench, running, until
from support.broker import start_streamer
from support.clients import new_name, wait_until
from support.raw import Wire
from support.server import PROMPT

import streamer
from streamer.wire.messages import LeaveGroupRequest

TESTS = Path(__file__).parent.parent
SESSION_MS = 2000
# For a rebalance, on a busy machine.
SOON_S = 15.0


class Crowd:
    """Workers of one app, in this process; each counts words and sends each count on."""

    def __init__(self, bench: Bench, topic: str, out: str, **settings: Any) -> None:
        self._bench = bench
        self._id = new_name("app")
        self._topic = topic
        self._out = out
        self._settings = {"session_timeout_ms": SESSION_MS} | settings
        self.apps: list[streamer.App] = []
        # How long a word keeps its handler busy, and how.
        self.waits: dict[str, float] = {}
        self.blocks: dict[str, float] = {}

    @property
    def id(self) -> str:
        return self._id

    async def join(self) -> streamer.App:
        app = self._bench.app(self._id, **self._settings)
        words: streamer.Topic[str] = app.topic(self._topic)
        counts = app.Table("counts", default=int, value_type=int)
        out = app.topic(self._out)

        @app.agent(words, name="count")
        async def count(stream: streamer.Stream[str]) -> None:
            async for word in stream:
                counts[word] += 1
                await asyncio.sleep(self.waits.get(word, 0))
                time.sleep(self.blocks.get(word, 0))  # noqa: ASYNC251 - it is tried here
                await out.send(value={"word": word, "count": counts[word]})

        await app.start()
        self.apps.append(app)
        return app

    async def leave(self, app: streamer.App) -> None:
        self.apps.remove(app)
        await app.stop()

    async def shared_out(self, partitions: int) -> None:
        """Wait until each partition has one owner, and everybody his share."""

        def done() -> bool:
            each = sorted(number for share in shares() for number in share)
            nobody = shares().count([])
            wanted = max(0, len(self.apps) - partitions)
            return each == list(range(partitions)) and nobody == wanted

        def shares() -> list[list[int]]:
            return [numbers(app) for app in self.apps]

        until_s = time.monotonic() + SOON_S
        while not done():
            assert time.monotonic() < until_s, f"shared out: {shares()}"
            await asyncio.sleep(0.05)


def numbers(app: streamer.App) -> list[int]:
    return sorted(at.partition for at in running(app).assignment.partitions)


@asynccontextmanager
async def crowd(
    bench: Bench, partitions: int = 4, **settings: Any
) -> AsyncIterator[tuple[Crowd, str, str]]:
    topic, out = await bench.topic(partitions), await bench.topic()
    together = Crowd(bench, topic, out, **settings)
    try:
        yield together, topic, out
    finally:
        for app in list(together.apps):
            await together.leave(app)


async def counted_once(bench: Bench, out: str, expected: dict[str, int]) -> None:
    """Each word was counted from one up, each count once and in order."""
    await bench.outputs(out, sum(expected.values()))
    found: dict[str, list[int]] = defaultdict(list)
    for one in await bench.read(out):
        found[one.value["word"]].append(one.value["count"])
    assert found == {word: list(range(1, n + 1)) for word, n in expected.items()}


async def test_workers_come_and_go_and_each_record_counts_once(bench: Bench) -> None:
    async with crowd(bench) as (together, topic, out):
        rounds = 0

        async def send() -> None:
            nonlocal rounds
            rounds += 1
            for number in range(4):
                await bench.send(topic, *[f"w{number}"] * 25, partition=number)

        for _ in range(5):
            await together.join()
            await send()
            await together.shared_out(4)
        while len(together.apps) > 1:
            await together.leave(together.apps[0])
            await send()
        await together.shared_out(4)

        await counted_once(bench, out, {f"w{n}": 25 * rounds for n in range(4)})


async def test_who_has_no_partition_waits_and_takes_over_from_one_that_has_gone(
    bench: Bench,
) -> None:
    async with crowd(bench, partitions=1) as (together, topic, out):
        for _ in range(3):
            await together.join()
        await together.shared_out(1)
        for app in together.apps:
            await until(lambda app=app: running(app).ready)  # type: ignore[misc]
        await bench.send(topic, "tea")
        await counted_once(bench, out, {"tea": 1})

        (owner,) = (app for app in together.apps if numbers(app))
        await together.leave(owner)
        await together.shared_out(1)

        await bench.send(topic, "tea")
        await counted_once(bench, out, {"tea": 2})


async def test_who_comes_back_within_its_session_goes_on_where_it_was(
    bench: Bench,
) -> None:
    async with crowd(bench, session_timeout_ms=10_000) as (together, topic, out):
        first, second = await together.join(), await together.join()
        await together.shared_out(4)
        for number in range(4):
            await bench.send(topic, *[f"w{number}"] * 50, partition=number)
        await counted_once(bench, out, {f"w{n}": 50 for n in range(4)})
        share, slot = numbers(first), running(first).slot.number
        rebalances = running(second).counters.rebalances

        await together.leave(first)
        again = await together.join()
        await together.shared_out(4)

        assert running(again).slot.number == slot
        assert numbers(again) == share
        recovered = running(again).tables.recovered
        assert recovered is not None
        assert recovered.records == 0
        assert running(second).counters.rebalances == rebalances, "nobody else noticed"


async def test_a_record_that_is_not_done_in_time_is_done_by_the_next_owner(
    bench: Bench,
) -> None:
    async with crowd(bench, drain_timeout_ms=200) as (together, topic, out):
        await together.join()
        await together.shared_out(4)
        together.waits = {"slow": 3.0}
        for number in range(4):
            await bench.send(topic, "fast", "slow", "fast", partition=number)
        await asyncio.sleep(0.5)

        await together.join()
        await together.shared_out(4)
        together.waits.clear()

        # In each partition the same words, each counted there: four times one to n.
        found = [one.value for one in await bench.outputs(out, 12)]
        assert sorted(one["count"] for one in found if one["word"] == "fast") == (
            [1] * 4 + [2] * 4
        )
        assert [one["count"] for one in found if one["word"] == "slow"] == [1] * 4
        assert len(await bench.read(out)) == 12


async def test_a_worker_that_was_dropped_by_its_group_joins_it_again(
    bench: Bench, bootstrap: str
) -> None:
    async with crowd(bench) as (together, topic, out):
        app = await together.join()
        await together.shared_out(4)
        for number in range(4):
            await bench.send(topic, *[f"w{number}"] * 50, partition=number)
        await asyncio.to_thread(dropped, bootstrap, together.id, running(app).member_name)
        rebalances = running(app).counters.rebalances
        await until(lambda: running(app).counters.rebalances > rebalances)

        for number in range(4):
            await bench.send(topic, *[f"w{number}"] * 50, partition=number)

        await counted_once(bench, out, {f"w{n}": 100 for n in range(4)})
        assert running(app).assignment.settled.is_set()


def dropped(bootstrap: str, group: str, instance: str) -> None:
    """Have the group forget a member, as an administrator would."""
    member = LeaveGroupRequest.Member(member_id="", group_instance_id=instance)
    request = LeaveGroupRequest(group_id=group, members=[member])
    with Wire(bootstrap) as wire:
        answer = wire.ask(request, 3)
    assert answer.error_code == 0


async def blocked(bench: Bench, session_ms: int, seconds: float) -> None:
    async with crowd(bench, session_timeout_ms=session_ms) as (together, topic, out):
        app = await together.join()
        await together.shared_out(4)
        rebalances = running(app).counters.rebalances
        together.blocks = {"slow": seconds}

        await bench.send(topic, "slow")
        await counted_once(bench, out, {"slow": 1})
        together.blocks.clear()
        await bench.send(topic, "slow")

        await counted_once(bench, out, {"slow": 2})
        assert running(app).counters.rebalances == rebalances, "it was taken for dead"


async def test_a_handler_that_blocks_the_loop_does_not_stop_heartbeats(
    bench: Bench,
) -> None:
    await blocked(bench, session_ms=2000, seconds=5.0)


@pytest.mark.slow
async def test_a_handler_may_block_the_loop_for_long(bench: Bench) -> None:
    await blocked(bench, session_ms=6000, seconds=12.0)


def start_process(address: str, folder: Path, **settings: Any) -> subprocess.Popen[bytes]:
    """The app of the crash tests as a process; returns when it works on something."""
    given = {"broker": address, "state_dir": str(folder / "state"), **settings}
    output = folder / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "crash.app", json.dumps(given)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        )
    wait_until(lambda: b"Working on" in output.read_bytes(), "it does not work")
    return process


@pytest.mark.parametrize("broker_is_away", [False, True])
def test_a_worker_ends_in_time(tmp_path: Path, broker_is_away: bool) -> None:
    with start_streamer(tmp_path / "broker", settings=PROMPT) as server:
        worker = start_process(server.address, tmp_path, drain_timeout_ms=500)
        if broker_is_away:
            server.kill()
            time.sleep(0.5)

        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        try:
            code = worker.wait(30)
        finally:
            worker.kill()

        assert time.monotonic() - began < (15 if broker_is_away else 5)
        assert code == 0


async def test_a_worker_that_has_something_to_commit_ends_in_time_without_a_broker(
    tmp_path: Path,
) -> None:
    server = await asyncio.to_thread(start_streamer, tmp_path / "broker", settings=PROMPT)
    bench = Bench(server.address, tmp_path)
    # Nothing is committed while a handler still has something to do.
    app = bench.app("late", commit_interval_ms=60_000, drain_timeout_ms=500)
    begun: list[str] = []
    topic, out = await bench.topic(), app.topic(await bench.topic())

    @app.agent(app.topic(topic), name="wait", concurrency=2)
    async def wait(stream: streamer.Stream[str]) -> None:
        async for word in stream:
            await out.send(value=word)
            begun.append(word)
            await asyncio.sleep(60 if word == "slow" else 0)

    await app.start()
    await bench.send(topic, "slow", "fast", "fast")
    await until(lambda: len(begun) == 3)
    await asyncio.to_thread(server.kill)

    async with asyncio.timeout(20):
        await app.stop()


async def test_the_broker_of_our_own_is_started_again_when_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("STREAMER_HOME", str(home))
    app = streamer.App("own", web_enabled=False, commit_interval_ms=20)
    words: streamer.Topic[str] = app.topic("words", partitions=1)
    counts = app.Table("counts", default=int, value_type=int)

    @app.agent(words, name="count")
    async def count(stream: streamer.Stream[str]) -> None:
        async for word in stream:
            counts[word] += 1

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        await words.send(value="tea")
        await until(lambda: counts.get("tea") == 1)

        os.kill(broker_pid(home), signal.SIGKILL)

        async with asyncio.timeout(30):
            await words.send(value="tea")
        await until(lambda: counts.get("tea") == 2)


def broker_pid(home: Path) -> int:
    (pid,) = (
        int(word)
        for word in (home / "broker" / ".lock").read_text().replace(",", " ").split()
        if word.isdecimal()
    )
    return pid
