"""One stretch of a partition: a `.log` file of batches, its two indexes, its aborts.

A segment is named by its first offset. Only the last one of a partition is written to; the
earlier ones are sealed. Positions are bytes in the `.log` file.

`walk_headers` and `walk_batches` go from batch to batch in any segment file, Kafka's too.
They check the frame (length, format), not what is in it: checksums and offsets are judged
by who reads (`reading.py`, `recovery.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from streamer.log.disk import Disk, Pinned
from streamer.log.errors import CorruptLog, NotInMemory
from streamer.log.index import OFFSET_ENTRY, TIME_ENTRY, Index, IndexView
from streamer.log.transactions import (
    CHECKSUM as TRANSACTION_CHECKSUM,
    SUFFIX as TRANSACTION_INDEX,
    AbortedTransactions,
)
from streamer.wire.batch import (
    HEADER_SIZE,
    MAGIC,
    NO_TIMESTAMP,
    Buffer,
    Header,
    read_header,
)

HEADERS_CHUNK = 16 * 1024
BATCHES_CHUNK = 1024 * 1024
UNKNOWN = -2

LOG = ".log"
OFFSET_INDEX = ".index"
TIME_INDEX = ".timeindex"
SNAPSHOT = ".snapshot"
DELETED = ".deleted"
INDEX_FILES = (OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX, TRANSACTION_CHECKSUM)
SEGMENT_FILES = (LOG, *INDEX_FILES, SNAPSHOT)

NO_INDEX = IndexView(OFFSET_ENTRY, None, 0, [], 0)


def file_name(offset: int, suffix: str) -> str:
    return f"{offset:020d}{suffix}"


class SegmentView(NamedTuple):
    """A segment as it was at one moment, for use in another thread."""

    path: Path
    base_offset: int
    file: Pinned
    size: int
    offset_index: IndexView
    time_index: IndexView

    def read(self, position: int, size: int, *, wait: bool = True) -> Buffer:
        data = self.file.read(position, min(size, self.size - position), wait=wait)
        if data is None:
            raise NotInMemory
        return data

    def walk(self, start: int, *, wait: bool = True) -> Iterator[tuple[int, Header]]:
        return walk_headers(self.file, self.path, start, self.size, wait=wait)


class Segment:
    """Belongs to the loop; other threads get a view."""

    __slots__ = (
        "_disk",
        "_interval",
        "_since_entry",
        "_status",
        "aborted",
        "base_offset",
        "created_ms",
        "file",
        "first_timestamp",
        "index",
        "largest_offset",
        "largest_timestamp",
        "path",
        "size",
        "time_index",
    )

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        base_offset: int,
        created_ms: int,
        interval: int,
        status: str = "",
    ) -> None:
        self._disk = disk
        self._interval = interval
        self._status = status
        """What its files' names end with until they are in their place: `swap.py`."""
        self.path = folder / (file_name(base_offset, LOG) + status)
        self.base_offset = base_offset
        self.created_ms = created_ms
        """When this process first saw it; its age if its records carry no timestamps."""
        self.size = 0
        self.file = disk.open(self.path)
        self.index = Index(disk, self.named(OFFSET_INDEX), OFFSET_ENTRY)
        self.time_index = Index(disk, self.named(TIME_INDEX), TIME_ENTRY)
        self.aborted = AbortedTransactions(
            disk, self.named(TRANSACTION_INDEX), self.named(TRANSACTION_CHECKSUM)
        )
        self._since_entry = 0
        self.first_timestamp = UNKNOWN
        """The highest of the first batch: a segment's age counts from here."""
        self.largest_timestamp = UNKNOWN
        self.largest_offset = UNKNOWN
        """The last offset of the batch with the largest timestamp."""

    @classmethod
    def create(
        cls,
        disk: Disk,
        folder: Path,
        base_offset: int,
        now_ms: int,
        interval: int,
        status: str = "",
    ) -> Segment:
        segment = cls(disk, folder, base_offset, now_ms, interval, status)
        # What a deleted segment of the same name may have left behind is not ours.
        for suffix in INDEX_FILES:
            if disk.exists(segment.named(suffix)):
                disk.remove(segment.named(suffix))
        segment.file = disk.open(segment.path, create=True)
        segment.file.pin().truncate(0)
        segment.forget_timestamps()
        return segment

    @classmethod
    def existing(
        cls, disk: Disk, folder: Path, base_offset: int, now_ms: int, interval: int
    ) -> Segment:
        """A segment whose files are read only when someone asks."""
        segment = cls(disk, folder, base_offset, now_ms, interval)
        segment.size = disk.size(segment.path)
        # Where the last entry stands is not known yet: the next batch gets one.
        segment._since_entry = segment.size
        return segment

    def named(self, suffix: str) -> Path:
        """The file of this kind."""
        return self.path.with_name(file_name(self.base_offset, suffix) + self._status)

    def append(
        self,
        buffers: Sequence[Buffer],
        size: int,
        last_offset: int,
        max_timestamp: int,
    ) -> None:
        """Write a batch behind the others. When the disk refuses, nothing has changed but
        the file, which the caller cuts back with `cut_back`."""
        self.know_timestamps()
        self.file.pin().write(self.size, buffers)
        self.note(self.size, size, last_offset, max_timestamp)
        self.size += size

    def note(self, position: int, size: int, last_offset: int, max_timestamp: int) -> None:
        """Index a batch that is in the file."""
        if position == 0:
            self.first_timestamp = max_timestamp
        if max_timestamp > self.largest_timestamp:
            self.largest_timestamp = max_timestamp
            self.largest_offset = last_offset
        if self._since_entry > self._interval:
            self.index.append(last_offset - self.base_offset, position)
            self._note_time()
            self._since_entry = 0
        self._since_entry += size

    def _note_time(self) -> None:
        last = self.time_index.last()
        if self.largest_timestamp > (NO_TIMESTAMP if last is None else last[0]):
            self.time_index.append(
                self.largest_timestamp, self.largest_offset - self.base_offset
            )

    def cut_back(self) -> None:
        """Drop what a failed write may have left behind the end."""
        self.file.pin().truncate(self.size)

    def seal(self) -> None:
        """No more batches will come: the time index gets its last word."""
        self.know_timestamps()
        self.write_indexes()

    def write_indexes(self) -> bool:
        """Bring the files up to date; says whether that changed them."""
        self._note_time()
        changed = [self.index.write_out(), self.time_index.write_out()]
        return any([*changed, self.aborted.write_out()])

    def is_full(self, index_bytes: int) -> bool:
        return (len(self.index) + 1) * OFFSET_ENTRY.size > index_bytes or (
            len(self.time_index) + 2
        ) * TIME_ENTRY.size > index_bytes

    def view(self) -> SegmentView:
        return SegmentView(
            self.path,
            self.base_offset,
            self.file.pin(),
            self.size,
            self.index.view(),
            self.time_index.view(),
        )

    def view_of_log(self) -> SegmentView:
        """For who knows the position already."""
        return SegmentView(
            self.path, self.base_offset, self.file.pin(), self.size, NO_INDEX, NO_INDEX
        )

    def index_files(self) -> list[Path]:
        """Those that there are."""
        paths = [self.named(suffix) for suffix in INDEX_FILES]
        return [path for path in paths if self._disk.exists(path)]

    def files(self) -> list[Path]:
        """All that there may be."""
        return [self.named(suffix) for suffix in SEGMENT_FILES]

    def was_written_since(self, moment_ms: int) -> bool:
        """Whether the file was, with no look into it; False if we know it better."""
        unknown = self.largest_timestamp == UNKNOWN
        return unknown and self._disk.modified_ms(self.path) > moment_ms

    def age_from(self) -> int:
        """When its latest record was written, as far as anyone can tell."""
        self.know_timestamps()
        known = self.largest_timestamp >= 0
        return self.largest_timestamp if known else self.created_ms

    def forget_timestamps(self) -> None:
        self.first_timestamp = self.largest_timestamp = NO_TIMESTAMP
        self.largest_offset = self.base_offset

    def know_timestamps(self) -> None:
        """Read first and largest timestamp, if nobody has yet."""
        if self.largest_timestamp != UNKNOWN:
            return
        if self.size == 0:
            self.forget_timestamps()
            return
        entry = last_time_entry(self.view())
        if entry is None and self.rebuild_indexes():
            return
        self._know(entry)

    def _know(self, entry: tuple[int, int] | None) -> None:
        timestamp, relative = entry or (NO_TIMESTAMP, 0)
        self.largest_timestamp = timestamp
        self.largest_offset = self.base_offset + relative
        self.first_timestamp = NO_TIMESTAMP
        try:
            if (first := next(self.walk(), None)) is not None:
                self.first_timestamp = first[1].max_timestamp
        except CorruptLog:
            pass  # Reading will say so.

    def rebuild_indexes(self, up_to: int | None = None) -> bool:
        """From the headers of all batches. If one of them is damaged there is no telling
        where the next begins, and the old entries may still help: they stay."""
        end = self.size if up_to is None else up_to
        try:
            for _ in self.walk(end):
                pass
        except CorruptLog:
            return False
        self.forget_indexes()
        for position, header in self.walk(end):
            self.note(position, header.size, header.last_offset, header.max_timestamp)
        self._note_time()
        return True

    def forget_indexes(self) -> None:
        self.index.keep(0)
        self.time_index.keep(0)
        self.forget_timestamps()
        self._since_entry = 0

    def keep_indexes(self, position: int, offset: int) -> None:
        """Keep the entries for what lies before the batch at `position`, which has this
        offset, and know its timestamps."""
        relative = offset - self.base_offset
        self.index.keep((self.index.view().floor(relative - 1) or 0) + 1)
        while (last := self.time_index.last()) is not None and last[1] >= relative:
            self.time_index.keep(len(self.time_index) - 1)
        entry = last_time_entry(self.view())
        if entry is None and self.rebuild_indexes(position):
            return
        self._since_entry = position
        self._know(entry)

    def walk(self, end: int | None = None) -> Iterator[tuple[int, Header]]:
        """All batches, on the loop or before there is one."""
        return walk_headers(
            self.file.pin(), self.path, 0, self.size if end is None else end
        )

    def close(self) -> None:
        self.file.close()
        self.index.close()
        self.time_index.close()
        self.aborted.close()

    def discard(self) -> list[Path]:
        """Rename the files so that no start will take them for a log; who was reading goes
        on. The renamed files, for someone to remove when there is time."""
        renamed = []
        for path in self.files():
            if self._disk.exists(path):
                target = path.with_name(path.name + DELETED)
                self._disk.rename(path, target)
                renamed.append(target)
        self.close()
        return renamed


class Located(NamedTuple):
    """Where a batch is, and whether the index was of help in finding it."""

    position: int
    header: Header
    index_damaged: bool


def locate(
    view: SegmentView, offset: int, *, gaps: bool, wait: bool = True
) -> Located | None:
    """The first batch that ends at `offset` or behind it; None if the segment ends before.

    Offsets lie outside a batch's checksum. They are held against the index entry and
    against each other: a batch begins where the one before it ended, or further on if
    compaction may have left gaps.
    """
    start = _start_from_index(view, offset, wait)
    first, expected = start or (0, view.base_offset)
    for position, header in view.walk(first, wait=wait):
        base_offset = header.base_offset
        if base_offset != expected and not (gaps and base_offset > expected):
            raise CorruptLog(
                view.path, position, f"offset {base_offset} where {expected} should be"
            )
        if header.last_offset >= offset:
            return Located(position, header, start is None)
        expected = header.last_offset + 1
    return None


def _start_from_index(view: SegmentView, offset: int, wait: bool) -> tuple[int, int] | None:
    """Position and base offset of a batch at or before `offset`; None if the index points
    to a batch that is not as it says."""
    number = view.offset_index.floor(offset - view.base_offset, wait=wait)
    if number is None:
        raise NotInMemory
    if number < 0:
        return 0, view.base_offset
    entry = view.offset_index.entry(number, wait=wait)
    if entry is None:
        raise NotInMemory
    relative, position = entry
    if not 0 <= position <= view.size - HEADER_SIZE:
        return None
    data = view.read(position, HEADER_SIZE, wait=wait)
    if len(data) < HEADER_SIZE:
        return None
    header = read_header(data)
    if header.magic != MAGIC or header.last_offset != view.base_offset + relative:
        return None
    return position, header.base_offset


def locate_timestamp(
    view: SegmentView, timestamp: int, *, gaps: bool, wait: bool = True
) -> Iterator[tuple[int, Header]]:
    """The batches from the first one that may hold a record of that time or later."""
    return view.walk(_time_start(view, timestamp, gaps, wait), wait=wait)


def _time_start(view: SegmentView, timestamp: int, gaps: bool, wait: bool) -> int:
    """Where to begin looking: no batch before it is as late as `timestamp`."""
    number = view.time_index.floor(timestamp - 1, wait=wait)
    if number is None:
        raise NotInMemory
    if number < 0:
        return 0
    entry = view.time_index.entry(number, wait=wait)
    if entry is None:
        raise NotInMemory
    return _confirm_time(view, *entry, gaps=gaps, wait=wait) or 0


def _confirm_time(
    view: SegmentView, timestamp: int, relative: int, *, gaps: bool, wait: bool = True
) -> int | None:
    """Where the batch of a time index entry is; None if there is none like that."""
    located = locate(view, view.base_offset + relative, gaps=gaps, wait=wait)
    if located is None or located.header.last_offset != view.base_offset + relative:
        return None
    return located.position if located.header.max_timestamp == timestamp else None


def last_time_entry(view: SegmentView, *, wait: bool = True) -> tuple[int, int] | None:
    """The time index's last word, if the log confirms it."""
    if not len(view.time_index):
        return None
    entry = view.time_index.entry(len(view.time_index) - 1, wait=wait)
    if entry is None:
        raise NotInMemory
    try:
        confirmed = _confirm_time(view, *entry, gaps=True, wait=wait)
    except CorruptLog:
        return None
    return None if confirmed is None else entry


def largest_timestamp(view: SegmentView, *, wait: bool = True) -> int:
    """By the time index, or by all batches if that is damaged."""
    entry = last_time_entry(view, wait=wait)
    if entry is not None:
        return entry[0]
    headers = view.walk(0, wait=wait)
    return max([header.max_timestamp for _, header in headers], default=NO_TIMESTAMP)


def walk_headers(
    file: Pinned, path: Path, start: int, end: int, *, wait: bool = True
) -> Iterator[tuple[int, Header]]:
    """Position and header of each batch from `start`, reading no more than is needed."""
    position, chunk, chunk_start = start, memoryview(b""), start
    while position < end:
        if position + HEADER_SIZE > chunk_start + len(chunk):
            data = file.read(position, min(HEADERS_CHUNK, end - position), wait=wait)
            if data is None:
                raise NotInMemory
            chunk, chunk_start = memoryview(data), position
        header = checked_header(
            chunk, position - chunk_start, end - position, path, position
        )
        yield position, header
        position += header.size


def walk_batches(
    file: Pinned, path: Path, start: int, end: int
) -> Iterator[tuple[int, Header, memoryview]]:
    """The same with the whole batch."""
    position, chunk, chunk_start = start, memoryview(b""), start
    while position < end:
        if position + HEADER_SIZE > chunk_start + len(chunk):
            chunk, chunk_start = _read_chunk(file, position, end, BATCHES_CHUNK), position
        header = checked_header(
            chunk, position - chunk_start, end - position, path, position
        )
        if position + header.size > chunk_start + len(chunk):
            wanted = max(header.size, BATCHES_CHUNK)
            chunk, chunk_start = _read_chunk(file, position, end, wanted), position
        if header.size > len(chunk) - (position - chunk_start):
            raise CorruptLog(path, position, "the file ends within a batch")
        at = position - chunk_start
        yield position, header, chunk[at : at + header.size]
        position += header.size


def _read_chunk(file: Pinned, position: int, end: int, size: int) -> memoryview:
    data = file.read(position, min(size, end - position))
    assert data is not None, "waiting for the disk was allowed"
    return memoryview(data)


def checked_header(
    data: memoryview, at: int, remaining: int, path: Path, position: int
) -> Header:
    """The header at `at` of `data`, if a batch of its length can be there."""
    if len(data) - at < HEADER_SIZE:
        raise CorruptLog(path, position, "the file ends within a batch header")
    header = read_header(data, at)
    if header.magic != MAGIC:
        raise CorruptLog(path, position, f"message format {header.magic}, not {MAGIC}")
    if not HEADER_SIZE <= header.size <= remaining:
        raise CorruptLog(
            path, position, f"a batch of {header.size} bytes, {remaining} are left"
        )
    if header.last_offset_delta < 0:
        raise CorruptLog(path, position, f"last offset delta {header.last_offset_delta}")
    return header
