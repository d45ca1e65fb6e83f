"""What a worker has done, in numbers; whoever looks may read them.

Counted once for each run, batch or commit, never for each record. What it has in hand at
the moment: `standing.py`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_S = 30.0


class Lately:
    """Average and longest of what took time within the last half minute, or a bit more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        # Each: how many, the seconds in all, the longest. A window, and the one before it.
        self._now = self._before = (0, 0.0, 0.0)

    def add(self, seconds: float) -> None:
        self._turn()
        count, total, longest = self._now
        self._now = (count + 1, total + seconds, max(longest, seconds))

    @property
    def average_s(self) -> float:
        self._turn()
        count = self._now[0] + self._before[0]
        return (self._now[1] + self._before[1]) / count if count else 0.0

    @property
    def longest_s(self) -> float:
        self._turn()
        return max(self._now[2], self._before[2])

    def _turn(self) -> None:
        age_s = self._clock() - self._began
        if age_s >= WINDOW_S:
            nothing = (0, 0.0, 0.0)
            self._before = self._now if age_s < 2 * WINDOW_S else nothing
            self._now = nothing
            self._began = self._clock()


@dataclass(slots=True)
class Counters:
    records: Counter[str] = field(default_factory=Counter)  # by topic
    batches: int = 0
    sent: int = 0
    changes: int = 0
    commits: int = 0
    aborts: int = 0
    commit_seconds: float = 0.0
    commits_lately: Lately = field(default_factory=Lately)
    # Since when no transaction has succeeded that was tried; None: the last one has.
    undone_since: float | None = None
    rebalances: int = 0
    # The loop was held up, and for how long in all.
    stalls: int = 0
    stalled_seconds: float = 0.0
    # By agent and reason: dropped records, and handlers that raised.
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)  # by table

    def committed(self, seconds: float) -> None:
        self.commits += 1
        self.commit_seconds += seconds
        self.commits_lately.add(seconds)
        self.undone_since = None

    def undone(self) -> None:
        if self.undone_since is None:
            self.undone_since = time.monotonic()

    def stalled(self, seconds: float) -> None:
        self.stalls += 1
        self.stalled_seconds += seconds
