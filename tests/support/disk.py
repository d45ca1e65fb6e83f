"""A disk in memory that does what real ones do on their bad days.

What was written is visible at once and safe only when synced. `crash(random)` is a power
cut: of each file's unsynced writes some are kept, in any order, cut at sector boundaries;
of each folder's unsynced names the later ones may be gone. `fail` makes the n-th call of a
kind raise; `capacity` fills the disk up; `flip` turns a bit; `cold` takes files out of
memory; `modified` is when all files were last written to. `counts` and `bytes_read` say
what was done.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from streamer.log.disk import Space
from streamer.wire.batch import Buffer

SECTOR = 512


@dataclass
class _Inode:
    content: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Unsynced (position, data); data None is a truncation to that position."""

    def write(self, position: int, data: bytes) -> None:
        self.pending.append((position, data))
        _apply(self.content, position, data)

    def truncate(self, size: int) -> None:
        self.pending.append((size, None))
        _apply(self.content, size, None)

    def sync(self) -> None:
        self.safe = bytes(self.content)
        self.pending.clear()

    def crash(self, random: Random) -> None:
        survivor = bytearray(self.safe)
        pieces = [piece for step in self.pending for piece in _sectors(*step)]
        kept = [piece for piece in pieces if random.random() < random.choice((0.1, 0.9))]
        if random.random() < 0.3:
            random.shuffle(kept)
        for position, data in kept:
            _apply(survivor, position, data)
        self.content = survivor
        self.sync()


def _sectors(position: int, data: bytes | None) -> list[tuple[int, bytes | None]]:
    if data is None:
        return [(position, None)]
    pieces: list[tuple[int, bytes | None]] = []
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (position + start) % SECTOR)
        pieces.append((position + start, data[start:end]))
        start = end
    return pieces


def _apply(content: bytearray, position: int, data: bytes | None) -> None:
    if data is None:
        del content[position:]
        content.extend(bytes(position - len(content)))
        return
    content.extend(bytes(max(0, position - len(content))))
    content[position : position + len(data)] = data


class SimulatedFile:
    def __init__(self, disk: SimulatedDisk, path: Path) -> None:
        self.path = path
        self._disk = disk
        self._open: SimulatedPinned | None = None

    def pin(self) -> SimulatedPinned:
        if self._open is None or self._open.era != self._disk.era:
            self._open = SimulatedPinned(self._disk, self._disk.inode(self.path), self.path)
        return self._open

    def close(self) -> None:
        self._open = None


class SimulatedPinned:
    def __init__(self, disk: SimulatedDisk, inode: _Inode, path: Path) -> None:
        self._disk = disk
        self._inode = inode
        self._path = path
        self.era = disk.era

    def read(self, position: int, size: int, *, wait: bool = True) -> Buffer | None:
        self._disk.step("read", self._path)
        if self._disk.cold and not wait:
            return None
        data = bytes(self._inode.content[position : position + size])
        self._disk.bytes_read += len(data)
        return data

    def write(self, position: int, buffers: Sequence[Buffer]) -> None:
        assert self.era == self._disk.era, "written by a program that the power cut ended"
        data = b"".join(bytes(buffer) for buffer in buffers)
        room = self._disk.space(self._path).free
        growth = position + len(data) - len(self._inode.content)
        if growth > room:
            # A full disk takes what fits and then complains.
            self._inode.write(position, data[: max(0, len(data) - (growth - room))])
            raise OSError(errno.ENOSPC, "No space left on device", str(self._path))
        self._disk.step("write", self._path)
        self._inode.write(position, data)

    def truncate(self, size: int) -> None:
        self._disk.step("truncate", self._path)
        self._inode.truncate(size)

    def sync(self) -> None:
        self._disk.step("sync", self._path)
        self._inode.sync()

    def size(self) -> int:
        return len(self._inode.content)


class SimulatedLock:
    def __init__(self, disk: SimulatedDisk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def write(self, note: bytes) -> None:
        self._disk.replace(self._path, note)

    def release(self) -> None:
        self._disk.locked.discard(self._path)


class SimulatedDisk:
    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.cold = False
        self.modified = 0
        self.era = 0
        self.counts: Counter[str] = Counter()
        self.bytes_read = 0
        self.locked: set[Path] = set()
        self._files: dict[Path, _Inode] = {}
        self._dirs: set[Path] = {Path("/")}
        self._renames: list[tuple[Path, Path | None, Path | None, _Inode | None]] = []
        self._faults: dict[str, list[tuple[int, int, str]]] = {}

    # What a test does to it.

    def fail(self, call: str, error: int, *, after: int = 0, name: str = "") -> None:
        """Make the call of this kind fail, after so many that succeed; only for files whose
        name contains `name`. Lasts until `heal`."""
        self._faults.setdefault(call, []).append((self.counts[call] + after, error, name))

    def heal(self) -> None:
        self._faults.clear()

    def flip(self, path: Path, bit: int) -> None:
        inode = self._files[path]
        inode.content[bit // 8] ^= 1 << bit % 8
        inode.sync()

    def replace(self, path: Path, content: bytes) -> None:
        inode = _Inode(bytearray(content))
        inode.sync()
        self._files[path] = inode
        self._dirs.update(path.parents)

    def files(self) -> dict[Path, bytes]:
        return {path: bytes(inode.content) for path, inode in self._files.items()}

    def crash(self, random: Random) -> None:
        """A power cut: all that runs is gone, with what was not synced."""
        self.era += 1
        self.locked.clear()
        self._lose_names(random)
        for inode in self._files.values():
            inode.crash(random)
        self._renames.clear()

    def kill(self) -> None:
        """kill -9: the program is gone, what it wrote is there."""
        self.era += 1
        self.locked.clear()

    def _lose_names(self, random: Random) -> None:
        """Of each folder's unsynced steps only the first few have reached the disk."""
        kept = {folder: random.random() for folder, *_ in self._renames}
        totals = Counter(folder for folder, *_ in self._renames)
        seen: Counter[Path] = Counter()
        lost = []
        for step in self._renames:
            seen[step[0]] += 1
            if seen[step[0]] > kept[step[0]] * (totals[step[0]] + 1):
                lost.append(step)
        for _, gone, new, inode in reversed(lost):
            if new is not None:
                self._files.pop(new, None)
            if gone is not None and inode is not None:
                self._files[gone] = inode

    # What the log does with it.

    def step(self, call: str, path: Path) -> None:
        number = self.counts[call]
        self.counts[call] += 1
        for after, error, name in self._faults.get(call, ()):
            if number >= after and name in str(path):
                raise OSError(error, f"{call} failed on purpose", str(path))

    def inode(self, path: Path) -> _Inode:
        self.step("open", path)
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return self._files[path]

    def open(self, path: Path, *, create: bool = False) -> SimulatedFile:
        if create and path not in self._files:
            self.step("create", path)
            if self.space(path).free <= 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            self._files[path] = _Inode()
            self._renames.append((path.parent, None, path, None))
        return SimulatedFile(self, path)

    def list(self, path: Path) -> list[str]:
        if path not in self._dirs:
            raise FileNotFoundError(errno.ENOENT, "No such folder", str(path))
        found = {file.name for file in self._files if file.parent == path}
        return sorted(
            found | {folder.name for folder in self._dirs if folder.parent == path}
        )

    def exists(self, path: Path) -> bool:
        return path in self._files or path in self._dirs

    def size(self, path: Path) -> int:
        return len(self.inode(path).content)

    def modified_ms(self, path: Path) -> int:
        return self.modified

    def rename(self, old: Path, new: Path) -> None:
        self.step("rename", old)
        if old in self._dirs:
            self._rename_dir(old, new)
            return
        replaced = self._files.get(new)
        inode = self._files.pop(old)
        self._files[new] = inode
        self._renames.append((old.parent, old, new, inode))
        if replaced is not None:
            self._renames[-1:] = [
                (new.parent, new, new, replaced),
                (old.parent, old, None, inode),
            ]

    def _rename_dir(self, old: Path, new: Path) -> None:
        # Kept at once: what is half renamed belongs to the file system's own tests.
        self._dirs.discard(old)
        self._dirs.add(new)
        for path in [path for path in self._files if path.is_relative_to(old)]:
            self._files[new / path.relative_to(old)] = self._files.pop(path)

    def remove(self, path: Path) -> None:
        self.step("remove", path)
        self._renames.append((path.parent, path, None, self._files.pop(path)))

    def remove_tree(self, path: Path) -> None:
        self.step("remove", path)
        for file in [file for file in self._files if file.is_relative_to(path)]:
            del self._files[file]
        self._dirs = {folder for folder in self._dirs if not folder.is_relative_to(path)}

    def make_dir(self, path: Path) -> None:
        self._dirs.update([path, *path.parents])

    def sync_file(self, path: Path) -> None:
        inode = self.inode(path)
        self.step("sync", path)
        inode.sync()

    def sync_dir(self, path: Path) -> None:
        self.step("sync_dir", path)
        self._renames = [step for step in self._renames if step[0] != path]

    def read_file(self, path: Path) -> bytes:
        self.step("read", path)
        data = bytes(self.inode(path).content)
        self.bytes_read += len(data)
        return data

    def write_file(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        temporary = path.with_name(path.name + ".tmp")
        file = self.open(temporary, create=True).pin()
        file.truncate(0)
        file.write(0, [data])
        if durable:
            file.sync()
        self.rename(temporary, path)
        if durable:
            self.sync_dir(path.parent)

    def space(self, path: Path) -> Space:
        used = sum(len(inode.content) for inode in self._files.values())
        return Space(self.capacity, self.capacity - used)

    def lock(self, path: Path, note: bytes) -> SimulatedLock | None:
        if path in self.locked:
            return None
        self.locked.add(path)
        self.replace(path, note)
        return SimulatedLock(self, path)
