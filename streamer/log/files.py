"""The files of one partition: its segments, its snapshots, and what is to become of them.

    written     noted in `unsynced`, until a flush takes it from there
    dropped     doomed: nobody needs it any more, it is removed when there is time

What a segment's file and a snapshot have to do with each other is decided here: a segment
begins with a snapshot, and none goes before the snapshot behind it is safe. What may be
seen of it all, and by whom, is for `partition.py`.

In a row: `segments.py`. Which snapshots are kept: `snapshots.py`. Syncing: `flushing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamer.log.config import LogConfig
from streamer.log.disk import Disk
from streamer.log.flushing import Checkpoint, Unsynced
from streamer.log.producers import Producers
from streamer.log.recovery import Recovered
from streamer.log.replay import producers_at
from streamer.log.segment import Segment
from streamer.log.segments import Segments
from streamer.log.snapshots import Snapshots


class Files:
    """Belongs to the loop. The log ends at `end`; `producers` are those of all of it."""

    __slots__ = ("_disk", "_doomed", "_folder", "_snapshots", "segments", "unsynced")

    def __init__(self, disk: Disk, folder: Path, parts: Recovered) -> None:
        self._disk = disk
        self._folder = folder
        self.unsynced = Unsynced(disk)
        self.unsynced.note_paths(parts.unsynced_files)
        self.unsynced.note_folders(*parts.unsynced_folders)
        self.segments = Segments(disk, folder, parts.segments, self.unsynced)
        self._snapshots = Snapshots(disk, folder, parts.snapshots, self.unsynced)
        self._doomed = parts.leftovers

    def roll(self, end: int, producers: Producers, now_ms: int, config: LogConfig) -> None:
        """Begin another segment; after an OSError all is as it was."""
        self.segments.roll(
            end, now_ms, config, lambda: self._snapshots.take(end, producers)
        )

    def seal(self, end: int, producers: Producers) -> None:
        """Have all there that the next start wants; what is unsynced is to be synced."""
        self.segments.seal_last()
        if end > 0:  # There are thousands that nobody has ever written to.
            if end not in self._snapshots.offsets:
                self._snapshots.take(end, producers)
            self.unsynced.note_folders(self._folder)

    # Checkpoints.

    def begin_checkpoint(self, end: int, producers: Producers) -> Checkpoint:
        """What to write and sync. OSError: the disk is full."""
        last = self.segments.last
        last.write_indexes()
        return Checkpoint(
            self._disk,
            self._snapshots.path(end),
            producers.snapshot(),
            last.index_files(),
            end,
        )

    def checkpointed(self, offset: int, recovery_point: int) -> None:
        """There is a snapshot at `offset` now; others need not be kept for it."""
        self._snapshots.note(offset)
        self._doomed += self._snapshots.forget(
            needed=self.segments.bases, recovery_point=recovery_point
        )

    # Deleting.

    def drop_first(self, end: int, producers: Producers, *, may_be_unsynced: bool) -> None:
        """Take the first segment out; another follows it."""
        first, following = self.segments.bases[:2]
        # Once the batches are deleted, only a snapshot knows who wrote them.
        self._snapshots.make_sure_of(
            following,
            lambda: producers if following == end else self._producers_at(following),
            may_be_unsynced=may_be_unsynced,
        )
        self._snapshots.drop(first)
        self._doomed += self.segments.drop_first()

    def _producers_at(self, offset: int) -> Producers:
        row, now_ms = self.segments.row, self.segments.last.created_ms
        snapshots = self._snapshots.offsets
        return producers_at(self._disk, self._folder, row, snapshots, offset, now_ms)[0]

    def swap_in(self, old: Sequence[Segment], interval: int) -> None:
        """Put the cleaned segment in the place of those it was made from. After an OSError:
        nobody knows which of them have moved."""
        self._doomed += self.segments.swap_in(old, interval)

    def take_doomed(self) -> list[Path]:
        doomed, self._doomed = self._doomed, []
        return doomed
