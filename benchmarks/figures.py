"""The figures of the comparison: how each is taken, once, of one broker.

A figure is a function that takes a running broker (or starts its own, where the start
is what is measured) and returns numbers by name. Who is measured when, and how often,
is decided in `broker.py`; what the clients do is in `clients.py`.

Broker CPU is user and system time of all its threads between "go" and the last
answer, so the preparations of a client do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from support.server import Server

from benchmarks.contenders import (
    Client,
    Contender,
    cpu_seconds,
    create_topic,
    delete_topic,
    forget_cached,
    remove,
    resident_mebibytes,
)

PARTITIONS = 4
PER_SECOND = 1_000
# What the cold reader reads: much for a disk, and little enough to leave cores to others.
COLD_PER_SECOND = 100_000
LEFT_OUT_SECONDS = 2
SETTLE_SECONDS = 5.0
RECORD_BYTES = 1024

Found = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much load makes a figure."""

    records: int = 2_000_000
    seconds: int = 12  # of one record at a time
    cold_gibibytes: float = 4.0
    crash_gibibytes: float = 1.0
    idle_seconds: int = 15


QUICK = Amounts(
    records=200_000, seconds=4, cold_gibibytes=0.25, crash_gibibytes=0.1, idle_seconds=3
)


@dataclass(slots=True)
class Arena:
    """One contender, its folder, its running broker, and what is kept between runs."""

    contender: Contender
    directory: Path
    amounts: Amounts
    server: Server | None = None
    absent: bool = False  # it did not start, and will not be asked again
    filled: dict[str, int] = field(default_factory=dict)

    @property
    def running(self) -> Server:
        if self.server is None:
            self.server = self.contender.start(self.directory / "shared")
        return self.server

    @property
    def bootstrap(self) -> str:
        return self.running.address

    def close(self) -> None:
        if self.server is not None:
            self.server.stop()
        remove(self.directory)


Measure = Callable[[Arena], Found]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str  # as the measure calls it
    unit: str
    goal: str = ""
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement and the lines it fills."""

    name: str
    title: str
    measure: Measure
    rows: tuple[Row, ...]
    warm_up: bool = False  # once without being counted: Java compiles what it meets often


@contextmanager
def a_topic(arena: Arena, name: str) -> Iterator[str]:
    create_topic(arena.bootstrap, name, PARTITIONS)
    try:
        yield name
    finally:
        delete_topic(arena.bootstrap, name)


def measure_produce(arena: Arena, *, compression: str) -> Found:
    records = arena.amounts.records
    with a_topic(arena, f"produce-{time.monotonic_ns()}") as topic:
        client = Client(
            "produce",
            bootstrap=arena.bootstrap,
            topic=topic,
            records=records,
            size=100,
            compression=compression,
        )
        cpu = cpu_seconds(arena.running)
        found = client.run()
        cpu = cpu_seconds(arena.running) - cpu
    return {"rate": records / found["seconds"], "cpu": cpu / records * 1e6}


def measure_consume(arena: Arena, *, size: int, share: int) -> Found:
    """`share` of the records, since larger ones fill memory and disk."""
    topic = f"consume-{size}"
    records = arena.amounts.records // share
    total = fill(arena, topic, records, size)
    client = Client("consume", bootstrap=arena.bootstrap, topic=topic, records=total)
    cpu = cpu_seconds(arena.running)
    found = client.run()
    cpu = cpu_seconds(arena.running) - cpu
    return {"rate": total / found["seconds"], "cpu": cpu / total * 1e6}


def fill(arena: Arena, topic: str, records: int, size: int) -> int:
    """Make a topic of so many records unless an earlier run has; how many it holds."""
    if topic not in arena.filled:
        create_topic(arena.bootstrap, topic, PARTITIONS)
        arena.filled[topic] = fill_with(arena.bootstrap, topic, records, size)
    return arena.filled[topic]


def fill_with(bootstrap: str, topic: str, records: int, size: int) -> int:
    Client(
        "produce",
        bootstrap=bootstrap,
        topic=topic,
        records=records,
        size=size,
        compression="none",
    ).run()
    return records + 1  # the producer's warm-up is a record too


def measure_one_at_a_time(arena: Arena) -> Found:
    """From produce to the moment the consumer has it, at a leisurely thousand a second."""
    seconds = arena.amounts.seconds
    records = seconds * PER_SECOND
    with a_topic(arena, f"paced-{time.monotonic_ns()}") as topic:
        receiver = Client(
            "receive",
            bootstrap=arena.bootstrap,
            topic=topic,
            records=records,
            leave_out=min(LEFT_OUT_SECONDS, seconds // 2) * PER_SECOND,
        )
        receiver.go()
        sender = Client(
            "pace",
            bootstrap=arena.bootstrap,
            topic=topic,
            per_second=PER_SECOND,
            records=records,
        )
        cpu = cpu_seconds(arena.running)
        started = time.monotonic()
        sender.go()
        under_way = receiver.result()["under_way"]
        cores = (cpu_seconds(arena.running) - cpu) / (time.monotonic() - started)
        sender.result()
    return {
        "p50": percentile(under_way, 0.50),
        "p99": percentile(under_way, 0.99),
        "cores": cores,
    }


def measure_cold_reader(arena: Arena) -> Found:
    """How long a producer waits for its acknowledgements, alone and beside a reader.

    The reader takes 100 MB/s: at full speed it would take a core, and the producer would
    wait for that. It comes twice: first the disk has to be read for it, then all is in
    memory. What the second visit costs is the price of a neighbour, not of the disk.
    """
    records = int(arena.amounts.cold_gibibytes * 2**30) // RECORD_BYTES
    total = fill(arena, "cold", records, RECORD_BYTES)
    with a_topic(arena, f"beside-{time.monotonic_ns()}") as topic:
        alone = Client(
            "pace", bootstrap=arena.bootstrap, topic=topic, per_second=PER_SECOND
        )
        alone.go()
        time.sleep(arena.amounts.seconds)
        alone.go()
        without = percentile(settled(alone.result()["acknowledged"]), 0.99)

        forget_cached(arena.running.logs)
        cold, seconds = beside_a_reader(arena, topic, total)
        warm, _ = beside_a_reader(arena, topic, total)
    return {
        "without": without,
        "cold": cold,
        "warm": warm,
        "factor": cold / without,
        "reader": total * RECORD_BYTES / seconds / 1e6,
    }


def beside_a_reader(arena: Arena, topic: str, total: int) -> tuple[float, float]:
    """The producer's p99 while the reader was at it, and how long that took."""
    reader = Client(
        "consume",
        bootstrap=arena.bootstrap,
        topic="cold",
        records=total,
        per_second=COLD_PER_SECOND,
    )
    producer = Client("pace", bootstrap=arena.bootstrap, topic=topic, per_second=PER_SECOND)
    producer.go()
    time.sleep(LEFT_OUT_SECONDS)
    read = reader.run()
    producer.go()
    during = [
        waited
        for sent, waited in producer.result()["acknowledged"]
        if read["started"] <= sent <= read["ended"]
    ]
    return percentile(during, 0.99), read["seconds"]


def settled(acknowledged: list[tuple[float, float]]) -> list[float]:
    """Without the first records, which pay for connections and compilers."""
    first = acknowledged[0][0]
    return [waited for sent, waited in acknowledged if sent > first + LEFT_OUT_SECONDS]


def measure_start(arena: Arena) -> Found:
    """On an empty folder; Kafka's formatting of it does not count."""
    directory = arena.directory / "start"
    with arena.contender.start(directory) as server:
        found = {"seconds": server.seconds_to_serve, "cpu": cpu_seconds(server)}
    remove(directory)
    return found


def measure_start_after_crash(arena: Arena) -> Found:
    directory = arena.directory / "crash"
    records = int(arena.amounts.crash_gibibytes * 2**30) // RECORD_BYTES
    server = arena.contender.start(directory)
    try:
        create_topic(server.address, "crashed", PARTITIONS)
        fill_with(server.address, "crashed", records, RECORD_BYTES)
    finally:
        server.kill()
    with arena.contender.start(directory) as again:
        seconds = again.seconds_to_serve
    remove(directory)
    return {"seconds": seconds}


def measure_idle(arena: Arena) -> Found:
    directory = arena.directory / "idle"
    with arena.contender.start(directory) as server:
        create_topic(server.address, "quiet", PARTITIONS)
        time.sleep(min(SETTLE_SECONDS, arena.amounts.idle_seconds))
        cpu = cpu_seconds(server)
        time.sleep(arena.amounts.idle_seconds)
        cpu = cpu_seconds(server) - cpu
        resident = resident_mebibytes(server)
    remove(directory)
    return {"resident": resident, "cpu": cpu / arena.amounts.idle_seconds * 100}


def percentile(numbers: list[float], share: float) -> float:
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


PRODUCE_ROWS = (
    Row("rate", "records/s", "fsync 0.95, page-cache 1.0 of Kafka", digits=0),
    Row("cpu", "µs of broker CPU a record", "0.3"),
)
CONSUME_ROWS = (
    Row("rate", "records/s", "0.95 of Kafka", digits=0),
    Row("cpu", "µs of broker CPU a record", digits=3),
)

BASIC = (
    Figure(
        "produce",
        "produce 100 B",
        partial(measure_produce, compression="none"),
        PRODUCE_ROWS,
        warm_up=True,
    ),
    Figure(
        "produce-lz4",
        "produce 100 B, lz4",
        partial(measure_produce, compression="lz4"),
        PRODUCE_ROWS,
        warm_up=True,
    ),
    Figure(
        "consume",
        "consume 100 B",
        partial(measure_consume, size=100, share=1),
        CONSUME_ROWS,
        warm_up=True,
    ),
    Figure(
        "consume-1k",
        "consume 1 KB",
        partial(measure_consume, size=1_000, share=4),
        CONSUME_ROWS,
        warm_up=True,
    ),
    Figure(
        "latency",
        "one at a time, 1,000/s",
        measure_one_at_a_time,
        (
            Row("p50", "ms till the consumer has it, p50", "2"),
            Row("p99", "ms till the consumer has it, p99", "10"),
            Row("cores", "cores of the broker", "Kafka's"),
        ),
        warm_up=True,
    ),
    Figure(
        "cold",
        "producer beside a cold reader",
        measure_cold_reader,
        (
            Row("without", "ms till acknowledged, p99, alone"),
            Row("cold", "ms till acknowledged, p99, beside it"),
            Row("factor", "times as long", "2"),
            Row("warm", "ms till acknowledged, p99, beside a reader from memory"),
            Row("reader", "MB/s of the cold reader", digits=0),
        ),
    ),
    Figure(
        "start",
        "start, empty",
        measure_start,
        (
            Row("seconds", "s to the first answer", "0.3"),
            Row("cpu", "s of CPU"),
        ),
    ),
    Figure(
        "crash",
        "start after kill -9",
        measure_start_after_crash,
        (Row("seconds", "s to the first answer", "2"),),
    ),
    Figure(
        "idle",
        "idle",
        measure_idle,
        (
            Row("resident", "MiB resident", "45", digits=0),
            Row("cpu", "% of a core", "0.5"),
        ),
    ),
)
