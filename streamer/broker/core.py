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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamer.broker.api import Table
from streamer.broker.catalog import Catalog
from streamer.broker.config import BrokerConfig, Listener
from streamer.broker.flusher import Flusher
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
# A warning comes when less of the disk is free than this share of it, or than 10 GiB.
FREE_SHARE = 0.05
FREE_BYTES = 10 << 30


class Broker:
    def __init__(
        self, config: BrokerConfig, clock: Clock, directory: LogDirectory, table: Table
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._told: dict[str, float] = {}
        self._low_on_space = False
        self.config = config
        self.clock = clock
        self.directory = directory
        self.table = table
        self.watchers = Watchers()
        self.flusher = Flusher(
            self._loop, on_flushed=self.watchers.moved, on_failed=self._flush_failed
        )
        self.catalog = Catalog(
            directory,
            directory.journal("catalog"),
            config,
            in_thread=self.in_thread,
            on_failed=self.go_offline,
        )
        self.node_id = config.number("node.id")
        self.cluster_id = directory.cluster_id
        self.addresses: list[Listener] = []
        # Why nothing is written any more, if so.
        self.offline: str | None = None

    def advertised(self, listener: int) -> Listener:
        """Where clients of that listener are told to connect."""
        return (self.config.advertised or self.addresses)[listener]

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Do what has to wait for the disk, while the loop goes on."""
        return await self._loop.run_in_executor(self._readers, function)

    def close(self) -> None:
        """Flush what is left, and leave the folder so that the next start trusts it."""
        self.flusher.close()
        self._readers.shutdown()
        self.directory.close(clean=self.offline is None)

    # Writing.

    def written(self, partition: Partition) -> None:
        """Something was appended: have it flushed, or show it at once."""
        if self.directory.durable:
            self.flusher.flush(partition)
        else:
            self.watchers.moved(partition)

    def append_refused(self, partition: Partition, refused: Refused) -> None:
        """Say in the log what a producer was told, where the fault is not its own."""
        if refused.code == ErrorCode.KAFKA_STORAGE_ERROR:
            self._tell("append", logging.ERROR, f"{partition.path}: {refused.message}")

    def _flush_failed(self, partition: Partition, error: OSError) -> None:
        self.go_offline(f"syncing {partition.path} failed: {error.strerror or error}")
        self.watchers.moved(partition)

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

    # Trouble.

    def read_failed(self, partition: Partition, error: CorruptLog | OSError) -> None:
        self._tell(
            f"read {partition.path}",
            logging.ERROR,
            f"{partition.path} cannot be read: {error}\n"
            f"  -> `streamer log verify {self.directory.path}` shows what is damaged; "
            "readers can go on behind it, other partitions are not touched.",
        )

    def watch_space(self) -> None:
        """Warn before the disk is full, and say when there is room again."""
        space = self.directory.space()
        low = space.free < min(FREE_SHARE * space.total, FREE_BYTES)
        if low:
            self._tell(
                "space",
                logging.WARNING,
                f"Only {space.free / 2**20:,.0f} MiB are free for {self.directory.path}.\n"
                "  -> Make room, or keep less: lower retention.ms or retention.bytes, "
                "delete topics.",
                quiet=300.0,
            )
        elif self._low_on_space:
            log.info("There is room on the disk again: %d MiB.", space.free >> 20)
        self._low_on_space = low

    def _tell(
        self, topic: str, level: int, message: str, quiet: float = QUIET_SECONDS
    ) -> None:
        now = self.clock.monotonic()
        if now - self._told.get(topic, -quiet) >= quiet:
            self._told[topic] = now
            log.log(level, message)

    # Housekeeping, from time to time.

    async def checkpoint(self) -> None:
        """Write down up to where everything is safe, so that a crash costs little."""
        if self.offline is None:
            try:
                await self.in_thread(self.directory.checkpoint())
            except OSError as error:
                self._tell(
                    "checkpoint",
                    logging.WARNING,
                    f"No checkpoint could be written: {error}. The old one holds, so a "
                    "crash would cost more time; it is tried again.",
                )

    async def save_log_starts(self) -> None:
        await self.in_thread(self.directory.log_starts())

    async def apply_retention(self) -> None:
        """Drop what topics need not keep any longer."""
        for partition, deleted in self.directory.apply_retention():
            log.info("%s: segment %d is gone: %s", partition.path, *deleted[::2])

    async def expire_producers(self) -> None:
        age = self.config.number("producer.id.expiration.ms")
        for partition in self.directory.partitions():
            partition.expire_producers(self.clock.now_ms(), age)
