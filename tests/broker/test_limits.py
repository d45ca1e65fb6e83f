"""Many clients, and rude ones: what they may take of the broker is bounded.

Measured on the broker's process: what it holds in memory, the files it has open, the time
it takes on the processor. The bounds are generous; what they rule out is growth without
one.
"""

from __future__ import annotations

import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.broker import start_streamer
from support.core import Client, running_broker
from support.faults import batch, create, eventually
from support.raw import Wire, fetch, fetch_request, only_partition, produce, produce_request
from support.server import METADATA_REQUEST, Server

from streamer.broker.admission import Admission
from streamer.broker.unread import UNREAD_MAX
from streamer.wire.error_codes import ErrorCode
from streamer.wire.frames import SIZE
from streamer.wire.messages import ApiVersionsRequest

IDLE, BUSY = 1_000, 100
KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """This process opens as many as the broker has clients."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + BUSY + 200
    if before[1] != resource.RLIM_INFINITY and before[1] < wanted:
        pytest.skip(f"not more than {before[1]} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def connections(server: Server, count: int) -> Iterator[list[Wire]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Wire(server.address)) for _ in range(count)]


def memory(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.mark.usefixtures("many_sockets")
def test_a_thousand_idle_connections_cost_little_and_a_hundred_busy_ones_are_served(
    tmp_path: Path,
) -> None:
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t")
        before = memory(server)
        with connections(server, IDLE) as idle:
            for one in idle:
                one.ask(ApiVersionsRequest(), 0)
            assert (memory(server) - before) / IDLE < 64 * KIB

            with connections(server, BUSY) as busy:
                offsets = set()
                for _ in range(5):
                    for one in busy:
                        one.send(produce_request("t", batch(100)), 9)
                    answers = [only_partition(one.receive()) for one in busy]
                    offsets |= {answer.base_offset for answer in answers}
            assert offsets == set(range(5 * BUSY))
            assert idle[-1].ask(ApiVersionsRequest(), 0).error_code == ErrorCode.NONE


def test_a_client_that_never_reads_its_answers_does_not_grow_the_broker(
    tmp_path: Path,
) -> None:
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t")
        for _ in range(20):
            produce(wire, "t", batch(1_000_000))
        before = memory(server)

        with Wire(server.address) as rude:
            # In the end its requests are not read, either.
            with pytest.raises(TimeoutError):
                ask_without_end(rude, fetch_request("t", 0, partition_max_bytes=50 * MIB))
            # One answer of 20 MB, as it is read and as it is sent.
            assert memory(server) - before < 100 * MIB
            assert len(fetch(wire, "t", 0).records) > 100_000


def test_many_clients_that_never_read_share_one_bound_and_hold_up_nobody(
    tmp_path: Path,
) -> None:
    everything = fetch_request("t", 0, partition_max_bytes=50 * MIB)
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t")
        for _ in range(50):
            produce(wire, "t", batch(1_000_000))
        before = memory(server)

        with connections(server, 15) as rude:
            for one in rude:
                one.send(everything, 12)
                one.socket.recv(1, socket.MSG_PEEK)
            # 750 MB have been asked for.
            assert memory(server) - before < UNREAD_MAX + 100 * MIB

            began = time.monotonic()
            for offset in range(50):
                assert len(fetch(wire, "t", offset).records) > 1_000_000
            assert time.monotonic() - began < 5

        eventually(
            lambda: len(only_partition(wire.ask(everything, 12)).records) > 45_000_000,
            "what they had taken was not given back",
        )


def ask_without_end(rude: Wire, request: Any) -> None:
    rude.socket.settimeout(0.5)
    while True:
        rude.send(request, 12)


def test_what_a_client_announces_and_does_not_send_costs_nothing(tmp_path: Path) -> None:
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t")
        before = memory(server)
        with connections(server, 50) as rude:
            for one in rude:
                one.send_bytes(SIZE.pack(100 * MIB) + bytes(1000))

            assert produce(wire, "t", batch(1_000_000)).error_code == ErrorCode.NONE
            assert memory(server) - before < 50 * MIB


def test_a_storm_of_connections_that_break_off_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    linger_for_no_time = struct.pack("ii", 1, 0)
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t")
        process = psutil.Process(server.process.pid)
        files = process.num_fds()
        for number in range(1_000):
            with Wire(server.address) as one:
                one.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time
                )
                if number % 2:
                    one.send_bytes(SIZE.pack(500))

        assert produce(wire, "t", batch(1)).error_code == ErrorCode.NONE
        deadline = time.monotonic() + 10
        while process.num_fds() > files:
            assert time.monotonic() < deadline, "connections were left open"
            time.sleep(0.02)
    assert "Traceback" not in server.output.read_text()


async def test_a_request_that_dribbles_in_is_not_waited_for_without_end(
    tmp_path: Path,
) -> None:
    async with running_broker(tmp_path / "data") as broker:
        admission = Admission(connections_max=9, bytes_max=1 << 20, idle_seconds=600.0)
        slow, steady = Client(broker, admission), Client(broker, admission)
        now = broker.clock.monotonic()
        slow.send_bytes(SIZE.pack(1_000))
        for second in range(0, 300, 5):
            slow.send_bytes(b"\0")
            # The end of a request, and the beginning of the next one.
            steady.send_bytes(METADATA_REQUEST[-5:] if second else b"")
            steady.send_bytes(METADATA_REQUEST[:-5])
            for client in (slow, steady):
                client.connection.last_heard = now + second
            admission.sweep(now + second)
        assert slow.transport.is_closing()
        assert not steady.transport.is_closing()
