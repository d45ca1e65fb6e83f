"""The segments of one partition in a row, oldest first; only the last one is written to.

Here is found which segment holds an offset, the last one is sealed and the next begun, and
the first one is dropped. What somebody is likely to ask for next (where the latest reads
ended, and the batch written last) is found without a search.

When to begin another: `rolling.py`; which may go: `retention.py`; one of them:
`segment.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamer.log.config import LogConfig
from streamer.log.disk import Disk
from streamer.log.flushing import Unsynced
from streamer.log.producers import FinishedTransaction, Producers
from streamer.log.reading import Cursors, ReadPlan, ReadResult, Wanted, plan_from
from streamer.log.replay import note_aborted, read_aborted_of
from streamer.log.retention import SegmentAge
from streamer.log.rolling import Arriving
from streamer.log.segment import Segment
from streamer.log.swap import put_in_place
from streamer.log.transactions import Aborted
from streamer.wire.batch import Buffer


class Segments:
    """Belongs to the loop. Whatever it writes is noted in `unsynced`."""

    __slots__ = ("_cursors", "_disk", "_folder", "_row", "_unsynced", "last")

    def __init__(
        self, disk: Disk, folder: Path, row: list[Segment], unsynced: Unsynced
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._row = row
        self._unsynced = unsynced
        self._cursors = Cursors()
        self.last = row[-1]

    @property
    def row(self) -> Sequence[Segment]:
        return self._row

    @property
    def bases(self) -> list[int]:
        """The offsets that segments begin with; there is at least one."""
        return [segment.base_offset for segment in self._row]

    @property
    def size(self) -> int:
        return sum([segment.size for segment in self._row])

    def number_of(self, offset: int) -> int:
        """Of the segment that holds `offset`, or of the first one."""
        row = self._row
        if offset >= self.last.base_offset:
            return len(row) - 1
        found = bisect_right(row, offset, key=lambda segment: segment.base_offset)
        return max(0, found - 1)

    def end_of(self, number: int, end: int) -> int:
        """The offset behind that segment's last, where the log ends at `end`."""
        return end if number + 1 == len(self._row) else self._row[number + 1].base_offset

    # Writing.

    def write(self, buffers: Sequence[Buffer], base_offset: int, batch: Arriving) -> None:
        """Put a batch behind the others. After an OSError: `last.cut_back`."""
        segment = self.last
        position = segment.size
        segment.append(buffers, *batch)
        self._cursors.written_at(base_offset, segment, position)
        self._unsynced.note(segment.file)

    def roll(
        self, offset: int, now_ms: int, config: LogConfig, take_snapshot: Callable[[], None]
    ) -> None:
        """Seal the last segment and begin another; after an OSError all is as it was."""
        old = self.last
        new = Segment.create(
            self._disk, self._folder, offset, now_ms, config.index_interval_bytes
        )
        try:
            old.seal()
            self.aborted_in(len(self._row) - 1, offset)
            take_snapshot()
        except OSError:
            self._disk.remove(new.path)
            raise
        new.aborted.entries = []
        self._unsynced.note_paths(old.index_files())
        self._unsynced.note(new.file)
        self._unsynced.note_folders(self._folder)
        self._row.append(new)
        self.last = new

    def seal_last(self) -> None:
        """Nothing more will be written; to be synced."""
        if self.last.size:
            self.last.seal()
            self._unsynced.note_paths(self.last.index_files())

    def close(self) -> None:
        for segment in self._row:
            segment.close()

    # Reading.

    def plan(self, wanted: Wanted) -> ReadPlan:
        if wanted.offset >= wanted.up_to:
            # Nothing yet; the plan will say so without looking.
            return ReadPlan(self.last, wanted, position=0)
        cursor = self._cursors.find(wanted.offset)
        if cursor is not None:
            segment, position = cursor
            return ReadPlan(segment, wanted, position=position)
        return plan_from(self._row, self.number_of(wanted.offset), wanted)

    def remember(self, result: ReadResult) -> None:
        segment = result.segment
        if segment is None or not self._is_there(segment):
            return
        if result.index_damaged:
            segment.rebuild_indexes()
        self._cursors.read_to(result.next_offset, segment, result.end_position)

    def _is_there(self, segment: Segment) -> bool:
        """Whether it was neither dropped nor replaced meanwhile."""
        return (
            segment is self.last
            or segment is self._row[self.number_of(segment.base_offset)]
        )

    # Aborted transactions.

    def aborted(self, end: int) -> list[Aborted]:
        """All there are, where the log ends at `end`."""
        numbers = range(len(self._row))
        return [entry for number in numbers for entry in self.aborted_in(number, end)]

    def aborted_in(self, number: int, end: int) -> Sequence[Aborted]:
        """Of one segment, where the log ends at `end`; read when first asked for."""
        aborted = self._row[number].aborted
        if aborted.entries is None:
            aborted.entries = read_aborted_of(self._disk, self._row, number, end)
        return aborted.entries

    def note_aborted(self, producers: Producers, finished: FinishedTransaction) -> None:
        """Those of the last segment are known by now: see `aborted_in`."""
        note_aborted(self.last, producers, finished)

    def aborted_between(
        self, offset: int, next_offset: int, end: int
    ) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records there."""
        found: list[tuple[int, int]] = []
        for number in range(self.number_of(offset), len(self._row)):
            found.extend(
                (entry.producer_id, entry.first_offset)
                for entry in self.aborted_in(number, end)
                if entry.last_offset >= offset and entry.first_offset < next_offset
            )
        return found

    # Compaction.

    def holds(self, replaced: Sequence[Segment]) -> bool:
        """Whether these still follow each other here, all of them sealed."""
        first = self.number_of(replaced[0].base_offset)
        there = self._row[first : first + len(replaced)]
        return (
            len(there) == len(replaced)
            and self.last is not there[-1]
            and all(one is other for one, other in zip(there, replaced, strict=True))
        )

    def swap_in(self, old: Sequence[Segment], interval: int) -> list[Path]:
        """Put the cleaned segment in the place of those it was made from; their files, to
        be removed some time. After an OSError: nobody knows which of them have moved."""
        bases = [segment.base_offset for segment in old]
        moved = put_in_place(self._disk, self._folder, bases)
        created_ms = max([segment.created_ms for segment in old])
        new = Segment.existing(self._disk, self._folder, bases[0], created_ms, interval)
        first = self.number_of(new.base_offset)
        self._row[first : first + len(old)] = [new]
        self._cursors.clear()
        for segment in old:
            self._unsynced.forget(segment.files())
            segment.close()
        return moved

    # Deleting.

    def ages(self, end: int) -> Iterator[SegmentAge]:
        """What retention wants to know of each; read only as far as it asks."""
        for number, segment in enumerate(self._row):
            yield SegmentAge(
                segment.size,
                self.end_of(number, end),
                segment.age_from(),
                segment is self.last,
            )

    def drop_first(self) -> list[Path]:
        """Take the first one out; what is left of its files, to be removed some time."""
        segment = self._row.pop(0)
        self._unsynced.forget(segment.files())
        self._cursors.clear()
        return segment.discard()
