"""How much a client may take of memory and time, and who is to blame for a pause."""

import asyncio
from typing import Any

import pytest
from support.batches import batch
from support.core import Client
from support.raw import fetch_request, produce_request

from streamer.broker.admission import Admission
from streamer.broker.connection import Connection
from streamer.broker.core import Broker
from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.frames import SIZE
from streamer.wire.messages import MetadataRequest

LARGE = produce_request("t", batch([bytes(300_000)]))
ROOM = 1 << 20


@pytest.fixture
def admission() -> Admission:
    return Admission(connections_max=9, bytes_max=ROOM, idle_seconds=60.0)


def waits(client: Client) -> None:
    """Begin a Fetch that takes its time; what follows waits for it."""
    client.send(ApiKey.FETCH, 12, fetch_request("t", 0, max_wait_ms=600_000))


async def test_one_large_request_that_waits_is_enough(
    broker: Broker, admission: Admission
) -> None:
    client, other = Client(broker, admission), Client(broker, admission)

    waits(client)
    client.send(ApiKey.PRODUCE, 9, LARGE)
    assert not client.transport.is_reading()

    await other.ask(ApiKey.PRODUCE, 9, LARGE)  # ends the wait
    assert client.transport.is_reading()
    assert [(await client.answer()).topics[0].name for _ in range(2)] == ["t", "t"]


async def test_a_large_request_takes_its_room_until_it_is_begun(
    broker: Broker, admission: Admission
) -> None:
    client, other = Client(broker, admission), Client(broker, admission)

    waits(client)
    client.send(ApiKey.PRODUCE, 9, LARGE)
    other.send_bytes(SIZE.pack(ROOM) + bytes(100))
    assert not other.transport.is_reading()

    await Client(broker).ask(ApiKey.PRODUCE, 9, LARGE)  # ends the wait
    assert other.transport.is_reading()


async def test_room_is_asked_for_once_and_given_back_once(
    broker: Broker, admission: Admission
) -> None:
    first, second = Client(broker, admission), Client(broker, admission)
    first.send_bytes(SIZE.pack(800_000) + bytes(100))
    second.send_bytes(SIZE.pack(300_000) + bytes(100))
    second.send_bytes(bytes(100))

    first.connection.connection_lost(None)
    second.connection.connection_lost(None)

    assert admission.take(first.connection, ROOM)


async def test_who_waits_for_room_is_not_read_from_because_another_wait_is_over(
    broker: Broker, admission: Admission
) -> None:
    first, second = Client(broker, admission), Client(broker, admission)
    first.send_bytes(SIZE.pack(800_000) + bytes(100))
    waits(second)
    for _ in range(40):
        second.send(ApiKey.METADATA, 9, MetadataRequest(topics=None))
    second.send_bytes(SIZE.pack(300_000) + bytes(100))

    await Client(broker).ask(ApiKey.PRODUCE, 9, LARGE)
    for _ in range(41):
        await second.answer()
    assert not second.transport.is_reading()

    first.connection.connection_lost(None)
    assert second.transport.is_reading()


async def test_who_is_kept_from_sending_is_not_to_blame_for_silence(
    broker: Broker, admission: Admission
) -> None:
    holder, queued, paused = (Client(broker, admission) for _ in range(3))
    holder.send_bytes(SIZE.pack(800_000) + bytes(100))
    queued.send_bytes(SIZE.pack(800_000) + bytes(100))
    waits(paused)
    paused.send(ApiKey.PRODUCE, 9, LARGE)
    paused.send_bytes(SIZE.pack(100) + bytes(10))
    now = broker.clock.monotonic()

    admission.sweep(now + 31)

    assert holder.transport.is_closing()
    assert not queued.transport.is_closing()
    assert not paused.transport.is_closing()


async def test_who_never_reads_an_answer_is_closed_in_the_end(
    broker: Broker, admission: Admission
) -> None:
    client = Client(broker, admission)
    client.connection.pause_writing()
    client.send(ApiKey.METADATA, 9, MetadataRequest(topics=None))
    now = broker.clock.monotonic()

    admission.sweep(now + 59)
    assert not client.transport.is_closing()
    admission.sweep(now + 61)
    assert client.transport.is_closing()


async def test_a_client_that_has_gone_before_it_was_named_is_no_trouble(
    broker: Broker, admission: Admission
) -> None:
    connection = Connection(broker, admission, memoryview(bytearray(1024)), listener=0)

    connection.connection_made(asyncio.Transport({"peername": None}))
    connection.connection_lost(None)

    assert connection.session.peer == "somewhere:0"


async def test_an_answer_that_cannot_be_written_harms_that_connection_only(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Client(broker), Client(broker)
    waits(first)
    waits(second)
    write, failures = messages.write_response, [ValueError("a mistake of ours")]

    def fail_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return write(*args)

    monkeypatch.setattr(messages, "write_response", fail_once)
    partition = broker.catalog.topics["t"].partitions[0]
    broker.flusher.flush(partition)
    partition.append(batch([b"v"]), now_ms=broker.clock.now_ms())
    answers = [asyncio.create_task(one.answer()) for one in (first, second)]
    done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)

    assert done.pop().result().topics[0].name == "t"
    closed = [one.transport.is_closing() for one in (first, second)]
    assert sorted(closed) == [False, True]
    waiting.pop().cancel()
