"""Few files may be open: the log closes and reopens its own, and lets sockets be refused.

The broker is started under a narrow limit, as a careless system would set it.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from support import batches
from support.broker import start_streamer
from support.faults import batch, create, limited
from support.raw import Closed, Wire, fetch
from support.server import Server

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import MetadataRequest, ProduceRequest

LIMIT = 128
PARTITIONS = 60
ROUNDS = 4
# Each batch begins a new segment.
SEGMENTS = {"segment_ms": "1"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")


def start(tmp_path: Path, durability: str = "fsync") -> Server:
    settings = {
        "log.flush.offset.checkpoint.interval.ms": "200",
        "log.durability": durability,
    }
    return start_streamer(tmp_path, settings=settings, under=limited(f"-n {LIMIT}"))


def produce_to_all(wire: Wire) -> list[int]:
    """One request with a batch for each partition; the offsets they got."""
    request = ProduceRequest(
        acks=-1,
        timeout_ms=10_000,
        topics=[
            ProduceRequest.Topic(
                name="t",
                partitions=[
                    ProduceRequest.Partition(index=index, records=batch(900))
                    for index in range(PARTITIONS)
                ],
            )
        ],
    )
    (topic,) = wire.ask(request, 9).topics
    assert {one.error_code for one in topic.partitions} == {ErrorCode.NONE}
    return [one.base_offset for one in topic.partitions]


def read_all(wire: Wire) -> list[list[int]]:
    found = []
    for index in range(PARTITIONS):
        offsets: list[int] = []
        while len(offsets) < ROUNDS:
            answer = fetch(wire, "t", len(offsets), partition=index)
            assert answer.error_code == ErrorCode.NONE
            offsets += [one.base_offset for one in batches.headers(answer.records)]
        found.append(offsets)
    return found


@pytest.mark.parametrize("durability", ["fsync", "page-cache"])
def test_with_more_segments_than_files_may_be_open_nothing_is_refused_or_lost(
    tmp_path: Path, durability: str
) -> None:
    server = start(tmp_path, durability)
    with Wire(server.address) as wire:
        assert create(wire, "t", partitions=PARTITIONS, **SEGMENTS) == ErrorCode.NONE
        for number in range(ROUNDS):
            assert produce_to_all(wire) == [number] * PARTITIONS
        logs = list((server.logs / "t-0").glob("*.log"))
        assert len(logs) == ROUNDS
        assert read_all(wire) == [list(range(ROUNDS))] * PARTITIONS
        time.sleep(0.5)  # Some checkpoints.
        assert psutil.Process(server.process.pid).num_fds() < LIMIT
    server.kill()

    with start(tmp_path) as again, Wire(again.address) as wire:
        assert read_all(wire) == [list(range(ROUNDS))] * PARTITIONS
    assert again.process.returncode == 0
    said = again.output.read_text()
    assert "Traceback" not in said
    assert "Too many open files" not in said


def test_connections_beyond_the_limit_are_refused_and_those_there_are_go_on(
    tmp_path: Path,
) -> None:
    with start(tmp_path) as server, Wire(server.address) as first, ExitStack() as stack:
        assert create(first, "t", partitions=PARTITIONS, **SEGMENTS) == ErrorCode.NONE
        for _ in range(2 * LIMIT):
            stack.enter_context(Wire(server.address))

        for number in range(ROUNDS):
            assert produce_to_all(first) == [number] * PARTITIONS
        assert read_all(first) == [list(range(ROUNDS))] * PARTITIONS
        process = psutil.Process(server.process.pid)
        before = sum(process.cpu_times()[:2])
        time.sleep(1)
        assert sum(process.cpu_times()[:2]) - before < 0.5, "it spins"

        stack.close()
        assert answers_again(server)
    assert "Traceback" not in server.output.read_text()


def answers_again(server: Server) -> bool:
    for _ in range(100):
        try:
            with Wire(server.address) as wire:
                return bool(wire.ask(MetadataRequest(topics=[]), 4).brokers)
        except (Closed, OSError):
            time.sleep(0.05)
    return False
