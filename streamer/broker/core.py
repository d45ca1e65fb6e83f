"""The broker itself: what all handlers share, and what happens when the disk fails.

It knows no sockets: `connection.py` brings requests, a test may bring them as well.
Everything here runs on one event loop and changes state only there; threads wait for
the disk (`flusher.py`) or read old data (`in_thread`), and decide nothing.

When a sync fails, what the kernel had promised to write may be lost, and a second try
would report success all the same. So it is never tried again: the broker takes no more
writes, says so, and goes on serving what is safely on disk until somebody restarts it.
A full disk is no such end: each write is tried, and works again once there is room.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamer.broker.api import Table
from streamer.broker.catalog import Catalog, NotWritten
from streamer.broker.cleaner import Cleaner
from streamer.broker.config import BrokerConfig, Listener
from streamer.broker.flusher import Flusher
from streamer.broker.groups.coordinator import GroupCoordinator
from streamer.broker.security import Session
from streamer.broker.transactions.coordinator import TransactionCoordinator
from streamer.broker.trouble import way_out
from streamer.broker.unread import Unread
from streamer.broker.waiting import Watchers
from streamer.log.clock import Clock
from streamer.log.directory import LogDirectory
from streamer.log.errors import CorruptLog, Refused
from streamer.log.partition import Partition
from streamer.wire.error_codes import ErrorCode

log = logging.getLogger(__name__)

T = TypeVar("T")

# The same trouble is told again after this many seconds, not at every request.
QUIET_SECONDS = 10.0
# Threads that read old data, beside those that flush.
READERS = 4
# Listeners for all addresses of the machine.
ANY_ADDRESS = ("0.0.0.0", "::")
# A warning comes when less of the disk is free than this share of it, or than 10 GiB.
FREE_SHARE = 0.05
FREE_BYTES = 10 << 30
# It is over once so many times as much is free again.
ENOUGH = 1.25


class Broker:
    def __init__(
        self, config: BrokerConfig, clock: Clock, directory: LogDirectory, table: Table
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        # One thread: what was noted later must not be overtaken by what was noted before.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        # Held while it is noted where partitions start, until they do start there: a note
        # made in between would take the start back, on disk.
        self._noting = asyncio.Lock()
        self._told: dict[str, float] = {}
        self._low_on_space = False
        self.config = config
        self.clock = clock
        self.directory = directory
        self.table = table
        self.watchers = Watchers()
        self.unread = Unread()
        self.flusher = Flusher(
            self._loop,
            monotonic=clock.monotonic,
            on_moved=self.watchers.moved,
            on_failed=self._flush_failed,
        )
        self.catalog = Catalog(
            directory,
            directory.journal("catalog"),
            config,
            in_thread=self._write_down,
            forget=self._forget_deleted,
            on_failed=self.go_offline,
            check_writable=self.check_writable,
        )
        self.groups = GroupCoordinator(self)
        self.transactions = TransactionCoordinator(self)
        self.cleaner = Cleaner(self)
        self.node_id = config.number("node.id")
        self.cluster_id = directory.cluster_id
        self.addresses: list[Listener] = []
        # Why nothing is written any more, if so.
        self.offline: str | None = None

    def advertised(self, session: Session) -> Listener:
        """Where a client is told to connect. Nobody can connect to "any address": who came
        in through such a listener is told the address that it found us at."""
        listener = (self.config.advertised or self.addresses)[session.listener]
        if listener.host in ANY_ADDRESS:
            return Listener(session.reached, listener.port)
        return listener

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Do what has to wait for the disk, while the loop goes on."""
        return await self._loop.run_in_executor(self._readers, function)

    def close(self) -> None:
        """Flush what is left, and leave the folder so that the next start trusts it."""
        self.transactions.close()
        self.groups.close()
        self.flusher.close()
        self._readers.shutdown()
        self._writer.shutdown()
        problem = self.directory.close(clean=self.offline is None)
        # Who is in the middle of something goes on as soon as we return: not to write.
        self.offline = self.offline or "The broker has stopped."
        self.watchers.wake_all()
        if problem is not None:
            log.warning(
                "This was no clean stop, so the next start checks the log: %s\n  -> %s",
                problem,
                way_out(problem),
            )

    # Writing.

    def written(self, partition: Partition) -> None:
        """Something was appended: have it flushed, or show it at once."""
        if self.directory.durable:
            self.flusher.flush(partition)
        else:
            self.watchers.moved(partition)

    async def flushed(self, partition: Partition, offset: int) -> None:
        """Return once `offset` is safe on disk. Raises NotWritten: it never will be."""
        while partition.high_watermark <= offset:
            if (why := partition.offline or self.offline) is not None:
                raise NotWritten(why)
            await self.watchers.next_move(partition)

    def check_writable(self) -> None:
        """Raise NotWritten once the disk is not trusted, or the broker has stopped."""
        if self.offline is not None:
            raise NotWritten(self.offline)

    def append_refused(self, partition: Partition, refused: Refused) -> None:
        """Say in the log what a producer was told, where the fault is not its own."""
        if refused.code == ErrorCode.KAFKA_STORAGE_ERROR:
            self._tell(
                "append",
                logging.ERROR,
                f"A producer was refused: {refused.message}\n"
                f"  -> {way_out(refused.__cause__)} What was written before is served.",
            )

    def _flush_failed(self, partition: Partition, error: OSError) -> None:
        self.go_offline(f"syncing {partition.path} failed: {error.strerror or error}")

    def go_offline(self, why: str) -> None:
        """Take no more writes until the broker is restarted."""
        if self.offline is None:
            self.offline = f"The log directory is offline: {why}."
            log.critical(
                "%s Nothing is written any more; what was acknowledged is still served.\n"
                "  -> Check the disk (dmesg, SMART), then restart the broker: it recovers "
                "from what is really on disk.",
                self.offline,
            )
        # Nobody who waits for a flush will see one: each is told so now.
        for partition in self.directory.partitions():
            partition.offline = partition.offline or self.offline
            self.watchers.moved(partition)

    # Trouble.

    def read_failed(self, partition: Partition, error: CorruptLog | OSError) -> None:
        self._tell(
            f"read {partition.path}",
            logging.ERROR,
            f"{partition.path} cannot be read: {error}\n"
            f"  -> `streamer log verify {self.directory.path}` shows what is damaged; "
            "readers can go on behind it, other partitions are not touched.",
        )

    def connection_refused(self, peer: str, most: int) -> None:
        self._tell(
            "connections",
            logging.WARNING,
            f"Connection from {peer} refused: {most} are open, which is the most.\n"
            "  -> Raise max.connections, and with it the limit of open files (ulimit -n).",
        )

    def watch_space(self) -> None:
        """Warn before the disk is full, and say when there is room again."""
        space = self.directory.space()
        limit = min(FREE_SHARE * space.total, FREE_BYTES)
        low = space.free < limit
        if low and not self._low_on_space:
            log.warning(
                "Only %.1f MiB are free for %s: producers are refused when there are none."
                "\n  -> Make room, or keep less: lower retention.ms or retention.bytes, "
                "delete topics.",
                space.free / 2**20,
                self.directory.path,
            )
            self._low_on_space = True
        # Not at the first byte: at the edge it would be told again and again.
        elif self._low_on_space and space.free > ENOUGH * limit:
            log.info("There is room on the disk again: %.1f MiB.", space.free / 2**20)
            self._low_on_space = False

    def _tell(self, topic: str, level: int, message: str) -> None:
        now = self.clock.monotonic()
        if now - self._told.get(topic, -QUIET_SECONDS) >= QUIET_SECONDS:
            self._told[topic] = now
            log.log(level, message)

    # Housekeeping, from time to time.

    async def checkpoint(self) -> None:
        """Write down up to where everything is safe, so that a crash costs little."""
        if self.offline is None:
            try:
                async with self._noting:
                    await self._write_down(self.directory.checkpoint())
            except OSError as error:
                self._tell(
                    "checkpoint",
                    logging.WARNING,
                    f"No checkpoint in {self.directory.path}: {error}. The old one holds, "
                    "so a crash would cost more time; it is tried again.\n"
                    f"  -> {way_out(error)}",
                )
            for partition, failure in self.directory.finish_checkpoints():
                self._flush_failed(partition, failure)
            for path, reason in self.directory.finish_removals():
                self._tell(
                    "removal",
                    logging.WARNING,
                    f"{path} cannot be removed: {reason}. It is tried again.\n"
                    f"  -> {way_out(reason)}",
                )

    async def delete_records(self, starts: Mapping[Partition, int]) -> None:
        """Have these partitions start there: on disk first, so that a crash brings nothing
        back that was told to be gone. Raises NotWritten: nothing has changed."""
        async with self._noting:
            self.check_writable()  # While it waited for its turn, that may have changed.
            try:
                await self._write_down(self.directory.log_starts(starts))
            except OSError as error:
                self._tell(
                    "log starts",
                    logging.ERROR,
                    f"A deletion of records cannot be written down: {error}\n"
                    f"  -> {way_out(error)}",
                )
                raise NotWritten(str(error)) from error
            for partition, start in starts.items():
                self._delete_records(partition, start)

    def _delete_records(self, partition: Partition, start: int) -> None:
        try:
            partition.delete_records(start)
        except Refused:
            pass  # It has gone offline meanwhile; the next start will see it deleted.
        except (CorruptLog, OSError) as error:
            # It does start there; a segment that did not go yet goes with retention.
            self.read_failed(partition, error)

    async def _forget_deleted(self) -> None:
        async with self._noting:
            self.check_writable()  # While it waited for its turn, that may have changed.
            if (job := self.directory.forgetting()) is not None:
                await self._write_down(job)
                self.directory.forgotten()

    async def _write_down(self, job: Callable[[], None]) -> None:
        await self._loop.run_in_executor(self._writer, job)

    async def apply_retention(self) -> None:
        """Drop what topics need not keep any longer."""
        for partition, deleted in self.directory.apply_retention():
            for base_offset, _, reason in deleted:
                log.info("%s: segment %d is gone: %s", partition.path, base_offset, reason)
            await asyncio.sleep(0)  # There may be many partitions.

    async def note_cleaned(self, partition: Partition, offset: int) -> None:
        """Write down up to where a partition is compacted."""
        try:
            await self._write_down(self.directory.note_cleaned(partition, offset))
        except OSError as error:
            self._tell(
                "cleaned",
                logging.WARNING,
                f"How far compaction came cannot be written down: {error}. A restart would"
                f" have it done again.\n  -> {way_out(error)}",
            )

    async def expire_producers(self) -> None:
        age = self.config.number("producer.id.expiration.ms")
        for partition in self.directory.partitions():
            partition.expire_producers(self.clock.now_ms(), age)
