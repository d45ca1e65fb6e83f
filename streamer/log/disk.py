"""The disk as the log sees it: one seam, so that a test can lose, tear and fill it.

All calls to the operating system that the log makes are here. A `File` is a name until it
is used; `pin` gives its open descriptor. `RealDisk` keeps some hundreds of them open and
closes those that were not used lately, so that a hundred thousand segments need no more.

Whoever works in another thread pins on the loop and then uses only the pinned file: it
stays open for as long as anyone holds it, even when the file is closed, renamed or removed
meanwhile. The list of open files itself is the loop's alone.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import resource
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from streamer.wire.batch import Buffer

NOWAIT = getattr(os, "RWF_NOWAIT", 0)
"""Read only what is in memory; Linux has it, and not on every file system."""

TEMPORARY = ".tmp"
"""How the names end of files that are not whole yet; after a crash some may be left."""

OPEN_FILES_MAX = 4096
OPEN_FILES_SHARE = 3
"""A third of what the process may open stays open for the log; sockets need the rest."""


class Pinned(Protocol):
    """An open file. Safe to use in any one thread at a time, reads in all."""

    def read(self, position: int, size: int, *, wait: bool = True) -> Buffer | None:
        """Up to `size` bytes, fewer only at the end; None if they are not all in memory
        and `wait` is false."""

    def write(self, position: int, buffers: Sequence[Buffer]) -> None: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Return once all that was written will survive a power cut."""

    def size(self) -> int: ...


class File(Protocol):
    """A file by its name, opened when it is used."""

    path: Path

    def pin(self) -> Pinned: ...

    def close(self) -> None:
        """Let go of the descriptor; the next use opens it again."""


class Lock(Protocol):
    def write(self, note: bytes) -> None:
        """Tell those who find the file taken."""

    def release(self) -> None: ...


class Space(NamedTuple):
    """What a file system holds, in bytes."""

    total: int
    free: int


class Disk(Protocol):
    def open(self, path: Path, *, create: bool = False) -> File: ...

    def list(self, path: Path) -> list[str]: ...

    def exists(self, path: Path) -> bool: ...

    def size(self, path: Path) -> int: ...

    def modified_ms(self, path: Path) -> int:
        """When the file was last written to, by the system's clock."""

    def rename(self, old: Path, new: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def remove_tree(self, path: Path) -> None: ...

    def make_dir(self, path: Path) -> None: ...

    def sync_file(self, path: Path) -> None:
        """The same as `sync` of a pinned file, by its name, in any thread."""

    def sync_dir(self, path: Path) -> None:
        """Return once the folder's names will survive a power cut."""

    def read_file(self, path: Path) -> bytes: ...

    def write_file(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """Put `data` in place of the file: whoever looks sees all of it or the old one."""

    def space(self, path: Path) -> Space: ...

    def lock(self, path: Path, note: bytes) -> Lock | None:
        """Take the file for this process and leave a note in it; None if it is taken."""


def pin_once(disk: Disk, path: Path) -> Pinned:
    """The open file, for who needs it this one time: nobody keeps it open after that."""
    file = disk.open(path)
    pinned = file.pin()
    file.close()
    return pinned


class _Descriptor:
    """Closes itself once the last user has dropped it: Python counts them for us."""

    __slots__ = ("_fd", "used")

    def __init__(self, path: Path, flags: int) -> None:
        self._fd = -1
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self.used = False
        """Whether it was used again since it was opened or last looked at."""

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, position: int, size: int, *, wait: bool = True) -> Buffer | None:
        if wait or not NOWAIT:
            return os.pread(self._fd, size, position)
        return self._read_from_memory(position, size)

    def _read_from_memory(self, position: int, size: int) -> Buffer | None:
        buffer = bytearray(size)
        done = 0
        while done < size:
            try:
                # Short means the end of the file or of what is in memory: ask again.
                count = os.preadv(
                    self._fd, [memoryview(buffer)[done:]], position + done, NOWAIT
                )
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    return os.pread(self._fd, size, position)
                raise
            if count == 0:
                return memoryview(buffer)[:done]
            done += count
        return buffer

    def write(self, position: int, buffers: Sequence[Buffer]) -> None:
        size = sum(map(len, buffers))
        done = os.pwritev(self._fd, buffers, position)
        if done < size:
            self._write_rest(position + done, b"".join(buffers)[done:])

    def _write_rest(self, position: int, rest: bytes) -> None:
        # A short write comes before the error that explains it.
        while rest:
            done = os.pwrite(self._fd, rest, position)
            rest, position = rest[done:], position + done

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        _sync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size


class _RealFile:
    __slots__ = ("_disk", "_open", "path")

    def __init__(self, disk: RealDisk, path: Path) -> None:
        self.path = path
        self._disk = disk
        self._open: _Descriptor | None = None

    def pin(self) -> _Descriptor:
        descriptor = self._open
        if descriptor is None:
            return self._reopen()
        descriptor.used = True
        return descriptor

    def _reopen(self, flags: int = os.O_RDWR) -> _Descriptor:
        self._disk.make_room()
        self._open = _Descriptor(self.path, flags)
        self._disk.opened(self)
        return self._open

    def create(self) -> None:
        self._reopen(os.O_RDWR | os.O_CREAT)

    def close(self) -> None:
        self._open = None

    def close_if_idle(self) -> bool:
        """Second chance: a file used since the last look stays open until the next."""
        if self._open is None:
            return True
        if self._open.used:
            self._open.used = False
            return False
        self._open = None
        return True


class _RealLock:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, note: bytes) -> None:
        # Over the old one first: that works on a full disk, too.
        os.pwrite(self._fd, note, 0)
        os.ftruncate(self._fd, len(note))

    def release(self) -> None:
        os.close(self._fd)


class RealDisk:
    def __init__(self, open_files: int | None = None) -> None:
        self._limit = open_files or open_files_limit()
        self._open: deque[_RealFile] = deque()
        self._numbers = itertools.count()

    def open(self, path: Path, *, create: bool = False) -> File:
        file = _RealFile(self, path)
        if create:
            file.create()
        return file

    def make_room(self) -> None:
        """Close files not used lately, until one more may be opened."""
        while len(self._open) >= self._limit:
            file = self._open.popleft()
            if not file.close_if_idle():
                self._open.append(file)

    def opened(self, file: _RealFile) -> None:
        self._open.append(file)

    def list(self, path: Path) -> list[str]:
        return os.listdir(path)

    def exists(self, path: Path) -> bool:
        return os.path.exists(path)

    def size(self, path: Path) -> int:
        return os.stat(path).st_size

    def modified_ms(self, path: Path) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)

    def make_dir(self, path: Path) -> None:
        os.makedirs(path, exist_ok=True)

    def sync_file(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _sync(fd)
        finally:
            os.close(fd)

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read_file(self, path: Path) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def write_file(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        # A name of its own: another thread may be writing the same file just now.
        temporary = path.with_name(f"{path.name}.{next(self._numbers)}{TEMPORARY}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    _sync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            # Where the disk is full, what is of no use must not stay.
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            self.sync_dir(path.parent)

    def space(self, path: Path) -> Space:
        found = os.statvfs(path)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def lock(self, path: Path, note: bytes) -> Lock | None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        lock = _RealLock(fd)
        lock.write(note)
        return lock


def open_files_limit() -> int:
    """How many files the log keeps open at most."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    return max(8, min(OPEN_FILES_MAX, allowed // OPEN_FILES_SHARE))


if sys.platform == "darwin":

    def _sync(fd: int) -> None:
        # fsync there reaches the drive's cache only.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)

else:

    def _sync(fd: int) -> None:
        os.fdatasync(fd)
