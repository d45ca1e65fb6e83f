"""Which snapshots of its producers a partition keeps, and why.

    one at the start of each segment   once what lies before is deleted, nothing else
                                       knows who wrote it
    the one at the recovery point      a start after a crash goes on from there
    the latest two                     should the very latest be damaged

They are named by their offset: a snapshot holds the producers of all that lies before.
What is in one: `producers.py`. Using them: `replay.py`, `recovery.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from streamer.log.disk import Disk
from streamer.log.flushing import Unsynced
from streamer.log.producers import Producers
from streamer.log.segment import SNAPSHOT, file_name

KEPT = 2


class Snapshots:
    __slots__ = ("_disk", "_folder", "_unsynced", "offsets")

    def __init__(
        self, disk: Disk, folder: Path, offsets: list[int], unsynced: Unsynced
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._unsynced = unsynced
        self.offsets = offsets
        """Of those that are there, rising."""

    def path(self, offset: int) -> Path:
        return self._folder / file_name(offset, SNAPSHOT)

    def note(self, offset: int) -> None:
        """There is one now."""
        if offset not in self.offsets:
            self.offsets = sorted([*self.offsets, offset])

    def take(self, offset: int, producers: Producers) -> None:
        """Write one, to be synced with all else."""
        path = self.path(offset)
        self._disk.write_file(path, producers.snapshot(), durable=False)
        self._unsynced.note_paths([path])
        self.note(offset)

    def make_sure_of(
        self, offset: int, producers: Callable[[], Producers], *, may_be_unsynced: bool
    ) -> None:
        """Have the one for `offset` on disk, safely: what lies before is to be deleted.
        It is there and synced, but for crashes and great haste."""
        path = self.path(offset)
        try:
            if offset not in self.offsets:
                self._disk.write_file(path, producers().snapshot())
                self.note(offset)
            elif may_be_unsynced or self._unsynced.holds(path):
                self._disk.sync_file(path)
                self._disk.sync_dir(self._folder)
        except OSError:
            pass  # A full disk must not keep us from deleting.

    def drop(self, offset: int) -> None:
        """Its file goes with its segment's."""
        if offset in self.offsets:
            self.offsets.remove(offset)

    def forget(self, *, needed: Collection[int], recovery_point: int) -> list[Path]:
        """Keep those that are needed and the latest; the files of the others."""
        # A recovery starts at the recovery point and wants the snapshot before it.
        gone = [
            offset
            for offset in self.offsets[:-KEPT]
            if offset not in needed and offset < recovery_point
        ]
        self.offsets = [offset for offset in self.offsets if offset not in gone]
        return [self.path(offset) for offset in gone]
