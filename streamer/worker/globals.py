"""Global tables, as this worker follows them: all partitions, from their changelogs.

At a start they are brought up to date like any table; then a thread goes on reading, and
the loop puts what has come into the stores. They are stores of their own, beside those of
the partitions that are written here:

    slot-0/tables/       what this worker writes
    slot-0/global/       what it follows
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.client.interface import ClientError, Consumer, Message, TopicPartition
from streamer.global_table import GlobalTable
from streamer.state.recovery import Recovery
from streamer.state.rocksdb import RocksStores
from streamer.state.store import MemoryStores, Stores
from streamer.state.table_partition import TablePartition
from streamer.table import Table
from streamer.worker.pump import by_partition
from streamer.worker.tables import LocalTables

if TYPE_CHECKING:
    from streamer.conf import Conf
    from streamer.worker.clients import Clients

log = logging.getLogger(__name__)

CHUNK = 1000
WAIT_S = 0.2
TROUBLE_S = 1.0


class Globals:
    def __init__(
        self,
        tables: Iterable[Table[Any, Any]],
        local: LocalTables,
        conf: Conf,
        clients: Clients,
        root: Path,
        ended: Callable[[asyncio.Task[Any]], None],
    ) -> None:
        """`ended` is called when they are followed no more, for whatever reason."""
        self._local = local
        self._ended = ended
        self._clients = clients
        self._tables = [one for one in tables if isinstance(one, GlobalTable)]
        on_disk = bool(self._tables) and not conf.store.startswith("memory")
        self.stores: Stores = RocksStores(root / "global") if on_disk else MemoryStores()
        self._parts: dict[TopicPartition, TablePartition] = {}
        self._recovery: Recovery | None = None
        self._consumer: Consumer | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="globals")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have all of them up to date, and follow them from there. Once."""
        if not self._tables or self._task is not None:
            return
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._open)
        self._task = loop.create_task(self._follow(), name="global tables")
        self._task.add_done_callback(self._ended)

    def _open(self) -> None:
        for table in self._tables:
            count = table.partitions or 0
            places: list[tuple[Table[Any, Any], int]] = [(table, n) for n in range(count)]
            for (_, number), part in self._local.opened(self.stores, places).items():
                self._parts[self._local.changelog_of(table, number)] = part
                table.followed[number] = part
        self._consumer = self._clients.consumer()
        stores = {at: part.store for at, part in self._parts.items()}
        self._recovery = Recovery(self._consumer, self._clients.admin, stores)
        self._recovery.run()
        for part in self._parts.values():
            part.forget_known()
        log.info(
            "Global tables are up to date: %d records.", self._recovery.progress.records
        )
        self._consumer.assign(
            {at: part.store.position or 0 for at, part in self._parts.items()}
        )

    async def _follow(self) -> None:
        assert self._consumer is not None
        loop = asyncio.get_running_loop()
        consume = self._consumer.consume
        while True:
            try:
                found = await loop.run_in_executor(self._threads, consume, CHUNK, WAIT_S)
            except ClientError as error:
                log.warning("Global tables cannot be followed: %s", error.problem)
                await asyncio.sleep(TROUBLE_S)
                continue
            self._take(found)

    def _take(self, found: Sequence[Message]) -> None:
        for at, messages in by_partition(found) if found else ():
            part = self._parts[at]
            changes = {
                key: one.value() for one in messages if (key := one.key()) is not None
            }
            part.store.write(changes, messages[-1].offset() + 1)
            part.forget(changes)

    async def stop(self) -> None:
        if self._recovery is not None:
            self._recovery.stop()
        if self._task is not None:
            task, self._task = self._task, None
            task.remove_done_callback(self._ended)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        if self._consumer is not None:
            self._consumer.close()
        for table in self._tables:
            table.followed = {}
        self._parts.clear()
        self.stores.close()
