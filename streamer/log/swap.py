"""How a cleaned segment takes the place of those it was made from, whatever happens.

    written     X.log.cleaned and its indexes              worth nothing yet
    committed   synced, then renamed to .swap, the log     from here on it counts
                last, and the folder synced
    in place    the old files renamed to .deleted, then
                the .swap files to their own names, the log last

A segment covers its offsets up to the end of its last batch, so a `.log.swap` itself says
which old segments it replaces. A start removes what is `.cleaned`, and finishes what has a
`.log.swap`: each step may have been done before.

Several are committed from the oldest on and withdrawn from the newest on. A later one may
have dropped a tombstone because an earlier one dropped what it deletes: the later must
never be there without the earlier.

Old files keep their readers; who has one open reads on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from streamer.log.config import FOREVER
from streamer.log.disk import Disk, pin_once
from streamer.log.errors import CorruptLog
from streamer.log.segment import DELETED, INDEX_FILES, LOG, file_name, walk_headers

CLEANED = ".cleaned"
SWAP = ".swap"
LOG_LAST = (*INDEX_FILES, LOG)

GAPS = "compaction-gaps"
"""A file in the partition's folder that says before which offset there may be gaps. It is
written before there are any, and holds whatever the topic's settings say by then. Behind
that offset a gap is damage."""


def gaps_before(disk: Disk, folder: Path) -> int:
    """The offset before which compaction may have left gaps; 0 if it never came."""
    try:
        return int(disk.read_file(folder / GAPS).decode().rpartition(": ")[2])
    except FileNotFoundError:
        return 0
    except ValueError:
        return FOREVER  # It is damaged, so nothing is taken for damage.


def note_gaps(disk: Disk, folder: Path, offset: int) -> None:
    if offset > gaps_before(disk, folder):
        disk.write_file(folder / GAPS, b"version: 0\ngaps_before: %d" % offset)


def commit(disk: Disk, folder: Path, base_offset: int) -> None:
    """From now on the cleaned segment counts; its files have been synced."""
    for suffix in LOG_LAST:
        cleaned = _path(folder, base_offset, suffix, CLEANED)
        if disk.exists(cleaned):
            disk.rename(cleaned, _path(folder, base_offset, suffix, SWAP))
    disk.sync_dir(folder)


def put_in_place(disk: Disk, folder: Path, replaced: Sequence[int]) -> list[Path]:
    """Swap the committed segment in for those with these base offsets; the old files."""
    old = _retire(disk, folder, replaced[1:]) + _retire(disk, folder, replaced[:1])
    _take_names(disk, folder, replaced[0])
    return old


def withdraw(disk: Disk, folder: Path) -> None:
    """Remove what is written or committed and not in place."""
    names = disk.list(folder)
    logs = [_path(folder, base, LOG, SWAP).name for base in reversed(committed(names))]
    others = [name for name in names if name.endswith((CLEANED, SWAP))]
    for name in dict.fromkeys(logs + others):
        disk.remove(folder / name)


def give_up(disk: Disk, folder: Path, base_offset: int) -> None:
    """Remove one that is written and shall not be committed."""
    for suffix in LOG_LAST:
        path = _path(folder, base_offset, suffix, CLEANED)
        if disk.exists(path):
            disk.remove(path)


def finish(disk: Disk, folder: Path, names: list[str]) -> list[str]:
    """What a start does with what a crash has left; the names in the folder after that."""
    if not any(name.endswith((CLEANED, SWAP)) for name in names):
        return names
    for base_offset in committed(names):
        if not _finish_one(disk, folder, base_offset):
            break
    withdraw(disk, folder)
    disk.sync_dir(folder)
    return disk.list(folder)


def committed(names: Iterable[str]) -> list[int]:
    """Base offsets of the segments to be put in place, rising."""
    ending = LOG + SWAP
    stems = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def _finish_one(disk: Disk, folder: Path, base_offset: int) -> bool:
    path = _path(folder, base_offset, LOG, SWAP)
    try:
        end = _end_of(disk, path)
    except CorruptLog:
        if disk.exists(_path(folder, base_offset, LOG)):
            return False  # Though it was synced. What it was made from is still there.
        end = base_offset
    stems = [name.removesuffix(LOG) for name in disk.list(folder) if name.endswith(LOG)]
    bases = sorted(int(stem) for stem in stems if stem.isdigit())
    _retire(disk, folder, [base for base in bases if base_offset < base < end])
    _take_names(disk, folder, base_offset)
    return True


def _end_of(disk: Disk, path: Path) -> int:
    """The offset behind the last of the batches in a file."""
    end = 0
    for _, header in walk_headers(pin_once(disk, path), path, 0, disk.size(path)):
        end = header.last_offset + 1
    return end


def _retire(disk: Disk, folder: Path, bases: Sequence[int]) -> list[Path]:
    retired = []
    for base_offset in bases:
        for suffix in (LOG, *INDEX_FILES):
            path = _path(folder, base_offset, suffix)
            if disk.exists(path):
                target = path.with_name(path.name + DELETED)
                disk.rename(path, target)
                retired.append(target)
    return retired


def _take_names(disk: Disk, folder: Path, base_offset: int) -> None:
    # Each old index has a new one to replace it, be it empty: what lies beside the log
    # without a .swap file was put there before the crash.
    for suffix in LOG_LAST:
        path = _path(folder, base_offset, suffix, SWAP)
        if disk.exists(path):
            disk.rename(path, _path(folder, base_offset, suffix))


def _path(folder: Path, base_offset: int, suffix: str, status: str = "") -> Path:
    return folder / (file_name(base_offset, suffix) + status)
