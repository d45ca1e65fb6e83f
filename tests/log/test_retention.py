"""Age, size, DeleteRecords: whole segments, oldest first, never what is not flushed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.disk import SimulatedDisk
from support.logs import (
    NOW,
    append,
    batch,
    create,
    flush,
    records,
    reopen,
)

from streamer.log import retention
from streamer.log.config import LogConfig
from streamer.log.errors import OffsetOutOfRange
from streamer.log.partition import Partition
from streamer.log.retention import SegmentAge

HOUR = 3_600_000
CONFIG = LogConfig(segment_bytes=500, retention_ms=HOUR, index_interval_bytes=100)


def hourly(disk: SimulatedDisk, count: int = 20) -> Partition:
    """A segment holds about two batches; each batch is an hour younger than the last."""
    config = replace(CONFIG, message_timestamp_after_max_ms=2**62)
    partition = create(disk, config)
    append(partition, *[batch(b"v" * 150, timestamp=NOW + n * HOUR) for n in range(count)])
    return partition


def test_segments_go_once_their_latest_record_is_too_old() -> None:
    disk = SimulatedDisk()
    partition = hourly(disk)
    flush(partition)
    deleted = partition.apply_retention(NOW + 10 * HOUR)
    assert partition.log_start in (8, 9)
    assert sum(one.size for one in deleted) > 0
    assert all("retention.ms" in one.reason for one in deleted)
    assert records(partition)[0].offset == partition.log_start
    assert partition.apply_retention(NOW + 10 * HOUR) == []
    disk.kill()
    reopened = reopen(disk, CONFIG)
    assert reopened.log_start == partition.log_start
    assert not [path for path in disk.files() if path.name == f"{0:020d}.log"]


def test_the_last_segment_goes_too_and_the_end_stays() -> None:
    disk = SimulatedDisk()
    partition = hourly(disk, 3)
    flush(partition)
    partition.apply_retention(NOW + 1000 * HOUR)
    assert partition.log_start == partition.end == 3
    assert partition.size == 0
    append(partition, batch(b"next"))
    flush(partition)
    disk.kill()
    assert [record.offset for record in records(reopen(disk, CONFIG))] == [3]


def test_what_is_not_flushed_stays() -> None:
    partition = hourly(SimulatedDisk())
    assert partition.apply_retention(NOW + 1000 * HOUR) == []
    assert partition.log_start == 0


def test_a_clock_that_is_set_back_deletes_nothing() -> None:
    partition = hourly(SimulatedDisk())
    flush(partition)
    assert partition.apply_retention(NOW - 1000 * HOUR) == []


def test_a_start_does_not_forget_how_young_a_segment_is() -> None:
    disk = SimulatedDisk()
    partition = hourly(disk)
    flush(partition)
    partition.close(clean=True)
    for clean in (True, False):
        reopened = reopen(disk, CONFIG, recovery_point=partition.end, clean=clean)
        assert reopened.apply_retention(NOW + HOUR) == []
        assert len(reopened.apply_retention(NOW + 6 * HOUR)) >= (2 if clean else 0)


def test_a_young_file_is_not_read_to_learn_that_its_records_are_young() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    append(partition, batch(b"v", timestamp=NOW))
    flush(partition)
    partition.close(clean=True)
    reopened = reopen(disk, CONFIG, recovery_point=1, clean=True)
    before = disk.counts["read"]

    disk.modified = NOW
    assert reopened.apply_retention(NOW + HOUR - 1) == []
    assert disk.counts["read"] == before
    assert len(reopened.apply_retention(NOW + HOUR + 1)) == 1


def test_segments_go_while_the_rest_is_still_large_enough() -> None:
    partition = hourly(SimulatedDisk())
    flush(partition)
    size = partition.size
    partition.config = replace(CONFIG, retention_ms=-1, retention_bytes=size // 2)
    deleted = partition.apply_retention(NOW)
    assert all("retention.bytes" in one.reason for one in deleted)
    assert size // 2 <= partition.size < size // 2 + 500
    assert deleted[0].base_offset == 0


def test_a_compacted_topic_keeps_everything() -> None:
    partition = hourly(SimulatedDisk())
    flush(partition)
    partition.config = replace(CONFIG, compact=True, delete=False)
    assert partition.apply_retention(NOW + 1000 * HOUR) == []


@pytest.mark.parametrize(
    ("config", "now_ms", "expected"),
    [
        (LogConfig(retention_ms=-1), 10**15, 0),
        (LogConfig(retention_ms=10), 105, 0),
        (LogConfig(retention_ms=10), 111, 1),
        (LogConfig(retention_ms=10), 211, 1),
        (LogConfig(retention_ms=-1, retention_bytes=150), 0, 1),
        (LogConfig(retention_ms=-1, retention_bytes=0), 0, 2),
    ],
)
def test_the_oldest_first_and_no_further_than_the_first_that_stays(
    config: LogConfig, now_ms: int, expected: int
) -> None:
    ages = [
        SegmentAge(100, 10, 100),
        SegmentAge(100, 20, 300),
        SegmentAge(50, 30, 50, last=True),
    ]
    reasons = retention.judge(
        ages, config, size=250, log_start=0, flushed=30, now_ms=now_ms
    )
    assert len(reasons) == expected


def test_deleted_records_are_gone_and_whole_segments_with_them() -> None:
    disk = SimulatedDisk()
    partition = hourly(disk)
    with pytest.raises(OffsetOutOfRange):
        partition.delete_records(1)
    flush(partition)
    assert partition.delete_records(7) == 7
    assert partition.delete_records(5) == 7
    assert records(partition)[0].offset == 7
    kept = min(int(path.stem) for path in disk.files() if path.suffix == ".log")
    assert 5 <= kept <= 7
    disk.kill()
    assert reopen(disk, CONFIG, log_start=7).log_start == 7
    assert reopen(disk, CONFIG).log_start == kept
    assert partition.delete_records(-1) == 20


@pytest.mark.parametrize("clean", [True, False])
def test_a_log_start_behind_the_end_is_not_believed(clean: bool) -> None:
    disk = SimulatedDisk()
    partition = hourly(disk, 3)
    partition.close(clean=True)
    reopened = reopen(disk, CONFIG, recovery_point=3, log_start=50, clean=clean)
    assert [record.offset for record in records(reopened)] == [0, 1, 2]


def test_a_segment_is_sealed_by_age_counted_in_its_records_times() -> None:
    partition = create(SimulatedDisk(), LogConfig(segment_ms=10 * HOUR))
    for hours in (0, 9, 10, 11, 12):
        partition.append(
            batch(b"v", timestamp=NOW + hours * HOUR), now_ms=NOW + hours * HOUR
        )
    flush(partition)
    partition.delete_records(3)
    assert partition.size == 2 * len(batch(b"v")), "the fourth began a segment"
