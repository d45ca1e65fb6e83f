"""What has to reach the disk, and the two jobs that take it there.

A `Flush` syncs files and folders, so that the high watermark may rise. A `Checkpoint`
writes a snapshot of the producers and syncs indexes, so that a start after a crash has
less to look at. Both are made on the loop, run in any thread, and handed back to their
partition on the loop again.

A new file is safe once it and its folder are synced; `Unsynced` keeps count of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from streamer.log.disk import Disk, File, Pinned


class Flush:
    """What must be synced for the high watermark to rise to `end`."""

    __slots__ = ("_disk", "_files", "_folders", "appended", "end")

    def __init__(
        self,
        disk: Disk,
        files: list[Pinned],
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
            file.sync()
        for folder in self._folders:
            self._disk.sync_dir(folder)


class Checkpoint:
    """A snapshot of the producers, and indexes to be synced, up to `offset`."""

    __slots__ = (
        "_disk",
        "_path",
        "_pinned",
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
        pinned: list[Pinned],
        offset: int,
        flush: Flush | None,
    ) -> None:
        self._disk = disk
        self._path = path
        self._snapshot = snapshot
        self._pinned = pinned
        self.offset = offset
        self.flush = flush
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
            for file in self._pinned:
                file.sync()
        except OSError:
            return  # The old checkpoint still holds; the next one tries again.
        self.written = True


class Unsynced:
    """Files that were written and folders that got new names since they were synced."""

    __slots__ = ("_disk", "_files", "_folders")

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._files: dict[Path, File] = {}
        self._folders: set[Path] = set()

    def __bool__(self) -> bool:
        return bool(self._files or self._folders)

    def note(self, file: File) -> None:
        self._files[file.path] = file

    def note_paths(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._files[path] = self._disk.open(path)

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
        files = [file.pin() for file in self._files.values()]
        flush = Flush(self._disk, files, sorted(self._folders), end, appended)
        self._files, self._folders = {}, set()
        return flush
