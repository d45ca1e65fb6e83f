"""A full disk: producers are told, readers are served, and all is well once there is room.

The disk is a small one in memory, made for the test, so that it is really full: every call
of the broker meets it, not only those that a test would think of. Who may not mount one
still has the limit for the size of a file, and the simulated disk.
"""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.batches import headers
from support.broker import start_streamer
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.faults import batch, changes, create, delete, eventually, limited
from support.raw import Wire, fetch, produce
from support.server import Server

from streamer.broker.core import Broker
from streamer.wire.error_codes import ErrorCode

OK, FULL = ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR
# What is done from time to time is done often; the files of deleted topics go at once.
OFTEN = {
    "log.flush.offset.checkpoint.interval.ms": "100",
    "log.retention.check.interval.ms": "100",
    "log.segment.delete.delay.ms": "0",
    "auto.create.topics.enable": "true",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Where a disk of 16 MiB is mounted."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("mounting a small disk needs Linux and root")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    # What somebody else keeps there, and may give up.
    (path / "stuffing").write_bytes(bytes(2 << 20))
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def start(tmp_path: Path, disk: Path) -> Server:
    return start_streamer(tmp_path, data=disk / "data", settings=OFTEN)


def fill(wire: Wire, topic: str) -> int:
    """Produce until the disk is full; how many batches it has taken."""
    taken = 0
    for size in (1_000_000, 50_000, 5_000):
        while (answer := produce(wire, topic, batch(size))).error_code == OK:
            taken += 1
        assert answer.error_code == FULL
    return taken


def stuff(disk: Path) -> Path:
    """Take all that is left, so that not one page more is to be had."""
    file = disk / "stuffing"
    with file.open("ab", buffering=0) as sink:
        for size in (1 << 20, 4096):
            try:
                while sink.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
    return file


def test_a_full_disk_refuses_producers_serves_readers_and_is_told_with_a_way_out(
    disk: Path, tmp_path: Path
) -> None:
    with start(tmp_path, disk) as server, Wire(server.address) as wire:
        create(wire, "t")
        taken = fill(wire, "t")
        stuff(disk)

        assert produce(wire, "t", batch(5_000)).error_code == FULL
        answer = fetch(wire, "t", taken - 1)
        assert (answer.error_code, answer.high_watermark) == (OK, taken)
        assert len(answer.records) > 5_000

    said = server.output.read_text()
    assert f"{disk / 'data' / 't-0'}" in said
    assert "No space left on device\n  -> Make room" in said
    assert said.count("A producer was refused") == 1
    # Stopped in order, as far as that can be on such a disk.
    assert server.process.returncode == 0
    assert "Traceback" not in said


def test_on_a_full_disk_whatever_writes_is_answered_with_an_error_code(
    disk: Path, tmp_path: Path
) -> None:
    with start(tmp_path, disk) as server, Wire(server.address) as wire:
        create(wire, "t")
        produce(wire, "t", batch(1, 1))
        fill(wire, "t")
        stuffing = stuff(disk)

        codes = {
            key: code_of(wire.ask(request, version))
            for key, version, request, code_of in changes("t")
        }
        stuffing.unlink()
        again = {
            key: code_of(wire.ask(request, version))
            for key, version, request, code_of in changes("t")
            if codes[key] != OK
        }
        # Nothing was made that cannot be used.
        assert produce(wire, "new", batch(100)).error_code == OK
        assert produce(wire, "t", batch(100), partition=2).error_code == OK

    assert set(codes.values()) == {OK, FULL}
    assert set(again.values()) == {OK}
    assert "Traceback" not in server.output.read_text()


def test_deleting_a_topic_makes_room_and_producing_works_again_without_a_restart(
    disk: Path, tmp_path: Path
) -> None:
    with start(tmp_path, disk) as server, Wire(server.address) as wire:
        create(wire, "kept")
        create(wire, "large")
        fill(wire, "large")
        stuff(disk)
        assert produce(wire, "kept", batch(5_000)).error_code == FULL

        assert delete(wire, "large") == OK
        eventually(
            lambda: produce(wire, "kept", batch(1_000_000)).error_code == OK,
            "there is room, but producing does not work",
        )
        assert create(wire, "large") == OK
        assert produce(wire, "large", batch(1_000_000)).error_code == OK


def test_a_broker_started_on_a_full_disk_serves_what_is_there(
    disk: Path, tmp_path: Path
) -> None:
    server = start(tmp_path, disk)
    with Wire(server.address) as wire:
        create(wire, "t")
        taken = fill(wire, "t")
    server.kill()
    stuffing = stuff(disk)

    with start(tmp_path, disk) as again, Wire(again.address) as wire:
        assert again.address == server.address
        assert fetch(wire, "t", taken - 1).high_watermark == taken
        assert produce(wire, "t", batch(5_000)).error_code == FULL

        stuffing.unlink()
        assert produce(wire, "t", batch(5_000)).base_offset == taken
    assert "Traceback" not in again.output.read_text()


def test_a_file_that_may_not_grow_is_like_a_full_disk(tmp_path: Path) -> None:
    if not hasattr(resource, "prlimit"):
        pytest.skip("changing the limits of another process needs Linux")
    narrow = limited("-S -f 128")  # 64 KiB in most shells, 128 KiB in some
    with start_streamer(tmp_path, under=narrow) as server, Wire(server.address) as wire:
        create(wire, "t")
        assert produce(wire, "t", batch(1_000)).error_code == OK

        assert produce(wire, "t", batch(200_000)).error_code == FULL
        assert produce(wire, "t", batch(1_000)).base_offset == 1
        _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
        assert produce(wire, "t", batch(200_000)).base_offset == 2

        found = fetch(wire, "t", 0)
        assert [header.base_offset for header in headers(found.records)] == [0, 1, 2]


@pytest.mark.parametrize("room", [0, 50, 150, 300, 500, 1000, 2000])
async def test_wherever_the_disk_becomes_full_a_change_is_made_whole_or_not_at_all(
    room: int,
) -> None:
    disk, path = SimulatedDisk(), Path("/data")
    async with running_broker(path, disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        client = Client(broker)
        disk.capacity = disk.capacity - disk.space(path).free + room
        codes = {}
        for key, version, request, code_of in changes("t"):
            codes[key] = code_of(await client.ask(key, version, request))
        assert set(codes.values()) <= {OK, FULL, ErrorCode.OFFSET_OUT_OF_RANGE}

        disk.capacity = 1 << 30
        for key, version, request, code_of in changes("t"):
            if codes[key] != OK:
                assert code_of(await client.ask(key, version, request)) == OK
        assert [one.offline for one in broker.directory.partitions() if one.offline] == []
        before = described(broker)
    async with running_broker(path, disk=disk) as broker:
        assert described(broker) == before


def described(broker: Broker) -> dict[str, tuple[object, ...]]:
    topics = broker.catalog.topics
    return {
        name: (topic.id, topic.overrides, [one.end for one in topic.partitions])
        for name, topic in topics.items()
    }


async def test_the_disk_filling_up_is_told_once_and_so_is_that_there_is_room_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = SimulatedDisk(capacity=100 << 20)
    async with running_broker(Path("/data"), disk=disk) as broker:
        with caplog.at_level(logging.INFO):
            broker.watch_space()
            assert caplog.messages == []

            disk.replace(Path("/data/large"), bytes(96 << 20))
            for _ in range(3):
                broker.watch_space()
            (warning,) = caplog.messages
            assert "/data" in warning
            assert "-> Make room" in warning

            disk.replace(Path("/data/large"), bytes(95 << 20))
            disk.replace(Path("/data/large"), b"")
            for _ in range(3):
                broker.watch_space()
            assert "room on the disk again" in caplog.messages[1]
            assert len(caplog.messages) == 2
