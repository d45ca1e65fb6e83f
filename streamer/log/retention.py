"""Which segments have had their time. Decides; the partition deletes.

Segments go whole, the oldest first, and only what is flushed. A segment is as old as its
latest record; one without timestamps, as long as we have known it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from streamer.log.config import LogConfig
from streamer.log.segment import Segment


class SegmentAge(NamedTuple):
    """What retention wants to know of a segment."""

    size: int
    end: int
    """The offset behind its last."""
    largest_timestamp: int
    last: bool = False
    """Whether it is the one that is written to."""


class Deleted(NamedTuple):
    """A segment that is gone, and why."""

    base_offset: int
    size: int
    reason: str


def is_young(segments: Sequence[Segment], config: LogConfig, now_ms: int) -> bool:
    """Whether nothing can go, told without reading: most partitions of many are a single
    segment that was written to not long ago. (After a start, that is. If its records were
    old when they came, they stay until the file is.)"""
    if len(segments) > 1:
        return False
    forever = not config.delete or config.retention_ms < 0
    return forever or segments[-1].was_written_since(now_ms - config.retention_ms)


def judge(
    segments: Iterable[SegmentAge],
    config: LogConfig,
    *,
    size: int,
    log_start: int,
    flushed: int,
    now_ms: int,
) -> list[str]:
    """One reason for each segment that may go, oldest first; `size` is that of all. No
    further segment is looked at than the first that stays."""
    excess = size - config.retention_bytes
    reasons: list[str] = []
    for segment in segments:
        if segment.end > flushed or segment.size == 0:
            break
        reason = _reason(segment, config, excess, log_start, now_ms)
        if reason is None:
            break
        reasons.append(reason)
        excess -= segment.size
    return reasons


def _reason(
    segment: SegmentAge, config: LogConfig, excess: int, log_start: int, now_ms: int
) -> str | None:
    if segment.end <= log_start and not segment.last:
        return f"it ends before the log's start, {log_start}"
    if not config.delete:
        return None
    age_ms = now_ms - segment.largest_timestamp
    if 0 <= config.retention_ms < age_ms:
        return (
            f"its latest record is {age_ms} ms old, retention.ms is {config.retention_ms}"
        )
    if config.retention_bytes >= 0 and excess >= segment.size and not segment.last:
        return f"the partition is {excess} bytes over retention.bytes"
    return None
