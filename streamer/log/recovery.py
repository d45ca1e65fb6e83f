"""Opening a partition: after a clean stop at a glance, after a crash with suspicion.

Up to the recovery point everything was flushed, and a snapshot says who had written it.
After a clean stop that is the end of the log, and nothing is read but the snapshot. After
a crash every batch behind it is checked: its length, its format, its checksum, and that
its offset follows the one before. At the first that fails the log is cut. Indexes,
producers and open transactions are rebuilt on the way. Before all that, a compaction that
a crash has interrupted is undone or finished (`swap.py`).

If anything was cut, readers may have seen what is gone: the leader epoch goes up, which
tells them. Without durable flushes they may have seen what left no trace, so then it goes
up after every crash.

A snapshot that is missing or damaged costs time: an older one, or none, and the headers of
all batches since. The same goes for the other small files: the batches know it all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from uuid import UUID

from streamer.log import swap
from streamer.log.checkpoints import PARTITION_METADATA, write_partition_metadata
from streamer.log.config import LogConfig
from streamer.log.disk import TEMPORARY, Disk
from streamer.log.epochs import FIRST, Epochs, EpochsDamaged, EpochStart, epochs_path
from streamer.log.errors import CorruptLog
from streamer.log.producers import Producers, SnapshotDamaged, read_snapshot
from streamer.log.replay import (
    note_aborted,
    number_of,
    producers_at,
    read_aborted_of,
    replay,
)
from streamer.log.segment import (
    DELETED,
    INDEX_FILES,
    LOG,
    SNAPSHOT,
    Segment,
    file_name,
    locate,
    walk_batches,
)
from streamer.wire.batch import Buffer, Header, crc_of

_UNFLUSHED = (
    "After a crash nothing need be done: the disk had not confirmed them, so no producer"
    " with acks=all was told that they are kept. After anything else, check the disk"
    " (dmesg, SMART)."
)
_PERHAPS_ACKNOWLEDGED = (
    "With log.durability=page-cache, producers may have been told that they are kept: let"
    " them send again what matters, and set log.durability=fsync where that must not be."
)
_FLUSHED = (
    "The disk had confirmed them. Check it (dmesg, SMART); then restore the folder from a"
    " backup, or have the producers send again what they still have."
)

EPOCH_WITNESSES = 3


@dataclass(slots=True)
class Recovered:
    """A partition's parts as they were found or made."""

    segments: list[Segment]
    epochs: Epochs
    producers: Producers
    end: int
    log_start: int
    snapshots: list[int]
    leftovers: list[Path] = field(default_factory=list)
    """Renamed files that nobody needs any more."""
    cut: str | None = None
    """What was lost, why, and what to do about it; None if nothing was."""
    gaps_before: int = 0
    """Compaction may have left gaps between the offsets before this one."""
    unsynced_files: list[Path] = field(default_factory=list)
    unsynced_folders: list[Path] = field(default_factory=list)
    """What the next flush must make sure of as well."""


def begin_empty(
    disk: Disk, folder: Path, topic_id: UUID, config: LogConfig, now_ms: int
) -> Recovered:
    """A new partition's parts, on disk but not synced."""
    disk.make_dir(folder)
    epochs = Epochs([EpochStart(FIRST, 0)])
    files = {
        epochs_path(folder): epochs.write(),
        folder / PARTITION_METADATA: write_partition_metadata(topic_id),
    }
    for path, data in files.items():
        disk.write_file(path, data, durable=False)
    segment = Segment.create(disk, folder, 0, now_ms, config.index_interval_bytes)
    return Recovered(
        [segment],
        epochs,
        Producers(),
        0,
        0,
        [],
        unsynced_files=list(files),
        unsynced_folders=[folder, folder.parent],
    )


def without_files(disk: Disk, folder: Path, config: LogConfig, now_ms: int) -> Recovered:
    """The parts of a partition whose files cannot be had."""
    segment = Segment(disk, folder, 0, now_ms, config.index_interval_bytes)
    return Recovered([segment], Epochs([]), Producers(), 0, 0, [])


@dataclass(slots=True)
class _Scan:
    """How far the check of the tail has come."""

    expected: int
    problem: str | None = None
    lost_bytes: int = 0
    checked: list[Segment] = field(default_factory=list)
    """Those with something in them that was not believed."""


class Recovery:
    """One partition being opened."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        config: LogConfig,
        *,
        recovery_point: int,
        log_start: int,
        durable: bool,
        now_ms: int,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._config = config
        self._recovery_point = recovery_point
        self._log_start = log_start
        self._durable = durable
        self._now_ms = now_ms
        self._leftovers: list[Path] = []
        self._gaps_before = 0

    def run(self, *, clean: bool) -> Recovered:
        found = self._find(clean)
        found.gaps_before = self._gaps_before
        if not clean:
            # A killed process may have made files that their folder would still lose.
            found.unsynced_folders += [self._folder, self._folder.parent]
        return found

    def _find(self, clean: bool) -> Recovered:
        names = swap.finish(self._disk, self._folder, self._disk.list(self._folder))
        self._gaps_before = swap.gaps_before(self._disk, self._folder)
        names = self._tidy(names)
        snapshots = sorted(_offsets(names, SNAPSHOT))
        segments = [self._existing(base) for base in sorted(_offsets(names, LOG))]
        if not segments:
            return self._start_empty(snapshots)
        if clean and self._plausible(segments):
            return self._open_clean(segments, snapshots)
        return self._open_unclean(segments, snapshots)

    def _tidy(self, names: list[str]) -> list[str]:
        """Drop what an interrupted deletion or write left behind."""
        logs = {name.removesuffix(LOG) for name in names if name.endswith(LOG)}
        kept = []
        for name in names:
            stem, _, suffix = name.partition(".")
            orphan = "." + suffix in INDEX_FILES
            if name.endswith(DELETED) or (orphan and stem not in logs):
                self._leftovers.append(self._folder / name)
            elif name.endswith(TEMPORARY):
                self._disk.remove(self._folder / name)
            else:
                kept.append(name)
        return kept

    def _existing(self, base_offset: int) -> Segment:
        return Segment.existing(
            self._disk,
            self._folder,
            base_offset,
            self._now_ms,
            self._config.index_interval_bytes,
        )

    def _create(self, base_offset: int) -> Segment:
        segment = Segment.create(
            self._disk,
            self._folder,
            base_offset,
            self._now_ms,
            self._config.index_interval_bytes,
        )
        self._disk.sync_dir(self._folder)
        return segment

    def _plausible(self, segments: list[Segment]) -> bool:
        """Whether the log ends where the clean stop says: a look at its last batch."""
        last, point = segments[-1], self._recovery_point
        if point <= last.base_offset or last.size == 0:
            return point == last.base_offset and last.size == 0
        try:
            located = locate(last.view(), point - 1, gaps=self._may_have_gaps(last))
        except CorruptLog:
            return False
        if located is None:
            return False
        ends_at = located.position + located.header.size
        return located.header.last_offset + 1 == point and ends_at == last.size

    def _start_empty(self, snapshots: list[int]) -> Recovered:
        start = max(self._log_start, 0)
        cut = None
        epochs = self._read_epochs([], start)
        if self._recovery_point > start:
            point = self._recovery_point
            cut = f"All its files, up to offset {point}, are gone.\n  -> {_FLUSHED}"
            epochs = self._bump(epochs, start)
        self._forget_snapshots(snapshots, 0)
        return Recovered(
            [self._create(start)],
            epochs,
            Producers(),
            start,
            start,
            [],
            self._leftovers,
            cut,
        )

    def _open_clean(self, segments: list[Segment], snapshots: list[int]) -> Recovered:
        end = self._recovery_point
        epochs = self._read_epochs(segments, end)
        snapshots = self._forget_snapshots(snapshots, end)
        producers, kept = self._producers(segments, snapshots, end)
        log_start = self._start_within(segments, end)
        return Recovered(segments, epochs, producers, end, log_start, kept, self._leftovers)

    def _start_within(self, segments: list[Segment], end: int) -> int:
        """A start behind the end is none: better to show what was deleted than to delete
        what was not."""
        start = max(self._log_start, segments[0].base_offset)
        return start if start <= end else segments[0].base_offset

    def _open_unclean(self, segments: list[Segment], snapshots: list[int]) -> Recovered:
        epochs = self._read_epochs(segments, None)
        number = max(0, number_of(segments, self._recovery_point))
        position, expected = self._scan_start(segments[number])
        producers, kept = self._producers(segments[: number + 1], snapshots, expected)
        self._keep_aborted(segments, number, expected)

        scan = _Scan(expected)
        end_number = number
        for end_number in range(number, len(segments)):
            segment = segments[end_number]
            if end_number > number:
                if not self._may_follow(segment.base_offset, scan.expected):
                    scan.problem = f"the next file begins at {segment.base_offset}"
                    end_number -= 1
                    break
                position, scan.expected = 0, segment.base_offset
                segment.aborted.replace([])
            self._scan(segment, position, scan, producers, epochs)
            if scan.problem is not None:
                break
        self._drop(segments, end_number + 1, scan)
        end = max(scan.expected, segments[0].base_offset)
        kept = self._intact(self._forget_snapshots(kept, end), expected)
        return self._settle(segments, epochs, producers, end, kept, scan)

    def _settle(
        self,
        segments: list[Segment],
        epochs: Epochs,
        producers: Producers,
        end: int,
        snapshots: list[int],
        scan: _Scan,
    ) -> Recovered:
        """Make sure of what was found, so that it may be served at once."""
        cut = _what_was_cut(scan, end, self._recovery_point, durable=self._durable)
        self._sync(scan, snapshots)
        if cut is not None or not self._durable:
            epochs = self._bump(epochs, end)
        log_start = self._start_within(segments, end)
        return Recovered(
            segments, epochs, producers, end, log_start, snapshots, self._leftovers, cut
        )

    def _sync(self, scan: _Scan, snapshots: list[int]) -> None:
        """A killed process leaves data that no power cut has tested yet."""
        for segment in scan.checked:
            segment.file.pin().sync()
            self._sync_indexes(segment)
        for offset in snapshots:
            if offset >= self._recovery_point:
                path = self._folder / file_name(offset, SNAPSHOT)
                self._disk.sync_file(path)
        if scan.checked:
            self._disk.sync_dir(self._folder)
            self._disk.sync_dir(self._folder.parent)

    def _sync_indexes(self, segment: Segment) -> None:
        try:
            segment.write_indexes()
            for path in segment.index_files():
                self._disk.sync_file(path)
        except OSError:
            pass  # The disk is full; what is missing is in memory until there is room.

    def _bump(self, epochs: Epochs, offset: int) -> Epochs:
        bumped = epochs.bumped(offset)
        self._disk.write_file(epochs_path(self._folder), bumped.write())
        return bumped

    # The tail.

    def _scan_start(self, segment: Segment) -> tuple[int, int]:
        """Position and offset in this segment from which on nothing is believed.

        Normally that is the recovery point. If the way there is damaged, or the file ends
        before it, nothing in this segment is believed.
        """
        point = self._recovery_point
        if point <= segment.base_offset:
            return 0, segment.base_offset
        view = segment.view()
        try:
            located = locate(view, point - 1, gaps=self._may_have_gaps(segment))
        except CorruptLog:
            located = None
        if located is None or located.header.last_offset + 1 != point:
            return 0, segment.base_offset
        if located.index_damaged:
            segment.rebuild_indexes()
        position = located.position + located.header.size
        segment.keep_indexes(position, point)
        return position, point

    def _scan(
        self,
        segment: Segment,
        position: int,
        scan: _Scan,
        producers: Producers,
        epochs: Epochs,
    ) -> None:
        """Check the batches from `position` on, and cut the file at the first bad one."""
        size = segment.size
        if position < size:
            scan.checked.append(segment)
        if position == 0:
            segment.forget_indexes()
        batches = walk_batches(segment.file.pin(), segment.path, position, size)
        try:
            for position, header, batch in batches:
                scan.problem = self._problem(header, batch, scan.expected, epochs)
                if scan.problem is not None:
                    break
                segment.note(
                    position, header.size, header.last_offset, header.max_timestamp
                )
                finished = replay(producers, header, batch, self._now_ms)
                note_aborted(segment, producers, finished)
                scan.expected = header.last_offset + 1
        except CorruptLog as error:
            scan.problem, position = error.why, error.position
        if scan.problem is not None:
            scan.problem += f" (byte {position} of {segment.path.name})"
            scan.lost_bytes += size - position
            segment.size = position
            segment.cut_back()

    def _problem(
        self, header: Header, batch: Buffer, expected: int, epochs: Epochs
    ) -> str | None:
        base_offset = header.base_offset
        if not self._may_follow(base_offset, expected):
            return f"offset {base_offset} where {expected} should be"
        if crc_of(batch, header) != header.crc:
            return "a batch does not match its checksum"
        if header.leader_epoch != epochs.at(base_offset):
            return f"leader epoch {header.leader_epoch} never was"
        return None

    def _may_follow(self, base_offset: int, expected: int) -> bool:
        return base_offset == expected or expected < base_offset <= self._gaps_before

    def _may_have_gaps(self, segment: Segment) -> bool:
        return segment.base_offset < self._gaps_before

    def _drop(self, segments: list[Segment], number: int, scan: _Scan) -> None:
        for segment in segments[number:]:
            scan.lost_bytes += segment.size
            self._leftovers.extend(segment.discard())
        if segments[number:]:
            # They must not come back beside what will be written in their place.
            self._disk.sync_dir(self._folder)
        del segments[number:]

    # Producers and aborted transactions.

    def _producers(
        self, segments: list[Segment], snapshots: list[int], offset: int
    ) -> tuple[Producers, list[int]]:
        """Who had written what is below `offset`; the snapshots but for damaged ones."""
        producers, damaged = producers_at(
            self._disk, self._folder, segments, snapshots, offset, self._now_ms
        )
        return producers, self._without(snapshots, damaged)

    def _without(self, snapshots: list[int], damaged: list[int]) -> list[int]:
        # At once: before long there may be a good one of that name.
        for offset in damaged:
            self._disk.remove(self._folder / file_name(offset, SNAPSHOT))
        return [offset for offset in snapshots if offset not in damaged]

    def _intact(self, snapshots: list[int], beyond: int) -> list[int]:
        """But for those that a power cut has torn: what was not synced is not believed."""
        damaged = []
        for offset in snapshots:
            if offset > beyond:
                path = self._folder / file_name(offset, SNAPSHOT)
                try:
                    read_snapshot(self._disk.read_file(path))
                except SnapshotDamaged:
                    damaged.append(offset)
        return self._without(snapshots, damaged)

    def _forget_snapshots(self, snapshots: list[int], end: int) -> list[int]:
        """Drop those of a future that did not come. For good: when another one has got as
        far, they would tell of producers that never were."""
        gone = [offset for offset in snapshots if offset > end]
        for offset in gone:
            path = self._folder / file_name(offset, SNAPSHOT)
            if self._disk.exists(path):
                self._disk.remove(path)
        if gone:
            self._disk.sync_dir(self._folder)
        return [offset for offset in snapshots if offset <= end]

    def _keep_aborted(self, segments: list[Segment], number: int, expected: int) -> None:
        """In the segment that is scanned, keep the aborts before the scan."""
        aborted = read_aborted_of(self._disk, segments, number, expected)
        segments[number].aborted.replace(aborted)

    # Epochs.

    def _read_epochs(self, segments: list[Segment], end: int | None) -> Epochs:
        path = epochs_path(self._folder)
        try:
            epochs = Epochs.read(self._disk.read_file(path))
        except (EpochsDamaged, FileNotFoundError):
            epochs = Epochs([])
        lowest = segments[0].base_offset if segments else end
        confirmed = bool(epochs.starts) and (
            lowest is None or epochs.starts[0].offset <= lowest
        )
        if confirmed and self._batches_agree(segments, epochs):
            return epochs
        rebuilt = _epochs_of(segments)
        self._disk.write_file(path, rebuilt.write())
        return rebuilt

    def _batches_agree(self, segments: list[Segment], epochs: Epochs) -> bool:
        """A look at some batches of the last segment, for the file has no checksum. Neither
        have their epochs; one that agrees is enough."""
        try:
            batches = list(islice(segments[-1].walk(), EPOCH_WITNESSES)) if segments else []
        except CorruptLog:
            return True
        return not batches or any(
            header.leader_epoch == epochs.at(header.base_offset) for _, header in batches
        )


def _offsets(names: list[str], suffix: str) -> list[int]:
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return [int(stem) for stem in stems if stem.isdigit()]


def _epochs_of(segments: list[Segment]) -> Epochs:
    starts: list[EpochStart] = []
    for segment in segments:
        try:
            for _, header in segment.walk():
                while starts and header.leader_epoch < starts[-1].epoch:
                    starts.pop()  # Epochs only rise: that one never was.
                if not starts or header.leader_epoch > starts[-1].epoch:
                    starts.append(EpochStart(header.leader_epoch, header.base_offset))
        except CorruptLog:
            continue
    return Epochs(starts or [EpochStart(FIRST, 0)])


def _what_was_cut(
    scan: _Scan, end: int, recovery_point: int, *, durable: bool
) -> str | None:
    if end < recovery_point:
        why = f": {scan.problem}" if scan.problem else ""
        return f"Offsets {end} to {recovery_point - 1} are lost{why}.\n  -> {_FLUSHED}"
    if scan.lost_bytes:
        return (
            f"{scan.lost_bytes:,} bytes behind offset {end} were cut off: {scan.problem}.\n"
            f"  -> {_UNFLUSHED if durable else _PERHAPS_ACKNOWLEDGED}"
        )
    return None
