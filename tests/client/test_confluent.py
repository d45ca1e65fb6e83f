"""The client on librdkafka: our settings, and what its callers may rely on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.clients import new_name

from streamer.client.confluent import (
    SETTINGS,
    ConfluentAdmin,
    ConfluentConsumer,
    ConfluentProducer,
    settings_for,
)
from streamer.client.interface import (
    Admin,
    BrokerUnavailable,
    Consumer,
    Message,
    NoSuchTopic,
    Producer,
    TopicPartition,
)


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
    assert consumer.ended() == frozenset()
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
    assert consumer.ended() == {TopicPartition(topic, 0), TopicPartition(topic, 1)}

    consumer.assign({TopicPartition(topic, 1): 0})
    assert consumer.ended() == frozenset()
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
