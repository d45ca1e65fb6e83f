"""ListOffsets by time: at once from memory, else in a thread, and the same answer."""

from pathlib import Path

import pytest
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.logs import NOW, TurnedClock, batch, flush

from streamer.broker.core import Broker
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import ListOffsetsRequest

DATA = Path("/data")
NEWEST = -3


async def list_offset(client: Client, timestamp: int) -> tuple[int, int, int]:
    partition = ListOffsetsRequest.Partition(index=0, timestamp=timestamp)
    topic = ListOffsetsRequest.Topic(name="t", partitions=[partition])
    answer = await client.ask(ApiKey.LIST_OFFSETS, 7, ListOffsetsRequest(topics=[topic]))
    (found,) = answer.topics[0].partitions
    return found.error_code, found.offset, found.timestamp


async def fill(broker: Broker) -> None:
    """Three segments, a record every 10 ms."""
    await broker.catalog.create("t", 1, {"segment.bytes": str(1 << 20)})
    partition = broker.catalog.topics["t"].partitions[0]
    for number in range(30):
        partition.append(batch(b"v" * 100_000, timestamp=NOW + 10 * number), now_ms=NOW)
    flush(partition)


@pytest.mark.parametrize("cold", [False, True])
async def test_a_record_is_found_by_its_time_wherever_it_lies(cold: bool) -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk, clock=TurnedClock()) as broker:
        await fill(broker)
    async with running_broker(DATA, disk=disk, clock=TurnedClock()) as broker:
        client = Client(broker)
        disk.cold = cold
        assert await list_offset(client, NOW + 111) == (0, 12, NOW + 120)
        assert await list_offset(client, NOW + 1000) == (0, -1, -1)
        assert await list_offset(client, NEWEST) == (0, 29, NOW + 290)


@pytest.mark.parametrize("cold", [False, True])
async def test_a_damaged_batch_is_not_looked_into(cold: bool) -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk, clock=TurnedClock()) as broker:
        await fill(broker)
        client = Client(broker)
        disk.flip(DATA / "t-0" / f"{0:020d}.log", 8 * 150_000)
        disk.cold = cold
        failed = await list_offset(client, NOW + 10)
        assert failed == (ErrorCode.KAFKA_STORAGE_ERROR, -1, -1)
        assert await list_offset(client, NOW + 20) == (0, 2, NOW + 20)
