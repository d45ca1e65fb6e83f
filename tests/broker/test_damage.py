"""Files that cannot be read, or are not what was written: named, told, and worked around.

What is damaged is never served. Who reads gets an error code and can go on behind it; the
other partitions, and the broker, do not notice. A start stops only where going on would
mean to guess what topics there are, and then says which file it is about.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import batches
from support.broker import STREAMER, start_streamer
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.faults import batch, create
from support.raw import (
    Wire,
    fetch,
    fetch_request,
    offsets,
    only_partition,
    produce,
    produce_request,
)

from streamer.broker.core import Broker
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode

OK, CORRUPT = ErrorCode.NONE, ErrorCode.CORRUPT_MESSAGE
UNREADABLE = ErrorCode.KAFKA_STORAGE_ERROR
LOG = "00000000000000000000.log"
RECORD_SIZE = 1_000
BATCHES = 10
# All that a start can do without.
SMALL_FILES = [
    "t-0/partition.metadata",
    "t-0/leader-epoch-checkpoint",
    "t-0/00000000000000000000.index",
    "t-0/00000000000000000000.timeindex",
    "t-0/00000000000000000010.snapshot",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "address",
]


def write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def produce_some(wire: Wire, topic: str, partition: int = 0) -> None:
    for _ in range(BATCHES):
        assert (
            produce(wire, topic, batch(RECORD_SIZE), partition=partition).error_code == OK
        )


def readable(wire: Wire, topic: str, partition: int = 0) -> list[int]:
    """The offsets that a reader gets who steps over what it cannot get."""
    found: list[int] = []
    offset = 0
    while offset < BATCHES:
        answer = fetch(wire, topic, offset, partition=partition)
        assert answer.error_code in (OK, CORRUPT)
        got = [header.base_offset for header in batches.headers(answer.records)]
        assert answer.error_code == OK or not got
        found += got
        offset = found[-1] + 1 if got else offset + 1
    return found


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "between"])
def test_a_corrupt_batch_is_never_served_and_readers_can_go_on_behind_it(
    tmp_path: Path, running: bool
) -> None:
    server = start_streamer(tmp_path)
    with Wire(server.address) as wire:
        create(wire, "t", partitions=2)
        produce_some(wire, "t", 0)
        produce_some(wire, "t", 1)
    file = server.logs / "t-0" / LOG
    if not running:
        server.stop()

    # Within the fifth batch's value.
    write(file, 4 * file.stat().st_size // BATCHES + 500, b"?")

    if not running:
        server = start_streamer(tmp_path)
    with server, Wire(server.address) as wire:
        assert readable(wire, "t") == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert readable(wire, "t", 1) == list(range(BATCHES))
        assert produce(wire, "t", batch(1)).base_offset == BATCHES
    said = server.output.read_text()
    assert f"{file} at byte" in said
    assert "does not match its checksum" in said
    assert "-> `streamer log verify" in said
    assert "Traceback" not in said


def test_a_segment_that_is_cut_short_while_the_broker_runs_costs_only_what_is_gone(
    tmp_path: Path,
) -> None:
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t", partitions=2)
        produce_some(wire, "t", 0)
        produce_some(wire, "t", 1)
        file = server.logs / "t-0" / LOG

        with file.open("r+b") as opened:
            opened.truncate(6 * file.stat().st_size // BATCHES + 30)

        assert readable(wire, "t") == list(range(6))
        assert readable(wire, "t", 1) == list(range(BATCHES))
    assert "Traceback" not in server.output.read_text()


def test_a_partition_that_cannot_be_opened_is_named_and_the_others_are_served(
    tmp_path: Path,
) -> None:
    server = start_streamer(tmp_path)
    with Wire(server.address) as wire:
        create(wire, "t", partitions=2)
        produce_some(wire, "t", 0)
        produce_some(wire, "t", 1)
    server.stop()
    file = server.logs / "t-0" / LOG
    aside = file.rename(tmp_path / "aside")
    file.mkdir()

    for _ in range(2):
        with start_streamer(tmp_path) as server, Wire(server.address) as wire:
            assert produce(wire, "t", batch(1)).error_code == UNREADABLE
            for timestamp in (-1, -2, 0):
                assert offsets(wire, "t", timestamp).error_code == UNREADABLE
            for offset in (0, 5):
                assert fetch(wire, "t", offset).error_code == UNREADABLE
            assert readable(wire, "t", 1)[:BATCHES] == list(range(BATCHES))
            assert produce(wire, "t", batch(1), partition=1).error_code == OK
    said = server.output.read_text()
    assert "t-0 is offline" in said
    assert str(file) in said
    assert "Traceback" not in said

    file.rmdir()
    aside.rename(file)
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        assert readable(wire, "t") == list(range(BATCHES))


@pytest.mark.parametrize("content", [b"", b"\xff\x00rubbish\n" * 3, b"a:99999\n"])
def test_small_files_that_are_garbled_cost_nothing(tmp_path: Path, content: bytes) -> None:
    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        create(wire, "t")
        produce_some(wire, "t")
    for name in SMALL_FILES:
        assert (server.logs / name).exists(), name
        (server.logs / name).write_bytes(content)

    with start_streamer(tmp_path) as server, Wire(server.address) as wire:
        assert readable(wire, "t") == list(range(BATCHES))
        assert produce(wire, "t", batch(1)).base_offset == BATCHES
    assert "Traceback" not in server.output.read_text()


@pytest.mark.parametrize("name", ["meta.properties", "catalog.journal"])
@pytest.mark.parametrize("damage", ["empty", "rubbish", "folder"])
def test_without_what_names_the_topics_a_start_stops_and_says_which_file_it_is(
    tmp_path: Path, name: str, damage: str
) -> None:
    with start_streamer(tmp_path) as server:
        pass
    file = server.logs / name
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(b"" if damage == "empty" else b"rubbish\xff\n" * 3)

    ended = start_in_vain(server.logs)

    assert str(file) in ended.stderr


def test_a_data_dir_that_is_no_folder_is_refused_with_a_way_out(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    for data_dir in (file, file / "below"):
        assert str(data_dir) in start_in_vain(data_dir).stderr


def start_in_vain(data_dir: Path) -> subprocess.CompletedProcess[str]:
    """A start that must fail, with one clear message."""
    command = [str(STREAMER), "broker", "--port", "0", "--data-dir", str(data_dir)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "-> " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended


@asynccontextmanager
async def written(disk: SimulatedDisk) -> AsyncIterator[tuple[Broker, Client]]:
    async with running_broker(Path("/data"), disk=disk) as broker:
        await broker.catalog.create("t", 2, {})
        client = Client(broker)
        for partition in (0, 1):
            request = produce_request("t", batch(100), partition=partition)
            await client.ask(ApiKey.PRODUCE, 9, request)
        yield broker, client


async def read(client: Client, partition: int) -> Any:
    request = fetch_request("t", 0, partition=partition)
    return only_partition(await client.ask(ApiKey.FETCH, 12, request))


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("call", ["read", "open"])
async def test_a_disk_that_cannot_read_is_told_to_readers_and_in_the_log(
    call: str, cold: bool, caplog: pytest.LogCaptureFixture
) -> None:
    disk = SimulatedDisk()
    async with written(disk) as (broker, client):
        disk.cold = cold
        disk.era += call == "open"  # All files have to be opened anew.
        disk.fail(call, errno.EIO, name="t-0/")
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                assert (await read(client, 0)).error_code == UNREADABLE
        assert (await read(client, 1)).error_code == OK
        assert len(caplog.messages) == 1
        assert "/data/t-0 cannot be read" in caplog.text

        disk.heal()
        assert (await read(client, 0)).error_code == OK
        assert broker.offline is None
        await asyncio.sleep(0)
