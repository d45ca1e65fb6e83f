"""Reading from a partition: planned on the loop, run on any thread.

A plan pins its file and notes how long it is; appends, rolls and deletions do not disturb
it. `run(wait=False)` gives up rather than wait for the disk, so that the loop can try first
and leave cold data to a thread.

What is served are whole batches, as they are on disk, each held against its checksum and
against its neighbour: a batch that is not what was written is never served. What comes
before a damaged batch is.

A reader that goes on where it stopped needs no index: the partition remembers where each
result ended (`Partition.remember`).
"""

from __future__ import annotations

from typing import NamedTuple

from streamer.log.errors import CorruptLog
from streamer.log.segment import NotInMemory, Segment, SegmentView, locate
from streamer.wire.batch import HEADER_SIZE, MAGIC, Buffer, crc_of, read_header


class ReadResult(NamedTuple):
    data: Buffer
    next_offset: int
    """Where to go on; the offset asked for if nothing was found."""
    segment: Segment | None = None
    end_position: int = 0
    index_damaged: bool = False


class Taken(NamedTuple):
    """The whole, good batches at the front of some bytes of a segment."""

    size: int
    next_offset: int
    problem: str | None
    """Why it is not more, if not for want of bytes."""


class ReadPlan:
    __slots__ = (
        "_epochs",
        "_following",
        "_gaps",
        "_max_bytes",
        "_minimum_one",
        "_offset",
        "_position",
        "_segment",
        "_up_to",
        "_view",
    )

    def __init__(
        self,
        segment: Segment,
        view: SegmentView,
        offset: int,
        max_bytes: int,
        *,
        position: int | None,
        up_to: int,
        minimum_one: bool,
        gaps: bool,
        epochs: tuple[int, int],
        following: ReadPlan | None = None,
    ) -> None:
        self._segment = segment
        self._view = view
        self._offset = offset
        self._max_bytes = max_bytes
        self._position = position
        """Where the batch with `offset` as its first begins, if that is remembered."""
        self._up_to = up_to
        self._minimum_one = minimum_one
        self._gaps = gaps
        self._epochs = epochs
        self._following = following
        """The next segment, for when compaction has left nothing more in this one."""

    def run(self, wait: bool = True) -> ReadResult | None:
        """None only if that would need the disk and `wait` is false."""
        if self._offset >= self._up_to:
            return ReadResult(b"", self._offset)
        try:
            return self._run(wait)
        except NotInMemory:
            return None

    def _run(self, wait: bool) -> ReadResult | None:
        position, expected, damaged = self._position, self._offset, False
        if position is None:
            located = locate(self._view, self._offset, gaps=self._gaps, wait=wait)
            if located is None:
                return self._run_following(wait)
            position, header, damaged = located
            expected = header.base_offset
        size = max(self._max_bytes, HEADER_SIZE)
        data = self._view.read(position, size, wait=wait)
        taken = self._take(data, expected)
        if taken.size == 0 and taken.problem is None:
            data = self._read_first(data, position, wait)
            taken = self._take(data, expected)
        if taken.size == 0:
            if taken.problem is not None:
                raise CorruptLog(self._view.path, position, taken.problem)
            return ReadResult(b"", self._offset, None, 0, damaged)
        if taken.size < len(data):
            data = memoryview(data)[: taken.size]
        return ReadResult(
            data, taken.next_offset, self._segment, position + taken.size, damaged
        )

    def _run_following(self, wait: bool) -> ReadResult | None:
        if self._following is None:
            if self._offset < self._up_to:
                raise CorruptLog(
                    self._view.path, self._view.size, f"ends before offset {self._offset}"
                )
            return ReadResult(b"", self._offset)
        return self._following.run(wait)

    def _read_first(self, data: Buffer, position: int, wait: bool) -> Buffer:
        """The first batch whole, if it is larger than what was asked for."""
        remaining = self._view.size - position
        if len(data) < HEADER_SIZE:
            if remaining:
                raise CorruptLog(self._view.path, position, "the file ends within a header")
            return data
        header = read_header(data)
        if header.size > remaining:
            raise CorruptLog(
                self._view.path,
                position,
                f"a batch of {header.size} bytes, {remaining} are left",
            )
        if header.base_offset >= self._up_to or not self._minimum_one:
            return b""
        whole = self._view.read(position, header.size, wait=wait)
        if len(whole) < header.size:
            raise CorruptLog(self._view.path, position, "the file ends within a batch")
        return whole

    def _take(self, data: Buffer, expected: int) -> Taken:
        """Go over the batches; this is the only work per batch that a reader causes."""
        lowest_epoch, highest_epoch = self._epochs
        position, end, up_to = 0, len(data), self._up_to
        view = memoryview(data)
        while end - position >= HEADER_SIZE:
            header = read_header(view, position)
            base_offset, length, epoch, magic, crc, _, delta = header[:7]
            size = length + 12
            if magic != MAGIC or size < HEADER_SIZE or delta < 0:
                return Taken(position, expected, "no batch begins here")
            if base_offset != expected and not (self._gaps and base_offset > expected):
                problem = f"offset {base_offset} where {expected} should be"
                return Taken(position, expected, problem)
            if base_offset >= up_to or position + size > end:
                break
            if crc_of(view, header, position) != crc:
                return Taken(position, expected, "the batch does not match its checksum")
            if not lowest_epoch <= epoch <= highest_epoch:
                return Taken(position, expected, f"leader epoch {epoch} never was")
            position += size
            expected = base_offset + delta + 1
        return Taken(position, expected, None)
