"""One client: what overlaps, what waits its turn, and what a rude client may not do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.core import Client, running_broker

from streamer.broker.admission import Admission
from streamer.broker.core import Broker
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.frames import SIZE
from streamer.wire.messages import (
    ApiVersionsRequest,
    FetchRequest,
    MetadataRequest,
    ProduceRequest,
)
from streamer.wire.record import Record, write_batch


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running_broker(tmp_path / "data") as running:
        await running.catalog.create("t", 1, {})
        yield running


def produce(value: bytes = b"v", acks: int = -1) -> Any:
    batch = write_batch([Record(0, 1, None, value, ())])
    return ProduceRequest(
        acks=acks,
        timeout_ms=5000,
        topics=[
            ProduceRequest.Topic(
                name="t", partitions=[ProduceRequest.Partition(index=0, records=batch)]
            )
        ],
    )


def fetch(offset: int = 0, max_wait_ms: int = 0, min_bytes: int = 1) -> Any:
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        topics=[
            FetchRequest.Topic(
                name="t",
                partitions=[
                    FetchRequest.Partition(index=0, fetch_offset=offset, max_bytes=1 << 20)
                ],
            )
        ],
    )


async def test_what_was_produced_is_fetched(broker: Broker) -> None:
    client = Client(broker)

    produced = await client.ask(ApiKey.PRODUCE, 9, produce(b"hello"))
    fetched = await client.ask(ApiKey.FETCH, 12, fetch())

    assert produced.topics[0].partitions[0].base_offset == 0
    assert b"hello" in bytes(fetched.topics[0].partitions[0].records)


async def test_produces_overlap_and_are_answered_in_order(broker: Broker) -> None:
    client = Client(broker)

    for _ in range(5):
        client.send(ApiKey.PRODUCE, 9, produce())
    # All five are in the log before the first of them is answered.
    partition = broker.catalog.partition("t", 0)
    assert partition is not None
    assert partition.end == 5
    assert not client.has_answer

    answers = [await client.answer() for _ in range(5)]
    assert [one.topics[0].partitions[0].base_offset for one in answers] == [0, 1, 2, 3, 4]


async def test_what_follows_a_waiting_fetch_waits_its_turn(broker: Broker) -> None:
    waiting, other = Client(broker), Client(broker)

    waiting.send(ApiKey.FETCH, 12, fetch(max_wait_ms=10_000))
    waiting.send(ApiKey.METADATA, 9, MetadataRequest(topics=None))
    await asyncio.sleep(0)
    assert not waiting.has_answer

    await other.ask(ApiKey.PRODUCE, 9, produce(b"wake up"))
    first, second = await waiting.answer(), await waiting.answer()
    assert b"wake up" in bytes(first.topics[0].partitions[0].records)
    assert second.topics[0].name == "t"


async def test_a_request_may_come_byte_by_byte(broker: Broker) -> None:
    client, whole = Client(broker), Client(broker)
    sent = bytearray()
    whole.send_bytes = sent.extend  # type: ignore[assignment, method-assign]
    whole.send(ApiKey.PRODUCE, 9, produce())

    for byte in sent:
        client.send_bytes(bytes([byte]))
    client._asked.append((ApiKey.PRODUCE, 9))

    assert (await client.answer()).topics[0].partitions[0].error_code == ErrorCode.NONE


async def test_acks_0_gets_no_answer_and_a_refusal_closes(broker: Broker) -> None:
    client = Client(broker)

    client.send(ApiKey.PRODUCE, 9, produce(acks=0))
    assert not client.has_answer
    assert not client.transport.is_closing()

    request = produce(acks=0)
    request.topics[0].name = "missing"
    client.send(ApiKey.PRODUCE, 9, request)
    assert client.transport.is_closing()


@pytest.mark.parametrize(
    "rubbish",
    [
        SIZE.pack(-1),
        SIZE.pack(104_857_601),
        SIZE.pack(4) + b"\xff" * 4,
        SIZE.pack(10) + b"\x03\xe7\0\0" + bytes(6),
        SIZE.pack(10) + b"\0\x01\0\x63" + bytes(6),
        SIZE.pack(30) + b"\0\0\0\x09" + b"\x7f" * 26,
    ],
)
async def test_rubbish_closes_that_connection_and_no_other(
    broker: Broker, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rude, other = Client(broker), Client(broker)

    rude.send_bytes(rubbish)

    assert rude.transport.is_closing()
    assert "127.0.0.1:5555 closed" in caplog.text
    assert (await other.ask(ApiKey.PRODUCE, 9, produce())).topics


async def test_who_does_not_read_is_not_served_and_not_read_from(broker: Broker) -> None:
    client = Client(broker)
    client.connection.pause_writing()

    for _ in range(100):
        client.send(ApiKey.METADATA, 9, MetadataRequest(topics=None))

    assert not client.has_answer
    assert not client.transport.is_reading()

    client.connection.resume_writing()
    assert client.transport.is_reading()
    for _ in range(100):
        assert (await client.answer()).topics[0].name == "t"


async def test_an_unknown_version_of_api_versions_is_told_which_ones_there_are(
    broker: Broker,
) -> None:
    client = Client(broker)
    client.send_bytes(SIZE.pack(11) + b"\0\x12\0\x63" + b"\0\0\0\x07" + b"\xff\xff" + b"\0")
    client._asked.append((ApiKey.API_VERSIONS, 0))

    answer = await client.answer()

    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert [(one.api_key, one.min_version) for one in answer.api_keys] == [(18, 0)]


async def test_a_connection_too_many_is_closed(broker: Broker) -> None:
    admission = Admission(connections_max=1, bytes_max=1 << 20, idle_seconds=60.0)

    first, second = Client(broker, admission), Client(broker, admission)
    assert not first.transport.is_closing()
    assert second.transport.is_closing()

    first.connection.connection_lost(None)
    assert not Client(broker, admission).transport.is_closing()


async def test_large_requests_wait_until_there_is_room_for_them(broker: Broker) -> None:
    admission = Admission(connections_max=9, bytes_max=1 << 20, idle_seconds=60.0)
    first, second = Client(broker, admission), Client(broker, admission)

    first.send_bytes(SIZE.pack(800_000) + bytes(100))
    second.send_bytes(SIZE.pack(800_000) + bytes(100))
    assert first.transport.is_reading()
    assert not second.transport.is_reading()

    first.connection.connection_lost(None)
    assert second.transport.is_reading()


async def test_the_silent_and_the_stalled_are_closed(broker: Broker) -> None:
    admission = Admission(connections_max=9, bytes_max=1 << 20, idle_seconds=60.0)
    silent, stalled, waiting = (Client(broker, admission) for _ in range(3))
    stalled.send_bytes(SIZE.pack(100) + bytes(10))
    waiting.send(ApiKey.FETCH, 12, fetch(max_wait_ms=600_000))
    now = broker.clock.monotonic()

    admission.sweep(now + 31)
    assert stalled.transport.is_closing()
    assert not silent.transport.is_closing()

    admission.sweep(now + 61)
    assert silent.transport.is_closing()
    assert not waiting.transport.is_closing()
    waiting.connection.connection_lost(None)


async def test_the_software_a_client_names_is_remembered(broker: Broker) -> None:
    client = Client(broker)
    request = ApiVersionsRequest(client_software_name="me", client_software_version="1.0")

    await client.ask(ApiKey.API_VERSIONS, 3, request)

    assert client.connection.session.software == "me 1.0"
