"""How far one group has come: the offset it committed for each partition, and what beside.

    commit(...)             from now on this is what the group has committed
    hold(producer_id, ...)  the same, but only once the producer's transaction is committed;
                            until then nobody sees it, and the partition is not `stable`
    finish(producer_id)     the transaction is over: what it held counts, or vanishes
    delete(...)             a tombstone: what was written before it is gone

Each is a record of `__consumer_offsets`, and where records contradict each other the later
one of the log counts, in whatever order their transactions end. So each commit carries the
offset of its own record, and a deletion that of the tombstone. Without them, compaction,
which drops the earlier record, and memory would disagree about the winner.

Nothing here writes or waits: `ledger.py` writes the records and brings them here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamer.broker.names import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a group said of one partition, and when."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""
    time_ms: int
    expires_ms: int | None = None
    """When it ends, where an old client has said so; else the broker's retention counts."""
    at: int = -1
    """Where its own record stands in the log."""


class GroupOffsets:
    """The committed offsets of one group, and those that wait for a transaction's end."""

    __slots__ = ("_committed", "_held")

    def __init__(self) -> None:
        self._committed: dict[Place, Commit] = {}
        # By producer; none is empty.
        self._held: dict[int, dict[Place, Commit]] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to remember."""
        return bool(self._committed or self._held)

    def __len__(self) -> int:
        return len(self._committed)

    def __iter__(self) -> Iterator[Place]:
        """The partitions that something is committed for."""
        return iter(self._committed)

    def get(self, place: Place) -> Commit | None:
        return self._committed.get(place)

    def stable(self, place: Place) -> bool:
        """Whether no transaction that is still open may change the offset."""
        return not any(place in held for held in self._held.values())

    @property
    def has_held(self) -> bool:
        return bool(self._held)

    def places(self) -> set[Place]:
        """The partitions that anything is committed or held for."""
        return {
            *self._committed,
            *(place for held in self._held.values() for place in held),
        }

    def commit(self, place: Place, commit: Commit) -> None:
        """Make it what is committed, unless something later is."""
        now = self._committed.get(place)
        if now is None or commit.at > now.at:
            self._committed[place] = commit

    def hold(self, producer_id: int, place: Place, commit: Commit) -> None:
        self._held.setdefault(producer_id, {})[place] = commit

    def finish(self, producer_id: int, *, commit: bool) -> None:
        """The producer's transaction is over."""
        held = self._held.pop(producer_id, {})
        if commit:
            for place, waiting in held.items():
                self.commit(place, waiting)

    def delete(self, place: Place, at: int) -> None:
        """Forget what was written of a partition before the tombstone at `at`."""
        for commits in (self._committed, *self._held.values()):
            found = commits.get(place)
            if found is not None and found.at < at:
                del commits[place]
        self._held = {producer: held for producer, held in self._held.items() if held}

    def expired(
        self,
        now_ms: int,
        retention_ms: int,
        *,
        since_ms: int | None,
        subscribed: Callable[[str], bool],
    ) -> list[Place]:
        """What has been kept long enough: since the group lost its last member
        (`since_ms`), or where that is None, since each commit."""

        def over(commit: Commit) -> bool:
            if commit.expires_ms is not None:
                return now_ms >= commit.expires_ms
            start = commit.time_ms if since_ms is None else since_ms
            return now_ms - start >= retention_ms

        return [
            place
            for place, commit in self._committed.items()
            if over(commit) and not subscribed(place.topic) and self.stable(place)
        ]
