"""The framework at work: apps as users write them.

    python -m benchmarks.workloads.app '{"workload": "count", "form": "event", ...}'

It says how many partitions it has whenever that changes, and what it measured when all
records are done and committed (or, where nobody said how many, when a line comes).
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import streamer
from benchmarks.workloads.meter import Meter, digest, peak_mebibytes, say, when_told
from benchmarks.workloads.sampler import Sampler

BATCH, WITHIN_S = 1000, 0.01
WINDOW_S = 10.0
WAIT_S, AT_ONCE = 0.05, 500
LOOK_S = 0.01

Task = dict[str, Any]


class Click(streamer.Record):
    user: str
    item: str
    amount: int
    n: int
    note: str


def map_event(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    output: streamer.Topic[Click] = app.topic(task["output"], value_type=Click)

    @app.agent(clicks)
    async def change(stream: streamer.Stream[Click]) -> None:
        async for click in stream:
            click.amount += 1
            await output.send(key=click.user, value=click)


def map_batch(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    output: streamer.Topic[Click] = app.topic(task["output"], value_type=Click)

    @app.agent(clicks)
    async def change(stream: streamer.Stream[Click]) -> None:
        async for batch in stream.take(BATCH, within=WITHIN_S):
            for click in batch:
                click.amount += 1
                output.send_soon(key=click.user, value=click)


def count_event(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(clicks)
    async def count(stream: streamer.Stream[Click]) -> None:
        async for click in stream:
            counts[click.user] += 1


def count_batch(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(clicks)
    async def count(stream: streamer.Stream[Click]) -> None:
        async for batch in stream.take(BATCH, within=WITHIN_S):
            for click in batch:
                counts[click.user] += 1


def window_event(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    table: Any = app.Table("counts", default=int)
    counts = table.tumbling(WINDOW_S)

    @app.agent(clicks)
    async def count(stream: streamer.Stream[Click]) -> None:
        async for click in stream:
            counts[click.user] += 1


def recover_event(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    counts: streamer.Table[str, int] = app.Table("counts", default=int)
    task["processed"] = processed = dict[int, float]()

    @app.agent(clicks)
    async def count(stream: streamer.Stream[Click]) -> None:
        async for event in stream.events():
            counts[event.value.user] += 1
            processed.setdefault(event.partition, time.monotonic())


def wait_event(app: streamer.App, clicks: streamer.Topic[Click], task: Task) -> None:
    output: streamer.Topic[Click] = app.topic(task["output"], value_type=Click)
    task["done"] = 0

    @app.agent(clicks, concurrency=AT_ONCE)
    async def wait(stream: streamer.Stream[Click]) -> None:
        async for click in stream:
            await asyncio.sleep(WAIT_S)
            await output.send(key=click.user, value=click)
            task["done"] += 1


APPS: dict[tuple[str, str], Callable[[streamer.App, streamer.Topic[Click], Task], None]] = {
    ("map", "event"): map_event,
    ("map", "batch"): map_batch,
    ("count", "event"): count_event,
    ("count", "batch"): count_batch,
    ("window", "event"): window_event,
    ("recover", "event"): recover_event,
    ("wait", "event"): wait_event,
}


def app_for(task: Task) -> streamer.App:
    app = streamer.App(
        task["id"],
        broker=task["bootstrap"],
        processing_guarantee=task["guarantee"],
        commit_interval_ms=task["commit_ms"],
        commit_changes_max=1_000_000,
        linger_ms=task["linger_ms"],
        compression_type="none",
        state_dir=task["directory"],
        web_enabled=False,
    )
    clicks: streamer.Topic[Click] = app.topic(task["input"], value_type=Click)
    APPS[task["workload"], task["form"]](app, clicks, task)
    return app


async def run(task: Task) -> None:
    app, meter, sampler = app_for(task), Meter(), Sampler()
    told = threading.Event()
    when_told(told)
    if task.get("profile"):
        sampler.start()
    await app.start()
    try:
        await work(app, task, meter, told)
        sampler.stop()
        tables = {name: table for name, table in app.tables.items() if name == "counts"}
        table = digest(tables["counts"].items()) if task["workload"] == "count" else None
        peak = peak_mebibytes()
    finally:
        await app.stop()
    say(
        marks=meter.marks,
        peak=peak,
        table=table,
        processed=task.get("processed"),
        profile=sampler.report() if task.get("profile") else None,
    )


async def work(app: streamer.App, task: Task, meter: Meter, told: threading.Event) -> None:
    """Until all is done, and a line meanwhile whenever the group moves partitions."""
    worker: Any = app._runtime
    failed = asyncio.ensure_future(worker.wait())
    partitions = 0
    while True:
        await asyncio.sleep(LOOK_S)
        if failed.done():
            failed.result()
        if len(worker.assignment.partitions) != partitions:
            partitions = len(worker.assignment.partitions)
            say(partitions=partitions)
        records = worker.counters.records[task["input"]]
        # Where handlers await, many records are in hand.
        meter.mark(task.get("done", records))
        enough = told.is_set() if task["records"] is None else records >= task["records"]
        if enough and worker.is_drained and not worker.positions_to_commit():
            break
    failed.cancel()
    meter.end(records)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
