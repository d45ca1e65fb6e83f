"""What has to reach the disk, and the two jobs that take it there.

A `Flush` syncs files and folders, so that the high watermark may rise. A `Checkpoint`
writes a snapshot of the producers and syncs indexes, so that a start after a crash has
less to look at. Both are made on the loop, run in any thread, and handed back to their
partition on the loop again.

A new file is safe once it and its folder are synced; `Unsynced` keeps count of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from streamer.log.disk import Disk, File


class Flush:
    """What must be synced for the high watermark to rise to `end`.

    It knows names only: while it waits for a thread it keeps no file open. With hundreds of
    partitions to be flushed at once, there would not be enough.
    """

    __slots__ = ("_disk", "_files", "_folders", "appended", "end")

    def __init__(
        self,
        disk: Disk,
        files: list[Path],
        folders: list[Path],
        end: int,
        appended: int,
    ) -> None:
        self._disk = disk
        self._files = files
        self._folders = folders
        self.end = end
        self.appended = appended
        """Bytes that the partition had taken by then."""

    def run(self) -> None:
        """The only part for another thread. After an OSError: `flush_failed`."""
        for file in self._files:
            _unless_deleted(self._disk.sync_file, file)
        for folder in self._folders:
            _unless_deleted(self._disk.sync_dir, folder)


def _unless_deleted(sync: Callable[[Path], None], path: Path) -> None:
    """Whatever was deleted meanwhile, with its segment or its topic, nobody needs."""
    try:
        sync(path)
    except FileNotFoundError:
        pass


class Checkpoint:
    """A snapshot of the producers, and indexes to be synced, up to `offset`."""

    __slots__ = (
        "_disk",
        "_indexes",
        "_path",
        "_snapshot",
        "error",
        "flush",
        "offset",
        "written",
    )

    def __init__(
        self,
        disk: Disk,
        path: Path,
        snapshot: bytes,
        indexes: list[Path],
        offset: int,
    ) -> None:
        self._disk = disk
        self._path = path
        self._snapshot = snapshot
        self._indexes = indexes
        self.offset = offset
        self.flush: Flush | None = None
        """With page-cache durability nobody else flushes."""
        self.written = False
        self.error: OSError | None = None
        """Of the flush; one of the snapshot does no harm."""

    def run(self) -> None:
        """The only part for another thread."""
        try:
            if self.flush is not None:
                self.flush.run()
        except OSError as error:
            self.error = error
            return
        try:
            self._disk.write_file(self._path, self._snapshot)
            for file in self._indexes:
                _unless_deleted(self._disk.sync_file, file)
        except OSError:
            return  # The old checkpoint still holds; the next one tries again.
        self.written = True


class Unsynced:
    """Files that were written and folders that got new names since they were synced."""

    __slots__ = ("_disk", "_files", "_folders")

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        # In the order they were written: a snapshot is no good before its log.
        self._files: dict[Path, None] = {}
        self._folders: set[Path] = set()

    def __bool__(self) -> bool:
        return bool(self._files or self._folders)

    def note(self, file: File) -> None:
        self._files[file.path] = None

    def note_paths(self, paths: Iterable[Path]) -> None:
        self._files.update(dict.fromkeys(paths))

    def note_folders(self, *folders: Path) -> None:
        self._folders.update(folders)

    def holds(self, path: Path) -> bool:
        return path in self._files

    def forget(self, paths: Iterable[Path]) -> None:
        """They are about to be deleted."""
        for path in paths:
            self._files.pop(path, None)

    def take(self, end: int, appended: int) -> Flush:
        """All of it, as a job; what comes from now on is for the next."""
        flush = Flush(self._disk, list(self._files), sorted(self._folders), end, appended)
        self._files, self._folders = {}, set()
        return flush
