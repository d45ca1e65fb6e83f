"""The partitions of tables that are here: opened, brought up to date, kept.

A table of n partitions lives with the topics of n partitions: what is written while a
record of partition 3 is in hand goes to partition 3 of the table. A partition that was
taken away keeps its open store, for it often comes back.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from streamer.client.interface import TopicPartition
from streamer.schema import describe, schema_change
from streamer.state.changelog import (
    Changelog,
    delete_retention_ms,
    ensure,
    topic_name,
)
from streamer.state.identity import Identity
from streamer.state.opening import opened
from streamer.state.recovery import Progress, Recovery
from streamer.state.rocksdb import RocksStores
from streamer.state.store import MemoryStores, Stores, now_ms
from streamer.state.table_partition import TablePartition
from streamer.state.unowned import clean_up
from streamer.table import PartitionsMismatch, Table
from streamer.worker.errors import WorkerFailed

if TYPE_CHECKING:
    from streamer.conf import Conf
    from streamer.worker.clients import Clients

log = logging.getLogger(__name__)

REPORT_EACH_S = 2.0


class LocalTables:
    def __init__(
        self,
        tables: Mapping[str, Table[Any, Any]],
        conf: Conf,
        clients: Clients,
        root: Path,
    ) -> None:
        self._tables = tables
        self._conf = conf
        self._clients = clients
        in_memory = conf.store.startswith("memory")
        self.stores: Stores = MemoryStores() if in_memory else RocksStores(root)
        self._kept: dict[tuple[Table[Any, Any], int], TablePartition] = {}
        self._retention_ms: dict[str, int] = {}
        # Of which it was said that the app does not have them.
        self._named: set[str] = set()
        self.recovery: Recovery | None = None
        # How the last one ended.
        self.recovered: Progress | None = None

    def changelog(self, table: Table[Any, Any]) -> Changelog:
        assert table.partitions is not None
        return Changelog(
            app=self._conf.id,
            table=table.name,
            partitions=table.partitions,
            window_retention_ms=getattr(table, "retention_ms", None),
            replication=self._conf.topic_replication_factor,
        )

    def prepare(self, counts: Mapping[str, int]) -> None:
        """Settle how many partitions each table has, and have its changelog.

        `counts`: of the topics that are read.
        """
        if not self._tables:
            return
        for table in self._tables.values():
            if table.partitions is None:
                table.partitions = self._only_one(table, counts)
        changelogs = [self.changelog(table) for table in self._tables.values()]
        admin = self._clients.admin
        ensure(admin, changelogs, create=self._conf.topic_allow_declare)
        self._name_what_nobody_asks_for()
        for one in changelogs:
            configs = admin.topic_configs(one.topic)
            self._retention_ms[one.table] = delete_retention_ms(configs)

    def _name_what_nobody_asks_for(self) -> None:
        """State of tables that the app does not have: was one renamed?"""
        left = {place.table for place in self.stores.kept()} - set(self._tables)
        for name in sorted(left - self._named):
            log.warning(
                "There is state of a table %r, which the app does not have. If it was"
                " renamed: under its new name it begins empty, and what it held stays in"
                " %s. Name it %r again to have that back.",
                name,
                topic_name(self._conf.id, name),
                name,
            )
        self._named |= left

    def _only_one(self, table: Table[Any, Any], counts: Mapping[str, int]) -> int:
        if len(set(counts.values())) == 1:
            return next(iter(counts.values()))
        listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise PartitionsMismatch(
            f"Table {table.name} lives with the topics that fill it, and these have"
            f" different numbers of partitions: {listed or 'there are none'}.",
            remedy=f"Say which number it has: app.Table({table.name!r}, partitions=N).",
        )

    # Partitions come and go.

    def open(self, places: Iterable[tuple[int, int]], in_vain: Event) -> bool:
        """Have all tables at these places (number of partitions, number), up to date.

        Blocks. False if `in_vain` was set before that: nobody needs them any more.
        """
        wanted = [
            (table, number)
            for count, number in places
            for table in self._tables.values()
            if table.partitions == count
        ]
        if not wanted:
            return True
        self.recovered = None
        began = time.monotonic()
        new = [one for one in wanted if one not in self._kept]
        self._kept |= self.opened(self.stores, new)
        parts = {self.changelog_of(*one): self._kept[one] for one in wanted}
        self.recovery = Recovery(
            self._clients.catching_up(),
            self._clients.admin,
            {at: part.store for at, part in parts.items()},
            in_vain=in_vain,
        )
        finished = self.recovery.run()
        progress = self.recovered = self.recovery.progress
        if progress.records:
            log.info(
                "State is up to date: %d records of %d partitions in %.1f s.",
                progress.records,
                len(parts),
                time.monotonic() - began,
            )
            for part in parts.values():
                part.forget_known()
        self.recovery = None
        return finished

    def changelog_of(self, table: Table[Any, Any], number: int) -> TopicPartition:
        return TopicPartition(self.changelog(table).topic, number)

    def opened(
        self, stores: Stores, wanted: list[tuple[Table[Any, Any], int]]
    ) -> dict[tuple[Table[Any, Any], int], TablePartition]:
        """These, with their stores as they were left, if they can be trusted."""
        if not wanted:
            return {}
        found: dict[tuple[Table[Any, Any], int], TablePartition] = {}
        now, admin = now_ms(), self._clients.admin
        changelogs = [self.changelog_of(*one) for one in wanted]
        begins, ends = admin.first_offsets(changelogs), admin.end_offsets(changelogs)
        for (table, number), at in zip(wanted, changelogs, strict=True):
            store, verdict = opened(
                stores,
                Identity(
                    app=self._conf.id,
                    table=table.name,
                    partition=number,
                    partitions=self.changelog(table).partitions,
                    changelog=at.topic,
                    value_type=value_type_of(table),
                ),
                now_ms=now,
                changelog_begin=begins[at],
                changelog_end=ends[at],
                delete_retention_ms=self._retention_ms[table.name],
                changed=partial(what_has_changed, table),
            )
            if verdict.because:
                level = logging.INFO if verdict.keep else logging.WARNING
                log.log(level, "%s", verdict.because)
            found[table, number] = table.partition_in(store, number)
        return found

    def at(self, count: int, number: int) -> dict[Any, TablePartition]:
        """The partitions of all tables that live there."""
        return {
            table: part
            for (table, at), part in self._kept.items()
            if at == number and table.partitions == count
        }

    def show(self, places: Iterable[tuple[int, int]]) -> None:
        """Let readers see these, and no others."""
        here = set(places)
        for table in self._tables.values():
            table.here = {
                number: part
                for (one, number), part in self._kept.items()
                if one is table and (table.partitions, number) in here
            }

    def here(self) -> list[tuple[str, TablePartition]]:
        """All that may have changed, each with the name of its changelog."""
        return [
            (f"{self._conf.id}-{table.name}-changelog", part)
            for table in self._tables.values()
            for part in table.here.values()
        ]

    def clean_up(self) -> None:
        """Remove the state of partitions that have not been ours for long."""
        owned = {(table.name, number) for table, number in self._kept}
        gone = clean_up(
            self.stores,
            [place for place in self.stores.kept() if tuple(place) in owned],
            now_ms=now_ms(),
            delay_ms=self._conf.state_cleanup_delay_ms,
        )
        for place in gone:
            log.info("The state of %s was not needed any more, and is removed.", place)

    def close(self) -> None:
        for table in self._tables.values():
            table.here = {}
        self._kept.clear()
        self.stores.close()


def what_has_changed(table: Table[Any, Any], before: str) -> str:
    """What it means that the values in a store are of another type; raises if they cannot
    be read as those of `table`. `before` is what `value_type_of` said then."""
    if not before or table.value_type is None:
        was = "of no type" if not before else "of a type"
        now = "they have none" if table.value_type is None else "they have one"
        return f"The values of table {table.name!r} were {was}, and now {now}."
    change = schema_change(json.loads(before), table.value_type)
    if change is None:
        return ""
    if change.breaking:
        raise WorkerFailed(
            f"The values that table {table.name!r} holds cannot be read: {change}.",
            remedy="Let the type read the old values as well: give a new field a default,"
            " keep the type of an old one. Or give the table another name, and let it"
            " begin empty.",
        )
    return f"Table {table.name!r}: {change}. The values that it holds can be read."


def value_type_of(table: Table[Any, Any]) -> str:
    return "" if table.value_type is None else json.dumps(describe(table.value_type))
