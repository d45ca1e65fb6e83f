"""Compaction without a process of its own, and what a reader makes of a partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from support.logs import NOW

from streamer.log.compaction_files import clean
from streamer.log.compaction_job import KEYS_MAX, Cleaned, Swap
from streamer.log.disk import Disk
from streamer.log.partition import Partition
from streamer.wire.batch import Header, read_headers, read_marker
from streamer.wire.record import Record, read_records


def compact(
    disk: Disk,
    partition: Partition,
    cleaned_to: int | None = None,
    *,
    now_ms: int = NOW,
    keys_max: int = KEYS_MAX,
) -> int:
    """Clean all that may be cleaned; up to where it is clean now."""
    partition.checkpoint()
    part = partition.cleanable(cleaned_to, now_ms)
    cleaning = partition.begin_cleaning(part, now_ms)
    job = replace(cleaning.job, keys_max=keys_max)
    for step in clean(disk, partition.path, job):
        if isinstance(step, Swap):
            assert partition.swap_in(cleaning, step)
        else:
            return step.end
    raise AssertionError("a cleaning ends with how far it came")


class Batch(NamedTuple):
    header: Header
    records: list[Record]
    commits: bool | None
    """For a marker."""


def batches(partition: Partition, *, max_bytes: int = 1 << 20) -> Iterator[Batch]:
    """All there are, flushed or not."""
    offset = partition.log_start
    while offset < partition.end:
        result = partition.plan_read(offset, max_bytes, up_to=partition.end).run()
        assert result is not None
        assert result.next_offset > offset, "a read brought nothing"
        partition.remember(result)
        for position, header in read_headers(result.data):
            data = bytes(memoryview(result.data)[position : position + header.size])
            marker = read_marker(data) if header.is_control else None
            yield Batch(
                header, list(read_records(data)), None if marker is None else marker.commit
            )
        offset = result.next_offset


def committed(partition: Partition) -> list[Record]:
    """As a client that reads committed records only: those of a listed producer are
    dropped until its marker comes."""
    stable = partition.last_stable
    listed = sorted(
        partition.aborted_between(partition.log_start, stable), key=lambda one: -one[1]
    )
    dropping: set[int] = set()
    found: list[Record] = []
    for header, inside, commits in batches(partition):
        if header.base_offset >= stable:
            break
        while listed and listed[-1][1] <= header.last_offset:
            dropping.add(listed.pop()[0])
        if header.is_control:
            if commits is False:
                dropping.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in dropping):
            found += [one for one in inside if partition.log_start <= one.offset < stable]
    return found


def state(records: list[Record]) -> dict[bytes | None, bytes]:
    """The last value of each key."""
    found: dict[bytes | None, bytes] = {}
    for record in records:
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = record.value
    return found


__all__ = ["Batch", "Cleaned", "batches", "committed", "compact", "state"]
