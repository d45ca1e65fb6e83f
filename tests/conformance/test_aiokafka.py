"""aiokafka, the asyncio client: the oldest versions that any client of today speaks."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError
from conformance.conftest import MakeTopic
from support.clients import new_name

SECONDS = 15


async def send(
    bootstrap: str, topic: str, values: list[bytes], **config: object
) -> list[int]:
    """Produce the values to partition 0; the offsets they got."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **config) as producer:
        futures = [await producer.send(topic, value, partition=0) for value in values]
        return [report.offset for report in await asyncio.gather(*futures)]


async def values_of(bootstrap: str, topic: str, count: int, start: int = 0) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, start)
        async with asyncio.timeout(SECONDS):
            return [(await consumer.getone()).value for _ in range(count)]


@pytest.mark.parametrize("idempotent", [False, True])
async def test_what_it_sends_it_reads(bootstrap: str, topic: str, idempotent: bool) -> None:
    values = [b"%d" % number for number in range(300)]

    offsets = await send(bootstrap, topic, values, enable_idempotence=idempotent)
    assert offsets == list(range(300))
    assert await values_of(bootstrap, topic, 300) == values
    assert await values_of(bootstrap, topic, 3, start=297) == values[297:]


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_every_level_of_acks_is_served(
    bootstrap: str, topic: str, acks: int | str
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks=acks) as producer:
        for number in range(20):
            await producer.send(topic, b"%d" % number, partition=0)
        await producer.flush()

    values = await values_of(bootstrap, topic, 20)
    assert values == [b"%d" % number for number in range(20)]


async def test_compressed_batches_pass(bootstrap: str, topic: str) -> None:
    values = [b"%d " % number * 50 for number in range(200)]

    await send(bootstrap, topic, values, compression_type="gzip", linger_ms=20)
    assert await values_of(bootstrap, topic, 200) == values


async def test_a_record_too_large_is_refused(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(config={"max.message.bytes": "1000"})

    with pytest.raises(MessageSizeTooLargeError):
        await send(bootstrap, topic, [b"x" * 2000])


async def test_offsets_by_time_and_the_ends_of_a_partition(
    bootstrap: str, topic: str
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for step in range(10):
            stamp = 1_700_000_000_000 + step * 10
            await producer.send_and_wait(topic, b"x", partition=0, timestamp_ms=stamp)

    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        found = await consumer.offsets_for_times({partition: 1_700_000_000_035})
        assert (found[partition].offset, found[partition].timestamp) == (
            4,
            1_700_000_000_040,
        )
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        assert await consumer.end_offsets([partition]) == {partition: 10}


async def test_topics_are_made_and_deleted(bootstrap: str) -> None:
    topic = new_name()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
        (described,) = await admin.describe_topics([topic])
        assert len(described["partitions"]) == 2
        await admin.delete_topics([topic])
    finally:
        await admin.close()
