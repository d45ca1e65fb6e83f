"""Producing, reading and administering through confluent-kafka, in one line each.

Tests speak of records, offsets and members; the waiting is here. Nothing sleeps: a
delivery report, the end of a partition or a deadline ends every wait.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

DEADLINE_SECONDS = 15.0

_numbers = itertools.count(1)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What to produce; `None` is a tombstone, `b""` an empty value."""

    value: bytes | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = field(default=())
    timestamp: int = 0  # 0: the client takes the clock's
    partition: int = 0


def new_name(what: str = "topic") -> str:
    """A name that no other test, and no other run on this broker, has used."""
    return f"{what}-{os.getpid()}-{next(_numbers)}"


def create_topic(
    admin: AdminClient,
    *,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
    name: str | None = None,
) -> str:
    """Create a topic and wait until clients see it whole."""
    name = name or new_name()
    topic = NewTopic(name, num_partitions=partitions, config=dict(config or {}))
    result(admin.create_topics([topic])[name])
    wait_until(lambda: leaders(admin, name) == partitions, f"{name} has no leaders")
    return name


def leaders(admin: AdminClient, topic: str) -> int:
    """How many partitions of `topic` can be written to just now."""
    found = admin.list_topics(topic, timeout=DEADLINE_SECONDS).topics[topic]
    return sum(partition.leader >= 0 for partition in found.partitions.values())


def result(future: Future[_T]) -> _T:
    return future.result(DEADLINE_SECONDS)


def code_of(future: Future[Any]) -> int:
    """The error code a call ended with; 0 when it went well."""
    try:
        result(future)
    except KafkaException as error:
        return error_code(error)
    return 0


def error_code(error: KafkaException) -> int:
    code = error.args[0].code()
    assert isinstance(code, int)
    return code


def produce(
    bootstrap: str, topic: str, records: Iterable[Sent | bytes], **config: object
) -> list[Message]:
    """Send all and return the delivery reports in the order of sending."""
    reports: list[tuple[int, Message]] = []
    # One client each: tests differ in acks, compression, idempotence.
    settings = {"bootstrap.servers": bootstrap, "linger.ms": 5}
    producer = Producer(settings | {k.replace("_", "."): v for k, v in config.items()})
    for number, record in enumerate(records):
        sent = record if isinstance(record, Sent) else Sent(value=record)

        def delivered(
            error: KafkaError | None, message: Message, number: int = number
        ) -> None:
            if error is not None:
                raise KafkaException(error)
            reports.append((number, message))

        producer.produce(
            topic,
            value=sent.value,
            key=sent.key,
            headers=list(sent.headers),
            timestamp=sent.timestamp,
            partition=sent.partition,
            on_delivery=delivered,
        )
    left = producer.flush(DEADLINE_SECONDS)
    assert left == 0, f"{left} records of {topic} were never acknowledged"
    return [message for _, message in sorted(reports, key=lambda report: report[0])]


def assigned(
    bootstrap: str,
    topic: str,
    *,
    partitions: Sequence[int] = (0,),
    offset: int = OFFSET_BEGINNING,
    **config: object,
) -> Consumer:
    """A consumer of these partitions, without any group."""
    settings: dict[str, object] = {
        "bootstrap.servers": bootstrap,
        "group.id": "unused",  # the client demands a name even when it joins nothing
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 10,  # the end is reported when a wait for more is over
    }
    consumer = Consumer(settings | {k.replace("_", "."): v for k, v in config.items()})
    # Without a known leader at this moment, librdkafka looks again after 500 ms only.
    consumer.list_topics(topic, timeout=DEADLINE_SECONDS)
    consumer.assign([TopicPartition(topic, number, offset) for number in partitions])
    return consumer


def read(
    bootstrap: str,
    topic: str,
    *,
    partitions: Sequence[int] = (0,),
    offset: int = OFFSET_BEGINNING,
    **config: object,
) -> list[Message]:
    """Everything from `offset` to the end of these partitions."""
    consumer = assigned(bootstrap, topic, partitions=partitions, offset=offset, **config)
    try:
        return read_to_the_end(consumer, len(partitions))
    finally:
        consumer.close()


def read_to_the_end(consumer: Consumer, partitions: int = 1) -> list[Message]:
    """Poll until each of the partitions has reported its end."""
    found: list[Message] = []
    ended: set[int | None] = set()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(ended) < partitions:
        message = consumer.poll(max(0.0, deadline - time.monotonic()))
        assert message is not None, f"no end after {len(found)} records"
        error = message.error()
        if error is None:
            found.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
        else:
            raise KafkaException(error)
    return found


def now_ms() -> int:
    """The clock that the broker's timestamps are compared with."""
    return time.time_ns() // 1_000_000


def wait_until(condition: Any, problem: str) -> None:
    """Ask again and again, since a cluster spreads its news in its own time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.01)


def member(
    bootstrap: str,
    group: str,
    *topics: str,
    watch: Mapping[str, Callable[..., None]] | None = None,
    **config: object,
) -> Consumer:
    """A consumer that has asked to join `group`; `poll_until` lets it take part."""
    settings: dict[str, object] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 10,
        "heartbeat.interval.ms": 100,  # a heartbeat is how a member hears of a rebalance
    }
    consumer = Consumer(settings | {k.replace("_", "."): v for k, v in config.items()})
    consumer.subscribe(list(topics), **(watch or {}))
    return consumer


def poll_until(
    condition: Callable[[], Any], *consumers: Consumer, problem: str = "it never came to be"
) -> list[Message]:
    """Let these consumers take part until `condition` holds; the records they got."""
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        for consumer in consumers:
            message = consumer.poll(0.01)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            found.append(message)
    return found


def take(consumer: Consumer, count: int) -> list[Message]:
    """The next `count` records."""
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(found) < count:
        message = consumer.poll(max(0.0, deadline - time.monotonic()))
        assert message is not None, f"{len(found)} records instead of {count}"
        error = message.error()
        if error is not None:
            raise KafkaException(error)
        found.append(message)
    return found


def owned(consumer: Consumer) -> set[int]:
    """The partitions assigned to it; for tests with one topic."""
    return {each.partition for each in consumer.assignment()}


def committed(bootstrap: str, group: str, topic: str, partition: int = 0) -> TopicPartition:
    """What the group has committed, as somebody outside it sees."""
    asked = TopicPartition(topic, partition)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        (found,) = consumer.committed([asked], timeout=DEADLINE_SECONDS)
    finally:
        consumer.close()
    return found


def transactional(
    bootstrap: str, name: str | None = None, *, timeout_ms: int = 60_000
) -> Producer:
    """A producer whose transactions go by `name`, ready to begin one."""
    settings = {
        "bootstrap.servers": bootstrap,
        "transactional.id": name or new_name("txn"),
        "transaction.timeout.ms": timeout_ms,
        "linger.ms": 0,
    }
    producer = Producer(settings)
    producer.init_transactions(DEADLINE_SECONDS)
    return producer


def values(messages: Iterable[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]
