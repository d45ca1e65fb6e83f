"""Finding a record by its time.

The time index leads near, headers lead to the batch, and only that one batch is opened.
"""

from __future__ import annotations

from typing import NamedTuple

from streamer.log.config import LogConfig
from streamer.log.errors import CorruptLog
from streamer.log.segment import Segment, SegmentView, locate_timestamp
from streamer.wire.batch import Header, crc_of
from streamer.wire.record import CorruptRecords, read_records


class TimestampFound(NamedTuple):
    offset: int
    timestamp: int
    leader_epoch: int


def find_timestamp(
    segments: list[Segment], timestamp: int, offsets: tuple[int, int], config: LogConfig
) -> TimestampFound | None:
    """The first record from offsets[0] to offsets[1] of that time or later."""
    start, up_to = offsets
    for segment in _within(segments, start, up_to):
        segment.know_timestamps()
        if segment.largest_timestamp < timestamp:
            continue
        view = segment.view()
        for position, header in locate_timestamp(view, timestamp, gaps=config.compact):
            if header.base_offset >= up_to:
                return None
            if header.max_timestamp < timestamp or header.last_offset < start:
                continue
            found = _first_in(view, position, header, timestamp, start, up_to)
            if found is not None:
                return found
    return None


def find_max_timestamp(
    segments: list[Segment], offsets: tuple[int, int], config: LogConfig
) -> TimestampFound | None:
    """The record with the highest timestamp, the first of them if there are several."""
    start, up_to = offsets
    candidates = _within(segments, start, up_to)
    for segment in candidates:
        segment.know_timestamps()
    latest = max((segment.largest_timestamp for segment in candidates), default=-1)
    # What lies before the start or is not flushed may be the latest; then look closer.
    while latest >= 0:
        found = find_timestamp(segments, latest, offsets, config)
        if found is not None:
            return found
        latest = _next_lower(candidates, latest, start, up_to)
    return None


def _next_lower(segments: list[Segment], below: int, start: int, up_to: int) -> int:
    return max(
        (
            header.max_timestamp
            for segment in segments
            for _, header in segment.walk()
            if header.max_timestamp < below
            and header.last_offset >= start
            and header.base_offset < up_to
        ),
        default=-1,
    )


def _within(segments: list[Segment], start: int, up_to: int) -> list[Segment]:
    ends = [segment.base_offset for segment in segments[1:]] + [up_to]
    return [
        segment
        for segment, end in zip(segments, ends, strict=True)
        if end > start and segment.base_offset < up_to
    ]


def _first_in(
    view: SegmentView, position: int, header: Header, timestamp: int, start: int, up_to: int
) -> TimestampFound | None:
    batch = view.read(position, header.size)
    if len(batch) < header.size or crc_of(batch, header) != header.crc:
        raise CorruptLog(view.path, position, "the batch does not match its checksum")
    if header.is_append_time and header.base_offset >= start:
        return TimestampFound(header.base_offset, header.max_timestamp, header.leader_epoch)
    try:
        for record in read_records(batch):
            if record.timestamp >= timestamp and start <= record.offset < up_to:
                return TimestampFound(record.offset, record.timestamp, header.leader_epoch)
    except CorruptRecords as error:
        raise CorruptLog(view.path, position, str(error)) from error
    return None
