"""A disk that fills up, fails to sync, cannot be read: named, survived, not made worse."""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import UUID

import pytest
from support.disk import SimulatedDisk
from support.logs import (
    NOW,
    TOPIC_ID,
    TurnedClock,
    append,
    batch,
    batch_of,
    create,
    flush,
    reopen,
    values,
)

from streamer.log.config import LogConfig
from streamer.log.directory import LogDirectory
from streamer.log.errors import CorruptLog, Refused
from streamer.log.partition import Partition
from streamer.wire.error_codes import ErrorCode

TINY = LogConfig(segment_bytes=400, index_interval_bytes=100)


def refused(partition: Partition, data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        partition.append(data, now_ms=NOW)
    return caught.value


def test_a_full_disk_refuses_the_batch_and_takes_the_next_once_there_is_room() -> None:
    disk = SimulatedDisk()
    partition = create(disk)
    append(partition, batch_of(1, 0, b"a"))
    disk.capacity = disk.capacity - disk.space(Path("/")).free + 40

    assert refused(partition, batch_of(1, 1, b"b")).code == ErrorCode.KAFKA_STORAGE_ERROR
    assert partition.offline is None
    assert values(partition) == [b"a"]

    disk.capacity = 1 << 30
    append(partition, batch_of(1, 1, b"b"))
    flush(partition)
    assert values(partition) == [b"a", b"b"]
    disk.kill()
    assert values(reopen(disk)) == [b"a", b"b"]


@pytest.mark.parametrize("room", range(0, 2000, 25))
def test_wherever_the_disk_becomes_full_the_log_goes_on_when_there_is_room(
    room: int,
) -> None:
    disk = SimulatedDisk()
    partition = create(disk, TINY)
    taken: list[bytes] = []
    codes: set[ErrorCode] = set()
    disk.capacity = disk.capacity - disk.space(Path("/")).free + room
    for number in range(30):
        value = b"%d" % number
        try:
            partition.append(batch_of(1, len(taken), value), now_ms=NOW)
            taken.append(value)
        except Refused as error:
            codes.add(error.code)
        partition.checkpoint()
        if number == 20:
            disk.capacity = 1 << 30
    assert partition.offline is None
    assert codes <= {ErrorCode.KAFKA_STORAGE_ERROR}
    assert len(taken) >= 9, "what came when there was room again"
    assert values(partition) == taken
    flush(partition)
    disk.kill()
    assert values(reopen(disk, TINY)) == taken


@pytest.mark.parametrize("calls", range(8))
def test_after_a_failed_sync_nothing_more_is_promised_and_nothing_is_retried(
    calls: int,
) -> None:
    disk = SimulatedDisk()
    partition = create(disk, TINY)
    promised = []
    disk.fail("sync", errno.EIO, after=calls)
    syncs = 0
    for number in range(20):
        if partition.offline is None:
            append(partition, batch(b"%d" % number))
        job = partition.begin_flush()
        if job is None:
            break
        try:
            job.run()
        except OSError as error:
            partition.flush_failed(job, error)
            syncs = disk.counts["sync"]
        else:
            partition.flushed(job)
            promised.append(b"%d" % number)
    assert disk.counts["sync"] == syncs > 0
    assert partition.offline is not None
    assert "restart" in partition.offline
    assert partition.high_watermark == len(promised)
    assert refused(partition, batch(b"x")).code == ErrorCode.KAFKA_STORAGE_ERROR
    assert values(partition)[: len(promised)] == promised
    disk.heal()
    disk.kill()
    assert values(reopen(disk, TINY))[: len(promised)] == promised


def test_a_write_that_can_neither_be_finished_nor_undone_takes_the_partition_offline() -> (
    None
):
    disk = SimulatedDisk()
    partition = create(disk)
    append(partition, batch(b"a"))
    flush(partition)
    disk.fail("write", errno.EIO)
    disk.fail("truncate", errno.EIO)

    assert refused(partition, batch(b"b")).code == ErrorCode.KAFKA_STORAGE_ERROR
    assert partition.offline is not None
    assert "cannot be written nor cut back" in partition.offline
    assert values(partition) == [b"a"]


def test_a_partition_that_cannot_be_read_is_offline_and_the_others_are_served() -> None:
    disk = SimulatedDisk()
    clock = TurnedClock()
    directory = LogDirectory.open(disk, Path("/data"), clock)
    for index in range(2):
        partition = directory.open_partition("t", index, TOPIC_ID, LogConfig())
        append(partition, batch(b"%d" % index))
    directory.close(clean=True)
    disk.fail("read", errno.EIO, name="t-0")

    for _ in range(2):
        directory = LogDirectory.open(disk, Path("/data"), clock)
        bad, good = (
            directory.open_partition("t", index, TOPIC_ID, LogConfig()) for index in (0, 1)
        )
        assert bad.offline is not None
        assert "read failed on purpose" in bad.offline
        assert refused(bad, batch(b"x")).code == ErrorCode.KAFKA_STORAGE_ERROR
        with pytest.raises(CorruptLog, match="t-0 is offline"):
            bad.plan_read(0, 100, up_to=1)
        assert values(good) == [b"1"]
        directory.checkpoint()()
        directory.close(clean=True)

    disk.heal()
    directory = LogDirectory.open(disk, Path("/data"), clock)
    assert values(directory.open_partition("t", 0, TOPIC_ID, LogConfig())) == [b"0"]


def test_page_cache_durability_shows_at_once_and_syncs_with_the_checkpoint() -> None:
    disk = SimulatedDisk()
    partition = create(disk, durable=False)
    append(partition, batch(b"a"))

    assert partition.high_watermark == 1
    assert partition.visible_size == partition.size > 0
    assert partition.begin_flush() is None

    before = disk.counts["sync"]
    assert partition.checkpoint() == 1
    assert disk.counts["sync"] > before

    append(partition, batch(b"b"))
    disk.fail("sync", errno.EIO)
    checkpoint = partition.begin_checkpoint()
    assert checkpoint is not None
    checkpoint.run()
    partition.checkpointed(checkpoint)
    assert partition.offline is not None


def test_a_topic_made_anew_does_not_inherit_the_folder_of_the_old_one() -> None:
    disk = SimulatedDisk()
    clock = TurnedClock()
    directory = LogDirectory.open(disk, Path("/data"), clock)
    append(directory.open_partition("t", 0, TOPIC_ID, LogConfig()), batch(b"old"))
    directory.close(clean=True)

    directory = LogDirectory.open(disk, Path("/data"), clock)
    partition = directory.open_partition("t", 0, UUID(int=8), LogConfig())
    assert values(partition) == []
