"""How much a producer notices of compaction beside it, and how fast that is.

A topic is filled while it may not be compacted yet; then it may, and a producer goes on
writing to another topic meanwhile. Both brokers say in the same file that they are done.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

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
# The same key comes five times or so.
RECORDS_A_KEY = 5
DIFFERENT_VALUES = 2_000
PATIENCE_SECONDS = 300.0
NEVER_MS = "9000000000"
SETTINGS = {
    "log.cleaner.backoff.ms": "500",
    "log.flush.offset.checkpoint.interval.ms": "500",
}


def measure_beside_compaction(arena: Arena) -> Found:
    directory = arena.directory / TOPIC
    contender = replace(arena.contender, settings={**arena.contender.settings, **SETTINGS})
    records = int(arena.amounts.crash_gibibytes * 2**30) // RECORD_BYTES
    with contender.start(directory) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        fill_with_keys(server.address, admin, records)
        create_topic(server.address, "beside", 1)
        producer = Client(
            "pace", bootstrap=server.address, topic="beside", per_second=PER_SECOND
        )
        producer.go()
        time.sleep(LEFT_OUT_SECONDS + arena.amounts.seconds)
        started = time.monotonic()
        allow_compaction(admin)
        wait_until_compacted(server.logs)
        ended = time.monotonic()
        producer.go()
        acknowledged = producer.result()["acknowledged"]
    remove(directory)
    settled = acknowledged[0][0] + LEFT_OUT_SECONDS
    alone = [waited for sent, waited in acknowledged if settled <= sent < started]
    beside = [waited for sent, waited in acknowledged if started <= sent <= ended]
    return {
        "alone": percentile(alone, 0.99),
        "beside": percentile(beside, 0.99),
        "factor": percentile(beside, 0.99) / percentile(alone, 0.99),
        "rate": records * RECORD_BYTES / (ended - started) / 1e6,
    }


def fill_with_keys(bootstrap: str, admin: AdminClient, records: int) -> None:
    config = {
        "cleanup.policy": "compact",
        "segment.bytes": str(16 << 20),
        "min.compaction.lag.ms": NEVER_MS,
    }
    topic = NewTopic(TOPIC, num_partitions=1, replication_factor=1, config=config)
    admin.create_topics([topic])[TOPIC].result(PATIENCE_SECONDS)
    values = [os.urandom(RECORD_BYTES) for _ in range(DIFFERENT_VALUES)]
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    keys = max(1, records // RECORDS_A_KEY)
    for number in range(records):
        # A step that is prime to the count goes round all keys, far from one another.
        key = b"%d" % (number * 7_919 % keys)
        while True:
            try:
                producer.produce(TOPIC, key=key, value=values[number % DIFFERENT_VALUES])
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush()
    time.sleep(SETTLE_SECONDS)


def allow_compaction(admin: AdminClient) -> None:
    entry = ConfigEntry(
        "min.compaction.lag.ms", "0", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_SECONDS)


def wait_until_compacted(logs: Path) -> None:
    checkpoint = logs / "cleaner-offset-checkpoint"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (checkpoint.exists() and f"{TOPIC} 0 " in checkpoint.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{checkpoint} never said that {TOPIC} is compacted")
        time.sleep(0.02)


COMPACTION = (
    Figure(
        "compaction",
        "producer beside compaction",
        measure_beside_compaction,
        (
            Row("alone", "ms till acknowledged, p99, alone"),
            Row("beside", "ms till acknowledged, p99, beside it"),
            Row("factor", "times as long", "1.5"),
            Row("rate", "MB/s compacted, with the wait for its turn", digits=0),
        ),
    ),
)
