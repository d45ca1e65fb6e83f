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

Files: `files.py`, `segments.py`. Opening: `recovery.py`. Reading: `reading.py`,
`lookup.py`. Syncing: `flushing.py`. Rules for producers: `wire/batch.py`, `producers.py`;
for segments: `rolling.py`, `retention.py`, `compaction.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from streamer.log import retention
from streamer.log.acceptance import accept, limits_of
from streamer.log.clock import Clock
from streamer.log.compaction import Cleanable, Limits, cleanable
from streamer.log.compaction_job import Cleaning, Swap, begin_cleaning
from streamer.log.config import LogConfig
from streamer.log.disk import Disk
from streamer.log.errors import CorruptLog, OffsetOutOfRange, Refused
from streamer.log.files import Files
from streamer.log.flushing import Checkpoint, Flush
from streamer.log.lookup import Range, TimestampPlan, search_newest, search_timestamp
from streamer.log.producers import (
    FinishedTransaction,
    ProducerState,
    Sent,
    Verify,
    judge_marker,
    nobody_knows,
)
from streamer.log.reading import ReadPlan, ReadResult, Wanted
from streamer.log.recovery import Recovered, Recovery, begin_empty, without_files
from streamer.log.rolling import Arriving, is_full
from streamer.wire.batch import (
    NO_TIMESTAMP,
    STAMP_SIZE,
    Buffer,
    Header,
    Marker,
    control_batch,
    read_header,
    stamp,
    with_append_time,
)
from streamer.wire.error_codes import ErrorCode

PRODUCER_EXPIRATION_MS = 86_400_000


class Appended(NamedTuple):
    base_offset: int
    last_offset: int
    """Answer once the high watermark is above it."""
    log_append_time: int = NO_TIMESTAMP
    repeated: bool = False
    """It was in the log before; the offsets are those it got then."""


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
        self._durable = durable
        self._gaps_before = parts.gaps_before
        """Compaction may have left some up to there; behind it one is damage."""
        self.config = config

        self._files = Files(disk, path, parts)
        self._segments = self._files.segments
        self._epochs = parts.epochs
        self._producers = parts.producers

        self.log_start = parts.log_start
        self.end = parts.end
        self.high_watermark = parts.end
        self._appended = 0
        self.visible_size = 0
        """Bytes that have come below the high watermark since the start: who waits for
        some counts with it."""
        self.recovery_point = parts.end
        """A start after a crash checks from here on."""
        self._checkpointed = max([parts.segments[0].base_offset, *parts.snapshots])
        """Where the latest snapshot is; the next recovery point, once it is flushed."""
        self._flushing: Flush | None = None
        self._finished: list[FinishedTransaction] = []
        """Those whose marker is not flushed: they still bound the last stable offset."""

        self.offline: str | None = None
        """Why nothing can be written here, if so."""
        self.unreadable = False
        """Whether nothing can be read, either: it could not be opened."""
        self.recovered = parts.cut
        """What was lost in a crash, why, and what to do about it."""

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
        return cls(disk, path, topic, index, topic_id, config, parts, durable=durable)

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
        parts = begin_empty(disk, path, topic_id, config, clock.now_ms())
        return cls(disk, path, topic, index, topic_id, config, parts, durable=durable)

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
        parts = without_files(disk, path, config, clock.now_ms())
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
        self._limits = limits_of(config)

    @property
    def size(self) -> int:
        return self._segments.size

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
        # A transaction may have begun among what DeleteRecords has deleted since.
        return max(stable, self.log_start)

    # Appending.

    def append(
        self,
        records: Buffer,
        *,
        now_ms: int,
        produce_version: int = 11,
        verify: Verify = nobody_knows,
    ) -> Appended:
        """Write a client's batch behind the others, or raise Refused.

        `verify` says whether a batch may be part of a transaction here.
        """
        if self.offline is not None:
            raise Refused(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        header = accept(
            records,
            self._limits,
            self._producers,
            compact=self._config.compact,
            produce_version=produce_version,
            verify=verify,
            now_ms=now_ms,
        )
        by_broker = self._limits.append_time
        if isinstance(header, Sent):
            first, last = header.base_offset, header.last_offset
            append_time = header.timestamp if by_broker else NO_TIMESTAMP
            return Appended(first, last, append_time, repeated=True)
        if by_broker:
            records = with_append_time(records, now_ms)
            header = read_header(records)
        base_offset = self._write(records, header, now_ms)
        if header.producer_id >= 0:
            self._producers.accept(header, base_offset, now_ms)
        return Appended(base_offset, self.end - 1, now_ms if by_broker else NO_TIMESTAMP)

    def append_own(self, records: Buffer, *, now_ms: int) -> Appended:
        """Write a batch of the broker's own, as it is, or raise Refused."""
        if self.offline is not None:
            raise Refused(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        header = read_header(records)
        base_offset = self._write(records, header, now_ms)
        if header.producer_id >= 0:
            self._producers.accept(header, base_offset, now_ms)
        return Appended(base_offset, self.end - 1)

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
        if not marker.commit:
            self._recall_aborted()
        offset = self._write(batch, header, now_ms)
        finished = self._producers.finish(header, marker, offset, now_ms)
        if finished is not None:
            self._segments.note_aborted(self._producers, finished)
            if self.high_watermark <= offset:
                self._finished.append(finished)
        return Appended(offset, offset)

    def _recall_aborted(self) -> None:
        """Have the list at hand that is about to grow: once the marker is written it is
        too late to find that it cannot be read."""
        try:
            self._segments.aborted_in(len(self._segments.row) - 1, self.end)
        except (OSError, CorruptLog) as error:
            raise Refused(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{self.path} cannot be read: {error}"
            ) from error

    def _write(self, records: Buffer, header: Header, now_ms: int) -> int:
        base_offset = self.end
        size = len(records)
        last_offset = base_offset + header.last_offset_delta
        segment = self._segments.last
        arriving = Arriving(size, last_offset, header.max_timestamp)
        head = stamp(header, base_offset, self._epochs.latest)
        rest = memoryview(records)[STAMP_SIZE:]
        try:
            spread = self.index + segment.base_offset
            if is_full(segment, arriving, self._config, spread=spread, now_ms=now_ms):
                self._roll(now_ms)
            self._segments.write((head, rest), base_offset, arriving)
        except OSError as error:
            raise self._take_back(error) from error
        self.end = last_offset + 1
        self._appended += size
        if not self._durable:
            self.high_watermark = self.end
            self.visible_size = self._appended
        return base_offset

    def _take_back(self, error: OSError) -> Refused:
        """After a write that the disk refused: as if it had never been tried."""
        segment = self._segments.last
        try:
            segment.cut_back()
        except OSError:
            self._go_offline(f"{segment.path} cannot be written nor cut back: {error}")
        return Refused(
            ErrorCode.KAFKA_STORAGE_ERROR, f"{segment.path} cannot be written: {error}"
        )

    def _go_offline(self, why: str) -> None:
        self.offline = f"{self.topic}-{self.index} is offline: {why}"

    def _roll(self, now_ms: int) -> None:
        try:
            self._files.roll(self.end, self._producers, now_ms, self._config)
        except OSError as error:
            raise Refused(
                ErrorCode.KAFKA_STORAGE_ERROR, f"No new segment in {self.path}: {error}"
            ) from error

    # Flushing.

    def begin_flush(self) -> Flush | None:
        """What to sync; None if there is nothing to, or a flush is under way."""
        if self._flushing is not None or not self._durable or not self._needs_sync():
            return None
        self._flushing = self._files.unsynced.take(self.end, self._appended)
        return self._flushing

    def _needs_sync(self) -> bool:
        return self.offline is None and bool(self._files.unsynced)

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
        try:
            checkpoint = self._files.begin_checkpoint(self.end, self._producers)
        except OSError:
            return None  # The disk is full. The old checkpoint still holds.
        if not self._durable and self._needs_sync():
            self._flushing = self._files.unsynced.take(self.end, self._appended)
            checkpoint.flush = self._flushing
        return checkpoint

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """`checkpoint` has run."""
        if checkpoint.error is not None:
            self._flush_failed(checkpoint.error)
        if checkpoint.flush is not None:
            self._flushing = None
        if not checkpoint.written or self.offline is not None:
            return
        self._checkpointed = checkpoint.offset
        self._files.checkpointed(checkpoint.offset, self.recovery_point)

    def checkpoint(self) -> int:
        """All steps at once, for when nobody waits; the recovery point."""
        checkpoint = self.begin_checkpoint()
        if checkpoint is not None:
            checkpoint.run()
            self.checkpointed(checkpoint)
            self.begin_checkpoint()
        return self.recovery_point

    def retire(self) -> None:
        """It is about to be deleted: no more writing; flushes under way mean nothing."""
        self._go_offline("it was deleted")
        self.close(clean=False)

    def close(self, *, clean: bool) -> None:
        """Let go of the files; after a clean close the next start need not look at them."""
        if clean and self.offline is None:
            self._files.seal(self.end, self._producers)
            if self._flushing is not None:
                # Nobody will tell us how that one ended.
                self._flushing.run()
            flush = self._files.unsynced.take(self.end, self._appended)
            flush.run()
            self.flushed(flush)
            self.recovery_point = self._checkpointed = self.end
        self._segments.close()

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
            offset < self._gaps_before,
            (self._epochs.at(offset), self._epochs.latest),
        )
        return self._segments.plan(wanted)

    def remember(self, result: ReadResult) -> None:
        """Note where a read ended, so that the next one goes on without the index."""
        self._segments.remember(result)

    def aborted_between(self, offset: int, next_offset: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records there."""
        return self._segments.aborted_between(offset, next_offset, self.end)

    def _must_be_readable(self) -> None:
        if self.unreadable:
            raise CorruptLog(self.path, 0, self.offline or "it could not be opened")

    def search_timestamp(self, timestamp: int, up_to: int) -> Iterator[TimestampPlan]:
        """Steps to the first record of that time or later, below `up_to`."""
        self._must_be_readable()
        return search_timestamp(self._segments, timestamp, self._range(up_to))

    def search_newest(self, up_to: int) -> Iterator[TimestampPlan]:
        """Steps to the latest record by its timestamp, the first if there are several."""
        self._must_be_readable()
        return search_newest(self._segments, self._range(up_to))

    def _range(self, up_to: int) -> Range:
        return Range(self.log_start, up_to, self.log_start < self._gaps_before)

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        return self._epochs.end(epoch, self.high_watermark)

    def epoch_at(self, offset: int) -> int:
        return self._epochs.at(offset)

    # Deleting.

    def start_once_deleted(self, offset: int) -> int:
        """Where the log will start when all below `offset`, -1 for the high watermark, is
        deleted; raises what speaks against it."""
        if self.offline is not None:
            raise Refused(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        offset = self.high_watermark if offset == -1 else offset
        if offset < 0 or offset > self.high_watermark:
            raise OffsetOutOfRange(offset, self.log_start, self.high_watermark)
        return max(self.log_start, offset)

    def delete_records(self, offset: int) -> int:
        """Move the log's start to `offset`, -1 for the high watermark."""
        self._start_at(self.start_once_deleted(offset))
        while (bases := self._segments.bases)[1:] and bases[1] <= self.log_start:
            self._drop_first()
        return self.log_start

    def _start_at(self, offset: int) -> None:
        self.log_start = max(self.log_start, offset)

    def apply_retention(self, now_ms: int) -> list[retention.Deleted]:
        """Delete the segments that have had their time."""
        segments = self._segments
        if self.offline is not None or retention.is_young(
            segments.row, self._config, now_ms
        ):
            return []
        reasons = retention.judge(
            segments.ages(self.end),
            self._config,
            size=segments.size,
            log_start=self.log_start,
            flushed=self.high_watermark,
            now_ms=now_ms,
        )
        if len(reasons) == len(segments.row):
            try:
                self._roll(now_ms)
            except Refused:
                # The disk is full: all the more reason to delete what can be.
                reasons.pop()
        deleted = []
        for reason in reasons:
            first, following = segments.row[:2]
            deleted.append(retention.Deleted(first.base_offset, first.size, reason))
            self._start_at(following.base_offset)
            self._drop_first()
        return deleted

    def _drop_first(self) -> None:
        self._files.drop_first(
            self.end, self._producers, may_be_unsynced=self._flushing is not None
        )

    # Compaction.

    def cleanable(self, cleaned_to: int | None, now_ms: int) -> Cleanable:
        limits = Limits(self.log_start, self.last_stable, self.recovery_point, self.end)
        return cleanable(
            self._segments.row, self._config, limits, cleaned_to=cleaned_to, now_ms=now_ms
        )

    def begin_cleaning(self, found: Cleanable, now_ms: int) -> Cleaning:
        """Note what is to be cleaned; what comes of it is for `swap_in`."""
        return begin_cleaning(
            self._segments.row,
            found,
            topic_id=self.topic_id,
            config=self._config,
            aborted=self._segments.aborted(self.end),
            producers=self._producers.items(),
            now_ms=now_ms,
        )

    def swap_in(self, cleaning: Cleaning, done: Swap) -> bool:
        """Put a cleaned segment in the place of the old ones; says whether these were still
        there, and still to be compacted. If not, it and what follows is of no use."""
        old = [cleaning.segments[base_offset] for base_offset in done.replaced]
        wanted = self.offline is None and self._config.compact
        if not wanted or not self._segments.holds(old):
            return False
        try:
            interval = self._config.index_interval_bytes
            self._files.swap_in(old, interval)
        except OSError as error:
            self._go_offline(f"a cleaned segment cannot be put in its place: {error}")
            self.unreadable = True
            return False
        self._gaps_before = max(self._gaps_before, cleaning.job.end)
        return True

    def take_doomed(self) -> list[Path]:
        """Files that nobody needs any more, to be removed when there is time."""
        return self._files.take_doomed()

    # Producers.

    def expire_producers(
        self, now_ms: int, expiration_ms: int = PRODUCER_EXPIRATION_MS
    ) -> list[int]:
        return self._producers.expire(now_ms, expiration_ms)

    def producer_state(self, producer_id: int) -> ProducerState | None:
        return self._producers.get(producer_id)

    def producer_states(self) -> dict[int, ProducerState]:
        return dict(self._producers.items())
