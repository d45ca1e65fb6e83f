"""One partition of a topic: an append-only sequence of batches, and who may see how much.

    log start ≤ last stable ≤ high watermark ≤ end

Producers append at the end. The high watermark follows once what lies below it is flushed
(`begin_flush`, `Flush.run` in another thread, `flushed`); readers see no further, so nobody
acts on a record that a power cut could take back. Readers of committed records stop at the
last stable offset, before the first transaction that is still open.

A partition belongs to the loop. What another thread may do is `Flush.run`,
`Checkpoint.run` and `ReadPlan.run`, each on what was captured for it.

When the disk refuses a write, the file is cut back to what it was and the partition goes
on. When it refuses that too, or a flush, nobody knows what is on disk: the partition goes
`offline`, refuses producers, and serves what was flushed; a restart finds out.

Files: `segment.py`. Opening: `recovery.py`. Reading: `reading.py`. Syncing: `flushing.py`.
Rules for producers: `wire/batch.py`, `producers.py`; for segments: `rolling.py`,
`retention.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from streamer.log import retention
from streamer.log.checkpoints import PARTITION_METADATA, write_partition_metadata
from streamer.log.clock import Clock
from streamer.log.config import LogConfig
from streamer.log.disk import Disk
from streamer.log.epochs import FIRST, Epochs, EpochStart, epochs_path
from streamer.log.errors import CorruptLog, OffsetOutOfRange, Refused
from streamer.log.flushing import Checkpoint, Flush, Unsynced
from streamer.log.keys import check_keys
from streamer.log.lookup import TimestampFound, find_max_timestamp, find_timestamp
from streamer.log.producers import (
    FinishedTransaction,
    Producers,
    ProducerState,
    Sent,
    judge,
    judge_marker,
)
from streamer.log.reading import Cursors, ReadPlan, ReadResult, Wanted, plan_from
from streamer.log.recovery import (
    Recovered,
    Recovery,
    note_aborted,
    producers_at,
    read_aborted_of,
)
from streamer.log.rolling import Arriving, is_full
from streamer.log.segment import SNAPSHOT, Segment, file_name
from streamer.log.transactions import Aborted
from streamer.wire.batch import (
    NO_TIMESTAMP,
    STAMP_SIZE,
    Buffer,
    Fault,
    Header,
    Limits,
    Marker,
    check,
    control_batch,
    read_header,
    stamp,
    with_append_time,
)
from streamer.wire.error_codes import ErrorCode

SNAPSHOTS_KEPT = 2
PRODUCER_EXPIRATION_MS = 86_400_000


class Appended(NamedTuple):
    base_offset: int
    last_offset: int
    """Answer once the high watermark is above it."""
    log_append_time: int = NO_TIMESTAMP
    repeated: bool = False
    """It was in the log before; the offsets are those it got then."""


class Deleted(NamedTuple):
    """A segment that is gone, and why."""

    base_offset: int
    size: int
    reason: str


class Partition:
    def __init__(
        self,
        disk: Disk,
        path: Path,
        topic: str,
        index: int,
        topic_id: UUID,
        config: LogConfig,
        parts: Recovered,
        *,
        durable: bool,
    ) -> None:
        self.path = path
        self.topic = topic
        self.index = index
        self.topic_id = topic_id
        self._disk = disk
        self._durable = durable
        self.config = config

        self._segments = parts.segments
        self._epochs = parts.epochs
        self._producers = parts.producers
        self.end = parts.end
        self.log_start = parts.log_start
        self.high_watermark = parts.end
        self._appended = 0
        self.visible_size = 0
        """Bytes that have come below the high watermark since the start: who waits for
        some counts with it."""
        self.offline: str | None = None
        """Why nothing can be written here, if so."""
        self.unreadable = False
        """Whether nothing can be read, either: it could not be opened."""
        self.recovered = parts.cut
        """What was lost in a crash, in words."""

        self._unsynced = Unsynced(disk)
        self._flushing: Flush | None = None
        # Transactions whose marker is not flushed yet still bound the last stable offset.
        self._finished: list[FinishedTransaction] = []

        self.recovery_point = parts.end
        """A start after a crash checks from here on."""
        self._checkpointed = max([parts.segments[0].base_offset, *parts.snapshots])
        """Where the latest snapshot is; the next recovery point, once it is flushed."""
        self._snapshots = parts.snapshots
        self._doomed = parts.leftovers

        self._cursors = Cursors()

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: Path,
        topic: str,
        index: int,
        topic_id: UUID,
        config: LogConfig,
        clock: Clock,
        *,
        durable: bool = True,
        recovery_point: int = 0,
        log_start: int = 0,
        clean: bool = False,
    ) -> Partition:
        """Read what is there, repaired if it was not closed. OSError: the disk refuses."""
        parts = Recovery(
            disk,
            path,
            config,
            recovery_point=recovery_point,
            log_start=log_start,
            durable=durable,
            now_ms=clock.now_ms(),
        ).run(clean=clean)
        partition = cls(disk, path, topic, index, topic_id, config, parts, durable=durable)
        if not clean:
            # A killed process may have made files that their folder would still lose.
            partition._unsynced.note_folders(path, path.parent)
        return partition

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: Path,
        topic: str,
        index: int,
        topic_id: UUID,
        config: LogConfig,
        clock: Clock,
        *,
        durable: bool = True,
    ) -> Partition:
        """An empty partition. Its folder is synced with its first records."""
        disk.make_dir(path)
        epochs = Epochs([EpochStart(FIRST, 0)])
        metadata = path / PARTITION_METADATA
        disk.write_file(epochs_path(path), epochs.write(), durable=False)
        disk.write_file(metadata, write_partition_metadata(topic_id), durable=False)
        segment = Segment.create(disk, path, 0, clock.now_ms(), config.index_interval_bytes)
        parts = Recovered([segment], epochs, Producers(), 0, 0, [])
        partition = cls(disk, path, topic, index, topic_id, config, parts, durable=durable)
        partition._unsynced.note_paths([epochs_path(path), metadata])
        partition._unsynced.note_folders(path, path.parent)
        return partition

    @classmethod
    def stand_in(
        cls,
        disk: Disk,
        path: Path,
        topic: str,
        index: int,
        topic_id: UUID,
        config: LogConfig,
        clock: Clock,
        why: str,
    ) -> Partition:
        """Stands in for a partition that cannot be opened, so that others can be served."""
        segment = Segment(disk, path, 0, clock.now_ms(), config.index_interval_bytes)
        parts = Recovered([segment], Epochs([]), Producers(), 0, 0, [])
        partition = cls(disk, path, topic, index, topic_id, config, parts, durable=True)
        partition._go_offline(why)
        partition.unreadable = True
        return partition

    @property
    def config(self) -> LogConfig:
        return self._config

    @config.setter
    def config(self, config: LogConfig) -> None:
        self._config = config
        self._limits = Limits(
            config.max_message_bytes,
            config.segment_bytes,
            config.message_timestamp_type == "LogAppendTime",
            config.message_timestamp_before_max_ms,
            config.message_timestamp_after_max_ms,
        )

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self._segments)

    @property
    def leader_epoch(self) -> int:
        return self._epochs.latest

    @property
    def last_stable(self) -> int:
        """Readers of committed records see what is below."""
        stable = self.high_watermark
        first_open = self._producers.first_open_transaction
        if first_open is not None and first_open < stable:
            stable = first_open
        for finished in self._finished:
            stable = min(stable, finished.first_offset)
        return stable

    # Appending.

    def append(
        self, records: Buffer, *, now_ms: int, produce_version: int = 11
    ) -> Appended:
        """Write a client's batch behind the others, or raise Refused."""
        if self.offline is not None:
            raise Refused(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        header = check(
            records, self._limits, produce_version=produce_version, now_ms=now_ms
        )
        if isinstance(header, Fault):
            raise Refused(header.code, header.message)
        if self._config.compact:
            check_keys(records)
        if header.producer_id >= 0:
            verdict = judge(self._producers.get(header.producer_id), header)
            if verdict is not None:
                return self._repeated(verdict)
        append_time = NO_TIMESTAMP
        if self._limits.append_time:
            append_time = now_ms
            records = with_append_time(records, now_ms)
            header = read_header(records)
        base_offset = self._write(records, header, now_ms)
        if header.producer_id >= 0:
            self._producers.accept(header, base_offset, now_ms)
        return Appended(base_offset, self.end - 1, append_time)

    def append_marker(
        self, producer_id: int, producer_epoch: int, marker: Marker, *, now_ms: int
    ) -> Appended:
        """Write a transaction's end behind its records, or raise Refused."""
        if self.offline is not None:
            raise Refused(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        state = self._producers.get(producer_id)
        if (fault := judge_marker(state, producer_id, producer_epoch, marker)) is not None:
            raise Refused(fault.code, fault.message)
        batch = control_batch(
            marker, producer_id=producer_id, producer_epoch=producer_epoch, timestamp=now_ms
        )
        header = read_header(batch)
        offset = self._write(batch, header, now_ms)
        finished = self._producers.finish(header, marker, offset, now_ms)
        if finished is not None:
            self._believe_aborted(len(self._segments) - 1)
            note_aborted(self._segments[-1], self._producers, finished)
            if self.high_watermark <= offset:
                self._finished.append(finished)
        return Appended(offset, offset)

    def _repeated(self, verdict: Sent | Fault) -> Appended:
        if isinstance(verdict, Fault):
            raise Refused(verdict.code, verdict.message)
        append_time = verdict.timestamp if self._limits.append_time else NO_TIMESTAMP
        return Appended(
            verdict.base_offset, verdict.last_offset, append_time, repeated=True
        )

    def _write(self, records: Buffer, header: Header, now_ms: int) -> int:
        base_offset = self.end
        size = len(records)
        last_offset = base_offset + header.last_offset_delta
        segment = self._segments[-1]
        arriving = Arriving(size, last_offset, header.max_timestamp)
        head = stamp(header, base_offset, self._epochs.latest)
        rest = memoryview(records)[STAMP_SIZE:]
        try:
            if is_full(segment, arriving, self._config, spread=self._spread, now_ms=now_ms):
                segment = self._roll(now_ms)
            segment.append((head, rest), size, last_offset, header.max_timestamp)
        except OSError as error:
            raise self._take_back(segment, error) from error
        self._cursors.written_at(base_offset, segment, segment.size - size)
        self._unsynced.note(segment.file)
        self.end = last_offset + 1
        self._appended += size
        if not self._durable:
            self.high_watermark = self.end
            self.visible_size = self._appended
        return base_offset

    @property
    def _spread(self) -> int:
        return self.index + self._segments[-1].base_offset

    def _take_back(self, segment: Segment, error: OSError) -> Refused:
        """After a write that the disk refused: as if it had never been tried."""
        try:
            segment.cut_back()
        except OSError:
            self._go_offline(f"{segment.path} cannot be written nor cut back: {error}")
        return Refused(
            ErrorCode.KAFKA_STORAGE_ERROR, f"{segment.path} cannot be written: {error}"
        )

    def _go_offline(self, why: str) -> None:
        self.offline = f"{self.topic}-{self.index} is offline: {why}"

    def _roll(self, now_ms: int) -> Segment:
        """Seal the last segment and begin another."""
        old = self._segments[-1]
        try:
            new = Segment.create(
                self._disk, self.path, self.end, now_ms, self._config.index_interval_bytes
            )
        except OSError as error:
            raise Refused(
                ErrorCode.KAFKA_STORAGE_ERROR, f"No new segment in {self.path}: {error}"
            ) from error
        try:
            old.seal()
            self._believe_aborted(len(self._segments) - 1)
            self._snapshot_now()
        except OSError as error:
            self._disk.remove(new.path)
            raise Refused(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{old.path} cannot be sealed: {error}"
            ) from error
        new.aborted.entries = []
        self._unsynced.note_paths(old.index_files())
        self._unsynced.note(new.file)
        self._unsynced.note_folders(self.path)
        self._segments.append(new)
        return new

    def _snapshot_now(self) -> None:
        path = self.path / file_name(self.end, SNAPSHOT)
        self._disk.write_file(path, self._producers.snapshot(), durable=False)
        self._unsynced.note_paths([path])
        if self.end not in self._snapshots:
            self._snapshots.append(self.end)

    # Flushing.

    def begin_flush(self) -> Flush | None:
        """What to sync; None if there is nothing to, or a flush is under way."""
        if self._flushing is not None or not self._durable or not self._needs_sync():
            return None
        self._flushing = self._unsynced.take(self.end, self._appended)
        return self._flushing

    def _needs_sync(self) -> bool:
        return self.offline is None and bool(self._unsynced)

    def flushed(self, flush: Flush) -> None:
        """`flush` has run: what was there when it began is safe."""
        self._flushing = None
        if self.offline is not None:
            return
        self.high_watermark = max(self.high_watermark, flush.end)
        self.visible_size = max(self.visible_size, flush.appended)
        if self._finished:
            self._finished = [
                finished
                for finished in self._finished
                if finished.last_offset >= self.high_watermark
            ]

    def _flush_failed(self, error: OSError) -> None:
        """Never again: after a failed sync the system forgets what was not written, so a
        second one would succeed and mean nothing."""
        self._go_offline(
            f"a flush failed ({error}); restart the broker to see what was kept"
        )

    def flush_failed(self, flush: Flush, error: OSError) -> None:
        """`flush` has failed; there will be no other."""
        assert flush is self._flushing
        self._flush_failed(error)

    # Checkpoints.

    def begin_checkpoint(self) -> Checkpoint | None:
        """Note how far things stand; None if nothing has changed.

        Where the last checkpoint stands is the recovery point once that is flushed.
        """
        if self.offline is not None:
            return None
        if self._checkpointed <= self.high_watermark:
            self.recovery_point = max(self.recovery_point, self._checkpointed)
        if self._checkpointed == self.end:
            return None
        segment = self._segments[-1]
        try:
            segment.write_indexes()
            pinned = [self._disk.open(path).pin() for path in segment.index_files()]
        except OSError:
            return None  # The disk is full. The old checkpoint still holds.
        flush = None
        if not self._durable and self._needs_sync():
            flush = self._flushing = self._unsynced.take(self.end, self._appended)
        path = self.path / file_name(self.end, SNAPSHOT)
        snapshot = self._producers.snapshot()
        return Checkpoint(self._disk, path, snapshot, pinned, self.end, flush)

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """`checkpoint` has run."""
        if checkpoint.error is not None:
            self._flush_failed(checkpoint.error)
        if checkpoint.flush is not None:
            self._flushing = None
        if not checkpoint.written or self.offline is not None:
            return
        self._checkpointed = checkpoint.offset
        if checkpoint.offset not in self._snapshots:
            self._snapshots.append(checkpoint.offset)
        self._forget_snapshots()

    def checkpoint(self) -> int:
        """All steps at once, for when nobody waits; the recovery point."""
        checkpoint = self.begin_checkpoint()
        if checkpoint is not None:
            checkpoint.run()
            self.checkpointed(checkpoint)
            self.begin_checkpoint()
        return self.recovery_point

    def _forget_snapshots(self) -> None:
        """Keep those that segments begin with, and the latest ones."""
        bases = {segment.base_offset for segment in self._segments}
        for offset in self._snapshots[:-SNAPSHOTS_KEPT]:
            # A recovery starts at the recovery point and wants the snapshot before it.
            if offset not in bases and offset < self.recovery_point:
                self._snapshots.remove(offset)
                self._doomed.append(self.path / file_name(offset, SNAPSHOT))

    def retire(self) -> None:
        """It is about to be deleted: no more writing; flushes under way mean nothing."""
        self._go_offline("it was deleted")
        self._unsynced = Unsynced(self._disk)
        self.close(clean=False)

    def close(self, *, clean: bool) -> None:
        """Let go of the files; after a clean close the next start need not look at them."""
        if clean and self.offline is None:
            last = self._segments[-1]
            if last.size:
                last.seal()
                self._unsynced.note_paths(last.index_files())
            if self.end not in self._snapshots:
                self._snapshot_now()
            self._unsynced.note_folders(self.path)
            if self._flushing is not None:
                # Nobody will tell us how that one ended.
                self._flushing.run()
            flush = self._unsynced.take(self.end, self._appended)
            flush.run()
            self.flushed(flush)
            self.recovery_point = self._checkpointed = self.end
        for segment in self._segments:
            segment.close()

    # Reading.

    def plan_read(
        self, offset: int, max_bytes: int, *, up_to: int, minimum_one: bool = True
    ) -> ReadPlan:
        """How to read whole batches from the one with `offset` on, below `up_to`."""
        self._must_be_readable()
        if offset < self.log_start or offset > self.end:
            raise OffsetOutOfRange(offset, self.log_start, self.end)
        wanted = Wanted(
            offset,
            max_bytes,
            up_to,
            minimum_one,
            self._config.compact,
            (self._epochs.at(offset), self._epochs.latest),
        )
        if offset >= up_to:
            # Nothing yet; the plan will say so without looking.
            return ReadPlan(self._segments[-1], wanted, position=0)
        cursor = self._cursors.find(offset)
        if cursor is not None:
            segment, position = cursor
            return ReadPlan(segment, wanted, position=position)
        return plan_from(self._segments, self._number_of(offset), wanted)

    def remember(self, result: ReadResult) -> None:
        """Note where a read ended, so that the next one goes on without the index."""
        segment = result.segment
        if segment is None:
            return
        if result.index_damaged:
            segment.rebuild_indexes()
        self._cursors.read_to(result.next_offset, segment, result.end_position)

    def _number_of(self, offset: int) -> int:
        segments = self._segments
        if offset >= segments[-1].base_offset:
            return len(segments) - 1
        found = bisect_right(segments, offset, key=lambda segment: segment.base_offset)
        return max(0, found - 1)

    def aborted_between(self, offset: int, next_offset: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records there."""
        found: list[tuple[int, int]] = []
        for number in range(self._number_of(offset), len(self._segments)):
            found.extend(
                (entry.producer_id, entry.first_offset)
                for entry in self._believe_aborted(number)
                if entry.last_offset >= offset and entry.first_offset < next_offset
            )
        return found

    def _must_be_readable(self) -> None:
        if self.unreadable:
            raise CorruptLog(self.path, 0, self.offline or "it could not be opened")

    def _believe_aborted(self, number: int) -> Sequence[Aborted]:
        aborted = self._segments[number].aborted
        if aborted.entries is None:
            aborted.entries = read_aborted_of(self._disk, self._segments, number, self.end)
        return aborted.entries

    def offset_for_timestamp(self, timestamp: int, up_to: int) -> TimestampFound | None:
        """The first record of that time or later."""
        self._must_be_readable()
        return find_timestamp(self._segments, timestamp, self._range(up_to), self._config)

    def max_timestamp(self, up_to: int) -> TimestampFound | None:
        """The latest record by its timestamp, the first of them if there are several."""
        self._must_be_readable()
        return find_max_timestamp(self._segments, self._range(up_to), self._config)

    def _range(self, up_to: int) -> tuple[int, int]:
        return self.log_start, up_to

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        return self._epochs.end(epoch, self.high_watermark)

    def epoch_at(self, offset: int) -> int:
        return self._epochs.at(offset)

    # Deleting.

    def delete_records(self, offset: int) -> int:
        """Move the log's start to `offset`, -1 for the high watermark."""
        self._must_be_readable()
        offset = self.high_watermark if offset == -1 else offset
        if offset < 0 or offset > self.high_watermark:
            raise OffsetOutOfRange(offset, self.log_start, self.high_watermark)
        self._start_at(offset)
        while len(self._segments) > 1 and self._segments[1].base_offset <= self.log_start:
            self._drop_first()
        return self.log_start

    def _start_at(self, offset: int) -> None:
        self.log_start = max(self.log_start, offset)

    def apply_retention(self, now_ms: int) -> list[Deleted]:
        """Delete the segments that have had their time."""
        if self.offline is not None:
            return []
        reasons = retention.judge(
            self._ages(),
            self._config,
            log_start=self.log_start,
            flushed=self.high_watermark,
            now_ms=now_ms,
        )
        if len(reasons) == len(self._segments):
            try:
                self._roll(now_ms)
            except Refused:
                # The disk is full: all the more reason to delete what can be.
                reasons.pop()
        deleted = []
        for reason in reasons:
            first = self._segments[0]
            deleted.append(Deleted(first.base_offset, first.size, reason))
            self._start_at(self._segments[1].base_offset)
            self._drop_first()
        return deleted

    def _ages(self) -> list[retention.SegmentAge]:
        ends = [segment.base_offset for segment in self._segments[1:]] + [self.end]
        return [
            retention.SegmentAge(segment.size, end, segment.age_from())
            for segment, end in zip(self._segments, ends, strict=True)
        ]

    def _drop_first(self) -> None:
        self._keep_state_of(self._segments[1].base_offset)
        segment = self._segments.pop(0)
        self._unsynced.forget(segment.files())
        if segment.base_offset in self._snapshots:
            self._snapshots.remove(segment.base_offset)
        self._doomed.extend(segment.discard())
        self._cursors.clear()

    def _keep_state_of(self, offset: int) -> None:
        """Once the batches before `offset` are deleted, only a snapshot taken there knows
        who wrote them. It is there and synced, but for crashes and great haste."""
        path = self.path / file_name(offset, SNAPSHOT)
        try:
            if offset not in self._snapshots:
                self._disk.write_file(path, self._producers_at(offset).snapshot())
                self._snapshots = sorted([*self._snapshots, offset])
            elif self._flushing or self._unsynced.holds(path):
                self._disk.open(path).pin().sync()
                self._disk.sync_dir(self.path)
        except OSError:
            pass  # A full disk must not keep us from deleting.

    def _producers_at(self, offset: int) -> Producers:
        if offset == self.end:
            return self._producers
        snapshots, now_ms = self._snapshots, self._segments[-1].created_ms
        return producers_at(
            self._disk, self.path, self._segments, snapshots, offset, now_ms
        )[0]

    def take_doomed(self) -> list[Path]:
        """Files that nobody needs any more, to be removed when there is time."""
        doomed, self._doomed = self._doomed, []
        return doomed

    # Producers.

    def expire_producers(
        self, now_ms: int, expiration_ms: int = PRODUCER_EXPIRATION_MS
    ) -> list[int]:
        return self._producers.expire(now_ms, expiration_ms)

    def producer_states(self) -> dict[int, ProducerState]:
        return dict(self._producers.items())
