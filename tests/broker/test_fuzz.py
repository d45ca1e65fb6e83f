"""Rubbish at the door: 200,000 requests with bits flipped, bytes cut, lengths blown up.

Each goes the whole way: frames, header, decoding, handler, the log. A connection may be
closed for it; the broker goes on, and nothing unforeseen is raised anywhere.
"""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from support.core import Client, running_broker

from streamer.broker.core import Broker
from streamer.broker.security import Operation, Principal, Resource
from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.frames import frame
from streamer.wire.headers import write_request_header
from streamer.wire.messages import (
    ApiVersionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DescribeConfigsRequest,
    FetchRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    ListOffsetsRequest,
    MetadataRequest,
    OffsetForLeaderEpochRequest,
    ProduceRequest,
)
from streamer.wire.record import Record, write_batch

FRAMES = 200_000
SEED = 20261120
CHANGING = {Operation.CREATE, Operation.DELETE, Operation.ALTER, Operation.ALTER_CONFIGS}


class ReadAndWriteOnly:
    """A flipped bit must not make this test create ten thousand partitions."""

    def allows(self, principal: Principal, operation: Operation, on: Resource) -> bool:
        return operation not in CHANGING


def in_partition(request: Any, **fields: Any) -> Any:
    """What `request` says of partition 0 of topic `t`."""
    return [request.Topic(name="t", partitions=[request.Partition(index=0, **fields)])]


def of_topic(request: Any, configs: Any) -> Any:
    """What `request` says of the settings of topic `t`."""
    return [request.Resource(resource_type=2, resource_name="t", **configs)]


def requests() -> dict[ApiKey, Any]:
    records = [Record(0, 1, b"k", b"v" * 50, (("h", b"x"),)), Record(1, 2, b"k", None, ())]
    batch = write_batch(records)
    create, alter = CreateTopicsRequest, IncrementalAlterConfigsRequest
    retention = {"name": "retention.ms", "value": "5"}
    return {
        ApiKey.PRODUCE: ProduceRequest(
            acks=1, timeout_ms=1, topics=in_partition(ProduceRequest, records=batch)
        ),
        ApiKey.FETCH: FetchRequest(
            max_wait_ms=0, topics=in_partition(FetchRequest, fetch_offset=0, max_bytes=1000)
        ),
        ApiKey.LIST_OFFSETS: ListOffsetsRequest(
            topics=in_partition(ListOffsetsRequest, timestamp=1)
        ),
        ApiKey.METADATA: MetadataRequest(topics=[MetadataRequest.Topic(name="t")]),
        ApiKey.API_VERSIONS: ApiVersionsRequest(
            client_software_name="a", client_software_version="1"
        ),
        ApiKey.CREATE_TOPICS: create(
            validate_only=True,
            topics=[
                create.Topic(
                    name="u",
                    num_partitions=1,
                    replication_factor=1,
                    configs=[create.Config(**retention)],
                )
            ],
        ),
        ApiKey.DELETE_RECORDS: DeleteRecordsRequest(
            topics=in_partition(DeleteRecordsRequest, offset=0)
        ),
        ApiKey.INIT_PRODUCER_ID: InitProducerIdRequest(),
        ApiKey.OFFSET_FOR_LEADER_EPOCH: OffsetForLeaderEpochRequest(
            topics=in_partition(OffsetForLeaderEpochRequest, leader_epoch=0)
        ),
        ApiKey.DESCRIBE_CONFIGS: DescribeConfigsRequest(
            resources=of_topic(
                DescribeConfigsRequest, {"configuration_keys": ["retention.ms"]}
            )
        ),
        ApiKey.INCREMENTAL_ALTER_CONFIGS: alter(
            validate_only=True,
            resources=of_topic(alter, {"configs": [alter.Config(**retention)]}),
        ),
    }


def real_frames(broker: Broker) -> list[bytes]:
    """Every request in every version that is served."""
    frames = []
    for key, request in requests().items():
        api = broker.table.get(key)
        assert api is not None
        for version in range(api.lowest, api.highest + 1):
            head = write_request_header(key, version, 1, "fuzz")
            body = messages.write_request(request, version)
            frames.append(b"".join(frame([head, *body])))
    return frames


def mutated(original: bytes, rng: random.Random) -> bytes:
    """The frame with its size right (mostly) and something else wrong."""
    data = bytearray(original[4:])
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data))
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                data[at : at + 4] = rng.choice((b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"))
            case 3:
                del data[at : at + rng.randrange(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                del data[at:]
        if not data:
            data = bytearray(b"\0")
    size = len(data) + (rng.choice((-1, 1)) if rng.random() < 0.01 else 0)
    return size.to_bytes(4, "big", signed=True) + data


@pytest.mark.timeout(180)
async def test_200_000_mutated_frames_leave_the_broker_alive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(SEED)
    settings = {"log.durability": "page-cache", "auto.create.topics.enable": "false"}
    async with running_broker(tmp_path / "data", settings) as broker:
        await broker.catalog.create("t", 1, {})
        frames = real_frames(broker)
        client = Client(broker)
        for _ in range(FRAMES):
            if client.transport.is_closing():
                client.connection.connection_lost(None)
                client = Client(broker)
                client.connection.session.authorizer = ReadAndWriteOnly()
            client.send_bytes(mutated(rng.choice(frames), rng))
            client.transport.written.clear()
            if not client.connection.is_idle:
                # It waits, for the disk or for records that nobody will write.
                await asyncio.sleep(0)
                if not client.connection.is_idle:
                    client.transport.close()

        survivor = Client(broker)
        answer = await survivor.ask(ApiKey.PRODUCE, 9, requests()[ApiKey.PRODUCE])

    assert answer.topics[0].partitions[0].error_code == 0
    unforeseen = [record for record in caplog.records if "failed" in record.getMessage()]
    assert unforeseen == []
