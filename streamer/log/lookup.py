"""Finding a record by its time.

The time index leads near, headers lead to the batch, and only that one batch is opened.

A search goes from segment to segment. Each step is planned on the loop and run before the
next is asked for: on the loop if all of it lies in memory, else in any thread. The last
step that finds something has the answer:

    for plan in partition.search_timestamp(timestamp, up_to):
        found = plan.run() or found
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streamer.log.errors import CorruptLog
from streamer.log.segment import (
    UNKNOWN,
    Segment,
    largest_timestamp,
    locate_timestamp,
)
from streamer.log.segments import Segments
from streamer.wire.batch import NO_TIMESTAMP, Header, crc_of
from streamer.wire.record import CorruptRecords, read_records


class TimestampFound(NamedTuple):
    offset: int
    timestamp: int
    leader_epoch: int


class Range(NamedTuple):
    """Where to look, and what to expect there."""

    start: int
    up_to: int
    gaps: bool
    """Whether compaction may have left some."""


class TimestampPlan:
    """The look into one segment: for its first record from a time on, or its newest."""

    __slots__ = ("_from_time", "_largest", "_newest", "_range", "_view", "found")

    def __init__(
        self, segment: Segment, where: Range, from_time: int, *, newest: bool = False
    ) -> None:
        self._view = segment.view()
        self._largest = segment.largest_timestamp
        self._range = where
        self._from_time = from_time
        self._newest = newest
        self.found: TimestampFound | None = None

    def run(self, wait: bool = True) -> TimestampFound | None:
        """NotInMemory: that would need the disk, and `wait` is false."""
        if self._largest == UNKNOWN:
            self._largest = largest_timestamp(self._view, wait=wait)
        if self._largest >= self._from_time:
            self.found = (
                self._find_newest(wait)
                if self._newest
                else self._first(self._from_time, wait)
            )
        return self.found

    def _find_newest(self, wait: bool) -> TimestampFound | None:
        # The latest may lie before the start, or not be flushed; then look closer.
        latest = self._largest
        while latest >= self._from_time:
            found = self._first(latest, wait)
            if found is not None:
                return found
            latest = self._next_lower(latest, wait)
        return None

    def _next_lower(self, below: int, wait: bool) -> int:
        start, up_to, _ = self._range
        times = [
            header.max_timestamp
            for _, header in self._view.walk(0, wait=wait)
            if header.last_offset >= start and header.base_offset < up_to
        ]
        return max([time for time in times if time < below], default=NO_TIMESTAMP)

    def _first(self, timestamp: int, wait: bool) -> TimestampFound | None:
        start, up_to, gaps = self._range
        batches = locate_timestamp(self._view, timestamp, gaps=gaps, wait=wait)
        for position, header in batches:
            if header.base_offset >= up_to:
                return None
            if header.max_timestamp < timestamp or header.last_offset < start:
                continue
            found = self._first_in(position, header, timestamp, wait)
            if found is not None:
                return found
        return None

    def _first_in(
        self, position: int, header: Header, timestamp: int, wait: bool
    ) -> TimestampFound | None:
        view, (start, up_to, _), epoch = self._view, self._range, header.leader_epoch
        batch = view.read(position, header.size, wait=wait)
        if len(batch) < header.size or crc_of(batch, header) != header.crc:
            raise CorruptLog(view.path, position, "the batch does not match its checksum")
        whole = header.last_offset_delta + 1 == header.record_count
        if header.is_append_time and header.base_offset >= start and whole:
            return TimestampFound(header.base_offset, header.max_timestamp, epoch)
        try:
            for record in read_records(batch):
                if record.timestamp >= timestamp and start <= record.offset < up_to:
                    return TimestampFound(record.offset, record.timestamp, epoch)
        except CorruptRecords as error:
            raise CorruptLog(view.path, position, str(error)) from error
        return None


def search_timestamp(
    segments: Segments, timestamp: int, where: Range
) -> Iterator[TimestampPlan]:
    """For the first record of that time or later."""
    offset = where.start
    while offset < where.up_to:
        number = segments.number_of(offset)
        segment = segments.row[number]
        # While a step is run, the first segments may be deleted: ask by offset again.
        offset = segments.end_of(number, where.up_to)
        if segment.largest_timestamp == UNKNOWN or segment.largest_timestamp >= timestamp:
            plan = TimestampPlan(segment, where, timestamp)
            yield plan
            if plan.found is not None:
                return


def search_newest(segments: Segments, where: Range) -> Iterator[TimestampPlan]:
    """For the record with the highest timestamp, the first of them if there are several.

    From the last segment back: the others then mostly need no more than one look.
    """
    newest = 0
    for base_offset in reversed(segments.bases):
        segment = segments.row[segments.number_of(base_offset)]
        if segment.base_offset > base_offset:
            return  # Deleted, with all before it.
        if segment.base_offset < base_offset:
            continue  # Merged with one before it, whose turn will come.
        known = segment.largest_timestamp
        if base_offset < where.up_to and (known == UNKNOWN or known >= newest):
            plan = TimestampPlan(segment, where, newest, newest=True)
            yield plan
            if plan.found is not None:
                newest = plan.found.timestamp
