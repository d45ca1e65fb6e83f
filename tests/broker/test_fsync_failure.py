"""A sync that fails: nothing is acknowledged after it, and it is never tried again.

After an error Linux marks what it could not write as clean: a second sync succeeds, and
the data is gone. Here a library loaded before the C library lets one sync of the broker's
process fail that way; the simulated disk lets any of them fail in this process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from support import raw
from support.broker import start_streamer
from support.core import Client, running_broker
from support.disk import SimulatedDisk
from support.faults import batch, changes, create, create_topic, topic_code
from support.raw import Wire, fetch, only_partition, produce, produce_request
from support.server import Server

from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import DescribeLogDirsRequest

OK, FAILED = ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR
SOURCE = Path(raw.__file__).with_name("faulty_sync.c")


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to syncs in the processes that are started with `environment`."""

    folder: Path
    shim: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.shim), "FAULTS_FOLDER": str(self.folder)}

    def fail(self, path: str) -> None:
        """Let the next sync of a file with this in its path fail, once."""
        hidden = self.folder / "fail.tmp"
        hidden.write_text(path)
        hidden.rename(self.folder / "fail")

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def let_go(self) -> None:
        (self.folder / "hold").unlink()

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a library to load before the C library needs Linux and gcc")
    folder = tmp_path / "faults"
    folder.mkdir()
    shim = folder / "faulty_sync.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, SOURCE, "-ldl"], check=True)
    return Faults(folder, shim)


def start(tmp_path: Path, faults: Faults) -> Server:
    # Checkpoints sync, too: here all of them come from what a test does.
    settings = {"log.flush.offset.checkpoint.interval.ms": "600000"}
    return start_streamer(tmp_path, settings=settings, environment=faults.environment)


def test_after_a_failed_sync_nothing_is_acknowledged_and_what_was_is_served(
    tmp_path: Path, faults: Faults
) -> None:
    with start(tmp_path, faults) as server, Wire(server.address) as wire:
        create(wire, "t", partitions=2)
        assert produce(wire, "t", batch(100)).error_code == OK

        faults.fail("t-0/")
        assert produce(wire, "t", batch(100)).error_code == FAILED
        calls = faults.calls()
        for _ in range(2):
            for partition in (0, 1):
                again = produce(wire, "t", batch(100), partition=partition)
                assert again.error_code == FAILED
                assert "offline" in again.error_message
        for key, version, request, code_of in changes("t"):
            assert code_of(wire.ask(request, version)) == FAILED, key

        answer = fetch(wire, "t", 0)
        assert (answer.error_code, answer.high_watermark) == (OK, 1)
        (log_dir,) = wire.ask(DescribeLogDirsRequest(topics=None), 1).log_dirs
        assert log_dir.error_code == FAILED
    assert "failed" in calls[-1]
    assert faults.calls() == calls, "a sync came after the one that failed"


def test_a_failed_sync_is_told_with_the_way_out_and_a_restart_recovers(
    tmp_path: Path, faults: Faults
) -> None:
    server = start(tmp_path, faults)
    with Wire(server.address) as wire:
        create(wire, "t")
        produce(wire, "t", batch(100))
        faults.fail("t-0/")
        assert produce(wire, "t", batch(100)).error_code == FAILED
    server.stop()

    said = server.output.read_text()
    assert said.count("CRITICAL") == 1
    assert f"{server.logs / 't-0'} failed: Input/output error" in said
    assert "-> Check the disk" in said
    assert "Traceback" not in said
    assert not (server.logs / ".kafka_cleanshutdown").exists()
    with start(tmp_path, faults) as again, Wire(again.address) as wire:
        offset = produce(wire, "t", batch(100)).base_offset
        assert offset in (1, 2), "the record that nobody promised may be there, or not"
        assert fetch(wire, "t", 0).high_watermark == offset + 1


def test_a_journal_that_cannot_be_synced_stops_all_writing(
    tmp_path: Path, faults: Faults
) -> None:
    with start(tmp_path, faults) as server, Wire(server.address) as wire:
        create(wire, "t")
        produce(wire, "t", batch(100))

        faults.fail("catalog.journal")
        assert create(wire, "u") == FAILED
        assert produce(wire, "t", batch(100)).error_code == FAILED
        assert fetch(wire, "t", 0).high_watermark == 1


def test_a_second_ctrl_c_ends_a_broker_that_waits_for_the_disk(
    tmp_path: Path, faults: Faults
) -> None:
    server = start(tmp_path, faults)
    with Wire(server.address) as wire:
        create(wire, "t")
        faults.hold()
        wire.send(produce_request("t", batch(100)), 9)
        # It waits for the producer's flush, then for the disk without end.
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None

        server.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        server.process.wait(10)
    assert time.monotonic() - began < 2
    assert server.process.returncode != 0
    assert "Traceback" not in server.output.read_text()
    faults.let_go()


@pytest.mark.parametrize("call", ["sync", "sync_dir"])
@pytest.mark.parametrize("after", range(0, 24, 2))
async def test_whichever_sync_fails_what_was_acknowledged_survives_a_power_cut(
    call: str, after: int
) -> None:
    disk, path = SimulatedDisk(), Path("/data")
    async with running_broker(path, disk=disk) as broker:
        clients = [Client(broker) for _ in range(3)]
        created = topic_code(
            await clients[0].ask(ApiKey.CREATE_TOPICS, 5, create_topic("t", 3))
        )
        disk.fail(call, errno.EIO, after=after)
        acknowledged = [0, 0, 0]
        for _ in range(12):
            for partition, client in enumerate(clients):
                request = produce_request("t", batch(700), partition=partition)
                client.send(ApiKey.PRODUCE, 9, request)
            answers = [only_partition(await client.answer()) for client in clients]
            for partition, answer in enumerate(answers):
                assert answer.error_code in (OK, FAILED)
                acknowledged[partition] += answer.error_code == OK
        assert broker.offline is not None or call == "sync_dir"

        await asyncio.sleep(0.05)  # Syncs of the others may be under way.
        syncs = disk.counts["sync"], disk.counts["sync_dir"]
        disk.heal()
        failed = broker.offline is not None
        if failed:
            answer = await clients[0].ask(ApiKey.PRODUCE, 9, produce_request("t", batch(1)))
            assert only_partition(answer).error_code == FAILED
    assert not failed or syncs == (disk.counts["sync"], disk.counts["sync_dir"])
    assert created == OK

    disk.crash(Random(after))
    async with running_broker(path, disk=disk) as broker:
        for partition, count in enumerate(acknowledged):
            found = broker.catalog.partition("t", partition)
            assert found is not None
            assert found.end >= count


async def test_producers_that_wait_for_another_partition_are_told_at_once() -> None:
    disk = SimulatedDisk()
    async with running_broker(Path("/data"), disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        client = Client(broker)
        # Nobody flushes here: only the failure can answer it.
        broker.flusher.flush = lambda partition: None  # type: ignore[method-assign]
        client.send(ApiKey.PRODUCE, 9, produce_request("t", batch(100)))
        assert not client.has_answer

        broker.go_offline("another partition's sync failed")

        assert only_partition(await client.answer()).error_code == FAILED


async def test_while_the_disk_is_not_trusted_nothing_is_deleted_from_it() -> None:
    disk = SimulatedDisk()
    async with running_broker(Path("/data"), disk=disk) as broker:
        topic = await broker.catalog.create("t", 1, {"retention.ms": "1"})
        partition = topic.partitions[0]
        partition.append(batch(100), now_ms=broker.clock.now_ms())
        flush = partition.begin_flush()
        assert flush is not None
        flush.run()
        partition.flushed(flush)
        await asyncio.sleep(0.01)
        disk.modified = 0
        broker.go_offline("a sync failed")
        files = disk.files()

        await broker.apply_retention()
        await broker.checkpoint()
        assert disk.files() == files

        # It would have gone otherwise.
        partition.offline = None
        await broker.apply_retention()
        assert partition.log_start == 1


async def test_a_topic_deleted_while_it_is_flushed_is_no_failure(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "data") as broker:
        topic = await broker.catalog.create("t", 1, {})
        topic.partitions[0].append(batch(100), now_ms=broker.clock.now_ms())
        flush = topic.partitions[0].begin_flush()
        assert flush is not None

        await broker.catalog.delete(topic)

        flush.run()
        assert broker.offline is None


async def test_with_page_cache_durability_a_failed_sync_is_seen_at_the_checkpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = SimulatedDisk()
    settings = {"log.durability": "page-cache"}
    async with running_broker(Path("/data"), settings, disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        client = Client(broker)
        request = produce_request("t", batch(100))
        assert only_partition(await client.ask(ApiKey.PRODUCE, 9, request)).error_code == OK

        disk.fail("sync", errno.EIO, name=".log")
        await broker.checkpoint()
        disk.heal()

        assert [one.levelno for one in caplog.records] == [logging.CRITICAL]
        answer = await client.ask(ApiKey.PRODUCE, 9, request)
        assert only_partition(answer).error_code == FAILED
        syncs = disk.counts["sync"]
        await broker.checkpoint()
        assert disk.counts["sync"] == syncs
