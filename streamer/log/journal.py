"""A file of small facts that must not be lost: topics, settings, ids given out.

Each line is a fact, with its length and checksum:

    streamer-journal 1
    0000002a 9f3c11e0 {"topic": "orders", ...}

Facts are appended and synced before anybody acts on them. At start the owner reads them
all and writes the file anew without what is superseded.

A write that a crash cut short is the last line, and has holes or no end: it was never
answered, so it is dropped. Any other line that is not as it was written means that the disk
has lost something that was promised. Then nothing is guessed: the start stops.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from streamer.log.disk import Disk, pin_once
from streamer.log.errors import JournalDamaged
from streamer.wire.checksum import crc32c

Fact: TypeAlias = dict[str, Any]

TITLE = b"streamer-journal "
VERSION = 1
PREFIX_SIZE = 18
"""Length and checksum, eight digits and a space each."""


class Journal:
    """Append on the loop, sync in a thread; one at a time."""

    def __init__(self, disk: Disk, path: Path, facts: list[Fact], size: int) -> None:
        self.path = path
        self._disk = disk
        self._facts = facts
        # Open for good: a thread that syncs must not have to open it.
        self._file = pin_once(disk, path)
        self._size = size
        self._broken: OSError | None = None

    @classmethod
    def open(cls, disk: Disk, path: Path) -> Journal:
        """Read what is there, or begin. JournalDamaged says what cannot be believed."""
        if not disk.exists(path):
            disk.write_file(path, _title())
        data = disk.read_file(path)
        facts, size = read_journal(data, path)
        journal = cls(disk, path, facts, size)
        if size < len(data):
            journal._file.truncate(size)
            journal._file.sync()
        return journal

    def entries(self) -> list[Fact]:
        """All facts, oldest first, as of when the journal was opened or rewritten."""
        return self._facts

    def rewrite(self, facts: Sequence[Fact]) -> None:
        """Put these facts in place of all others, at once and safely."""
        data = _title() + b"".join([_line(fact) for fact in facts])
        self._disk.write_file(self.path, data)
        self._file = pin_once(self._disk, self.path)
        self._facts = list(facts)
        self._size = len(data)

    def append(self, fact: Fact) -> None:
        """Write a fact; it counts once `sync` has returned. After an OSError it is not
        there."""
        if self._broken is not None:
            raise self._broken
        line = _line(fact)
        try:
            self._file.write(self._size, [line])
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(line)

    def sync(self) -> None:
        """May run in another thread. A sync that failed is never tried again."""
        if self._broken is not None:
            raise self._broken
        try:
            self._file.sync()
        except OSError as error:
            self._broken = error
            raise


def read_journal(data: bytes, path: Path) -> tuple[list[Fact], int]:
    """The facts of a journal file, and how many of its bytes they take."""
    title, newline, _ = data.partition(b"\n")
    if title + newline != _title():
        raise JournalDamaged(
            f"{path} does not begin as a journal of version {VERSION} does."
        )
    facts: list[Fact] = []
    position = len(title) + 1
    while position < len(data):
        fact, size = _read_line(data, position)
        if fact is None:
            if _is_torn(data[position:]):
                break
            raise JournalDamaged(
                f"{path}: line {len(facts) + 2}, at byte {position},"
                " is not what was written there."
            )
        facts.append(fact)
        position += size
    return facts, position


def _title() -> bytes:
    return TITLE + b"%d\n" % VERSION


def _line(fact: Fact) -> bytes:
    text = json.dumps(fact, separators=(",", ":")).encode("ascii")
    checksum = crc32c(b"%08x " % len(text) + text)
    return b"%08x %08x %s\n" % (len(text), checksum, text)


def _read_line(data: bytes, position: int) -> tuple[Fact | None, int]:
    end = data.find(b"\n", position)
    line = data[position : end + 1]
    text = line[PREFIX_SIZE:-1]
    try:
        fact = json.loads(text)
    except ValueError:
        return None, 0
    # Written anew, the fact must give the very same bytes.
    if not isinstance(fact, dict) or _line(fact) != line:
        return None, 0
    return fact, len(line)


def _is_torn(rest: bytes) -> bool:
    """Whether this is the beginning of one line, or one line with holes in it.

    A line has no zero bytes, and what a disk did not get to write reads as zeros. One
    single zero may as well be a letter that lost its only bit: then it is damage.
    """
    body = rest[:-1] if rest.endswith(b"\n") else rest
    if b"\n" in body:
        return False
    holes = body.count(0)
    if rest.endswith(b"\n") or _is_complete(rest):
        return holes > 1 or (holes == 1 and not _one_bit_off(rest))
    return True


def _is_complete(rest: bytes) -> bool:
    try:
        return len(rest) > PREFIX_SIZE + int(rest[:8], 16)
    except ValueError:
        return False


def _one_bit_off(line: bytes) -> bool:
    hole = line.index(0)
    candidates = (line[:hole] + bytes([1 << bit]) + line[hole + 1 :] for bit in range(8))
    return any(_read_line(candidate, 0)[0] is not None for candidate in candidates)
