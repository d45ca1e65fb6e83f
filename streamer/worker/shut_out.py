"""Whether it is another worker that shuts our producer out, again and again.

A producer is shut out when it, or its broker, was silent for longer than a transaction
lasts, and when somebody else begins with its transactional id. It is not told which. But
the first takes at least that time on each occasion, however often a broker goes away; two
workers that have one slot shut each other out with every commit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

TIMES = 5


class ShutOut:
    def __init__(
        self, transaction_timeout_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._within_s = (TIMES - 1) * transaction_timeout_s
        self._now = now
        self._at: deque[float] = deque(maxlen=TIMES)

    def again(self) -> bool:
        """It has happened once more; whether that was too often for mere silence."""
        self._at.append(self._now())
        return len(self._at) == TIMES and self._at[-1] - self._at[0] < self._within_s
