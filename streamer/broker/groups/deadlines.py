"""Until when a group waits, and for whom.

    promised    ids that were given out to members who are to join with them, until then
    join        the rebalance ends without those who have not joined by then
    sync        who is `unsynced`, and has not fetched its assignment by then, is out

The session of each member is its own (`Member.expires`); it is set with `after`, too.

The first members of an empty group wait for others: for one delay, and for another one
each time that somebody came meanwhile, but no longer than a rebalance may take.

Milliseconds as clients give them, points in time in seconds. What follows when a time has
come, `group.py` decides.
"""

from collections.abc import Iterable
from math import inf

# A client that asks for one id after the other pushes out those it was given first.
PROMISED_MAX = 10_000


class Deadlines:
    __slots__ = (
        "_first",
        "_more_came",
        "_soonest",
        "join",
        "now",
        "promised",
        "sync",
        "unsynced",
    )

    def __init__(self, now: float) -> None:
        self.now = now
        self.join = inf
        self.sync = inf
        self.unsynced: set[str] = set()
        self.promised: dict[str, float] = {}
        """In the order in which they were given out."""
        # While the first members are waited for: the present delay, and how much longer it
        # may get if more come.
        self._first: tuple[int, int] | None = None
        self._more_came = False
        # No deadline is before this; some may be later than it was when they were set.
        self._soonest = inf

    @property
    def next(self) -> float | None:
        return None if self._soonest == inf else self._soonest

    def after(self, timeout_ms: int) -> float:
        """A deadline from now on."""
        deadline = self.now + timeout_ms / 1000
        self._soonest = min(self._soonest, deadline)
        return deadline

    def look_again(self, sessions: Iterable[float]) -> None:
        """Find the next one, among these and our own."""
        self._soonest = min(self.join, self.sync, *self.promised.values(), *sessions)

    # Ids that were given out.

    def promise(self, member_id: str, timeout_ms: int) -> None:
        if len(self.promised) >= PROMISED_MAX:
            del self.promised[next(iter(self.promised))]
        self.promised[member_id] = self.after(timeout_ms)

    def drop_late_promises(self) -> bool:
        """Wait no more for those who have not come; says whether there are any."""
        late = [
            member_id for member_id, until in self.promised.items() if until <= self.now
        ]
        for member_id in late:
            del self.promised[member_id]
        return bool(late)

    # The end of a rebalance.

    @property
    def waits_for_first(self) -> bool:
        return self._first is not None

    def wait_for_first(self, delay_ms: int, most_ms: int) -> None:
        self._wait(delay_ms, max(most_ms - delay_ms, 0))

    def somebody_came(self) -> None:
        self._more_came = True

    def wait_for_more(self, delay_ms: int) -> bool:
        """Wait once more if somebody came during the first delay; says whether."""
        delay, left = self._first or (0, 0)
        if not left or not self._more_came:
            return False
        self._wait(min(delay_ms, left), max(left - delay, 0))
        return True

    def _wait(self, delay_ms: int, left_ms: int) -> None:
        self._first = delay_ms, left_ms
        self._more_came = False
        self.join = self.after(delay_ms)

    def wait_for_all(self, timeout_ms: int) -> None:
        self.join = self.after(timeout_ms)

    def wait_no_longer(self) -> None:
        self.join, self._first = inf, None

    # The assignments of a generation.

    def wait_for_syncs(self, member_ids: Iterable[str], timeout_ms: int) -> None:
        self.unsynced = set(member_ids)
        self.sync = self.after(timeout_ms)

    def synced(self, member_id: str) -> None:
        self.unsynced.discard(member_id)
        if not self.unsynced:
            self.sync = inf

    def renamed(self, before: str, after: str) -> None:
        if before in self.unsynced:
            self.unsynced.remove(before)
            self.unsynced.add(after)

    def wait_for_no_sync(self) -> None:
        self.unsynced.clear()
        self.sync = inf
