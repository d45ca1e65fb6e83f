"""What came of a run, read from the log and compared with what should have.

A wrong result is a failed benchmark: `Wrong` says what was found in place of what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from benchmarks.contenders import ClientFailed
from benchmarks.workloads.meter import digest
from benchmarks.workloads.records import PARTITIONS, Input

PATIENCE_S = 30.0
STREAM_TIME = b"\xff"
"""The framework's one key that is no window: the event time of the partition."""


class Wrong(ClientFailed):
    """It may have been fast; it was not right."""


def output_is_the_input(
    bootstrap: str, topic: str, source: Input, *, added: int, in_order: bool
) -> None:
    """Each record is there once, with so much added to its amount."""
    seen = bytearray(source.records)
    last = [-1] * PARTITIONS
    for message in whole(bootstrap, topic):
        click = orjson.loads(message.value() or b"")
        n, number = click["n"], message.partition() or 0
        if seen[n]:
            raise Wrong(f"record {n} is in {topic} twice")
        seen[n] = 1
        if click["amount"] != n % 100 + added:
            raise Wrong(f"record {n} in {topic} has the amount {click['amount']}")
        if in_order and n < last[number]:
            raise Wrong(f"record {n} in {topic} comes after {last[number]}")
        last[number] = n
    if missing := seen.count(0):
        raise Wrong(f"{missing} of {source.records} records are not in {topic}")


def changelog_is(bootstrap: str, topic: str, counts: Counter[str]) -> None:
    """The last value of each key is its count, in one partition only."""
    found = {
        key.decode().strip('"'): int(value)
        for (_, key), value in last_values(bootstrap, topic).items()
    }
    if found != counts:
        wrong = [
            key for key in found.keys() | counts.keys() if found.get(key) != counts[key]
        ]
        first = min(wrong)
        raise Wrong(
            f"{len(wrong)} of {len(counts)} counts in {topic} are wrong, "
            f"{first} is {found.get(first)} instead of {counts[first]}"
        )


def changelog_counts(bootstrap: str, topic: str, counts: Counter[tuple[str, int]]) -> None:
    """As many keys as windows, with the same counts, however keys are written."""
    last = last_values(bootstrap, topic)
    found = sorted(int(value) for (_, key), value in last.items() if key != STREAM_TIME)
    if found != sorted(counts.values()):
        raise Wrong(
            f"{topic} has {len(found)} windows and {sum(found)} records in them, "
            f"not {len(counts)} and {counts.total()}"
        )


def table_is(found: dict[str, Any], counts: Counter[str]) -> None:
    if found != (right := digest(counts.items())):
        raise Wrong(f"the table is {found} instead of {right}")


def last_values(bootstrap: str, topic: str) -> dict[tuple[int, bytes], bytes]:
    found: dict[tuple[int, bytes], bytes] = {}
    for message in whole(bootstrap, topic):
        at = message.partition() or 0, message.key() or b""
        value = message.value()
        if value is None:
            found.pop(at, None)
        else:
            found[at] = value
    return found


def whole(bootstrap: str, topic: str) -> Iterator[Message]:
    """Everything in a topic that is committed."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 2,
            "queued.min.messages": 300_000,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    ended = 0
    while ended < PARTITIONS:
        messages = consumer.consume(1000, 0) or consumer.consume(1, PATIENCE_S)
        if not messages:
            raise Wrong(f"{topic} could not be read to its end")
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                ended += 1
            else:
                raise KafkaException(error)
    consumer.close()
