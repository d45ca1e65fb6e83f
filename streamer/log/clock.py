"""The time, as an argument: tests move it, and no other module of log or broker asks."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """What the calendar says, in milliseconds; it may jump either way."""

    def monotonic(self) -> float:
        """Seconds that only ever go forward, for waiting and for time-outs."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
