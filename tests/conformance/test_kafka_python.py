"""kafka-python, a client written in Python alone, against the same broker.

It speaks other versions than librdkafka does (Produce 9, Metadata 12, InitProducerId
4) and looks at each answer with code of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.conftest import MakeTopic
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import MessageSizeTooLargeError, TopicAlreadyExistsError
from support.clients import new_name

SECONDS = 15


@pytest.fixture(scope="module")
def kafka_admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


def send(bootstrap: str, topic: str, values: list[bytes], **config: object) -> list[int]:
    """Produce the values to partition 0; the offsets they got."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, **config)
    try:
        futures = [producer.send(topic, value=value, partition=0) for value in values]
        producer.flush(SECONDS)
        return [future.get(SECONDS).offset for future in futures]
    finally:
        producer.close(SECONDS)


def values_of(bootstrap: str, topic: str, count: int, start: int = 0) -> list[bytes]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        consumer_timeout_ms=SECONDS * 1000,
    )
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, start)
    try:
        return [next(consumer).value for _ in range(count)]
    finally:
        consumer.close()


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_it_sends_it_reads(bootstrap: str, topic: str, idempotent: bool) -> None:
    values = [b"%d" % number for number in range(300)]

    offsets = send(bootstrap, topic, values, acks="all", enable_idempotence=idempotent)
    assert offsets == list(range(300))
    assert values_of(bootstrap, topic, 300) == values
    assert values_of(bootstrap, topic, 3, start=297) == values[297:]


def test_compressed_batches_pass(bootstrap: str, topic: str) -> None:
    values = [b"%d " % number * 50 for number in range(200)]

    send(bootstrap, topic, values, compression_type="gzip", linger_ms=20)
    assert values_of(bootstrap, topic, 200) == values


def test_a_record_too_large_is_refused(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(config={"max.message.bytes": "1000"})

    with pytest.raises(MessageSizeTooLargeError):
        send(bootstrap, topic, [b"x" * 2000])


def test_offsets_by_time_and_the_ends_of_a_partition(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for step in range(10):
        producer.send(topic, b"x", partition=0, timestamp_ms=1_700_000_000_000 + step * 10)
    producer.close(SECONDS)

    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partition = TopicPartition(topic, 0)
    found = consumer.offsets_for_times({partition: 1_700_000_000_035})
    assert (found[partition].offset, found[partition].timestamp) == (4, 1_700_000_000_040)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 10}
    consumer.close()


def test_topics_are_made_described_and_deleted(kafka_admin: KafkaAdminClient) -> None:
    topic = new_name()
    wanted = NewTopic(
        topic,
        num_partitions=2,
        replication_factor=1,
        topic_configs={"retention.ms": "60000"},
    )
    kafka_admin.create_topics([wanted])
    with pytest.raises(TopicAlreadyExistsError):
        kafka_admin.create_topics([wanted])

    (described,) = kafka_admin.describe_topics([topic])
    assert len(described["partitions"]) == 2
    kafka_admin.delete_topics([topic])
    assert topic not in kafka_admin.list_topics()


def test_the_cluster_is_described(kafka_admin: KafkaAdminClient) -> None:
    cluster = kafka_admin.describe_cluster()

    assert len(cluster["brokers"]) == 1


def test_settings_are_described(kafka_admin: KafkaAdminClient, topic: str) -> None:
    asked = ConfigResource(ConfigResourceType.TOPIC, topic)

    found = kafka_admin.describe_configs([asked], config_filter="all")
    assert found["topic"][topic]["retention.ms"]["value"] == "604800000"
