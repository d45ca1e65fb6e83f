"""A cleaning as the partition and the process that does it speak of it.

    partition  → Job                    what there is, and all that the files do not say
    partition  ← Swap, Swap, ...        each cleaned segment, as soon as it is committed
    partition  ← Cleaned                how far it came

A `Cleaning` is the job and the segments that it was made for: if they are not all there
any more, what replaces them is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from streamer.log.compaction import Cleanable
from streamer.log.config import LogConfig
from streamer.log.producers import ProducerState
from streamer.log.segment import Segment
from streamer.log.transactions import Aborted

KEYS_MAX = 1_000_000
"""So that a key map stays within about 150 MB; what is left waits for the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a cleaning has to know of the partition, as it was when it began."""

    topic_id: str
    segments: Sequence[Sequence[int]]
    """Base offset and size of each that may be cleaned."""
    end: int
    """The offset behind the last of them."""
    first_dirty: int
    aborted: Sequence[Sequence[int]]
    """As in the transaction indexes, of all segments."""
    producers: Sequence[Sequence[int]]
    """Id and epoch of each, and the last offsets of its latest batches."""
    now_ms: int
    delete_retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    index_interval_bytes: int
    keys_max: int = KEYS_MAX


class Swap(NamedTuple):
    """A cleaned segment that is committed, and the base offsets of those it replaces."""

    replaced: Sequence[int]
    size: int


class Cleaned(NamedTuple):
    """How far a cleaning came, and what was read."""

    end: int
    """All before it is clean now."""
    batches: int
    size: int


class Cleaning(NamedTuple):
    job: Job
    segments: Mapping[int, Segment]
    """By base offset."""


def begin_cleaning(
    row: Sequence[Segment],
    found: Cleanable,
    *,
    topic_id: UUID,
    config: LogConfig,
    aborted: Iterable[Aborted],
    producers: Iterable[tuple[int, ProducerState]],
    now_ms: int,
) -> Cleaning:
    segments = [segment for segment in row if segment.base_offset < found.end]
    job = Job(
        topic_id=topic_id.hex,
        segments=[(segment.base_offset, segment.size) for segment in segments],
        end=found.end,
        first_dirty=found.first_dirty,
        aborted=[tuple(entry) for entry in aborted],
        producers=[
            (producer_id, state.epoch, *[sent.last_offset for sent in state.batches])
            for producer_id, state in producers
        ],
        now_ms=now_ms,
        delete_retention_ms=config.delete_retention_ms,
        segment_bytes=config.segment_bytes,
        segment_index_bytes=config.segment_index_bytes,
        index_interval_bytes=config.index_interval_bytes,
    )
    return Cleaning(job, {segment.base_offset: segment for segment in segments})
