"""The client on librdkafka: our settings, and what its callers may rely on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from support.clients import new_name, wait_until

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.consumer import ConfluentConsumer
from streamer.client.confluent.producer import (
    ConfluentProducer,
    ConfluentTransactionalProducer,
)
from streamer.client.interface import (
    Admin,
    BrokerUnavailable,
    ClientError,
    Consumer,
    GroupNotEmpty,
    Message,
    NoSuchGroup,
    NoSuchTopic,
    NotAMember,
    Position,
    Producer,
    TopicPartition,
    TransactionalProducer,
)
from streamer.client.librdkafka import SETTINGS, settings_for


@pytest.fixture
def admin(bootstrap: str) -> ConfluentAdmin:
    return ConfluentAdmin(bootstrap)


@pytest.fixture
def topic(admin: ConfluentAdmin) -> Iterator[str]:
    name = new_name("client")
    admin.create_topic(name, partitions=2, replication=-1, configs={})
    yield name
    admin.delete_topics([name])


def read_to_the_end(consumer: Consumer, topic: str, partitions: int = 2) -> list[Message]:
    consumer.assign({TopicPartition(topic, index): 0 for index in range(partitions)})
    found: list[Message] = []
    until = time.monotonic() + 10
    while len(consumer.ended()) < partitions and time.monotonic() < until:
        found += consumer.consume(100, 0.5)
    return found


def test_the_classes_are_what_the_interface_asks_for(bootstrap: str) -> None:
    admin: Admin = ConfluentAdmin(bootstrap)
    producer: Producer = ConfluentProducer(bootstrap)
    consumer: Consumer = ConfluentConsumer(bootstrap)

    assert admin.cluster().brokers
    assert len(producer) == 0
    assert not consumer.ended()
    consumer.close()


def test_every_producer_places_keys_as_java_does() -> None:
    assert settings_for("producer", "b:1", {})["partitioner"] == "murmur2_random"


@pytest.mark.parametrize("acks", ["0", "1", 0, 1])
def test_idempotence_is_given_up_with_fewer_acknowledgements(acks: str | int) -> None:
    assert settings_for("producer", "b:1", {})["enable.idempotence"] is True
    assert settings_for("producer", "b:1", {"acks": acks})["enable.idempotence"] is False


def test_the_callers_settings_win_over_ours() -> None:
    assert (
        settings_for("producer", "b:1", {"compression.type": "none"})["compression.type"]
        == "none"
    )
    assert SETTINGS["producer"]["compression.type"] == "lz4"


def test_what_was_produced_is_read_with_all_its_parts(bootstrap: str, topic: str) -> None:
    producer = ConfluentProducer(bootstrap)
    producer.produce(topic, b"fast", b"k", 0)
    producer.send(topic, None, key=b"", partition=1, headers=[("h", b"1"), ("h", None)])
    assert producer.flush(10) == 0

    consumer = ConfluentConsumer(bootstrap)
    fast, tombstone = sorted(
        read_to_the_end(consumer, topic), key=lambda message: message.partition()
    )
    consumer.close()

    assert (fast.topic(), fast.offset(), fast.key(), fast.value()) == (
        topic,
        0,
        b"k",
        b"fast",
    )
    assert (tombstone.key(), tombstone.value()) == (b"", None)
    assert tombstone.headers() == [("h", b"1"), ("h", None)]
    assert tombstone.timestamp()[0] == 1


def test_a_consumer_returns_what_is_there_without_waiting_for_more(
    bootstrap: str, topic: str
) -> None:
    producer = ConfluentProducer(bootstrap, {"linger.ms": 0})
    consumer = ConfluentConsumer(bootstrap)
    consumer.assign({TopicPartition(topic, 0): 0})
    producer.send(topic, b"v", partition=0)
    producer.flush(10)

    started = time.monotonic()
    found = consumer.consume(1000, 10)
    took = time.monotonic() - started
    consumer.close()

    assert [message.value() for message in found] == [b"v"]
    assert took < 5


def test_an_end_is_noted_until_partitions_are_assigned_again(
    bootstrap: str, topic: str
) -> None:
    consumer = ConfluentConsumer(bootstrap)

    read_to_the_end(consumer, topic)
    assert consumer.ended() == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}

    consumer.assign({TopicPartition(topic, 1): 0})
    assert not consumer.ended()
    consumer.close()


def test_offsets_are_told_by_time(
    bootstrap: str, topic: str, admin: ConfluentAdmin
) -> None:
    where = TopicPartition(topic, 0)
    producer = ConfluentProducer(bootstrap)
    for _ in range(3):
        producer.send(topic, b"v", partition=0)
    producer.flush(10)

    assert admin.first_offsets([where]) == {where: 0}
    assert admin.end_offsets([where]) == {where: 3}
    assert admin.offsets_at([where], 0) == {where: 0}
    assert admin.offsets_at([where], 2**42) == {where: 3}  # later than all: the end


def test_who_asks_before_a_partition_has_a_leader_is_answered_a_moment_later(
    admin: ConfluentAdmin, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = admin._admin.list_offsets

    def too_soon(asked: Iterable[Any], **options: Any) -> dict[Any, Future[Any]]:
        monkeypatch.setattr(admin._admin, "list_offsets", ask)
        failed: Future[Any] = Future()
        failed.set_exception(KafkaException(KafkaError(KafkaError._NOENT)))
        return dict.fromkeys(asked, failed)

    monkeypatch.setattr(admin._admin, "list_offsets", too_soon)

    assert admin.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 0}


def test_a_failure_names_its_record(bootstrap: str, topic: str) -> None:
    producer = ConfluentProducer(bootstrap)

    producer.send(topic, b"v", key=b"k", partition=7)
    producer.flush(10)

    (failure,) = producer.failures
    assert producer.failed == 1
    assert (failure.topic, failure.partition, failure.key) == (topic, 7, b"k")
    assert "UNKNOWN_PARTITION" in failure.problem


def test_asking_for_a_topic_does_not_create_it(admin: ConfluentAdmin) -> None:
    name = new_name("client")

    with pytest.raises(NoSuchTopic):
        admin.topic(name)

    assert name not in {topic.name for topic in admin.cluster().topics}


def test_a_broker_that_is_not_there_is_found_out_at_once() -> None:
    with pytest.raises(BrokerUnavailable, match=r"No broker at 127\.0\.0\.1:1: .+refused"):
        ConfluentAdmin("127.0.0.1:1")


@pytest.fixture
def group(admin: ConfluentAdmin) -> Iterator[str]:
    name = new_name("group")
    yield name
    with contextlib.suppress(NoSuchGroup):
        admin.delete_group(name)


def produced(bootstrap: str, topic: str, count: int) -> None:
    producer = ConfluentProducer(bootstrap)
    for number in range(count):
        producer.send(topic, b"%d" % number, partition=0)
    assert producer.flush(10) == 0


def joined(bootstrap: str, group: str, topic: str) -> ConfluentConsumer:
    """A member that knows its share."""
    consumer = ConfluentConsumer(bootstrap, {"group.id": group, "client.id": "me"})
    consumer.subscribe([topic])
    assert consumer.assigned() is None
    wait_until(lambda: consumer.consume(1, 0.1) or consumer.assigned(), "no share")
    return consumer


def test_a_member_commits_and_the_group_remembers(
    bootstrap: str, topic: str, admin: ConfluentAdmin, group: str
) -> None:
    produced(bootstrap, topic, 3)

    member = joined(bootstrap, group, topic)
    member.commit({})
    member.commit({TopicPartition(topic, 0): 2})
    (described,) = admin.group(group).members
    member.close()

    assert described.client_id == "me"
    assert described.host == "127.0.0.1"
    assert described.partitions == (TopicPartition(topic, 0), TopicPartition(topic, 1))
    assert admin.committed(group) == {TopicPartition(topic, 0): 2}
    assert admin.group(group).state == "Empty"
    assert group in {each.name for each in admin.groups()}


def test_a_partition_that_was_taken_away_is_not_ended(
    bootstrap: str, topic: str, group: str
) -> None:
    one = joined(bootstrap, group, topic)
    wait_until(lambda: one.consume(1, 0.1) or len(one.ended()) == 2, "no ends")

    other = ConfluentConsumer(bootstrap, {"group.id": group})
    other.subscribe([topic])

    def shared() -> bool:
        one.consume(1, 0.05)
        other.consume(1, 0.05)
        return len(one.assigned() or ()) == len(other.assigned() or ()) == 1

    wait_until(shared, "they do not share")
    assert one.ended().keys() <= (one.assigned() or set())
    one.close()
    other.close()


def test_offsets_are_set_while_nobody_is_in_the_group(
    bootstrap: str, topic: str, admin: ConfluentAdmin, group: str
) -> None:
    where = TopicPartition(topic, 1)
    admin.set_committed(group, {where: 0})
    assert admin.committed(group) == {where: 0}

    member = joined(bootstrap, group, topic)
    with pytest.raises(GroupNotEmpty):
        admin.set_committed(group, {where: 0})
    with pytest.raises(GroupNotEmpty):
        admin.delete_group(group)
    member.close()


def test_an_unknown_group_has_no_offsets(admin: ConfluentAdmin) -> None:
    name = new_name("group")

    assert admin.committed(name) == {}
    with pytest.raises(NoSuchGroup):
        admin.group(name)
    with pytest.raises(NoSuchGroup):
        admin.delete_group(name)


def test_a_member_that_was_forgotten_may_not_commit(
    bootstrap: str, topic: str, group: str
) -> None:
    consumer = ConfluentConsumer(bootstrap, {"group.id": group})
    member = joined(bootstrap, group, topic)

    # Not in the group, though others are.
    with pytest.raises(NotAMember):
        consumer.commit({TopicPartition(topic, 0): 1})
    member.close()
    consumer.close()


def test_a_transaction_is_seen_when_it_is_committed_and_with_its_offsets(
    bootstrap: str, topic: str, admin: ConfluentAdmin, group: str
) -> None:
    where, read = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = ConfluentConsumer(bootstrap, {"group.id": group})
    producer: TransactionalProducer = ConfluentTransactionalProducer(
        bootstrap, new_name("txn")
    )

    producer.begin()
    producer.send(topic, b"v", partition=0)
    producer.send_offsets({read: Position(7)}, consumer.membership())
    producer.flush(10)
    during = admin.end_offsets([where]), admin.end_offsets([where], committed=True)
    producer.commit()

    assert during == ({where: 1}, {where: 0})
    wait_until(
        lambda: admin.end_offsets([where], committed=True) == {where: 2}, "no marker"
    )
    assert admin.committed(group) == {read: 7}
    (message,) = read_to_the_end(consumer, topic)
    assert message.value() == b"v"
    assert consumer.ended()[where] == 2
    consumer.close()


def test_a_transaction_that_is_aborted_is_never_seen(
    bootstrap: str, topic: str, admin: ConfluentAdmin, group: str
) -> None:
    consumer = ConfluentConsumer(bootstrap, {"group.id": group})
    producer = ConfluentTransactionalProducer(bootstrap, new_name("txn"))

    producer.begin()
    producer.send(topic, b"v", partition=0)
    producer.send_offsets({TopicPartition(topic, 0): Position(1)}, consumer.membership())
    producer.flush(10)
    producer.abort()

    assert read_to_the_end(consumer, topic) == []
    assert admin.committed(group) == {}
    consumer.close()


def test_who_takes_a_transactional_id_shuts_the_other_out(
    bootstrap: str, topic: str
) -> None:
    name = new_name("txn")
    first = ConfluentTransactionalProducer(bootstrap, name)
    first.begin()
    first.send(topic, b"v", partition=0)
    ConfluentTransactionalProducer(bootstrap, name)

    with pytest.raises(ClientError, match="Committing a transaction of"):
        first.commit()
