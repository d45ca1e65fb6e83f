"""/livez, /healthz, /readyz: what they are tied to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.pages import WebBench, get, got

import streamer
from streamer.client.interface import Group, TopicPartition
from streamer.state.recovery import Progress
from streamer.web.health import readiness, reasons
from streamer.worker.counters import Counters
from streamer.worker.standing import AgentStanding, Standing, TableStanding


def standing(**told: Any) -> Standing:
    """Of a worker that has nothing to do."""
    agents: Sequence[AgentStanding] = ()
    tables: Sequence[TableStanding] = ()
    positions: Mapping[TopicPartition, int] = {}
    watermarks: Mapping[TopicPartition, tuple[int, int]] = {}
    idle: dict[str, Any] = {
        "agents": agents,
        "tables": tables,
        "positions": positions,
        "watermarks": watermarks,
        "staged_sends": 0,
        "queued": 0,
        "polled_s": 0.1,
        "undone_s": 0.0,
        "recovery": None,
        "failure": "",
    }
    return Standing(**(idle | told))


def agent(**told: Any) -> AgentStanding:
    idle: dict[str, Any] = {
        "name": "count",
        "waiting": 0,
        "in_hand": 0,
        "taken": 0,
        "oldest_s": 0.0,
        "stuck_s": 0.0,
    }
    return AgentStanding(**(idle | told))


@dataclass
class Seen:
    """A worker, as `View` has it."""

    now: Standing
    ready: bool = False
    stopping: bool = False
    slot_name: str = "shop-0"
    client_id: str = "shop@127.0.0.1:6066/0"
    started_at: float = 0.0

    def __post_init__(self) -> None:
        self.app = streamer.App("shop")
        self.counters = Counters()

    def standing(self) -> Standing:
        return self.now

    def group(self) -> Group:
        raise NotImplementedError


def test_a_worker_with_nothing_to_do_is_healthy() -> None:
    assert reasons(standing(), 60.0) == []


def test_a_worker_that_takes_no_part_in_its_group_any_more_is_not_healthy() -> None:
    (reason,) = reasons(standing(polled_s=61.0), 60.0)

    assert "61 s" in reason


def test_a_worker_whose_transactions_are_undone_again_and_again_is_not_healthy() -> None:
    (reason,) = reasons(standing(undone_s=61.0), 60.0)

    assert reason == "No transaction has succeeded for 61 s."


def test_an_agent_that_is_stuck_is_named_though_another_gets_on() -> None:
    stuck = agent(name="audit", in_hand=3, waiting=500, stuck_s=75.0)

    (reason,) = reasons(standing(agents=[agent(taken=9), stuck]), 60.0)

    assert reason == (
        "audit has 3 records in hand and 500 waiting, and has done nothing for 75 s."
    )


def test_a_worker_is_not_ready_before_the_group_has_given_it_its_partitions() -> None:
    assert readiness(Seen(standing())) == (503, {"status": "waiting for partitions"})
    assert readiness(Seen(standing(), ready=True)) == (200, {"status": "ready"})
    assert readiness(Seen(standing(), stopping=True)) == (503, {"status": "stopping"})


def test_a_worker_that_restores_its_tables_tells_how_far_it_is() -> None:
    at = TopicPartition("shop-sold-changelog", 0)
    recovery = Progress(done=300, total=1000, seconds=2.0, left={at: 700}, trouble="Slow.")

    status, told = readiness(Seen(standing(recovery=recovery)))

    assert status == 503
    assert told == {
        "status": "restoring",
        "done": 300,
        "total": 1000,
        "per_second": 150,
        "seconds_left": 4.7,
        "trouble": "Slow.",
    }


async def test_a_worker_that_runs_is_live_healthy_and_ready(bench: WebBench) -> None:
    app = bench.app()

    @app.agent(app.topic(await bench.topic()))
    async def idle(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    async with app:
        assert (await got(app, "/readyz", 200)).json == {"status": "ready"}
        assert (await get(app, "/healthz")).json == {"status": "ok"}
        assert (await get(app, "/livez")).json == {"status": "ok"}


async def test_a_worker_that_cannot_go_on_says_why(bench: WebBench) -> None:
    source = await bench.topic()
    app = bench.app()

    @app.agent(app.topic(source), name="fails", on_error=streamer.retry(1, backoff=0))
    async def fails(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            raise RuntimeError("not this one")

    async with app:
        await bench.send(source, 1)
        page = await got(app, "/healthz", 503)
        ready = await get(app, "/readyz")

    reason = ready.json["reason"]
    assert reason.endswith(f"at {source}:0@0: RuntimeError: not this one.")
    assert (ready.status, ready.json["status"]) == (503, "failed")
    assert page.json["reasons"] == [f"It cannot go on: {reason}"]


async def test_a_worker_without_agents_is_ready(bench: WebBench) -> None:
    app = bench.app()

    async with app:
        assert (await get(app, "/readyz")).status == 200
        assert (await get(app, "/healthz")).status == 200
        assert (await get(app, "/metrics")).status == 200
        assert (await get(app, "/")).status == 200


async def test_a_worker_whose_handler_hangs_is_not_healthy_until_it_gets_on(
    bench: WebBench,
) -> None:
    source = await bench.topic()
    app = bench.app(health_stall_ms=1000)
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.agent(app.topic(source), name="hangs")
    async def hangs(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            begun.set()
            await may_end.wait()

    async with app:
        await bench.send(source, 1)
        await begun.wait()
        assert (await get(app, "/healthz")).status == 200

        stalled = await got(app, "/healthz", 503)
        assert stalled.json["status"] == "stalled"
        assert stalled.json["reasons"][0].startswith("hangs has 1 records in hand")

        may_end.set()
        await got(app, "/healthz", 200)


async def test_a_worker_that_is_slow_but_gets_on_is_healthy(bench: WebBench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app(health_stall_ms=1000)
    out = app.topic(sink)

    @app.agent(app.topic(source))
    async def slow(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            await asyncio.sleep(0.3)
            await out.send(value=value)

    async with app:
        await bench.send(source, *range(5))
        done = asyncio.create_task(bench.outputs(sink, 5))
        answers = []
        while not done.done():
            answers.append((await get(app, "/healthz")).status)
            await asyncio.sleep(0.1)

    assert len(answers) > 5
    assert set(answers) == {200}
