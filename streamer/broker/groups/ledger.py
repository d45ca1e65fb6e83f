"""The committed offsets of all groups: written to the log, and then believed.

    a commit → one batch in the group's partition → flushed → applied → answered

Two batches may be on their way at once, and those who wait for them may go on in any
order; what they say is applied in the order of the log all the same. Only what waits for a
transaction's end is applied as soon as it is written: nobody can read it, but from that
moment the next owner of a partition must not take an older offset for the last word.

At start the log is read again (`replay`), which leads to the same state: after a crash
nothing that was answered is missing.

`offsets.py` decides which of two commits counts, `records.py` has the records' layout,
`commits.py` the requests, `coordinator.py` the groups themselves.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from streamer.broker.groups import records
from streamer.broker.groups.offsets import Commit, GroupOffsets
from streamer.broker.groups.records import GroupEntry, OffsetEntry
from streamer.broker.names import Place, Producer
from streamer.broker.state_log import Replayed, StateLog
from streamer.log.clock import Clock
from streamer.wire.record import Record

NOTHING = GroupOffsets()


class Written(NamedTuple):
    """A batch that is in the log, but not known to be safe there."""

    last_offset: int
    entries: list[OffsetEntry]


class Ledger:
    def __init__(self, log: StateLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._groups: dict[str, GroupOffsets] = {}
        # The groups that an open transaction of a producer holds offsets of.
        self._held_by: dict[int, set[str]] = {}
        # By partition, in the order of the log.
        self._written: dict[int, deque[Written]] = {}

    def __iter__(self) -> Iterator[str]:
        """The groups that there is anything to remember of, or will be in a moment."""
        written = chain.from_iterable(self._written.values())
        coming = (entry.group_id for batch in written for entry in batch.entries)
        return iter({*self._groups, *coming})

    def of(self, group_id: str) -> GroupOffsets:
        """What to tell about a group, and not to change."""
        return self._groups.get(group_id, NOTHING)

    def has_any(self, group_id: str) -> bool:
        """Whether there is anything to remember of the group, or will be in a moment."""
        return group_id in self._groups or bool(self._places_written(group_id))

    # Writing. All of it raises NotWritten.

    async def make_room(self, group_id: str) -> None:
        """Have the log ready, so that nothing comes between a check and the writing."""
        await self._log.partition(self._log.partition_of(group_id))

    async def commit(
        self,
        group_id: str,
        commits: Mapping[Place, Commit],
        *,
        producer: Producer | None = None,
    ) -> None:
        """Return once the offsets are committed; with a `producer`, once they are held."""
        entries = list(commits.items())
        await self._append(group_id, entries, producer=producer)

    async def delete(self, group_id: str, places: Collection[Place]) -> None:
        """Forget these offsets, as far as there are any."""
        known = sorted(self._places(group_id).intersection(places))
        if known:
            await self._append(group_id, [(place, None) for place in known])

    async def delete_group(self, group_id: str, tombstone: Record) -> None:
        """Forget a group: all its offsets, and itself."""
        known = sorted(self._places(group_id))
        await self._append(group_id, [(place, None) for place in known], more=[tombstone])

    async def forget_topics(self, gone: Callable[[str], bool]) -> None:
        """Forget the offsets of topics that are gone: a new one of that name has none."""
        deletions = []
        for group_id in self:
            places = [place for place in self._places(group_id) if gone(place.topic)]
            if places:
                deletions.append(self.delete(group_id, places))
        await asyncio.gather(*deletions)

    async def _append(
        self,
        group_id: str,
        commits: Sequence[tuple[Place, Commit | None]],
        *,
        more: Sequence[Record] = (),
        producer: Producer | None = None,
    ) -> None:
        now_ms = self._clock.now_ms()
        batch = [
            records.offset_record(group_id, place, commit, now_ms)
            for place, commit in commits
        ]
        index = self._log.partition_of(group_id)
        last_offset = -1

        def appended(base_offset: int) -> None:
            nonlocal last_offset
            last_offset = base_offset + len(batch) + len(more) - 1
            entries = [
                OffsetEntry(group_id, place, commit and replace(commit, at=at), at)
                for at, (place, commit) in enumerate(commits, base_offset)
            ]
            if producer is not None:
                self._hold(producer.id, entries)
            else:
                waiting = self._written.setdefault(index, deque())
                waiting.append(Written(last_offset, entries))

        await self._log.append(
            group_id, [*batch, *more], producer=producer, on_appended=appended
        )
        self._apply(index, last_offset)

    def _apply(self, index: int, safe: int) -> None:
        """Believe what was written up to the offset `safe`."""
        waiting = self._written.get(index)
        while waiting and waiting[0].last_offset <= safe:
            for entry in waiting.popleft().entries:
                self._note(entry)

    def _places(self, group_id: str) -> set[Place]:
        """What there is to forget of a group, or will be in a moment."""
        return self.of(group_id).places() | self._places_written(group_id)

    def _places_written(self, group_id: str) -> set[Place]:
        """What is on its way to the log for a group."""
        waiting = self._written.get(self._log.partition_of(group_id), ())
        return {
            entry.place
            for written in waiting
            for entry in written.entries
            if entry.group_id == group_id and entry.commit is not None
        }

    # What the records mean, when they are written as when they are read again.

    def _note(self, entry: OffsetEntry) -> None:
        if entry.commit is not None:
            offsets = self._groups.setdefault(entry.group_id, GroupOffsets())
            offsets.commit(entry.place, entry.commit)
        elif (found := self._groups.get(entry.group_id)) is not None:
            found.delete(entry.place, entry.at)
            self._drop_if_empty(entry.group_id)

    def _hold(self, producer_id: int, entries: Iterable[OffsetEntry]) -> None:
        for group_id, place, commit, _ in entries:
            assert commit is not None, "tombstones belong to no transaction"
            offsets = self._groups.setdefault(group_id, GroupOffsets())
            offsets.hold(producer_id, place, commit)
            self._held_by.setdefault(producer_id, set()).add(group_id)

    def finish(self, producer_id: int, index: int, *, commit: bool) -> None:
        """The marker of a producer's transaction is safe in the partition `index`."""
        held_by = self._held_by.pop(producer_id, set())
        here = {group for group in held_by if self._log.partition_of(group) == index}
        if elsewhere := held_by - here:
            self._held_by[producer_id] = elsewhere
        for group_id in here & self._groups.keys():
            self._groups[group_id].finish(producer_id, commit=commit)
            self._drop_if_empty(group_id)

    def _drop_if_empty(self, group_id: str) -> None:
        if not self._groups[group_id]:
            del self._groups[group_id]

    # Start.

    def replay(self, index: int, replayed: Replayed) -> list[GroupEntry]:
        """Take what a batch says of offsets; what it says of groups is handed back.

        Raises Malformed or UnsupportedVersion.
        """
        header, batch, marker = replayed
        if marker is not None:
            self.finish(header.producer_id, index, commit=marker.commit)
        groups = []
        for entry in map(records.read, batch):
            if isinstance(entry, GroupEntry):
                groups.append(entry)
            elif entry is not None and header.is_transactional:
                self._hold(header.producer_id, [entry])
            elif entry is not None:
                self._note(entry)
        return groups
