"""How much those who produce and fetch notice of compaction beside them, and its speed.

Some topics are filled while they may not be compacted yet. Then a producer writes to
another one, and a consumer follows it. By turns they are left alone and one of the topics
may be compacted: a slow minute of the disk meets both.
Both brokers say in the same file that they are done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from benchmarks.contenders import Client, create_topic, remove
from benchmarks.figures import (
    LEFT_OUT_SECONDS,
    PER_SECOND,
    RECORD_BYTES,
    SETTLE_SECONDS,
    Arena,
    Figure,
    Found,
    Row,
    percentile,
)

TOPIC = "compacted"
TURNS = 5
# The same key comes five times or so.
RECORDS_A_KEY = 5
DIFFERENT_VALUES = 2_000
PATIENCE_SECONDS = 300.0
NEVER_MS = "9000000000"
SETTINGS = {
    "log.cleaner.backoff.ms": "500",
    "log.flush.offset.checkpoint.interval.ms": "500",
}


Period = tuple[float, float]
Sample = tuple[float, float]


def measure_beside_compaction(arena: Arena) -> Found:
    directory = arena.directory / TOPIC
    contender = replace(arena.contender, settings={**arena.contender.settings, **SETTINGS})
    records = int(arena.amounts.crash_gibibytes * 2**30) // RECORD_BYTES // TURNS
    topics = [f"{TOPIC}-{number}" for number in range(TURNS)]
    with contender.start(directory) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        for topic in topics:
            fill_with_keys(server.address, admin, topic, records)
        time.sleep(SETTLE_SECONDS)
        create_topic(server.address, "beside", 1)
        consumer = Client("follow", bootstrap=server.address, topic="beside")
        consumer.go()
        producer = Client(
            "pace", bootstrap=server.address, topic="beside", per_second=PER_SECOND
        )
        producer.go()
        time.sleep(LEFT_OUT_SECONDS)
        alone, beside = [], []
        for topic in topics:
            alone.append(period(lambda: time.sleep(arena.amounts.seconds / 2)))
            allow_compaction(admin, topic)
            beside.append(period(lambda: wait_until_compacted(server.logs, topic)))  # noqa: B023
        producer.go()
        consumer.go()
        acknowledged = producer.result()["acknowledged"]
        received = consumer.result()["received"]
    remove(directory)
    found = {
        "alone": p99(acknowledged, alone),
        "beside": p99(acknowledged, beside),
        "fetch_alone": p99(received, alone),
        "fetch_beside": p99(received, beside),
    }
    seconds = sum([ended - started for started, ended in beside])
    return {
        **found,
        "factor": found["beside"] / found["alone"],
        "fetch_factor": found["fetch_beside"] / found["fetch_alone"],
        "rate": TURNS * records * RECORD_BYTES / seconds / 1e6,
    }


def period(do: Callable[[], None]) -> Period:
    started = time.monotonic()
    do()
    return started, time.monotonic()


def p99(samples: list[Sample], periods: list[Period]) -> float:
    """The median of the periods' own."""
    return median(
        percentile([waited for sent, waited in samples if started <= sent <= ended], 0.99)
        for started, ended in periods
    )


def fill_with_keys(bootstrap: str, admin: AdminClient, name: str, records: int) -> None:
    config = {
        "cleanup.policy": "compact",
        "segment.bytes": str(16 << 20),
        "min.compaction.lag.ms": NEVER_MS,
    }
    topic = NewTopic(name, num_partitions=1, replication_factor=1, config=config)
    admin.create_topics([topic])[name].result(PATIENCE_SECONDS)
    values = [os.urandom(RECORD_BYTES) for _ in range(DIFFERENT_VALUES)]
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    keys = max(1, records // RECORDS_A_KEY)
    for number in range(records):
        # A step that is prime to the count goes round all keys, far from one another.
        key = b"%d" % (number * 7_919 % keys)
        while True:
            try:
                producer.produce(name, key=key, value=values[number % DIFFERENT_VALUES])
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush()


def allow_compaction(admin: AdminClient, topic: str) -> None:
    entry = ConfigEntry(
        "min.compaction.lag.ms", "0", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_SECONDS)


def wait_until_compacted(logs: Path, topic: str) -> None:
    checkpoint = logs / "cleaner-offset-checkpoint"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (checkpoint.exists() and f"{topic} 0 " in checkpoint.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{checkpoint} never said that {topic} is compacted")
        time.sleep(0.02)


COMPACTION = (
    Figure(
        "compaction",
        "clients beside compaction",
        measure_beside_compaction,
        (
            Row("alone", "ms till acknowledged, p99, alone"),
            Row("beside", "ms till acknowledged, p99, beside it"),
            Row("factor", "times as long", "1.5"),
            Row("fetch_alone", "ms till the consumer has it, p99, alone"),
            Row("fetch_beside", "ms till the consumer has it, p99, beside it"),
            Row("fetch_factor", "times as long", "1.5"),
            Row("rate", "MB/s compacted, with the wait for its turn", digits=0),
        ),
    ),
)
