"""Compaction beside a broker: the process that does it, and all that may happen to it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from support.broker import start_streamer
from support.clients import Sent, create_topic, produce, read, wait_until
from support.compaction import committed, state
from support.core import running_broker
from support.logs import flush

from streamer.broker import cleaner
from streamer.broker.catalog import Topic
from streamer.broker.core import Broker
from streamer.broker.names import Producer
from streamer.broker.state_log import StateLog
from streamer.log.checkpoints import read_offsets
from streamer.log.clock import SystemClock
from streamer.log.compaction import UNHURRIED_SHARE
from streamer.log.partition import Partition
from streamer.wire.batch import Marker
from streamer.wire.compression import Compression
from streamer.wire.record import Record, write_batch

SETTINGS = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20)}
NOW = SystemClock().now_ms()


@asynccontextmanager
async def filled(
    path: Path, settings: dict[str, str] | None = None, *, batches: int = 60
) -> AsyncIterator[tuple[Broker, Topic]]:
    """A broker with a topic of several segments, of a few keys."""
    async with running_broker(path, settings) as broker:
        topic = await broker.catalog.create("t", 1, SETTINGS)
        fill(topic, batches)
        await settle(broker)
        yield broker, topic


def fill(topic: Topic, batches: int = 60) -> None:
    for number in range(batches):
        records = [
            Record(0, NOW, b"key %d" % (each % 7), os.urandom(500)) for each in range(100)
        ]
        codec = list(Compression)[number % 5]
        data = write_batch(records, compression=codec)
        topic.partitions[0].append(data, now_ms=NOW)
    flush(topic.partitions[0])


async def settle(broker: Broker) -> None:
    """Two checkpoints later the recovery point is at the end."""
    await broker.checkpoint()
    await broker.checkpoint()


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def test_a_partition_is_compacted_by_a_process_that_then_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with filled(tmp_path) as (broker, topic):
        (partition,) = topic.partitions
        wanted, size = state(committed(partition)), partition.size
        await broker.cleaner.clean()
        assert state(committed(partition)) == wanted
        assert partition.size < size / 2
        assert children() == []
        assert "is compacted up to offset" in caplog.text
        end = broker.directory.cleaned_to(partition)
        assert end is not None
        checkpoint = (tmp_path / "cleaner-offset-checkpoint").read_bytes()
        assert read_offsets(checkpoint) == {("t", 0): end}

        # There is nothing more to do, so nothing is started.
        caplog.clear()
        await broker.cleaner.clean()
        assert caplog.text == ""
    async with running_broker(tmp_path) as broker:
        again = broker.catalog.topics["t"].partitions[0]
        assert state(committed(again)) == wanted
        assert broker.directory.cleaned_to(again) == end


async def test_one_process_cleans_all_the_dirtiest_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with filled(tmp_path) as (broker, topic):
        await broker.cleaner.clean()
        fill(topic, 15)
        fill(await broker.catalog.create("dirtier", 1, SETTINGS))
        topic.overrides["min.cleanable.dirty.ratio"] = "0.1"
        await broker.catalog.alter_topic(topic, lambda known: known)
        await settle(broker)
        caplog.clear()
        await broker.cleaner.clean()
    told = [record.message for record in caplog.records if "compacted" in record.message]
    names = [Path(message.split()[0]).name for message in told]
    assert names == ["dirtier-0", "t-0"]


async def test_a_killed_process_costs_a_cleaning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # So slow that it is still at it when it is killed.
    slow = {"log.cleaner.io.max.bytes.per.second": "1000000"}
    async with filled(tmp_path, slow) as (broker, topic):
        (partition,) = topic.partitions
        wanted = state(committed(partition))
        cleaning = asyncio.create_task(broker.cleaner.clean())
        await until(lambda: bool(list(partition.path.glob("*.cleaned"))))
        (child,) = children()
        assert leaves_the_processor_to_others(child)
        os.kill(child.pid, signal.SIGKILL)
        await cleaning
        assert "has ended with -9" in caplog.text
        assert children() == []
        assert state(committed(partition)) == wanted
        assert not list(partition.path.glob("*.cleaned"))
        assert not list(partition.path.glob("*.swap"))
        # It is left alone for a while.
        caplog.clear()
        await broker.cleaner.clean()
        assert caplog.text == ""


def leaves_the_processor_to_others(process: psutil.Process) -> bool:
    if hasattr(os, "SCHED_IDLE"):
        return os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    return process.nice() >= 10


async def starve(cleaning: asyncio.Task[None], partition: Partition) -> psutil.Process:
    """Leave the process nothing for a while; the one that comes after it."""
    await until(lambda: bool(list(partition.path.glob("*.cleaned"))))
    (starved,) = children()
    starved.suspend()
    await asyncio.sleep(0.6)
    starved.resume()
    await until(lambda: starved not in children())
    await until(lambda: bool(children()) or cleaning.done())
    (following,) = children()
    return following


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="it has a share of its own then")
async def test_where_others_leave_nothing_the_next_process_has_a_share_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(cleaner, "PATIENCE_SECONDS", 0.3)
    pace = {"log.cleaner.io.max.bytes.per.second": "9000000"}
    async with filled(tmp_path, pace) as (broker, topic):
        (partition,) = topic.partitions
        for _ in range(2):
            fill(topic, 90)
            await settle(broker)
            wanted = state(committed(partition))
            cleaning = asyncio.create_task(broker.cleaner.clean())
            child = await starve(cleaning, partition)
            await until(lambda child=child: child.nice() == 10)  # type: ignore[misc]
            assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
            await cleaning
            assert state(committed(partition)) == wanted
    assert "cannot be compacted" not in caplog.text
    assert caplog.text.count("is compacted up to offset") == 2
    assert caplog.text.count("with a share of its own") == 1


async def test_a_cleaning_takes_its_time_until_more_is_written_meanwhile_than_it_cleans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, hand_over = [], cleaner._Process.hand_over

    async def note(process: cleaner._Process, *job: Any) -> None:
        shares.append(job[-1])
        await hand_over(process, *job)
        if len(shares) == 1:
            fill(topic, 150)
            await settle(broker)

    monkeypatch.setattr(cleaner._Process, "hand_over", note)
    async with filled(tmp_path) as (broker, topic):
        for _ in range(2):
            await broker.cleaner.clean()
            fill(topic, 150)
            await settle(broker)
    assert shares == [UNHURRIED_SHARE, 1.0, UNHURRIED_SHARE]


async def test_stopping_ends_a_cleaning(tmp_path: Path) -> None:
    slow = {"log.cleaner.io.max.bytes.per.second": "1000000"}
    async with filled(tmp_path, slow) as (broker, topic):
        (partition,) = topic.partitions
        wanted = state(committed(partition))
        cleaning = asyncio.create_task(broker.cleaner.clean())
        await until(lambda: bool(list(partition.path.glob("*.cleaned"))))
        cleaning.cancel()
        await asyncio.gather(cleaning, return_exceptions=True)
        assert children() == []
    async with running_broker(tmp_path) as broker:
        partition = broker.catalog.topics["t"].partitions[0]
        assert state(committed(partition)) == wanted
        assert not list(partition.path.glob("*.cleaned"))


async def test_a_topic_deleted_and_made_again_is_left_alone_by_the_old_ones_cleaning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = {"log.cleaner.io.max.bytes.per.second": "3000000"}
    async with filled(tmp_path, slow) as (broker, topic):
        (partition,) = topic.partitions
        cleaning = asyncio.create_task(broker.cleaner.clean())
        await until(lambda: bool(list(partition.path.glob("*.cleaned"))))
        await broker.catalog.delete(topic)
        again = await broker.catalog.create("t", 1, SETTINGS)
        await cleaning
        assert "is not compacted after all" in caplog.text
        assert again.partitions[0].size == 0
        names = {path.name for path in again.partitions[0].path.iterdir()}
        assert not [name for name in names if name.endswith((".cleaned", ".swap"))]
        assert not (tmp_path / "cleaner-offset-checkpoint").exists()


async def test_records_deleted_meanwhile_do_not_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = {"log.cleaner.io.max.bytes.per.second": "3000000"}
    async with filled(tmp_path, slow) as (broker, topic):
        (partition,) = topic.partitions
        cleaning = asyncio.create_task(broker.cleaner.clean())
        await until(lambda: bool(list(partition.path.glob("*.cleaned"))))
        await broker.delete_records({partition: 4000})
        await cleaning
        assert partition.log_start == 4000
        assert all(record.offset >= 4000 for record in committed(partition))
        assert not list(partition.path.glob("*.swap"))


async def test_a_damaged_file_is_told_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with filled(tmp_path) as (broker, topic):
        (partition,) = topic.partitions
        first = min(partition.path.glob("*.log"))
        with first.open("r+b") as file:
            file.seek(5000)
            file.write(b"\0\0\0\0")
        await broker.cleaner.clean()
        assert "cannot be compacted" in caplog.text
        assert "does not match its checksum" in caplog.text
        assert "log verify" in caplog.text
        assert first.exists()


async def test_what_coordinators_remember_is_compacted_too(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        log = StateLog(
            broker, "__consumer_offsets", partitions=1, configs={"segment.bytes": "1048576"}
        )
        partition = await log.partition(0)
        for number in range(40):
            value = b"%d" % number + bytes(100_000)
            await log.append("g", [Record(0, NOW, b"k", value)], producer=Producer(7, 0))
            partition.append_marker(7, 0, Marker(number % 3 == 0, 0), now_ms=NOW)
        await log.append("g", [Record(0, NOW, b"gone", None)])
        await settle(broker)
        before, size = state(committed(partition)), partition.size
        await broker.cleaner.clean()
        assert partition.size < size / 2
        assert state(committed(partition)) == before
    async with running_broker(tmp_path) as broker:
        log = StateLog(broker, "__consumer_offsets", partitions=1, configs={})
        replayed = [one for _, one in log.replay()]
        assert log.problem is None
        offsets = [one.header.base_offset for one in replayed]
        assert offsets == sorted(set(offsets))
        partition = await log.partition(0)
        assert state(committed(partition)) == before


def test_the_process_ends_with_its_input() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer.log.compaction_start"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0


def loaded_by(module: str) -> set[str]:
    listed = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return set(listed)


def test_the_process_loads_little() -> None:
    """It starts and ends often, and what it keeps in memory comes on top."""
    heavy = {"asyncio", "uvloop", "streamer.broker", "streamer.wire.messages", "cramjam"}
    assert not heavy & loaded_by("streamer.log.compaction_process")


def test_it_steps_behind_others_before_it_loads_anything() -> None:
    loaded = loaded_by("streamer.log.compaction_start")

    ours = {name for name in loaded if name.startswith("streamer")}
    assert ours == {"streamer", "streamer.log", "streamer.log.compaction_start"}


@pytest.mark.slow
def test_a_broker_compacts_while_it_serves_and_dies_without_leaving_a_process(
    tmp_path: Path,
) -> None:
    settings = {
        "log.cleaner.backoff.ms": "100",
        "log.flush.offset.checkpoint.interval.ms": "100",
        "log.segment.bytes": str(1 << 20),
    }
    slow = {"log.cleaner.io.max.bytes.per.second": "1000000"}
    newest: dict[bytes | None, bytes | None] = {}
    with start_streamer(tmp_path, settings=settings | slow) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        topic = create_topic(admin, config={"cleanup.policy": "compact"})
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            sent = [
                Sent(key=b"key %d" % (number % 70), value=os.urandom(500))
                for number in range(3000)
            ]
            produce(server.address, topic, sent, compression_type=codec)
            newest.update((one.key, one.value) for one in sent)
        broker = psutil.Process(server.process.pid)
        wait_until(lambda: bool(broker.children()), "nothing is compacted")
        (child,) = broker.children()
        server.kill()
        assert psutil.wait_procs([child], timeout=10)[1] == []

    with start_streamer(tmp_path, settings=settings) as server:
        folder = server.logs / f"{topic}-0"
        wait_until(lambda: size_of(folder) < 2 << 20, "it was not compacted")
        found = read(server.address, topic)
        assert {message.key(): message.value() for message in found} == newest
        assert len(found) < 5000


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.log"))
