"""The workloads of the comparison: how each is run, once, by one contender.

A measurement starts the contender's process, lets it do all of the input, checks what came
of it, and returns numbers by name. Who is measured when, and how often, is decided in
`framework.py`.

    steady      between 20 % and 95 % of the records
    whole run   from the first record until what came of the last is committed
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.contenders import ClientFailed, NotHere
from benchmarks.figures import percentile
from benchmarks.workloads import checks, records, streams
from benchmarks.workloads.processes import Process, python
from benchmarks.workloads.records import COMPACTED, PARTITIONS, Input
from streamer.table import Table

LOOP, EVENT, BATCH, STREAMS = "loop", "event", "batch", "streams"
AT_LEAST_ONCE, EXACTLY_ONCE = "at_least_once", "exactly_once"
PER_SECOND = 1_000
LEFT_OUT_SECONDS = 2
PATIENCE_S = 120.0

Found = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much work makes a figure."""

    records: int = 2_000_000
    waiting: int = 80_000  # records whose handlers await
    seconds: int = 12  # of 1,000 records each
    changes: int = 1_000_000  # in the changelog that is recovered
    users: int = 100_000  # and of how many keys


QUICK = Amounts(records=20_000, waiting=2_000, seconds=3, changes=10_000, users=1_000)


@dataclass(slots=True)
class Arena:
    """A running broker, where workers keep their state, and inputs that serve all runs."""

    bootstrap: str
    directory: Path
    amounts: Amounts
    profile: bool = False
    show: Callable[[str], None] = print
    inputs: dict[int, Input] = field(default_factory=dict)
    numbers: count[int] = field(default_factory=count)

    def input(self, size: int) -> Input:
        if size not in self.inputs:
            topic = f"clicks-{size}"
            self.inputs[size] = records.fill(self.bootstrap, topic, size)
        return self.inputs[size]

    def task(self, who: str, workload: str, source: str, **more: Any) -> dict[str, Any]:
        """What the contender's process is told; nothing is left of earlier runs."""
        name = f"{workload}-{who}-{next(self.numbers)}"
        return {
            "workload": workload,
            "form": who,
            "id": name,
            "bootstrap": self.bootstrap,
            "input": source,
            "output": f"{name}-output",
            "changelog": f"{name}-counts-changelog",
            "directory": str(self.directory / name),
            "guarantee": AT_LEAST_ONCE,
            "commit_ms": 1000,
            "linger_ms": 50,
            "profile": self.profile,
            **more,
        }

    def process(self, task: dict[str, Any]) -> Process:
        Path(task["directory"]).mkdir(parents=True, exist_ok=True)
        if task["form"] == STREAMS:
            return Process(task["id"], streams.command(task, self.directory / "classes"))
        module = "loop" if task["form"] == LOOP else "app"
        return Process(task["id"], python(module, json.dumps(task)))

    def make_topics(self, task: dict[str, Any]) -> None:
        """What others make for themselves, a loop finds."""
        if task["workload"] in ("map", "wait"):
            records.make_topic(self.bootstrap, task["output"])
        elif task["form"] == LOOP:
            records.make_topic(self.bootstrap, task["changelog"], COMPACTED)

    def clean_up(self, task: dict[str, Any]) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        known = admin.list_topics(timeout=PATIENCE_S).topics
        if gone := [name for name in known if name.startswith(f"{task['id']}-")]:
            for deleted in admin.delete_topics(gone).values():
                deleted.result(PATIENCE_S)
        shutil.rmtree(task["directory"], ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str  # as the measure calls it
    unit: str
    reach: str = ""
    digits: int = 2
    of: str | None = None  # as a multiple of another workload's row of the same name
    alone: bool = False  # it says nothing in comparison with others


@dataclass(frozen=True, slots=True)
class Workload:
    """A measurement, who takes part, and the lines it fills."""

    key: str
    title: str
    measure: Callable[[Arena, str], Found]
    rows: tuple[Row, ...]
    who: tuple[str, ...] = (LOOP, EVENT, BATCH, STREAMS)

    @property
    def name(self) -> str:
        """W3, of which there are two."""
        return self.key.partition(" ")[0]


def measure_throughput(
    arena: Arena, who: str, *, workload: str, size: str = "records", **more: Any
) -> Found:
    source = arena.input(getattr(arena.amounts, size))
    task = arena.task(who, workload, source.topic, records=source.records, **more)
    arena.make_topics(task)
    try:
        with arena.process(task) as process:
            found = process.result()
        check(task, source, found)
    finally:
        arena.clean_up(task)
    if found.get("profile"):
        arena.show(f"{task['id']}\n{found['profile']}")
    return numbers(found)


def check(task: dict[str, Any], source: Input, found: dict[str, Any]) -> None:
    """What came of it is what had to."""
    bootstrap, workload = task["bootstrap"], task["workload"]
    if workload == "map":
        checks.output_is_the_input(
            bootstrap, task["output"], source, added=1, in_order=True
        )
    elif workload == "wait":
        checks.output_is_the_input(
            bootstrap, task["output"], source, added=0, in_order=False
        )
    elif workload == "count":
        checks.changelog_is(bootstrap, task["changelog"], source.by_user)
        if found.get("table"):
            checks.table_is(found["table"], source.by_user)
    else:
        checks.changelog_counts(bootstrap, task["changelog"], source.by_window)


def numbers(found: dict[str, Any]) -> Found:
    marks, peak = found["marks"], found["peak"]
    first, last = marks[0], marks[-1]
    early, late = at(marks, 0.20), at(marks, 0.95)
    if late[0] - early[0] < last[0] / 2:
        # So few records, or so many at a time, that nobody looked in between.
        early, late = first, last
    return {
        "cpu": per_record(early, late),
        "rate": rate(early, late),
        "whole_cpu": per_record(first, last),
        "whole_rate": rate(first, last),
        "memory": peak,
    }


Mark = tuple[float, float, float]


def at(marks: Sequence[Mark], share: float) -> Mark:
    """The clocks at that share of the records, which was between two marks."""
    wanted = max(marks[0][0], share * marks[-1][0])
    later = next(number for number, mark in enumerate(marks) if mark[0] >= wanted)
    before, after = marks[max(0, later - 1)], marks[later]
    part = (wanted - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    cpu, moment = (before[i] + part * (after[i] - before[i]) for i in (1, 2))
    return wanted, cpu, moment


def per_record(start: Mark, end: Mark) -> float:
    """Microseconds of CPU."""
    return (end[1] - start[1]) / max(1.0, end[0] - start[0]) * 1e6


def rate(start: Mark, end: Mark) -> float:
    return (end[0] - start[0]) / max(1e-9, end[2] - start[2])


def measure_latency(arena: Arena, who: str, *, guarantee: str, commit_ms: int) -> Found:
    """A thousand records a second, from their producer to who reads what is committed."""
    amount = arena.amounts.seconds * PER_SECOND
    source = f"paced-{next(arena.numbers)}"
    settings = {"guarantee": guarantee, "commit_ms": commit_ms, "linger_ms": 0}
    task = arena.task(who, "map", source, records=amount, **settings)
    common = {"bootstrap": arena.bootstrap, "records": amount}
    receives = common | {"leave_out": min(amount // 2, LEFT_OUT_SECONDS * PER_SECOND)}
    records.make_topic(arena.bootstrap, source)
    arena.make_topics(task)
    try:
        with ExitStack() as processes:
            worker = processes.enter_context(arena.process(task))
            start = partial(ends, processes)
            receiver = start("receive", receives | {"topic": task["output"]})
            sender = start("send", common | {"topic": source, "per_second": PER_SECOND})
            worker.expect(partitions=PARTITIONS)
            sender.tell()
            received, found = receiver.result(), worker.result()
    finally:
        arena.clean_up(task)
        AdminClient({"bootstrap.servers": arena.bootstrap}).delete_topics([source])
    if received["different"] != amount:
        raise checks.Wrong(f"{amount - received['different']} records did not come")
    first, last = found["marks"][0], found["marks"][-1]
    return {
        "p50": percentile(received["under_way"], 0.50),
        "p99": percentile(received["under_way"], 0.99),
        "cores": (last[1] - first[1]) / (last[2] - first[2]),
    }


def ends(processes: ExitStack, load: str, task: dict[str, Any]) -> Process:
    process = processes.enter_context(Process(load, python("ends", load, json.dumps(task))))
    process.expect(ready=True)
    return process


def measure_recovery(arena: Arena, who: str) -> Found:
    """With no state but a changelog, then with what that has left."""
    source = f"few-{next(arena.numbers)}"
    amounts, settings = arena.amounts, {"guarantee": EXACTLY_ONCE, "commit_ms": 100}
    task = arena.task(who, "recover", source, records=PARTITIONS, **settings)
    records.make_topic(arena.bootstrap, source)
    try:
        counts = records.fill_changelog(
            arena.bootstrap,
            task["changelog"],
            amounts.users,
            amounts.changes,
            json_keys=who != LOOP,
        )
        empty = until_processed(arena, task, counts)
        there = until_processed(arena, task, counts)
        checks.changelog_is(arena.bootstrap, task["changelog"], counts)
    finally:
        arena.clean_up(task)
        AdminClient({"bootstrap.servers": arena.bootstrap}).delete_topics([source])
    return {
        "empty": empty[0],
        "empty_all": empty[1],
        "there": there[0],
        "there_all": there[1],
    }


def until_processed(
    arena: Arena, task: dict[str, Any], counts: Counter[str]
) -> tuple[float, float]:
    """Seconds from the start of a process to its first record, and to one of each
    partition."""
    one_of_each = {records.partition_of(user.encode()): user for user in counts}
    producer = Producer(records.PRODUCER | {"bootstrap.servers": arena.bootstrap})
    for number, user in one_of_each.items():
        counts[user] += 1
        records.produce(
            producer,
            task["input"],
            records.value(number, user),
            user.encode(),
            partition=number,
        )
    records.flush(producer)
    started = time.monotonic()
    with arena.process(task) as process:
        processed = process.result()["processed"]
    if len(processed) < PARTITIONS:
        raise checks.Wrong(f"only partitions {sorted(processed)} had their record")
    moments = processed.values()
    return min(moments) - started, max(moments) - started


def measure_two(arena: Arena, _: str) -> Found:
    """Two processes against one, each time over the same input."""
    one, two = (measure_processes(arena, processes) for processes in (1, 2))
    return {"one": one["cpu"], "two": two["cpu"], "ratio": two["cpu"] / one["cpu"]} | {
        "rate": two["rate"] / one["rate"]
    }


def measure_processes(arena: Arena, processes: int) -> Found:
    """They share out partitions while the input is still hidden, and begin together."""
    hidden = records.Hidden(
        arena.bootstrap, f"hidden-{next(arena.numbers)}", arena.amounts.records
    )
    source = hidden.input
    task = arena.task(EVENT, "count", source.topic, records=None)
    arena.make_topics(task)
    try:
        with ExitStack() as stack:
            workers = [stack.enter_context(arena.process(task)) for _ in range(processes)]
            for worker in workers:
                worker.expect(partitions=PARTITIONS // processes)
            hidden.show()
            wait_until_committed(task, source)
            for worker in workers:
                worker.tell()
            found = [numbers(worker.result()) for worker in workers]
        checks.changelog_is(arena.bootstrap, task["changelog"], source.by_user)
    finally:
        arena.clean_up(task)
        AdminClient({"bootstrap.servers": arena.bootstrap}).delete_topics([source.topic])
    return {
        "cpu": mean(each["cpu"] for each in found),
        "rate": sum(each["rate"] for each in found),
    }


def wait_until_committed(task: dict[str, Any], source: Input) -> None:
    group = Consumer({"bootstrap.servers": task["bootstrap"], "group.id": task["id"]})
    partitions = [TopicPartition(source.topic, number) for number in range(PARTITIONS)]
    # Behind the records of a partition is the mark of their transaction.
    ends = [group.get_watermark_offsets(each)[1] - 1 for each in partitions]
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = group.committed(partitions, timeout=PATIENCE_S)
        if all(each.offset >= end for each, end in zip(found, ends, strict=True)):
            group.close()
            return
        time.sleep(0.1)
    raise ClientFailed(f"{task['id']} has not come to the end of its input")


def measure_windows(arena: Arena, who: str) -> Found:
    if who != LOOP and who != STREAMS and not hasattr(Table, "tumbling"):
        raise NotHere("windowed tables are not there yet")
    return measure_throughput(arena, who, workload="window")


def throughput_rows(reach: str, *more: Row) -> tuple[Row, ...]:
    return (
        Row("cpu", "µs of CPU a record", reach),
        Row("rate", "records/s", digits=0),
        Row("whole_cpu", "µs of CPU a record, whole run"),
        Row("whole_rate", "records/s, whole run", digits=0),
        *more,
    )


WORKLOADS = (
    Workload(
        "W1",
        "read, decode, change a field, write",
        partial(measure_throughput, workload="map"),
        throughput_rows("1.15 of loop, by batch 1.0; 0.55 of Streams"),
    ),
    Workload(
        "W2",
        "count by key, commit 1 s",
        partial(measure_throughput, workload="count"),
        throughput_rows(
            "1.3 of loop, by batch 1.1; 0.55 of Streams",
            Row("memory", "MiB at most", "150", digits=0),
        ),
    ),
    Workload(
        "W3 1s",
        "the same, exactly once, commit 1 s",
        partial(measure_throughput, workload="count", guarantee=EXACTLY_ONCE),
        throughput_rows(
            "0.55 of Streams", Row("cpu", "times W2", "1.10", of="W2", alone=True)
        ),
    ),
    Workload(
        "W3 100ms",
        "the same, exactly once, commit 100 ms",
        partial(
            measure_throughput, workload="count", guarantee=EXACTLY_ONCE, commit_ms=100
        ),
        throughput_rows(
            "0.55 of Streams", Row("cpu", "times W2", "1.50", of="W2", alone=True)
        ),
    ),
    Workload(
        "W4",
        "ten-second tumbling count",
        measure_windows,
        throughput_rows("1.3 of loop; 0.55 of Streams"),
        (LOOP, EVENT, STREAMS),
    ),
    Workload(
        "W5 exactly",
        "1,000 records/s end to end, exactly once, commit 100 ms",
        partial(measure_latency, guarantee=EXACTLY_ONCE, commit_ms=100),
        (
            Row("p50", "ms, p50", "10"),
            Row("p99", "ms, p99", "30"),
            Row("cores", "cores of the worker"),
        ),
        (LOOP, EVENT),
    ),
    Workload(
        "W5 at-least",
        "1,000 records/s end to end, at least once, commit 1 s",
        partial(measure_latency, guarantee=AT_LEAST_ONCE, commit_ms=1000),
        (
            Row("p50", "ms, p50", "2"),
            Row("p99", "ms, p99", "10"),
            Row("cores", "cores of the worker"),
        ),
        (LOOP, EVENT),
    ),
    Workload(
        "W6",
        "from process start to processing",
        measure_recovery,
        (
            Row("empty", "s, only the changelog", "1.5"),
            Row("empty_all", "s, all partitions"),
            Row("there", "s, state on disk", "0.5"),
            Row("there_all", "s, all partitions"),
        ),
        (LOOP, EVENT),
    ),
    Workload(
        "W7",
        "handlers that await 50 ms, concurrency 500, exactly once",
        partial(
            measure_throughput,
            workload="wait",
            size="waiting",
            guarantee=EXACTLY_ONCE,
            commit_ms=100,
        ),
        (
            Row("rate", "records/s", "8,000", digits=0),
            Row("cpu", "µs of CPU a record"),
        ),
        (LOOP, EVENT),
    ),
    Workload(
        "two",
        "two processes, W2",
        measure_two,
        (
            Row("one", "µs of CPU a record, one", alone=True),
            Row("two", "µs of CPU a record, two", alone=True),
            Row("ratio", "times as much", "1.10", alone=True),
            Row("rate", "times the rate", alone=True),
        ),
        (EVENT,),
    ),
)
