"""Clients that need a coordinator: transactions, and groups. See `clients.py`.

A transaction is measured from its begin to the answer to its commit, with everything in
between that a stream processor sends: its records, and the offsets it has read up to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

PATIENCE_SECONDS = 60.0
LEFT_OUT = 50
# Between two transactions. Without, Kafka is still busy with the last one and says so, and
# librdkafka tries again after 100 ms: that is what would be measured.
PAUSE_SECONDS = 0.02
RECORDS = 10
VALUE = b"x" * 100


def transact(
    go: Callable[[], None],
    *,
    bootstrap: str,
    topic: str,
    partitions: int,
    transactions: int,
) -> dict[str, Any]:
    """Transactions of ten records over so many partitions, and of as many offsets."""
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-transact"})
    producer = transactional(bootstrap, f"bench-{topic}")
    go()
    took = []
    for number in range(LEFT_OUT + transactions):
        started = time.monotonic()
        producer.begin_transaction()
        for record in range(max(RECORDS, partitions)):
            producer.produce(topic, VALUE, partition=record % partitions)
        offsets = [TopicPartition(topic, index, number) for index in range(partitions)]
        producer.send_offsets_to_transaction(offsets, group.consumer_group_metadata())
        producer.commit_transaction()
        took.append((time.monotonic() - started) * 1000)
        time.sleep(PAUSE_SECONDS)
    group.close()
    return {"took": took[LEFT_OUT:]}


def fill_transactionally(
    go: Callable[[], None], *, bootstrap: str, topic: str, records: int, each: int
) -> dict[str, Any]:
    """So many records in transactions of `each`; every tenth of them is aborted."""
    producer = transactional(bootstrap, f"fill-{topic}")
    go()
    committed = number = 0
    while committed < records:
        number += 1
        producer.begin_transaction()
        for _ in range(each):
            producer.produce(topic, VALUE)
            producer.poll(0)
        if number % 10:
            producer.commit_transaction()
            committed += each
        else:
            producer.flush()  # or it would throw away what it has not sent yet
            producer.abort_transaction()
    return {"committed": committed, "aborted": number * each - committed}


def transactional(bootstrap: str, name: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "linger.ms": 0,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(PATIENCE_SECONDS)
    return producer


class Group:
    """Some members of a group, each polled by a thread of its own."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self._settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            # So often a member learns that others have come or gone.
            "heartbeat.interval.ms": 50,
            "partition.assignment.strategy": "range",
            "auto.offset.reset": "earliest",
        }
        self._topic = topic
        self._owned: list[set[int]] = []
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._changed = threading.Condition()

    def add(self) -> None:
        self._owned.append(set())
        thread = threading.Thread(target=self._live, args=(len(self._owned) - 1,))
        self._threads.append(thread)
        thread.start()

    def _live(self, number: int) -> None:
        consumer = Consumer(self._settings)
        consumer.subscribe(
            [self._topic],
            on_assign=lambda _, given: self._own(number, {one.partition for one in given}),
            on_revoke=lambda _, taken: self._own(number, set()),
        )
        while not self._stop.is_set():
            consumer.poll(0.02)
        consumer.close()

    def _own(self, number: int, partitions: set[int]) -> None:
        with self._changed:
            self._owned[number] = partitions
            self._changed.notify_all()

    def wait_until_shared(self, partitions: int) -> None:
        """Until each member has some, and all are given out."""

        def is_shared() -> bool:
            count = sum(len(owned) for owned in self._owned)
            return all(self._owned) and count == partitions

        with self._changed:
            if not self._changed.wait_for(is_shared, PATIENCE_SECONDS):
                raise TimeoutError(f"still not shared: {self._owned}")

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def join(
    go: Callable[[], None],
    *,
    bootstrap: str,
    topic: str,
    partitions: int,
    groups: int,
    members: int,
) -> dict[str, Any]:
    """Until so many groups of so many new members have their partitions."""
    made = [Group(bootstrap, f"{topic}-{number}", topic) for number in range(groups)]
    go()
    started = time.monotonic()
    for group in made:
        for _ in range(members):
            group.add()
    for group in made:
        group.wait_until_shared(partitions)
    seconds = time.monotonic() - started
    for group in made:
        group.close()
    return {"seconds": seconds}


def rebalance(
    go: Callable[[], None], *, bootstrap: str, topic: str, partitions: int
) -> dict[str, Any]:
    """From the coming of a third member to the moment when all three have their share."""
    group = Group(bootstrap, f"{topic}-group", topic)
    for _ in range(2):
        group.add()
    group.wait_until_shared(partitions)
    go()
    started = time.monotonic()
    group.add()
    group.wait_until_shared(partitions)
    seconds = time.monotonic() - started
    group.close()
    return {"seconds": seconds}


LOADS: dict[str, Callable[..., dict[str, Any]]] = {
    "transact": transact,
    "fill-transactionally": fill_transactionally,
    "join": join,
    "rebalance": rebalance,
}
