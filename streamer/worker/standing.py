"""What a worker has in hand at one moment, for whoever looks.

Put together when somebody asks, from what is there anyway; nothing is kept for it, and
nothing blocks. What it has done since it began: `counters.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamer.client.interface import TopicPartition
from streamer.state.errors import StoreClosed
from streamer.state.recovery import Progress
from streamer.state.store import MemoryStore
from streamer.state.table_partition import TablePartition

if TYPE_CHECKING:
    from streamer.worker.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStanding:
    """Of an agent, or of what forwards records for it."""

    name: str
    waiting: int
    in_hand: int
    taken: int
    """In all, since the start."""
    oldest_s: float
    """How long the oldest record that is not done has been in hand."""
    stuck_s: float
    """For so long no record was taken and none was done, though there are some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStanding:
    """Of one partition of a table."""

    name: str
    partition: int
    size_bytes: int
    keys: int | None
    """None: it would have to be counted."""
    changed: int
    """Keys whose change is not committed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    agents: tuple[AgentStanding, ...]
    tables: tuple[TableStanding, ...]
    positions: Mapping[TopicPartition, int]
    """How far the group is, in the partitions that are ours."""
    watermarks: Mapping[TopicPartition, tuple[int, int]]
    staged_sends: int
    queued: int
    """Records that librdkafka has yet to deliver."""
    polled_s: float
    """Since the group was last taken part in."""
    undone_s: float
    """For so long every transaction that was tried has been undone."""
    recovery: Progress | None
    failure: str
    """Why it cannot go on; empty as long as it can."""


def standing(worker: Worker) -> Standing:
    recovery = worker.tables.recovery
    undone_since = worker.counters.undone_since
    now = time.monotonic()
    return Standing(
        agents=tuple(
            AgentStanding(
                name=feed.name,
                waiting=feed.waiting,
                in_hand=feed.in_hand,
                taken=feed.taken,
                oldest_s=feed.oldest_s,
                stuck_s=worker.stalls.stuck_s(feed.name),
            )
            for feed in worker.all_feeds()
        ),
        tables=tuple(
            of_partition(table.name, part)
            for table in worker.app.tables.values()
            for part in table.here.values()
        ),
        positions={at: one.offset for at, one in worker.transaction.committed.items()},
        watermarks=worker.pump.watermarks,
        staged_sends=worker.transaction.staged,
        queued=worker.transaction.queued + worker.outside.queued,
        polled_s=now - worker.pump.turned_at,
        undone_s=0.0 if undone_since is None else now - undone_since,
        recovery=None if recovery is None else recovery.progress,
        failure=worker.failure,
    )


def of_partition(name: str, part: TablePartition) -> TableStanding:
    store = part.store
    try:
        size = store.size_bytes()
        # On disk, whoever has counted once pays with each write.
        keys = store.count() if isinstance(store, MemoryStore) else None
    except StoreClosed:
        size, keys = 0, None
    return TableStanding(
        name=name,
        partition=part.number,
        size_bytes=size,
        keys=keys,
        changed=len(part.open) + len(part.closing),
    )
