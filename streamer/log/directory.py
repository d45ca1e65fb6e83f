"""The folder that a broker keeps its log in, and who may use it.

One process at a time: `.lock` says which. `meta.properties` says whose it is, two
checkpoint files say how much of each partition is safe and where it starts, and
`.kafka_cleanshutdown` is there only after an orderly stop; it is removed before anything
is written, so a start without it is suspicious.

A folder `topic-0` is a partition. One to be deleted is renamed first, which is quick and
certain, and removed when there is time; a removal that fails is tried again. A folder that
no topic claims is renamed as well, and kept: whoever lost track of it may want it back.

A partition that cannot be opened is offline, with the reason; the others are served.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from uuid import UUID, uuid4

from streamer.log import swap
from streamer.log.checkpoints import (
    CLEAN_SHUTDOWN,
    CLEANED_TO,
    LOG_STARTS,
    META,
    PARTITION_METADATA,
    RECOVERY_POINTS,
    CheckpointDamaged,
    Meta,
    Offsets,
    read_meta,
    read_offsets,
    read_partition_metadata,
    short_id,
    write_meta,
    write_offsets,
)
from streamer.log.clock import Clock
from streamer.log.config import LogConfig
from streamer.log.disk import TEMPORARY, Disk, Lock, Space
from streamer.log.errors import CorruptLog, LogDirectoryDamaged, LogDirectoryHeld
from streamer.log.flushing import Checkpoint
from streamer.log.journal import Journal
from streamer.log.partition import Partition
from streamer.log.retention import Deleted

LOCK = ".lock"
PARTITION_FOLDER = re.compile(r"^(?P<topic>[a-zA-Z0-9._-]{1,249})-(?P<index>\d+)$")
DELETED_FOLDER = re.compile(r"^.*\.[0-9a-f]{32}-delete$")


class LogDirectory:
    def __init__(
        self,
        disk: Disk,
        path: Path,
        clock: Clock,
        lock: Lock,
        meta: Meta,
        *,
        durable: bool,
        clean: bool,
        new_id: Callable[[], UUID],
    ) -> None:
        self.path = path
        self.clock = clock
        self.durable = durable
        self.clean = clean
        """Whether the last stop was an orderly one."""
        self.cluster_id = meta.cluster_id
        self.directory_id = meta.directory_id
        self._disk = disk
        self._lock = lock
        self._new_id = new_id
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._recovery_points = self._read_offsets(RECOVERY_POINTS)
        self._log_starts = self._read_offsets(LOG_STARTS)
        self._cleaned_to = self._read_offsets(CLEANED_TO)
        # Partitions that are no more, but may still be named in those two files; whether
        # another one has such a name now.
        self._gone = set(self._recovery_points) | set(self._log_starts)
        self._namesakes = False
        self._checkpoints: list[tuple[Partition, Checkpoint]] = []
        # What is to be removed, and when.
        self._doomed: list[tuple[int, Path]] = []
        # What the latest checkpoint was to remove and did not, or not yet; the reason.
        self._unremoved: dict[Path, OSError | None] = {}

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: Path,
        clock: Clock,
        *,
        durable: bool = True,
        node_id: int = 1,
        new_id: Callable[[], UUID] = uuid4,
    ) -> LogDirectory:
        """Take the folder for this process, or say who has it."""
        disk.make_dir(path)
        lock = disk.lock(path / LOCK, b"pid %d\n" % os.getpid())
        if lock is None:
            holder = disk.read_file(path / LOCK).decode(errors="replace").strip()
            raise LogDirectoryHeld(
                f"{path} is in use by another broker ({holder.replace(chr(10), ', ')})."
            )
        try:
            meta = _meta(disk, path, node_id, new_id)
            clean = disk.exists(path / CLEAN_SHUTDOWN)
            directory = cls(
                disk, path, clock, lock, meta, durable=durable, clean=clean, new_id=new_id
            )
            if clean:
                # Before anything else: should it come back after a power cut, the next
                # start would believe a log that was being written.
                disk.remove(path / CLEAN_SHUTDOWN)
                disk.sync_dir(path)
            directory._doom_leftovers()
        except BaseException:
            lock.release()
            raise
        return directory

    def publish_address(self, address: str) -> None:
        """Tell in the lock file where this broker is reached."""
        self._lock.write(b"pid %d\n%s\n" % (os.getpid(), address.encode()))

    def journal(self, name: str) -> Journal:
        return Journal.open(self._disk, self.path / f"{name}.journal")

    def space(self) -> Space:
        return self._disk.space(self.path)

    # Partitions.

    def partitions(self) -> Iterator[Partition]:
        return iter(self._partitions.values())

    def open_partition(
        self, topic: str, index: int, topic_id: UUID, config: LogConfig
    ) -> Partition:
        """The partition's log as it is on disk, or a new one. It may come back offline."""
        path = self.path / f"{topic}-{index}"
        try:
            partition = self._open_or_create(path, topic, index, topic_id, config)
        except (OSError, CorruptLog) as error:
            partition = Partition.stand_in(
                self._disk, path, topic, index, topic_id, config, self.clock, str(error)
            )
        self._partitions[topic, index] = partition
        return partition

    def _open_or_create(
        self, path: Path, topic: str, index: int, topic_id: UUID, config: LogConfig
    ) -> Partition:
        if self._disk.exists(path) and self._belongs_to_another(path, topic_id):
            self._rename_away(path, "stray")
        if not self._disk.exists(path):
            return self._create(path, topic, index, topic_id, config)
        key = topic, index
        self._gone.discard(key)
        return Partition.open(
            self._disk,
            path,
            topic,
            index,
            topic_id,
            config,
            self.clock,
            durable=self.durable,
            recovery_point=self._recovery_points.get(key, 0),
            log_start=self._log_starts.get(key, 0),
            clean=self.clean and key in self._recovery_points,
        )

    def _create(
        self, path: Path, topic: str, index: int, topic_id: UUID, config: LogConfig
    ) -> Partition:
        self._forget(topic, index)
        self._namesakes = self._namesakes or (topic, index) in self._gone
        return Partition.create(
            self._disk,
            path,
            topic,
            index,
            topic_id,
            config,
            self.clock,
            durable=self.durable,
        )

    def _belongs_to_another(self, path: Path, topic_id: UUID) -> bool:
        """Whether an earlier topic of that name has left the folder behind."""
        return self._topic_id(path) not in (topic_id, None)

    def _topic_id(self, path: Path) -> UUID | None:
        """Whose folder it is; None if it does not say."""
        try:
            return read_partition_metadata(self._disk.read_file(path / PARTITION_METADATA))
        except (FileNotFoundError, CheckpointDamaged):
            return None

    def delete_partition(self, partition: Partition) -> None:
        """Take it out of service; its files go later."""
        key = partition.topic, partition.index
        self._partitions.pop(key, None)
        self._forget(*key)
        self._gone.add(key)
        partition.retire()
        # A full disk may not have let it have a folder.
        if self._disk.exists(partition.path):
            moved = self._rename_away(partition.path, "delete")
            self._doom(moved, partition.config.file_delete_delay_ms)

    def _forget(self, topic: str, index: int) -> None:
        for offsets in (self._recovery_points, self._log_starts, self._cleaned_to):
            offsets.pop((topic, index), None)

    def forgetting(self) -> Callable[[], None] | None:
        """What to run, in a thread, before a new partition is written to: after a crash it
        would be taken to start, and to be safe, where a deleted one of its name was."""
        return self._write_offsets() if self._namesakes else None

    def forgotten(self) -> None:
        """That has run."""
        self._gone.clear()
        self._namesakes = False

    def delete_leftovers(self, topic_ids: Collection[UUID]) -> None:
        """Finish deletions that a crash cut short: remove what belongs to these topics."""
        if not topic_ids:
            return
        for name in self._disk.list(self.path):
            if PARTITION_FOLDER.match(name):
                self._delete_leftover(self.path / name, topic_ids)

    def _delete_leftover(self, path: Path, topic_ids: Collection[UUID]) -> None:
        try:
            if self._topic_id(path) in topic_ids:
                self._doom(self._rename_away(path, "delete"), 0)
        except OSError:
            pass  # Whose it is cannot be told, so it is kept: see `set_strangers_aside`.

    def set_strangers_aside(self) -> list[Path]:
        """Rename the partition folders that nobody has opened; where they are now."""
        known = {partition.path.name for partition in self._partitions.values()}
        return [
            self._rename_away(self.path / name, "stray")
            for name in self._disk.list(self.path)
            if PARTITION_FOLDER.match(name) and name not in known
        ]

    def _rename_away(self, path: Path, why: str) -> Path:
        target = path.with_name(f"{path.name}.{self._new_id().hex}-{why}")
        self._disk.rename(path, target)
        return target

    def _doom_leftovers(self) -> None:
        for name in self._disk.list(self.path):
            if DELETED_FOLDER.match(name) or name.endswith(TEMPORARY):
                self._doom(self.path / name, 0)

    def _doom(self, path: Path, delay_ms: int) -> None:
        self._doomed.append((self.clock.now_ms() + delay_ms, path))

    # From time to time.

    def checkpoint(self) -> Callable[[], None]:
        """Note how far each partition is safe. What is returned is to be run in a thread,
        and `finish_checkpoints` looks at what came of it, the next call at the latest."""
        self.finish_checkpoints()
        self.finish_removals()
        for partition in self._partitions.values():
            if (begun := partition.begin_checkpoint()) is not None:
                self._checkpoints.append((partition, begun))
            delay = partition.config.file_delete_delay_ms
            for path in partition.take_doomed():
                self._doom(path, delay)
        jobs = [checkpoint for _, checkpoint in self._checkpoints]
        write_offsets = self._write_offsets()
        removals = self._unremoved = self._due_removals()

        def run() -> None:
            # First of all make room: the rest may need it.
            for path in list(removals):
                self._remove(path, removals)
            for checkpoint in jobs:
                checkpoint.run()
            write_offsets()

        return run

    def _write_offsets(self) -> Callable[[], None]:
        files = [self._recovery_point_file(), self._log_start_file()]

        def run() -> None:
            for path, data in files:
                self._replace_file(path, data)

        return run

    def finish_checkpoints(self) -> list[tuple[Partition, OSError]]:
        """Take note of what came of the latest checkpoint; the syncs that failed."""
        finished, self._checkpoints = self._checkpoints, []
        for partition, checkpoint in finished:
            partition.checkpointed(checkpoint)
        return [
            (partition, checkpoint.error)
            for partition, checkpoint in finished
            if checkpoint.error is not None
        ]

    def finish_removals(self) -> list[tuple[Path, OSError]]:
        """Those that failed in the latest checkpoint; the next one tries again."""
        unremoved, self._unremoved = self._unremoved, {}
        for path in unremoved:
            self._doom(path, 0)
        return [(path, error) for path, error in unremoved.items() if error is not None]

    def log_starts(self, coming: Mapping[Partition, int]) -> Callable[[], None]:
        """What is returned writes down, in a thread, where partitions will start."""
        path, data = self._log_start_file(coming)
        return lambda: self._replace_file(path, data)

    def apply_retention(self) -> Iterator[tuple[Partition, list[Deleted]]]:
        """Delete what has had its time, a partition each step; what, and why."""
        now_ms = self.clock.now_ms()
        for partition in list(self._partitions.values()):
            yield partition, partition.apply_retention(now_ms)

    def has(self, partition: Partition) -> bool:
        """Whether it was not deleted."""
        return self._partitions.get((partition.topic, partition.index)) is partition

    def cleaned_to(self, partition: Partition) -> int | None:
        """Up to where compaction has come; what was cut off since counts for nothing."""
        offset = self._cleaned_to.get((partition.topic, partition.index))
        return None if offset is None or offset > partition.end else offset

    def note_cleaned(self, partition: Partition, offset: int) -> Callable[[], None]:
        """What is returned writes it down, in a thread."""
        if self.has(partition):
            self._cleaned_to[partition.topic, partition.index] = offset
        path, data = self.path / CLEANED_TO, write_offsets(self._cleaned_to)
        return lambda: self._replace_file(path, data)

    def withdraw_cleaning(self, partition: Partition) -> Callable[[], None]:
        """What is returned removes, in a thread, what a cleaning has left half done."""
        return lambda: swap.withdraw(self._disk, partition.path)

    def close(self, *, clean: bool) -> OSError | None:
        """Let go of everything. After a clean close the next start trusts what it finds;
        what is returned has kept this one from being clean."""
        problem: OSError | None = None
        for partition in self._partitions.values():
            try:
                partition.close(clean=clean)
            except OSError as error:
                problem = error
        offline = any(one.offline is not None for one in self._partitions.values())
        if clean and problem is None and not offline:
            try:
                self._mark_clean()
            except OSError as error:
                problem = error
        self._lock.release()
        return problem

    def _mark_clean(self) -> None:
        self._write_offsets()()
        self._disk.write_file(self.path / CLEAN_SHUTDOWN, b'{"version":0,"brokerEpoch":-1}')

    # Files.

    def _recovery_point_file(self) -> tuple[Path, bytes]:
        for key, partition in self._partitions.items():
            if partition.offline is None:
                self._recovery_points[key] = partition.recovery_point
        return self.path / RECOVERY_POINTS, write_offsets(self._recovery_points)

    def _log_start_file(
        self, coming: Mapping[Partition, int] = MappingProxyType({})
    ) -> tuple[Path, bytes]:
        for key, partition in self._partitions.items():
            if partition.offline is None:
                self._log_starts[key] = partition.log_start
        starts = dict(self._log_starts)
        for partition, start in coming.items():
            key = partition.topic, partition.index
            # Not if it was deleted meanwhile: another one may have that name now.
            if self._partitions.get(key) is partition:
                starts[key] = max(start, starts.get(key, 0))
        moved = {key: start for key, start in starts.items() if start > 0}
        return self.path / LOG_STARTS, write_offsets(moved)

    def _replace_file(self, path: Path, data: bytes) -> None:
        if not self._disk.exists(path) or self._disk.read_file(path) != data:
            self._disk.write_file(path, data)

    def _read_offsets(self, name: str) -> Offsets:
        path = self.path / name
        if not self._disk.exists(path):
            return {}
        try:
            return read_offsets(self._disk.read_file(path))
        except CheckpointDamaged:
            # Without it every batch is checked, which costs time only.
            return {}

    def _due_removals(self) -> dict[Path, OSError | None]:
        now_ms = self.clock.now_ms()
        due = dict.fromkeys([path for when, path in self._doomed if when <= now_ms])
        self._doomed = [entry for entry in self._doomed if entry[0] > now_ms]
        return due

    def _remove(self, path: Path, removals: dict[Path, OSError | None]) -> None:
        """Strike it off `removals`, or note there what went wrong."""
        try:
            if DELETED_FOLDER.match(path.name):
                self._disk.remove_tree(path)
            else:
                self._disk.remove(path)
        except FileNotFoundError:
            pass  # Its folder was deleted meanwhile.
        except OSError as error:
            removals[path] = error
            return
        del removals[path]


def _meta(disk: Disk, path: Path, node_id: int, new_id: Callable[[], UUID]) -> Meta:
    file = path / META
    if not disk.exists(file):
        meta = Meta(short_id(new_id()), node_id, short_id(new_id()))
        disk.write_file(file, write_meta(meta))
        return meta
    try:
        meta = read_meta(disk.read_file(file))
    except CheckpointDamaged as error:
        raise LogDirectoryDamaged(f"{file} cannot be read: {error}.") from None
    if meta.node_id != node_id:
        raise LogDirectoryDamaged(
            f"{path} belongs to node {meta.node_id}, this is node {node_id}.",
            remedy="Set node.id as it was, or give this broker another --data-dir.",
        )
    return meta
