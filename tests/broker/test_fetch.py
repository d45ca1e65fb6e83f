"""Fetch: how much is given, how long is waited, and what ends the waiting."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.batches import batch, headers
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.raw import fetch_request, only_partition

from streamer.broker.core import Broker
from streamer.broker.unread import SMALL, UNREAD_MAX
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode

NEVER_MS = 600_000
BATCH = batch([b"x" * 100])


async def write(broker: Broker, times: int = 1, topic: str = "t") -> None:
    """Append and flush, as a Produce would."""
    partition = broker.catalog.topics[topic].partitions[0]
    for _ in range(times):
        partition.append(BATCH, now_ms=broker.clock.now_ms())
    if (flush := partition.begin_flush()) is not None:
        flush.run()
        partition.flushed(flush)
    broker.watchers.moved(partition)


async def fetch(client: Client, offset: int, topic: str = "t", **more: Any) -> Any:
    request = fetch_request(topic, offset, **more)
    return only_partition(await client.ask(ApiKey.FETCH, 12, request))


def offsets(answer: Any) -> list[int]:
    return [header.base_offset for header in headers(answer.records)]


async def test_whole_batches_from_the_offset_on_are_given(
    broker: Broker, client: Client
) -> None:
    await write(broker, 3)

    answer = await fetch(client, 1)

    assert offsets(answer) == [1, 2]
    assert (answer.high_watermark, answer.last_stable_offset) == (3, 3)
    assert answer.aborted_transactions is None


@pytest.mark.parametrize(
    ("limits", "given"),
    [
        ({"partition_max_bytes": 1}, 1),
        ({"max_bytes": 1}, 1),
        ({"partition_max_bytes": 2 * len(BATCH)}, 2),
        ({"max_bytes": 2 * len(BATCH) + 1}, 2),
    ],
)
async def test_limits_hold_but_one_batch_is_always_given(
    broker: Broker, client: Client, limits: dict[str, Any], given: int
) -> None:
    await write(broker, 3)

    answer = await fetch(client, 0, **limits)

    assert len(offsets(answer)) == given


async def test_a_full_answer_does_not_wait_for_bytes_that_have_no_room_in_it(
    broker: Broker, client: Client
) -> None:
    await write(broker, 3)
    limit = 2 * len(BATCH) + 1

    by_all = await fetch(
        client, 0, max_bytes=limit, min_bytes=10 * limit, max_wait_ms=NEVER_MS
    )
    to_the_byte = await fetch(
        client, 0, max_bytes=3 * len(BATCH), min_bytes=10 * limit, max_wait_ms=NEVER_MS
    )
    by_one = await fetch(
        client, 0, partition_max_bytes=limit, min_bytes=limit, max_wait_ms=NEVER_MS
    )

    assert offsets(by_all) == offsets(by_one) == [0, 1]
    assert offsets(to_the_byte) == [0, 1, 2]


async def test_waiting_ends_when_there_are_enough_bytes(
    broker: Broker, client: Client
) -> None:
    request = fetch_request("t", 0, min_bytes=2 * len(BATCH), max_wait_ms=NEVER_MS)
    client.send(ApiKey.FETCH, 12, request)

    await write(broker)
    assert not client.has_answer
    await write(broker)

    assert offsets(only_partition(await client.answer())) == [0, 1]
    assert broker.watchers.watching == {}


async def test_after_its_time_a_fetch_gives_what_there_is(
    broker: Broker, client: Client
) -> None:
    await write(broker)

    answer = await fetch(client, 0, min_bytes=10_000, max_wait_ms=1)

    assert offsets(answer) == [0]


async def test_what_came_while_it_waited_is_given_though_it_is_not_enough(
    broker: Broker, client: Client
) -> None:
    request = fetch_request("t", 0, min_bytes=10_000, max_wait_ms=100)
    client.send(ApiKey.FETCH, 12, request)

    await write(broker, 2)

    assert offsets(only_partition(await client.answer())) == [0, 1]


async def test_while_others_leave_much_unread_a_fetch_brings_little_and_never_nothing(
    broker: Broker, client: Client
) -> None:
    many = 2 * SMALL // len(BATCH)
    await write(broker, many)

    broker.unread.changed(UNREAD_MAX)
    little = await fetch(client, 0, min_bytes=SMALL, max_wait_ms=NEVER_MS)
    one = await fetch(client, 0, partition_max_bytes=1)
    broker.unread.changed(-UNREAD_MAX)

    assert SMALL - len(BATCH) < len(little.records) <= SMALL
    assert offsets(one) == [0]
    assert len(offsets(await fetch(client, 0))) == many


async def test_what_is_being_read_from_the_disk_counts_as_unread() -> None:
    disk = SimulatedDisk()
    async with running_broker(Path("/data"), disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        await write(broker, 3)
        disk.cold = True
        client = Client(broker)

        client.send(ApiKey.FETCH, 12, fetch_request("t", 0, partition_max_bytes=1 << 20))
        await asyncio.sleep(0)
        assert broker.unread.room == UNREAD_MAX - (1 << 20)

        await client.answer()
        assert broker.unread.room == UNREAD_MAX


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"topic": "missing"}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"partition": 1}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"offset": 4}, ErrorCode.OFFSET_OUT_OF_RANGE),
        ({"offset": -1}, ErrorCode.OFFSET_OUT_OF_RANGE),
        ({"leader_epoch": 9}, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ],
)
async def test_an_error_is_answered_at_once(
    broker: Broker, client: Client, asked: dict[str, Any], code: ErrorCode
) -> None:
    await write(broker, 3)

    answer = await fetch(client, **({"offset": 0, "max_wait_ms": NEVER_MS} | asked))

    assert (answer.error_code, bytes(answer.records)) == (code, b"")


async def test_a_session_nobody_began_is_not_found(client: Client) -> None:
    request = fetch_request("t", 0, session_id=5, session_epoch=1)

    answer = await client.ask(ApiKey.FETCH, 12, request)

    assert (answer.error_code, answer.topics) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, [])


async def test_waiting_ends_when_the_topic_is_deleted(
    broker: Broker, client: Client
) -> None:
    client.send(ApiKey.FETCH, 12, fetch_request("t", 0, max_wait_ms=NEVER_MS))

    for partition in await broker.catalog.delete(broker.catalog.topics["t"]):
        broker.watchers.moved(partition)

    answer = only_partition(await client.answer())
    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert broker.watchers.watching == {}


async def test_who_waits_for_a_topic_is_not_given_records_of_the_next_one_of_its_name(
    broker: Broker, client: Client
) -> None:
    client.send(ApiKey.FETCH, 12, fetch_request("t", 0, max_wait_ms=NEVER_MS))

    deleted = await broker.catalog.delete(broker.catalog.topics["t"])
    await broker.catalog.create("t", 1, {})
    await write(broker)
    for partition in deleted:
        broker.watchers.moved(partition)

    answer = only_partition(await client.answer())
    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_a_client_that_hangs_up_leaves_nothing_behind(
    broker: Broker, client: Client
) -> None:
    client.send(ApiKey.FETCH, 12, fetch_request("t", 0, max_wait_ms=NEVER_MS))
    assert len(broker.watchers.watching) == 1

    client.connection.connection_lost(None)

    assert broker.watchers.watching == {}


async def test_what_is_not_in_memory_is_read_in_a_thread_and_the_loop_goes_on() -> None:
    disk = SimulatedDisk()
    async with running_broker(Path("/data"), disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        await write(broker, 3)
        disk.cold = True
        reader, other = Client(broker), Client(broker)

        reader.send(ApiKey.FETCH, 12, fetch_request("t", 0, max_wait_ms=NEVER_MS))
        assert not reader.has_answer
        other.send(ApiKey.FETCH, 12, fetch_request("missing", 0))
        assert other.has_answer

        assert offsets(only_partition(await reader.answer())) == [0, 1, 2]


@pytest.mark.parametrize("offset", [0, 5000])
async def test_a_partition_that_cannot_be_opened_says_so_and_closes_no_connection(
    broker: Broker, client: Client, offset: int
) -> None:
    partition = broker.catalog.topics["t"].partitions[0]
    partition.offline, partition.unreadable = "it is damaged", True

    answer = await fetch(client, offset, max_wait_ms=NEVER_MS)

    assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert not client.transport.is_closing()


async def test_an_empty_fetch_is_answered_at_once(client: Client) -> None:
    request = fetch_request("t", 0, max_wait_ms=NEVER_MS)
    request.topics = []

    async with asyncio.timeout(1):
        answer = await client.ask(ApiKey.FETCH, 12, request)

    assert answer.topics == []
