"""The two sparse indexes of a segment, in Kafka's files of fixed-size entries.

    .index       (offset, position)   the last offset of a batch, and where the batch starts
    .timeindex   (timestamp, offset)  the highest timestamp so far, and the last offset of
                                      the batch that holds it

Both rise from entry to entry. Offsets are kept relative to the segment's first. Entries are
appended in memory and written out now and then; a look-up searches what is in memory, then
the file. An index is a hint: whoever uses an entry checks it against the batch it points to
(`segment.py`), and builds the index anew when they disagree.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from struct import Struct
from typing import NamedTuple, TypeAlias

from streamer.log.disk import Disk, File, Pinned

Entry: TypeAlias = tuple[int, int]

OFFSET_ENTRY = Struct(">ii")
TIME_ENTRY = Struct(">qi")


class IndexView(NamedTuple):
    """An index as it was at one moment; safe in another thread while the index grows."""

    layout: Struct
    file: Pinned | None
    written: int
    tail: list[Entry]
    tail_length: int

    def __len__(self) -> int:
        return self.written + self.tail_length

    def entry(self, number: int, *, wait: bool = True) -> Entry | None:
        """None if it must be read from disk and `wait` is false."""
        if number >= self.written:
            return self.tail[number - self.written]
        assert self.file is not None
        size = self.layout.size
        data = self.file.read(number * size, size, wait=wait)
        if data is None:
            return None
        if len(data) < size:
            # The file has shrunk under us. An entry that no batch will confirm.
            return (-1, -1)
        first, second = self.layout.unpack(data)
        return first, second

    def floor(self, key: int, *, wait: bool = True) -> int | None:
        """Number of the last entry whose first field is not above `key`, -1 if there is
        none; None if that needs the disk and `wait` is false."""
        if self.tail_length and (not self.written or self.tail[0][0] <= key):
            in_tail = bisect_right(
                self.tail, key, 0, self.tail_length, key=lambda entry: entry[0]
            )
            return self.written + in_tail - 1
        low, high = 0, self.written
        while low < high:
            middle = (low + high) // 2
            found = self.entry(middle, wait=wait)
            if found is None:
                return None
            if found[0] <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1


class Index:
    """One index file: entries on disk, then those not written yet."""

    __slots__ = ("_disk", "_file", "_layout", "_tail", "_written", "path")

    def __init__(self, disk: Disk, path: Path, layout: Struct) -> None:
        self.path = path
        self._disk = disk
        self._layout = layout
        self._file: File | None = None
        self._written = -1
        """Entries in the file; -1 until someone wants to know."""
        # Only ever appended to, and replaced when written: a view may hold on to it.
        self._tail: list[Entry] = []

    def __len__(self) -> int:
        return self._count_written() + len(self._tail)

    def append(self, first: int, second: int) -> None:
        self._tail.append((first, second))

    def view(self) -> IndexView:
        written = self._count_written()
        pinned = self._opened().pin() if written else None
        return IndexView(self._layout, pinned, written, self._tail, len(self._tail))

    def last(self) -> Entry | None:
        if self._tail:
            return self._tail[-1]
        view = self.view()
        return view.entry(len(view) - 1) if len(view) else None

    def write_out(self) -> bool:
        """Bring the file up to date; says whether it changed. A file is made if there is
        none. On an error nothing is lost: the entries stay in memory."""
        written = self._count_written()
        if not self._tail and self._disk.exists(self.path):
            return False
        data = b"".join([self._layout.pack(*entry) for entry in self._tail])
        if not self._disk.exists(self.path):
            self._file = self._disk.open(self.path, create=True)
        self._opened().pin().write(written * self._layout.size, [data])
        self._written = written + len(self._tail)
        self._tail = []
        return True

    def keep(self, count: int) -> None:
        """Forget all entries but the first `count`."""
        written = self._count_written()
        self._tail = self._tail[: max(0, count - written)]
        if count < written:
            self._opened().pin().truncate(count * self._layout.size)
            self._written = count

    def replace(self, entries: list[Entry]) -> None:
        """Start anew with these; the file follows at the next `write_out`."""
        self.keep(0)
        self._tail = entries

    def pin(self) -> Pinned:
        """To sync what `write_out` wrote."""
        return self._opened().pin()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def moved(self, path: Path) -> None:
        self.path = path
        if self._file is not None:
            self._file.path = path

    def _opened(self) -> File:
        if self._file is None:
            self._file = self._disk.open(self.path)
        return self._file

    def _count_written(self) -> int:
        if self._written < 0:
            exists = self._disk.exists(self.path)
            self._written = self._disk.size(self.path) // self._layout.size if exists else 0
        return self._written
