"""Compaction from file to file: old segments are read, cleaned ones are written and
committed, one after another from the oldest on.

First the dirty part is read for its keys, then everything is read and what stays is
written. A cleaned segment goes on over the next old one as long as it stays within the
size of a segment, so small ones merge. Its last batch is that of the last old one, empty
if need be: so its end shows where it ends. One that would be what it was is left alone.

Nothing is changed that is there; `swap.py` tells how the partition takes over. What a
batch loses is decided in `compaction_rules.py`. A batch that does not match its checksum
ends it all: to be copied, it would have to be believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from streamer.log import swap
from streamer.log.compaction_job import Cleaned, Job, Swap
from streamer.log.compaction_rules import KeyMap, Rules, Transactions, producers_from
from streamer.log.disk import Disk, pin_once
from streamer.log.errors import CorruptLog
from streamer.log.rolling import RELATIVE_OFFSET_MAX
from streamer.log.segment import (
    LOG,
    OFFSET_INDEX,
    TIME_INDEX,
    Segment,
    file_name,
    walk_batches,
)
from streamer.log.transactions import SUFFIX as TRANSACTION_INDEX, Aborted
from streamer.wire.batch import Buffer, Header, crc_of, emptied, read_header
from streamer.wire.record import CorruptRecords

WRITE_BYTES = 256 << 10
READ_BYTES = 64 << 10
"""How much is read between two moments at which it may wait: small records of that size are
a millisecond's computing."""


def clean(
    disk: Disk,
    folder: Path,
    job: Job,
    *,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Swap | Cleaned]:
    """Each segment as it is committed, and at last how far it went. Raises CorruptLog.

    `on_bytes` is called as they are read or written, and before each commit: it may wait,
    or end it all.
    """
    cleaning = _Cleaning(disk, folder, job, on_bytes)
    try:
        yield from cleaning.run()
    except CorruptRecords as error:
        raise CorruptLog(*cleaning.at, str(error)) from error


class _Cleaning:
    def __init__(
        self, disk: Disk, folder: Path, job: Job, on_bytes: Callable[[int], None]
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._job = job
        self._on_bytes = on_bytes
        self._aborted = [Aborted(*fields) for fields in job.aborted]
        self._batches = self._size = 0
        self.at = folder, 0
        """The file and the batch in it that is judged."""

    def run(self) -> Iterator[Swap | Cleaned]:
        # Whatever an earlier attempt has left is in nobody's use.
        swap.withdraw(self._disk, self._folder)
        job, keys = self._job, self._map_keys()
        rules = Rules(
            keys,
            job.first_dirty,
            Transactions(self._aborted),
            producers_from(job.producers),
            now_ms=job.now_ms,
            delete_retention_ms=job.delete_retention_ms,
        )
        swap.note_gaps(self._disk, self._folder, keys.end)
        output: _Output | None = None
        for number, (base_offset, size) in enumerate(job.segments):
            if base_offset >= keys.end:
                break
            end = self._end_of(number)
            if output is not None and not output.has_room(base_offset, size, end):
                yield from output.finish(rules.transactions)
                output = None
            output = output or _Output(
                self._disk, self._folder, job, self._on_bytes, base_offset
            )
            output.begin(base_offset, end)
            for header, batch in self._batches_of(base_offset, size):
                output.take(header, batch, rules.kept(header, batch))
        if output is not None:
            yield from output.finish(rules.transactions)
        yield Cleaned(keys.end, self._batches, self._size)

    def _map_keys(self) -> KeyMap:
        job = self._job
        keys = KeyMap(job.first_dirty, job.keys_max)
        open_then = [one for one in self._aborted if one.last_offset >= job.first_dirty]
        transactions = Transactions(open_then)
        for number, (base_offset, size) in enumerate(job.segments):
            if self._end_of(number) <= job.first_dirty:
                continue
            for header, batch in self._batches_of(base_offset, size):
                if header.last_offset < job.first_dirty:
                    continue
                if not keys.has_room_for(header):
                    return keys
                if not transactions.sees(header, batch) and not header.is_control:
                    keys.add(header, batch)
                keys.passed(header)
        keys.end = job.end
        return keys

    def _end_of(self, number: int) -> int:
        following = self._job.segments[number + 1 : number + 2]
        return following[0][0] if following else self._job.end

    def _batches_of(
        self, base_offset: int, size: int
    ) -> Iterator[tuple[Header, memoryview]]:
        path = self._folder / file_name(base_offset, LOG)
        file = pin_once(self._disk, path)
        told = 0
        for position, header, batch in walk_batches(file, path, 0, size):
            if crc_of(batch, header) != header.crc:
                raise CorruptLog(path, position, "the batch does not match its checksum")
            self._batches += 1
            if position - told >= READ_BYTES:
                self._on_bytes(position - told)
                told = position
            self.at = path, position
            yield header, batch
        self._on_bytes(size - told)
        self._size += size


class _Output:
    """One cleaned segment being written."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        job: Job,
        on_bytes: Callable[[int], None],
        base_offset: int,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._job = job
        self._on_bytes = on_bytes
        self._segment = Segment.create(
            disk,
            folder,
            base_offset,
            job.now_ms,
            job.index_interval_bytes,
            status=swap.CLEANED,
        )
        self._replaced: list[int] = []
        self._end = base_offset
        self._waiting: list[Buffer] = []
        self._waiting_bytes = 0
        self._changed = 0
        self._last_dropped: tuple[Header, Buffer] | None = None

    def has_room(self, base_offset: int, size: int, end: int) -> bool:
        """For all of an old segment, should nothing of it go."""
        job, segment = self._job, self._segment
        index_bytes = max(
            self._size_of(base_offset, OFFSET_INDEX) + 8 * len(segment.index),
            self._size_of(base_offset, TIME_INDEX) + 12 * len(segment.time_index),
        )
        return (
            segment.size + size <= job.segment_bytes
            and index_bytes <= job.segment_index_bytes
            and end - segment.base_offset <= RELATIVE_OFFSET_MAX
        )

    def _size_of(self, base_offset: int, suffix: str) -> int:
        path = self._folder / file_name(base_offset, suffix)
        return self._disk.size(path) if self._disk.exists(path) else 0

    def begin(self, base_offset: int, end: int) -> None:
        """What comes now is from this old segment."""
        self._replaced.append(base_offset)
        self._end = end

    def take(self, header: Header, batch: Buffer, kept: Buffer | None) -> None:
        if kept is not batch:
            self._changed += 1
        if kept is None:
            self._last_dropped = header, batch
            return
        self._last_dropped = None
        self._append(header if kept is batch else read_header(kept), kept)

    def _append(self, header: Header, batch: Buffer) -> None:
        segment = self._segment
        position = segment.size
        segment.note(position, header.size, header.last_offset, header.max_timestamp)
        segment.size += header.size
        self._waiting.append(batch)
        self._waiting_bytes += header.size
        if self._waiting_bytes >= WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        data = b"".join(self._waiting)
        file = self._segment.file.pin()
        file.write(self._segment.size - len(data), [data])
        # Bit by bit: much to be written at once would hold up the syncs of producers.
        file.sync()
        self._on_bytes(len(data))
        self._waiting, self._waiting_bytes = [], 0

    def finish(self, transactions: Transactions) -> Iterator[Swap]:
        """Sync and commit it, unless it is what it was."""
        aborted, transactions.kept = transactions.kept, []
        self._keep_the_last()
        if self._changed == 0 and len(self._replaced) == 1:
            self._segment.close()
            swap.give_up(self._disk, self._folder, self._segment.base_offset)
            return
        self._write()
        segment = self._segment
        segment.seal()
        base_offset = segment.base_offset
        if aborted or self._disk.exists(
            self._folder / file_name(base_offset, TRANSACTION_INDEX)
        ):
            segment.aborted.write_whole(aborted)
        for path in (segment.path, *segment.index_files()):
            self._disk.sync_file(path)
        self._on_bytes(0)
        swap.commit(self._disk, self._folder, base_offset)
        segment.close()
        yield Swap(self._replaced, segment.size)

    def _keep_the_last(self) -> None:
        if self._last_dropped is None:
            return
        header, batch = self._last_dropped
        as_it_is = header.is_control or header.record_count == 0
        if as_it_is:
            self._changed -= 1
        kept = batch if as_it_is else emptied(header)
        self._append(read_header(kept), kept)
