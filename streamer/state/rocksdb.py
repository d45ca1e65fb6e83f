"""Stores on disk: RocksDB, one database for each partition of a table.

    ROOT/tables/TABLE/PARTITION/

A database holds three kinds of keys, told apart by their first byte, so that a key of the
table may be any bytes, none at all even:

    0 position      eight bytes: the offset of the changelog to read next
    0 identity      whose it is (`identity.py`)
    1 KEY           a key of the table

A write is one WriteBatch, position included. The log of RocksDB is written and not synced:
a kill loses nothing, and after a power cut RocksDB has some prefix of the writes, each
whole, with the position that belongs to it; the changelog has the rest.

Where the time goes: putting together a batch 0.2 µs a key, writing it 0.3, and RocksDB's
own threads as much again. Python waits while RocksDB writes: rocksdict keeps the
interpreter's lock (GIL) in `write`, in `get` of one key and while it opens a database, but
not in `get` of several, `flush` and `close`. So a write of 10,000 keys holds up the event
loop for 3 ms, in whatever thread it is done. It must never wait for the disk as well:
RocksDB is told to refuse a write that would have to wait, and the waiting is done here,
without the lock.

(Column families would do without the first byte of keys. But the log of RocksDB is kept
until each family has flushed, and that of the positions never grows enough to do so.)

This is the only module that imports rocksdict.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote
from weakref import WeakSet

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from streamer.state.errors import StateError, StoreClosed, StoreDamaged, StoreHeld
from streamer.state.identity import Identity
from streamer.state.store import Changes, Place, now_ms, refreshed

POSITION = b"\0position"
IDENTITY = b"\0identity"
DATA = b"\1"
AFTER_DATA = b"\2"

POSITION_FORMAT = struct.Struct(">q")

CACHE_BYTES = 64 << 20
"""Of all stores of a process together: blocks that were read, and what is not flushed."""
UNFLUSHED_BYTES = 32 << 20
FLUSH_BYTES = 8 << 20
"""What one database flushes at; after a kill so much is read again from its log: 0.1 s."""

GONE = ".gone"
"""A folder that is being removed."""
DAMAGED = "damaged"
"""A file beside those of RocksDB: they cannot be read."""

SCAN_KEYS = 500
"""Read at a time by a scan, so that it can be ended in between."""
STALL_SECONDS = 0.002
"""Until a write is tried again that RocksDB had no room for."""


class RocksStore:
    """One database, open."""

    def __init__(
        self, place: Place, path: Path, options: Options, clock: Callable[[], int]
    ) -> None:
        self.place = place
        self.closed = False
        self._clock = clock
        self._path = path
        if (path / DAMAGED).exists():
            raise StoreDamaged(f"{place} was found damaged when it was last read.")
        try:
            self._db = Rdict(str(path), options)
        except Exception as error:
            raise self._problem(error, "Opening") from None
        self._get = self._db.get
        self._position: int | None
        self._identity: Identity | None
        self._count: int | None = None
        # So that what is counted, or closed, is not written to meanwhile.
        self._writing = threading.Lock()
        self._scans: WeakSet[_Scan] = WeakSet()
        self._claimed = False
        try:
            position, identity = self._get(POSITION), self._get(IDENTITY)
            self._position = position and _position_in(position)
            self._identity = identity and Identity.decode(identity)
        except Exception as error:
            self._db.close()
            raise self._problem(error, "Opening") from None

    def get(self, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._get(DATA + key)
        except Exception as error:
            raise self._problem(error, "Reading") from None
        return found

    def items(
        self, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        scan = _Scan(self, DATA + start, AFTER_DATA if stop is None else DATA + stop)
        self._scans.add(scan)
        return chain.from_iterable(scan.chunks())

    def rows(self, start: bytes, until: ReadOptions) -> Iterator[tuple[bytes, bytes]]:
        try:
            rows: Any = self._db.items(from_key=start, read_opt=until)
        except Exception as error:
            raise self._problem(error, "Reading") from None
        return cast("Iterator[tuple[bytes, bytes]]", rows)

    def check_end(self, last: bytes, until: ReadOptions) -> None:
        """Raise if what comes after the key `last` cannot be read: rocksdict's iterators
        end there as if that were all."""
        try:
            rest = self._db.iter(until)
            rest.seek(last)
            if rest.valid():
                rest.next()
            rest.status()
        except Exception as error:
            raise self._problem(error, "Reading") from None

    def write(self, changes: Changes, position: int, *, in_step: bool = True) -> None:
        with self._writing:
            now = self._clock()
            identity = refreshed(self._identity, in_step, now)
            if identity is None and self._claimed:
                identity = self._identity
            count = self._counted_after(changes)
            self._write(changes, position, identity)
            self._position, self._count = position, count
            if identity is not None:
                self._identity, self._claimed = identity, False

    def _write(self, changes: Changes, position: int, identity: Identity | None) -> None:
        while True:
            batch = WriteBatch(raw_mode=True)
            put, delete = batch.put, batch.delete
            for key, value in changes.items():
                if value is None:
                    delete(DATA + key)
                else:
                    put(DATA + key, value)
            put(POSITION, POSITION_FORMAT.pack(position))
            if identity is not None:
                put(IDENTITY, identity.encode())
            try:
                self._db.write(batch, NOT_WAITING)
                return
            except Exception as error:
                if "Write stall" not in str(error):
                    raise self._problem(error, "Writing to") from None
            time.sleep(STALL_SECONDS)  # gives the interpreter to others; RocksDB would not

    def _counted_after(self, changes: Changes) -> int | None:
        """How many keys there are once `changes` are written; None if nobody asked yet."""
        if self._count is None or not changes:
            return self._count
        try:
            before = self._db.get([DATA + key for key in changes])
        except Exception as error:
            raise self._problem(error, "Reading") from None
        assert isinstance(before, list)
        gone, there = before.count(None), list(changes.values()).count(None)
        return self._count + gone - there

    @property
    def position(self) -> int | None:
        return self._position

    @property
    def identity(self) -> Identity | None:
        return self._identity

    def claim(self, identity: Identity) -> None:
        self._identity, self._claimed = identity, True

    def count(self) -> int:
        with self._writing:
            if self._count is None:
                self._count = sum(map(len, _Scan(self, DATA, AFTER_DATA).chunks()))
            return self._count

    def size_bytes(self) -> int:
        if self.closed:
            raise _closed(self.place)
        flushed = self._db.property_int_value("rocksdb.total-sst-files-size")
        unflushed = self._db.property_int_value("rocksdb.cur-size-all-mem-tables")
        return (flushed or 0) + (unflushed or 0)

    def close(self) -> None:
        """With everything flushed, so that the next to open it has no log to read."""
        with self._writing:
            if self.closed:
                return
            self.closed = True
            # A scan would keep the database open, and its lock.
            for scan in list(self._scans):
                scan.end()
            try:
                self._db.flush()
            except Exception as error:
                raise self._problem(error, "Flushing") from None
            finally:
                self._db.close()

    def _problem(self, error: Exception, doing: str) -> StateError:
        """rocksdict raises plain exceptions with RocksDB's words."""
        words = str(error).rstrip(".")
        about = f"{doing} {self.place} in {self._path}"
        if isinstance(error, DbClosedError):
            return _closed(self.place)
        if words.startswith("Corruption"):
            # Opening may not notice: the next who tries is told.
            with suppress(OSError):
                (self._path / DAMAGED).touch()
            return StoreDamaged(f"{about}: {words}.")
        if "/LOCK" in words and ("lock hold" in words or "While lock file" in words):
            return StoreHeld(f"{about}: somebody else has it open ({words}).")
        return StateError(f"{about}: {words}.")


class _Scan:
    """Rows still to be read; `end` lets go of the database."""

    __slots__ = ("__weakref__", "_last", "_rows", "_store", "_until")

    def __init__(self, store: RocksStore, start: bytes, until: bytes) -> None:
        self._store = store
        self._last = start
        # RocksDB reads the bound where it lies, and rocksdict does not keep it there: it
        # must live as long as the rows.
        self._until = ReadOptions()
        self._until.set_iterate_upper_bound(until)
        self._rows: Any = store.rows(start, self._until)

    def chunks(self) -> Iterator[list[tuple[bytes, bytes]]]:
        # Between chunks nobody but `_rows` holds on to RocksDB's iterator.
        while chunk := self._chunk():
            yield chunk

    def _chunk(self) -> list[tuple[bytes, bytes]]:
        rows = self._rows
        if rows is None:
            raise StoreClosed(f"{self._store.place} was closed while it was read.")
        chunk = [(key[1:], value) for key, value in islice(rows, SCAN_KEYS)]
        if chunk:
            self._last = DATA + chunk[-1][0]
        else:
            self._store.check_end(self._last, self._until)
        return chunk

    def end(self) -> None:
        self._rows = None


class RocksStores:
    """Databases below one folder, with one cache."""

    def __init__(self, root: Path, clock: Callable[[], int] = now_ms) -> None:
        self._tables = root / "tables"
        self._clock = clock
        self._options = _options(Cache(CACHE_BYTES))
        self._open: dict[Place, RocksStore] = {}
        # What a kill has kept from being removed.
        for gone in self._tables.glob(f"*/*{GONE}"):
            shutil.rmtree(gone, ignore_errors=True)

    def open(self, table: str, partition: int) -> RocksStore:
        place = Place(table, partition)
        before = self._open.get(place)
        if before and not before.closed:
            raise StoreHeld(f"{place} is open already.")
        path = self.path(table, partition)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"Cannot make the folder {path}: {error.strerror}.") from None
        self._open[place] = RocksStore(place, path, self._options, self._clock)
        return self._open[place]

    def forget(self, table: str, partition: int) -> None:
        place = Place(table, partition)
        before = self._open.pop(place, None)
        assert before is None or before.closed, f"{place} is open"
        path = self.path(table, partition)
        gone = path.with_name(f"{path.name}{GONE}")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            # Renamed first: half a database could be taken for a whole one.
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StateError(f"Cannot remove {path}: {error.strerror}.") from None

    def kept(self) -> Mapping[Place, int]:
        return {
            Place(_name_of(path.parent.name), int(path.name)): _last_used_ms(path)
            for path in sorted(self._tables.glob("*/*"))
            if path.name.isdecimal()
        }

    def path(self, table: str, partition: int) -> Path:
        return self._tables / _folder_of(table) / str(partition)

    def close(self) -> None:
        for store in self._open.values():
            store.close()


def _folder_of(table: str) -> str:
    """A name that every file system takes for one of its own: some know no capitals."""

    def escaped(found: re.Match[str]) -> str:
        return "".join(f"%{byte:02x}" for byte in found.group().encode())

    return re.sub(r"^\.|[^a-z0-9_.-]", escaped, table)


def _name_of(folder: str) -> str:
    return unquote(folder)


def _last_used_ms(path: Path) -> int:
    """RocksDB writes to one file or another when it opens, works and closes."""
    times = [path.stat().st_mtime_ns]
    with os.scandir(path) as entries:
        times += [entry.stat().st_mtime_ns for entry in entries]
    return max(times) // 1_000_000


def _options(cache: Cache) -> Options:
    """Every option of RocksDB that is ours, and why."""
    options = Options(raw_mode=True)  # bytes as they are; else each is prefixed by a type
    options.create_if_missing(True)
    # After a power cut: every write up to the first that is not whole, and none behind it.
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())

    # Memory: what is not flushed counts as part of the cache, so that a worker with
    # hundreds of partitions needs no more than one with a few. Small memtables also mean
    # that a start after a kill has little to read again.
    options.set_write_buffer_size(FLUSH_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_write_buffer_manager(
        WriteBufferManager.new_write_buffer_manager_with_cache(
            UNFLUSHED_BYTES, allow_stall=False, cache=cache
        )
    )
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_bloom_filter(10, False)  # a key that is not there costs no look at the disk
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options.set_block_based_table_factory(blocks)

    # Few files, and few threads: a worker has two cores' worth of other work.
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_bytes_for_level_base(64 << 20)
    options.set_target_file_size_base(16 << 20)
    options.set_max_open_files(128)
    options.set_max_background_jobs(2)

    # Nobody reads its statistics; its own log is for those who look for a fault in it.
    options.set_keep_log_file_num(1)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_skip_stats_update_on_db_open(True)
    return options


def _not_waiting() -> WriteOptions:
    options = WriteOptions()
    options.no_slowdown = True
    return options


NOT_WAITING = _not_waiting()


def _position_in(data: bytes) -> int:
    try:
        (position,) = POSITION_FORMAT.unpack(data)
    except struct.error:
        raise ValueError(f"Corruption: no position: {data!r}") from None
    assert isinstance(position, int)
    return position


def _closed(place: Place) -> StoreClosed:
    return StoreClosed(f"{place} is closed.")
