"""Groups and transactions with kafka-python: JoinGroup 7, transactions at version 3."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest
from conformance.conftest import MakeTopic
from kafka import (
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import ProducerFencedError
from support.clients import new_name

SECONDS = 15

Join = Callable[..., KafkaConsumer]


@pytest.fixture
def join(bootstrap: str, group: str) -> Iterator[Join]:
    """`join(topic)` gives one more member of this test's group."""
    with ExitStack() as at_the_end:

        def make(*topics: str, **config: object) -> KafkaConsumer:
            settings: dict[str, object] = {
                "bootstrap_servers": bootstrap,
                "group_id": group,
                "enable_auto_commit": False,
                "auto_offset_reset": "earliest",
                "heartbeat_interval_ms": 100,
            }
            consumer = KafkaConsumer(**(settings | config))
            at_the_end.callback(consumer.close)
            for topic in topics:
                # It would join with what it knows, and look again minutes later.
                assert consumer.partitions_for_topic(topic)
            if topics:
                consumer.subscribe(topics)
            return consumer

        yield make


@pytest.fixture(scope="module")
def kafka_admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


def send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for value in values:
        producer.send(topic, value=value, partition=0)
    producer.close(SECONDS)


def poll_until(condition: Callable[[], object], *consumers: KafkaConsumer) -> None:
    """Let these consumers take part until `condition` holds.

    Each in a thread of its own, since one waits in `poll` for what the others do.
    """
    done = threading.Event()

    def take_part(consumer: KafkaConsumer) -> None:
        # Before it has joined, `poll` may return at once, again and again.
        while not done.wait(0.01):
            consumer.poll(timeout_ms=50)

    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor(max(1, len(consumers))) as threads:
        running = [threads.submit(take_part, each) for each in consumers]
        try:
            while not condition():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            done.set()
    for each in running:
        each.result()


def take(consumer: KafkaConsumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    deadline = time.monotonic() + SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} records instead of {count}"
        polled = consumer.poll(timeout_ms=100, max_records=count - len(found))
        for records in polled.values():
            found.extend(record.value for record in records)
    return found


def shared(members: list[KafkaConsumer], sizes: list[int]) -> bool:
    """Whether they own all partitions, none twice, as many each as `sizes` says."""
    parts = [each.assignment() for each in members]
    return len(set().union(*parts)) == sum(sizes) and sorted(map(len, parts)) == sizes


@pytest.mark.parametrize("assignor", [RangePartitionAssignor, RoundRobinPartitionAssignor])
def test_partitions_are_shared_among_one_two_and_three_members(
    make_topic: MakeTopic, join: Join, assignor: type
) -> None:
    topic = make_topic(partitions=6)

    members: list[KafkaConsumer] = []
    for wanted in ([6], [3, 3], [2, 2, 2]):
        strategy = {"partition_assignment_strategy": [assignor]}
        members.append(join(topic, **strategy))
        poll_until(partial(shared, members, wanted), *members)


def test_who_leaves_is_replaced_at_once(make_topic: MakeTopic, join: Join) -> None:
    topic = make_topic(partitions=4)
    stays, leaves = join(topic), join(topic)
    poll_until(lambda: shared([stays, leaves], [2, 2]), stays, leaves)

    left = time.monotonic()
    leaves.close()
    poll_until(lambda: shared([stays], [4]), stays)
    assert time.monotonic() - left < 5, "a session of 45 s was not waited for"


def test_a_static_member_comes_back_to_what_it_had(
    make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    first, other = join(topic, group_instance_id="a"), join(topic, group_instance_id="b")
    poll_until(lambda: shared([first, other], [2, 2]), first, other)
    had, kept = first.assignment(), other.assignment()

    first.close()
    again = join(topic, group_instance_id="a")
    poll_until(lambda: again.assignment() == had, again, other)
    assert other.assignment() == kept


def test_the_next_consumer_goes_on_where_the_last_one_committed(
    bootstrap: str, topic: str, join: Join
) -> None:
    send(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = join(topic)
    assert take(consumer, 2) == [b"a", b"b"]
    partition = TopicPartition(topic, 0)
    consumer.commit({partition: OffsetAndMetadata(2, "by hand", -1)})
    found = consumer.committed(partition, metadata=True)
    assert (found.offset, found.metadata) == (2, "by hand")
    consumer.close()

    assert take(join(topic), 1) == [b"c"]


# Administration


@pytest.fixture
def left(bootstrap: str, topic: str, join: Join, group: str) -> str:
    """A group without members that has committed offset 2 of `topic`."""
    consumer = join()
    consumer.assign([TopicPartition(topic, 0)])
    consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(2, "", -1)})
    consumer.close()
    return group


def test_groups_are_listed_and_described(
    kafka_admin: KafkaAdminClient, topic: str, group: str, join: Join
) -> None:
    consumer = join(topic, client_id="worker")
    poll_until(consumer.assignment, consumer)

    assert group in {each["group_id"] for each in kafka_admin.list_groups()}
    described = kafka_admin.describe_groups([group])[group]
    assert (described["group_state"], described["protocol_data"]) == ("Stable", "range")
    (member,) = described["members"]
    assert member["client_id"] == "worker"


def test_offsets_are_listed_and_deleted(
    kafka_admin: KafkaAdminClient, topic: str, left: str
) -> None:
    partition = TopicPartition(topic, 0)
    found = kafka_admin.list_group_offsets({left: None})[left]
    assert {where: each.offset for where, each in found.items()} == {partition: 2}

    kafka_admin.delete_group_offsets(left, [partition])
    assert partition not in kafka_admin.list_group_offsets({left: None})[left]


def test_a_member_is_sent_away(
    kafka_admin: KafkaAdminClient, topic: str, group: str, join: Join
) -> None:
    consumer = join(topic, group_instance_id="one")
    poll_until(consumer.assignment, consumer)

    one = MemberToRemove(group_instance_id="one")
    kafka_admin.remove_group_members(group, [one])
    assert kafka_admin.describe_groups([group])[group]["members"] == []


def test_groups_are_deleted(kafka_admin: KafkaAdminClient, left: str) -> None:
    kafka_admin.delete_groups([left])

    assert left not in {each["group_id"] for each in kafka_admin.list_groups()}


# Transactions


def committed_values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.assign([TopicPartition(topic, 0)])
    try:
        return take(consumer, count)
    finally:
        consumer.close()


def transactional(bootstrap: str, name: str) -> KafkaProducer:
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
    producer.init_transactions()
    return producer


def test_what_is_committed_is_read_and_what_is_aborted_is_not(
    bootstrap: str, topic: str
) -> None:
    producer = transactional(bootstrap, new_name("txn"))
    for number in range(6):
        producer.begin_transaction()
        producer.send(topic, value=b"%d" % number, partition=0).get(SECONDS)
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close(SECONDS)

    assert committed_values(bootstrap, topic, 3) == [b"0", b"2", b"4"]


def test_who_starts_again_under_the_same_name_fences_the_first(
    bootstrap: str, topic: str
) -> None:
    name = new_name("txn")
    zombie = transactional(bootstrap, name)
    zombie.begin_transaction()
    zombie.send(topic, value=b"left open", partition=0).get(SECONDS)
    successor = transactional(bootstrap, name)
    successor.begin_transaction()
    successor.send(topic, value=b"of the second", partition=0)
    successor.commit_transaction()

    with pytest.raises(ProducerFencedError):
        zombie.commit_transaction()
    assert committed_values(bootstrap, topic, 1) == [b"of the second"]
    successor.close(SECONDS)
    zombie.close(SECONDS)


@pytest.mark.parametrize("commit", [True, False])
def test_offsets_count_with_the_records_or_not_at_all(
    bootstrap: str, topic: str, join: Join, commit: bool
) -> None:
    send(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = join(topic)
    take(consumer, 2)
    partition = TopicPartition(topic, 0)
    producer = transactional(bootstrap, new_name("txn"))
    producer.begin_transaction()
    offsets = {partition: OffsetAndMetadata(2, "", -1)}
    producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
    producer.close(SECONDS)

    wanted = 2 if commit else None
    poll_until(lambda: consumer.committed(partition) == wanted)
