"""The input of all workloads, and what must come of it.

JSON of 100 bytes, keyed by user, of 10,000 users in no order. The same for everybody: the
number of a record decides all that is in it. Moments are event time, so many records to a
second of it, just before now.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

PARTITIONS = 4
USERS = 10_000
BYTES = 100
PER_SECOND_OF_EVENT_TIME = 20_000
WINDOW_MS = 10_000
PATIENCE_S = 120.0

COMPACTED = {"cleanup.policy": "compact"}
FILLER = "0123456789abcdef" * 6


def user_of(number: int) -> int:
    return (number * 2_654_435_761 % 2**32 >> 5) % USERS


def value(number: int, user: str, n: int | None = None) -> bytes:
    """The JSON of a record; `n` may be something else than its number."""
    start = (
        f'{{"user":"{user}","item":"item-{number % 997}","amount":{number % 100},'
        f'"n":{number if n is None else n},"note":"'
    )
    return f'{start}{FILLER[: max(0, BYTES - len(start) - 2)]}"}}'.encode()


def user_name(number: int) -> str:
    return f"u{number:05d}"


@dataclass(slots=True)
class Input:
    """A topic that was filled, and what a count of it must find."""

    topic: str
    records: int
    by_user: Counter[str] = field(default_factory=Counter)
    by_window: Counter[tuple[str, int]] = field(default_factory=Counter)


PRODUCER = {
    "linger.ms": 50,
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1_048_576,
    "delivery.report.only.error": True,
}


def make_topic(bootstrap: str, name: str, config: Mapping[str, str] | None = None) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = NewTopic(name, PARTITIONS, replication_factor=1, config=dict(config or {}))
    admin.create_topics([wanted])[name].result(PATIENCE_S)


def fill(bootstrap: str, topic: str, records: int) -> Input:
    """Make the topic, and all its records."""
    make_topic(bootstrap, topic)
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    found = write(producer, topic, records)
    flush(producer)
    return found


def write(producer: Producer, topic: str, records: int) -> Input:
    found = Input(topic, records)
    span_ms = records * 1000 // PER_SECOND_OF_EVENT_TIME
    # On the beginning of a window, so that all runs have as many.
    began_ms = (int(time.time() * 1000) - span_ms) // WINDOW_MS * WINDOW_MS
    for number in range(records):
        user = user_name(user_of(number))
        moment = began_ms + number * 1000 // PER_SECOND_OF_EVENT_TIME
        found.by_user[user] += 1
        found.by_window[user, moment // WINDOW_MS] += 1
        produce(producer, topic, value(number, user), user.encode(), timestamp=moment)
    return found


class Hidden:
    """Records that nobody sees who reads what is committed, until they are shown.

    So several workers can share out partitions first, and then begin together.
    """

    def __init__(self, bootstrap: str, topic: str, records: int) -> None:
        make_topic(bootstrap, topic)
        settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "transactional.id": topic,
            "transaction.timeout.ms": 300_000,
        }
        self._producer = Producer(PRODUCER | settings)
        self._producer.init_transactions(PATIENCE_S)
        self._producer.begin_transaction()
        self.input = write(self._producer, topic, records)
        self._producer.flush(PATIENCE_S)

    def show(self) -> None:
        self._producer.commit_transaction(PATIENCE_S)


def fill_changelog(
    bootstrap: str, topic: str, users: int, records: int, *, json_keys: bool
) -> Counter[str]:
    """The changelog of a count in which each user was counted `records / users` times."""
    make_topic(bootstrap, topic, COMPACTED)
    producer = Producer(PRODUCER | {"bootstrap.servers": bootstrap})
    names = [user_name(number) for number in range(users)]
    keys = [json.dumps(name).encode() if json_keys else name.encode() for name in names]
    places = [partition_of(name.encode()) for name in names]
    found: Counter[str] = Counter()
    for number in range(records):
        user, count = number % users, number // users + 1
        found[names[user]] = count
        produce(producer, topic, b"%d" % count, keys[user], partition=places[user])
    flush(producer)
    return found


def produce(producer: Producer, topic: str, value: bytes, key: bytes, **more: Any) -> None:
    while True:
        try:
            return producer.produce(topic, value, key, **more)
        except BufferError:
            producer.poll(0.05)


def flush(producer: Producer) -> None:
    if left := producer.flush(PATIENCE_S):
        raise TimeoutError(f"{left} records were not acknowledged")


def partition_of(key: bytes) -> int:
    """Where Kafka's clients put a key: murmur2."""
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    found = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for start in range(0, whole, 4):
        four = int.from_bytes(key[start : start + 4], "little") * factor & mask
        four = (four ^ four >> 24) * factor & mask
        found = found * factor & mask ^ four
    if rest := key[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * factor & mask
    found = (found ^ found >> 13) * factor & mask
    found ^= found >> 15
    return (found & 0x7FFFFFFF) % PARTITIONS
