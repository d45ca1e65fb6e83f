"""Who sends records at a pace, and who receives what comes of them.

    python -m benchmarks.workloads.ends send '{"per_second": 1000, ...}'

Each record carries the moment it was sent at; the moment it is received at is of the
same clock. Each says `ready`, and the sender waits for a line then.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.workloads.meter import say
from benchmarks.workloads.records import (
    PARTITIONS,
    PRODUCER,
    flush,
    user_name,
    user_of,
    value,
)

PATIENCE_S = 60.0


def send(task: dict[str, Any]) -> None:
    settings = PRODUCER | {"bootstrap.servers": task["bootstrap"], "linger.ms": 0}
    producer = Producer(settings)
    producer.list_topics(task["topic"], timeout=PATIENCE_S)
    say(ready=True)
    sys.stdin.readline()
    started = time.monotonic()
    for number in range(task["records"]):
        due = started + number / task["per_second"]
        # `poll` takes milliseconds: less than one is none, and would keep a core busy.
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        producer.poll(0)
        user = user_name(user_of(number))
        record = value(number, user, time.monotonic_ns())
        producer.produce(task["topic"], record, user.encode())
    flush(producer)
    say(done=True)


def receive(task: dict[str, Any]) -> None:
    """How many milliseconds each was under way; the first ones pay for connections."""
    consumer = Consumer(
        {
            "bootstrap.servers": task["bootstrap"],
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
            "isolation.level": "read_committed",
        }
    )
    partitions = [TopicPartition(task["topic"], number, 0) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.poll(0.5)
    say(ready=True)
    sent: list[int] = []
    received: list[int] = []
    while len(sent) < task["records"]:
        messages = consumer.consume(1, PATIENCE_S)
        now = time.monotonic_ns()
        if not messages:
            raise TimeoutError(f"only {len(sent)} of {task['records']} records came")
        if error := messages[0].error():
            raise KafkaException(error)
        sent.append(orjson.loads(messages[0].value() or b"")["n"])
        received.append(now)
    consumer.close()
    under_way = [(at - since) / 1e6 for since, at in zip(sent, received, strict=True)]
    say(under_way=under_way[task["leave_out"] :], different=len(set(sent)))


if __name__ == "__main__":
    {"send": send, "receive": receive}[sys.argv[1]](json.loads(sys.argv[2]))
