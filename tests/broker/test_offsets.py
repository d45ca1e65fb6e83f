"""Offsets and their ends, deleting records, producer ids: each rule and its code."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from support.batches import batch
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.raw import only_partition

from streamer.broker.core import Broker
from streamer.log.checkpoints import read_offsets
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DeleteRecordsRequest,
    InitProducerIdRequest,
    ListOffsetsRequest,
    OffsetForLeaderEpochRequest,
)


@pytest.fixture(autouse=True)
async def three_records(broker: Broker) -> None:
    """Three batches of one record each, at the times 10, 30 and 20."""
    fill(broker)


def fill(broker: Broker) -> None:
    partition = broker.catalog.topics["t"].partitions[0]
    for time in (10, 30, 20):
        partition.append(batch([b"v"], timestamp=time), now_ms=time)
    flush = partition.begin_flush()
    assert flush is not None
    flush.run()
    partition.flushed(flush)


async def list_offsets(
    client: Client, timestamp: int, version: int = 8, topic: str = "t", epoch: int = -1
) -> Any:
    ask = ListOffsetsRequest.Partition(
        index=0, timestamp=timestamp, current_leader_epoch=epoch
    )
    request = ListOffsetsRequest(
        topics=[ListOffsetsRequest.Topic(name=topic, partitions=[ask])]
    )
    return only_partition(await client.ask(ApiKey.LIST_OFFSETS, version, request))


async def delete_records(client: Client, offset: int, topic: str = "t") -> tuple[int, int]:
    ask = DeleteRecordsRequest.Partition(index=0, offset=offset)
    request = DeleteRecordsRequest(
        topics=[DeleteRecordsRequest.Topic(name=topic, partitions=[ask])]
    )
    answer = only_partition(await client.ask(ApiKey.DELETE_RECORDS, 2, request))
    return answer.error_code, answer.low_watermark


# ListOffsets


@pytest.mark.parametrize(
    ("timestamp", "offset", "found_time"),
    [(-1, 3, -1), (-2, 0, -1), (-3, 1, 30), (-4, 0, -1), (11, 1, 30), (31, -1, -1)],
)
async def test_offsets_are_found_by_time(
    client: Client, timestamp: int, offset: int, found_time: int
) -> None:
    found = await list_offsets(client, timestamp)

    assert (found.error_code, found.offset, found.timestamp) == (0, offset, found_time)


@pytest.mark.parametrize(
    ("timestamp", "version"), [(-3, 6), (-4, 7), (-5, 8), (-6, 8), (-(2**63), 8)]
)
async def test_a_timestamp_with_a_meaning_that_came_later_is_refused(
    client: Client, timestamp: int, version: int
) -> None:
    refused = await list_offsets(client, timestamp, version)

    assert (refused.error_code, refused.offset) == (ErrorCode.UNSUPPORTED_VERSION, -1)


async def test_who_believes_in_another_leader_epoch_is_told_so(client: Client) -> None:
    late = await list_offsets(client, -1, epoch=9)

    assert late.error_code == ErrorCode.UNKNOWN_LEADER_EPOCH


async def test_a_partition_that_cannot_be_opened_has_neither_start_nor_end(
    broker: Broker, client: Client
) -> None:
    partition = broker.catalog.topics["t"].partitions[0]
    partition.offline, partition.unreadable = "it is damaged", True

    for timestamp in (-1, -2, -3, 11):
        found = await list_offsets(client, timestamp)
        assert found.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert await delete_records(client, 1) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)


# OffsetForLeaderEpoch


@pytest.mark.parametrize(
    ("epoch", "current", "code", "end"),
    [
        (0, -1, ErrorCode.NONE, 3),
        (9, -1, ErrorCode.NONE, -1),
        (0, 9, ErrorCode.UNKNOWN_LEADER_EPOCH, -1),
    ],
)
async def test_an_epoch_ends_where_the_next_one_begins(
    client: Client, epoch: int, current: int, code: ErrorCode, end: int
) -> None:
    ask = OffsetForLeaderEpochRequest.Partition(
        index=0, leader_epoch=epoch, current_leader_epoch=current
    )
    request = OffsetForLeaderEpochRequest(
        topics=[OffsetForLeaderEpochRequest.Topic(name="t", partitions=[ask])]
    )

    found = only_partition(await client.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, 4, request))

    assert (found.error_code, found.end_offset) == (code, end)


# DeleteRecords


@pytest.mark.parametrize(
    ("offset", "code", "start"),
    [
        (2, ErrorCode.NONE, 2),
        (-1, ErrorCode.NONE, 3),
        (4, ErrorCode.OFFSET_OUT_OF_RANGE, -1),
        (-2, ErrorCode.OFFSET_OUT_OF_RANGE, -1),
    ],
)
async def test_the_start_moves_forward(
    client: Client, offset: int, code: ErrorCode, start: int
) -> None:
    assert await delete_records(client, offset) == (code, start)
    assert (await list_offsets(client, -2)).offset == max(0, start)


async def test_records_are_deleted_only_where_deleting_is_the_policy(
    broker: Broker, client: Client
) -> None:
    await broker.catalog.create("kept", 1, {"cleanup.policy": "compact"})
    await broker.catalog.create("__consumer_offsets", 1, {})

    assert await delete_records(client, -1, "missing") == (
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        -1,
    )
    assert await delete_records(client, -1, "kept") == (ErrorCode.POLICY_VIOLATION, -1)
    assert await delete_records(client, -1, "__consumer_offsets") == (
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        -1,
    )
    broker.go_offline("a test says so")
    assert await delete_records(client, 1) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)


async def test_a_deletion_that_cannot_be_written_down_is_not_acknowledged() -> None:
    disk = SimulatedDisk()
    async with running_broker(Path("/data"), disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        fill(broker)
        client = Client(broker)
        disk.fail("rename", errno.ENOSPC, name="log-start")

        assert await delete_records(client, 2) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)
        assert (await list_offsets(client, -2)).offset == 0, "the disk says the same"
        disk.heal()
        assert await delete_records(client, 2) == (ErrorCode.NONE, 2)


async def test_a_deletion_survives_a_crash_though_a_checkpoint_was_made_meanwhile() -> None:
    disk = SimulatedDisk()
    async with running_broker(Path("/data"), disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        fill(broker)
        deletion = asyncio.create_task(delete_records(Client(broker), 2))
        for _ in range(2):
            await asyncio.sleep(0)  # It is being written down.
        await broker.checkpoint()

        assert await deletion == (ErrorCode.NONE, 2)
        disk.kill()
        written = disk.files()[Path("/data/log-start-offset-checkpoint")]
        assert read_offsets(written) == {("t", 0): 2}


async def test_a_partition_that_takes_no_writes_deletes_no_records(
    broker: Broker, client: Client
) -> None:
    broker.catalog.topics["t"].partitions[0].offline = "its disk is not trusted"

    assert await delete_records(client, 2) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)
    assert (await list_offsets(client, -2)).offset == 0


# InitProducerId


async def test_every_producer_gets_a_number_of_its_own(client: Client) -> None:
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1)
    bumped = InitProducerIdRequest(
        transactional_id=None,
        transaction_timeout_ms=1,
        producer_id=0,
        producer_epoch=0,
    )

    given = [
        await client.ask(ApiKey.INIT_PRODUCER_ID, 4, one)
        for one in (request, request, bumped)
    ]

    assert [(one.producer_id, one.producer_epoch) for one in given] == [
        (0, 0),
        (1, 0),
        (2, 0),
    ]


@pytest.mark.parametrize("wish", [{"producer_id": 1}, {"producer_epoch": 1}])
async def test_half_a_producer_gets_no_other(client: Client, wish: dict[str, Any]) -> None:
    request = InitProducerIdRequest(**({"transactional_id": None} | wish))

    refused = await client.ask(ApiKey.INIT_PRODUCER_ID, 4, request)

    assert (refused.error_code, refused.producer_id, refused.producer_epoch) == (
        ErrorCode.INVALID_REQUEST,
        -1,
        -1,
    )
