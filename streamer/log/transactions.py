"""Which transactions in a segment were aborted: Kafka's `.txnindex`.

A reader of committed records gets every batch below the last stable offset, and with them
the list of aborted transactions, whose records it drops. Each segment lists those whose
marker lies in it.

Kafka's entries have no checksum, and a wrong one would show records that never were
committed. So a file beside it, which Kafka ignores, has one for all of them; without it,
or if they disagree, `recovery.py` makes the list anew from the batches.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import NamedTuple

from streamer.log.disk import Disk, File
from streamer.wire.checksum import crc32c

SUFFIX = ".txnindex"
CHECKSUM = ".txnindex.crc32c"

VERSION = 0
ENTRY = Struct(">hqqqq")


class Aborted(NamedTuple):
    producer_id: int
    first_offset: int
    last_offset: int
    """Where the marker is."""
    last_stable: int
    """Behind it when the marker came: who reads no further needs no later entry."""


class TransactionIndexDamaged(Exception):
    """Not what was written; the segment's batches say the same."""


def read_aborted(data: bytes) -> list[Aborted]:
    """The entries of a `.txnindex` file, ours or Kafka's."""
    if len(data) % ENTRY.size:
        raise TransactionIndexDamaged(f"{len(data)} bytes are no whole number of entries")
    entries = []
    for version, *fields in ENTRY.iter_unpack(data):
        entry = Aborted(*fields)
        if version != VERSION or not 0 <= entry.first_offset < entry.last_offset:
            raise TransactionIndexDamaged(f"version {version}, {entry}")
        entries.append(entry)
    return entries


def _checksum(data: bytes) -> bytes:
    return b"%08x\n" % crc32c(data)


class AbortedTransactions:
    """A segment's list. It is short, so it is kept in memory once someone has asked."""

    __slots__ = ("_disk", "_file", "checksum_path", "entries", "path")

    def __init__(self, disk: Disk, path: Path, checksum_path: Path) -> None:
        self.path = path
        self.checksum_path = checksum_path
        self.entries: list[Aborted] | None = None
        """None until they are read and believed."""
        self._disk = disk
        self._file: File | None = None

    def exists(self) -> bool:
        return self._disk.exists(self.path)

    def read(self) -> list[Aborted]:
        if not self.exists():
            return []
        data = self._disk.read_file(self.path)
        try:
            says = self._disk.read_file(self.checksum_path)
        except FileNotFoundError:
            raise TransactionIndexDamaged("nothing vouches for it") from None
        if says != _checksum(data):
            raise TransactionIndexDamaged("it does not match its checksum")
        return read_aborted(data)

    def append(self, entry: Aborted) -> None:
        assert self.entries is not None, "someone has to believe the old ones first"
        self.entries.append(entry)

    def write_whole(self, entries: list[Aborted]) -> None:
        """All of it at once, to be synced; a file that is empty denies what was there."""
        self.entries = entries
        self._disk.write_file(self.path, self._packed(), durable=False)
        self._disk.write_file(self.checksum_path, _checksum(self._packed()), durable=False)

    def write_out(self) -> bool:
        """Bring the file up to date; says whether it changed."""
        if not self.entries:
            return False
        if self._file is None:
            self._file = self._disk.open(self.path, create=True)
        pinned = self._file.pin()
        written = pinned.size() // ENTRY.size
        if written == len(self.entries):
            return False
        data = b"".join([ENTRY.pack(VERSION, *entry) for entry in self.entries[written:]])
        pinned.write(written * ENTRY.size, [data])
        self._disk.write_file(self.checksum_path, _checksum(self._packed()), durable=False)
        return True

    def _packed(self) -> bytes:
        return b"".join([ENTRY.pack(VERSION, *entry) for entry in self.entries or ()])

    def replace(self, entries: list[Aborted]) -> None:
        """Start anew with these, at once: who opens the file next believes it."""
        self.entries = entries
        data = self._packed()
        if self.exists() and self._disk.read_file(self.path) != data:
            self._disk.write_file(self.path, data)
            self._disk.write_file(self.checksum_path, _checksum(data))
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
