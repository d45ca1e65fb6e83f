"""The clients that put load on a broker, each in a process of its own.

    python -m benchmarks.clients consume '{"bootstrap": "127.0.0.1:9092", ...}'

A client first prepares all that is not to be measured: it connects, learns who leads,
gets its producer id, makes its values. Then it says `ready` and waits for a line on its
stdin; then it runs, and its last line is what it found, as JSON.

The settings are those that a fast Python program would choose; the two that matter:

    fetch.queue.backoff.ms   its default of a second lets a consumer that has read ahead
                             sit idle: a factor of eight
    consume(1000)            a call per thousand records, since a call costs more than
                             a record
"""

from __future__ import annotations

import json
import random
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from benchmarks.coordinated import LOADS as COORDINATED

PARTITIONS = 4
PATIENCE_SECONDS = 120.0
DIFFERENT_VALUES = 10_000

PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1_048_576,
    # Reports of success cost half as much as the record; failures are still reported.
    "delivery.report.only.error": True,
}
CONSUMER = {
    "group.id": "unused",
    "enable.auto.commit": False,
    "fetch.queue.backoff.ms": 2,
    "queued.min.messages": 300_000,
    "queued.max.messages.kbytes": 262_144,
}
# For a reader with a pace: what it reads ahead comes as fast as it can.
READS_LITTLE_AHEAD = {"queued.min.messages": 10_000, "queued.max.messages.kbytes": 16_384}


def produce(
    go: Callable[[], None],
    *,
    bootstrap: str,
    topic: str,
    records: int,
    size: int,
    compression: str,
) -> dict[str, Any]:
    """As many records as fast as they go, until the last is acknowledged."""
    settings = {"linger.ms": 5, "compression.type": compression}
    producer = Producer(
        {"bootstrap.servers": bootstrap, "on_delivery": raise_failure} | PRODUCER | settings
    )
    values = some_values(size)
    warm_up(producer, topic)

    go()
    started = time.monotonic()
    for number in range(records):
        value = values[number % DIFFERENT_VALUES]
        while True:
            try:
                producer.produce(topic, value)
                break
            except BufferError:
                producer.poll(0.01)
    flush(producer)
    return {"seconds": time.monotonic() - started}


def consume(
    go: Callable[[], None],
    *,
    bootstrap: str,
    topic: str,
    records: int,
    per_second: int | None = None,
    isolation_level: str = "read_committed",
) -> dict[str, Any]:
    """Everything in the topic, from its beginning; no faster than `per_second`."""
    settings = CONSUMER | {"isolation.level": isolation_level}
    if per_second is not None:
        settings |= READS_LITTLE_AHEAD
    consumer = Consumer({"bootstrap.servers": bootstrap} | settings)
    consumer.list_topics(topic, timeout=10)

    go()
    started = time.monotonic()
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    received = 0
    while received < records:
        # It waits for as many as it is asked for: never for more than will come.
        messages = consumer.consume(min(1000, records - received), PATIENCE_SECONDS)
        if not messages:
            raise TimeoutError(f"{topic}: only {received} of {records} records came")
        if error := messages[0].error():
            raise KafkaException(error)
        received += len(messages)
        if per_second is not None:
            time.sleep(max(0.0, started + received / per_second - time.monotonic()))
    ended = time.monotonic()
    consumer.close()
    return {"seconds": ended - started, "started": started, "ended": ended}


def pace(
    go: Callable[[], None],
    *,
    bootstrap: str,
    topic: str,
    per_second: int,
    records: int | None = None,
) -> dict[str, Any]:
    """One record at a time, evenly; each carries the moment it was sent at.

    Without `records` it goes on until a second line comes. It returns when each was
    sent and after how many milliseconds it was acknowledged.
    """
    acknowledged: list[tuple[float, float]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        raise_failure(error, message)
        waited = message.latency() or 0.0
        acknowledged.append((time.monotonic() - waited, waited * 1000))

    settings = {"linger.ms": 0, "delivery.report.only.error": False}
    producer = Producer({"bootstrap.servers": bootstrap} | PRODUCER | settings)
    warm_up(producer, topic)
    go()
    stop = threading.Event() if records is not None else at_the_next_line()

    started, number = time.monotonic(), 0
    while number != records and not stop.is_set():
        due = started + number / per_second
        while (left := due - time.monotonic()) > 0:
            producer.poll(left)  # returns early to bring an acknowledgement
        producer.produce(topic, b"%-100d" % time.monotonic_ns(), on_delivery=delivered)
        number += 1
    flush(producer)
    return {"acknowledged": acknowledged}


def receive(
    go: Callable[[], None], *, bootstrap: str, topic: str, records: int, leave_out: int
) -> dict[str, Any]:
    """What `pace` sends: how many milliseconds each record was under way.

    The first ones are left out: they pay for connections and compilers.
    """
    consumer = Consumer({"bootstrap.servers": bootstrap} | CONSUMER)
    consumer.list_topics(topic, timeout=10)
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
        for number in range(PARTITIONS)
    }
    consumer.assign([TopicPartition(topic, number, ends[number]) for number in ends])
    consumer.poll(0.5)

    go()
    under_way: list[float] = []
    while len(under_way) < records:
        # One, since waiting for more means waiting for all of them.
        messages = consumer.consume(1, PATIENCE_SECONDS)
        now = time.monotonic_ns()
        if not messages:
            raise TimeoutError(f"only {len(under_way)} of {records} records came")
        value = messages[0].value() or b""
        if value != WARM_UP:
            under_way.append((now - int(value)) / 1e6)
    consumer.close()
    return {"under_way": under_way[leave_out:]}


def follow(go: Callable[[], None], *, bootstrap: str, topic: str) -> dict[str, Any]:
    """What `pace` sends to partition 0, until a second line comes: when each was sent and
    after how many milliseconds it was here."""
    consumer = Consumer({"bootstrap.servers": bootstrap} | CONSUMER)
    consumer.list_topics(topic, timeout=10)
    consumer.assign([TopicPartition(topic, 0, 0)])
    consumer.poll(0.5)

    go()
    stop = at_the_next_line()
    received: list[tuple[float, float]] = []
    while not stop.is_set():
        # One, since waiting for more means waiting for all of them.
        for message in consumer.consume(1, 0.5):
            now, value = time.monotonic_ns(), message.value() or b""
            if value != WARM_UP:
                received.append((int(value) / 1e9, (now - int(value)) / 1e6))
    consumer.close()
    return {"received": received}


def at_the_next_line() -> threading.Event:
    """Set when the harness says so."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    return stop


WARM_UP = b"warm up"


def warm_up(producer: Producer, topic: str) -> None:
    """Connect and get the producer id: librdkafka may take half a second for it."""
    producer.produce(topic, WARM_UP)
    flush(producer)


def flush(producer: Producer) -> None:
    left = producer.flush(PATIENCE_SECONDS)
    if left:
        raise TimeoutError(f"{left} records were not acknowledged")


def raise_failure(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        raise KafkaException(error)


def some_values(size: int) -> list[bytes]:
    """Small JSON objects that compress as such things do: about to a half."""
    rng = random.Random(7)  # the same for every broker

    def value() -> bytes:
        start = b'{"user":"u%05d","item":"i%04d","price":%d.%02d,"note":"' % (
            rng.randrange(10_000),
            rng.randrange(1_000),
            rng.randrange(500),
            rng.randrange(100),
        )
        filler = rng.randbytes(size // 2).hex().encode()
        return start + filler[: size - len(start) - 2] + b'"}'

    return [value() for _ in range(DIFFERENT_VALUES)]


LOADS: dict[str, Callable[..., dict[str, Any]]] = {
    "produce": produce,
    "consume": consume,
    "pace": pace,
    "receive": receive,
    "follow": follow,
    **COORDINATED,
}


def main() -> None:
    load, settings = sys.argv[1:]

    def go() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    found = LOADS[load](go, **json.loads(settings))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found["client_cpu_seconds"] = usage.ru_utime + usage.ru_stime
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
