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

from streamer.log.errors import CorruptLog, NotInMemory
from streamer.log.segment import Segment, locate
from streamer.wire.batch import HEADER_SIZE, MAGIC, Buffer, crc_of, read_header

CURSORS_MAX = 64


class ReadResult(NamedTuple):
    data: Buffer
    next_offset: int
    """Where to go on; the offset asked for if nothing was found."""
    segment: Segment | None = None
    end_position: int = 0
    index_damaged: bool = False


class Cursors:
    """Where batches begin that someone is likely to ask for next: behind what was read
    lately, and the one that was appended last."""

    __slots__ = ("_last", "_read")

    def __init__(self) -> None:
        self._read: dict[int, tuple[Segment, int]] = {}
        self._last: tuple[int, Segment, int] | None = None

    def find(self, offset: int) -> tuple[Segment, int] | None:
        last = self._last
        if last is not None and last[0] == offset:
            return last[1], last[2]
        cursor = self._read.get(offset)
        if cursor is None or cursor[1] < cursor[0].size:
            return cursor
        return None  # The segment was sealed there; the next one begins with it.

    def read_to(self, offset: int, segment: Segment, position: int) -> None:
        self._read[offset] = (segment, position)
        if len(self._read) > CURSORS_MAX:
            del self._read[next(iter(self._read))]

    def written_at(self, offset: int, segment: Segment, position: int) -> None:
        self._last = (offset, segment, position)

    def clear(self) -> None:
        self._read.clear()
        self._last = None


class Taken(NamedTuple):
    """The whole, good batches at the front of some bytes of a segment."""

    size: int
    next_offset: int
    problem: str | None
    """Why it is not more, if not for want of bytes."""


class Wanted(NamedTuple):
    """What a reader asks for, and what may be there."""

    offset: int
    max_bytes: int
    up_to: int
    minimum_one: bool
    """Whether the first batch comes even if it is larger than `max_bytes`."""
    gaps: bool
    """Whether compaction may have left some."""
    epochs: tuple[int, int]
    """The lowest and the highest leader epoch of what is to be found."""


class ReadPlan:
    __slots__ = ("_following", "_position", "_segment", "_view", "_wanted")

    def __init__(
        self,
        segment: Segment,
        wanted: Wanted,
        *,
        position: int | None = None,
        following: ReadPlan | None = None,
    ) -> None:
        self._segment = segment
        self._wanted = wanted
        self._position = position
        """Where the batch with `offset` as its first begins, if that is remembered."""
        self._view = segment.view() if position is None else segment.view_of_log()
        self._following = following
        """The next segment, for when compaction has left nothing more in this one."""

    def run(self, wait: bool = True) -> ReadResult | None:
        """None only if that would need the disk and `wait` is false."""
        if self._wanted.offset >= self._wanted.up_to:
            return ReadResult(b"", self._wanted.offset)
        try:
            return self._run(wait)
        except NotInMemory:
            return None

    def _run(self, wait: bool) -> ReadResult | None:
        position, expected, damaged = self._position, self._wanted.offset, False
        if position is None:
            located = locate(
                self._view, self._wanted.offset, gaps=self._wanted.gaps, wait=wait
            )
            if located is None:
                return self._run_following(wait)
            position, header, damaged = located
            expected = header.base_offset
        size = max(self._wanted.max_bytes, HEADER_SIZE)
        data = self._view.read(position, size, wait=wait)
        taken = self._take(data, expected)
        if taken.size == 0 and taken.problem is None:
            data = self._read_first(data, position, wait)
            taken = self._take(data, expected)
        if taken.size == 0:
            if taken.problem is not None:
                raise CorruptLog(self._view.path, position, taken.problem)
            return ReadResult(b"", self._wanted.offset, None, 0, damaged)
        if taken.size < len(data):
            data = memoryview(data)[: taken.size]
        return ReadResult(
            data, taken.next_offset, self._segment, position + taken.size, damaged
        )

    def _run_following(self, wait: bool) -> ReadResult | None:
        if self._following is None:
            if self._wanted.offset < self._wanted.up_to:
                raise CorruptLog(
                    self._view.path,
                    self._view.size,
                    f"ends before offset {self._wanted.offset}",
                )
            return ReadResult(b"", self._wanted.offset)
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
        if header.base_offset >= self._wanted.up_to or not self._wanted.minimum_one:
            return b""
        whole = self._view.read(position, header.size, wait=wait)
        if len(whole) < header.size:
            raise CorruptLog(self._view.path, position, "the file ends within a batch")
        return whole

    def _take(self, data: Buffer, expected: int) -> Taken:
        """Go over the batches; this is the only work per batch that a reader causes."""
        lowest_epoch, highest_epoch = self._wanted.epochs
        position, end, up_to = 0, len(data), self._wanted.up_to
        view = memoryview(data)
        while end - position >= HEADER_SIZE:
            header = read_header(view, position)
            base_offset, length, epoch, magic, crc, _, delta = header[:7]
            size = length + 12
            if magic != MAGIC or size < HEADER_SIZE or delta < 0:
                return Taken(position, expected, "no batch begins here")
            if base_offset != expected and not (
                self._wanted.gaps and base_offset > expected
            ):
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


def plan_from(segments: list[Segment], number: int, wanted: Wanted) -> ReadPlan:
    """To find the batch by the index of a segment, or of the next if compaction may have
    left nothing there."""
    following = None
    if wanted.gaps and number + 1 < len(segments):
        following = plan_from(segments, number + 1, wanted)
    return ReadPlan(segments[number], wanted, following=following)
