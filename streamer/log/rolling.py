"""When a segment is full and the next one begins. Decides; the partition rolls."""

from __future__ import annotations

from typing import NamedTuple

from streamer.log.config import LogConfig
from streamer.log.segment import Segment

RELATIVE_OFFSET_MAX = 2**31 - 1
"""Indexes keep offsets relative to their segment's first, in four bytes."""


class Arriving(NamedTuple):
    """What rolling wants to know of a batch."""

    size: int
    last_offset: int
    max_timestamp: int


def is_full(
    segment: Segment, batch: Arriving, config: LogConfig, *, spread: int, now_ms: int
) -> bool:
    """Whether the batch begins a new segment. `spread` tells partitions apart, so that
    those that began together do not all roll together."""
    if segment.size == 0:
        return False
    segment.know_timestamps()
    return (
        segment.size + batch.size > config.segment_bytes
        or batch.last_offset - segment.base_offset > RELATIVE_OFFSET_MAX
        or segment.is_full(config.segment_index_bytes)
        or _age(segment, batch, now_ms)
        > config.segment_age_max_ms - _jitter(config, spread)
    )


def _age(segment: Segment, batch: Arriving, now_ms: int) -> int:
    """By the records' own clock, if they have one."""
    if segment.first_timestamp < 0 or batch.max_timestamp < 0:
        return now_ms - segment.created_ms
    return batch.max_timestamp - segment.first_timestamp


def _jitter(config: LogConfig, spread: int) -> int:
    if config.segment_jitter_ms <= 0:
        return 0
    return spread * 2_654_435_761 % min(config.segment_jitter_ms, config.segment_ms)
