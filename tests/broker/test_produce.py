"""Produce: what is refused, and what a waiting client hears when things change."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.batches import CONTROL, TRANSACTIONAL, batch
from support.core import Client
from support.raw import only_partition, produce_request

from streamer.broker.core import Broker
from streamer.log.partition import Partition
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode

SEQUENCE: dict[str, Any] = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}


async def produce(client: Client, topic: str = "t", version: int = 9, **more: Any) -> Any:
    records = more.pop("records", batch([b"v"]))
    request = produce_request(topic, records, **more)
    return only_partition(await client.ask(ApiKey.PRODUCE, version, request))


def partition_of(broker: Broker, topic: str = "t") -> Partition:
    return broker.catalog.topics[topic].partitions[0]


@contextmanager
def slow_flushes(broker: Broker) -> Iterator[None]:
    """Nothing is flushed meanwhile."""
    flush, broker.flusher.flush = broker.flusher.flush, lambda partition: None  # type: ignore[method-assign]
    yield
    broker.flusher.flush = flush  # type: ignore[method-assign]


@pytest.mark.parametrize("acks", [-1, 1])
async def test_what_is_written_gets_its_offset(client: Client, acks: int) -> None:
    answers = [await produce(client, acks=acks) for _ in range(3)]

    assert [one.base_offset for one in answers] == [0, 1, 2]
    assert [one.log_append_time_ms for one in answers] == [-1] * 3
    assert [one.log_start_offset for one in answers] == [0] * 3


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"acks": 2}, ErrorCode.INVALID_REQUIRED_ACKS),
        ({"topic": "missing"}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"partition": 1}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"partition": -1}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"records": None}, ErrorCode.INVALID_RECORD),
        ({"records": b""}, ErrorCode.INVALID_RECORD),
        ({"records": batch([b"v"], crc=1)}, ErrorCode.CORRUPT_MESSAGE),
        ({"records": batch([b"v"], attributes=CONTROL)}, ErrorCode.INVALID_RECORD),
        (
            {"records": batch([b"v"], attributes=TRANSACTIONAL, **SEQUENCE)},
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
    ],
)
async def test_what_is_refused_leaves_no_trace(
    broker: Broker, client: Client, asked: dict[str, Any], code: ErrorCode
) -> None:
    refused = await produce(client, **asked)

    assert (refused.error_code, refused.base_offset) == (code, -1)
    assert refused.error_message
    assert partition_of(broker).end == 0
    assert partition_of(broker).last_stable == 0


async def test_topics_of_the_brokers_own_are_not_written_by_clients(
    broker: Broker, client: Client
) -> None:
    await broker.catalog.create("__consumer_offsets", 1, {})

    refused = await produce(client, "__consumer_offsets")

    assert refused.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


async def test_a_record_without_a_key_is_named_where_keys_are_needed(
    broker: Broker, client: Client
) -> None:
    await broker.catalog.create("compact", 1, {"cleanup.policy": "compact"})

    refused = await produce(client, "compact", records=batch([b"v"], key=None))

    assert refused.error_code == ErrorCode.INVALID_RECORD
    assert [one.batch_index for one in refused.record_errors] == [0]


async def test_an_offline_broker_writes_nothing(broker: Broker, client: Client) -> None:
    broker.go_offline("a test says so")

    refused = await produce(client)

    assert refused.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert "a test says so" in refused.error_message


async def test_who_waits_longer_than_the_timeout_is_told_so(
    broker: Broker, client: Client
) -> None:
    request = produce_request("t", batch([b"v"]))
    request.timeout_ms = 1

    with slow_flushes(broker):
        answer = await client.ask(ApiKey.PRODUCE, 9, request)

    assert only_partition(answer).error_code == ErrorCode.REQUEST_TIMED_OUT
    assert broker.watchers.watching == {}


async def test_a_repeated_batch_is_answered_when_the_first_one_is_flushed(
    broker: Broker,
) -> None:
    first, again = Client(broker), Client(broker)
    request = produce_request("t", batch([b"v"], **SEQUENCE))

    with slow_flushes(broker):
        first.send(ApiKey.PRODUCE, 9, request)
        again.send(ApiKey.PRODUCE, 9, request)
        await asyncio.sleep(0)
        assert not again.has_answer
    broker.flusher.flush(partition_of(broker))

    answers = [only_partition(await one.answer()) for one in (first, again)]
    assert [(one.error_code, one.base_offset) for one in answers] == [(0, 0), (0, 0)]
    assert partition_of(broker).end == 1


async def test_who_waits_for_a_flush_hears_of_a_failed_one(
    broker: Broker, client: Client
) -> None:
    with slow_flushes(broker):
        client.send(ApiKey.PRODUCE, 9, produce_request("t", batch([b"v"])))
        broker._flush_failed(partition_of(broker), OSError(5, "Input/output error"))

    answer = only_partition(await client.answer())
    assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert "Input/output error" in answer.error_message


async def test_who_waits_for_a_topic_that_is_deleted_is_told_so(
    broker: Broker, client: Client
) -> None:
    with slow_flushes(broker):
        client.send(ApiKey.PRODUCE, 9, produce_request("t", batch([b"v"])))
        for partition in await broker.catalog.delete(broker.catalog.topics["t"]):
            broker.watchers.moved(partition)

    answer = only_partition(await client.answer())
    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_deleting_a_topic_in_the_middle_of_its_flush_harms_nobody(
    broker: Broker, client: Client
) -> None:
    partition = partition_of(broker)
    partition.append(batch([b"v"]), now_ms=broker.clock.now_ms())
    flush = partition.begin_flush()
    assert flush is not None

    await broker.catalog.delete(broker.catalog.topics["t"])
    flush.run()  # the folder has another name by now
    partition.flushed(flush)

    await broker.catalog.create("t", 1, {})
    assert (await produce(client)).error_code == ErrorCode.NONE
