"""Windows: which spans of event time a record belongs to, and when they are over.

    Tumbling("1m")            one after the other        |----|----|----|
    Hopping("1m", "20s")      a new one every 20 s       |----|
                                                           |----|
                                                             |----|

The rules, which are Kafka Streams':

    in        a window holds start <= timestamp < start + size; starts are multiples
              of the step, counted from the epoch
    late      once stream time has reached end + grace, the window is closed: its
              result stands, a record for it comes too late
    expired   `expires` after its end the window is removed, but never before it is
              closed; without `expires` it stays

Time is stream time, the highest timestamp seen, never the clock on the wall: so a
replay gives the answers of the first run. Inside, it is whole milliseconds, as Kafka
has it. Users speak of seconds, or write "500ms": `schedule.py` reads that.

In a store the start comes first in the key, so that the windows to close or to remove
are one range from the left. Nothing here keeps state: tables do (`table.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streamer.errors import StreamerError
from streamer.schedule import Duration, milliseconds


class InvalidWindow(StreamerError):
    remedy = 'Windows are made like this: Tumbling("1m") or Hopping("1m", step="20s").'


class WindowRange(NamedTuple):
    """A window as its user sees it, in seconds; the end is no longer part of it."""

    start: float
    end: float

    @property
    def start_ms(self) -> int:
        """The start as windows and stores count it."""
        return round(self.start * 1000)


@dataclass(frozen=True, init=False)
class Window:
    """What tumbling and hopping windows share: the arithmetic."""

    size_ms: int
    step_ms: int
    grace_ms: int
    expires_ms: int | None

    def __init__(
        self, size: Duration, step: Duration, grace: Duration, expires: Duration | None
    ) -> None:
        # The only place that may write to a frozen instance; after it, nobody can.
        write = object.__setattr__
        write(self, "size_ms", _at_least_one(milliseconds(size, "size"), "size"))
        write(self, "step_ms", _at_least_one(milliseconds(step, "step"), "step"))
        write(self, "grace_ms", milliseconds(grace, "grace"))
        kept = None if expires is None else milliseconds(expires, "expires")
        write(self, "expires_ms", kept)
        if self.step_ms > self.size_ms:
            raise InvalidWindow(
                f"A step of {self.step_ms} ms is longer than the window's {self.size_ms}: "
                "what comes between two windows would be lost.",
                remedy=f"Make the step {self.size_ms} ms or less.",
            )

    def starts(self, timestamp_ms: int) -> Sequence[int]:
        """The starts of all windows that hold this timestamp, rising.

        No window that starts before the epoch holds what comes after it: Kafka Streams
        has no such windows, and we answer the same.
        """
        size, step = self.size_ms, self.step_ms
        first = ((timestamp_ms - size) // step + 1) * step
        if first < 0 <= timestamp_ms:
            first = 0
        return range(first, timestamp_ms + 1, step)

    def current(self, timestamp_ms: int) -> int:
        """The start of the latest window that holds this timestamp, as in Faust.

        Of hopping windows that is the newest, which is still filling; the one about to
        close is `starts(timestamp_ms)[0]`, Faust's `earliest`.
        """
        return timestamp_ms - timestamp_ms % self.step_ms

    def delta(self, timestamp_ms: int, before: Duration) -> int:
        """The start of the window that was current so long before this timestamp."""
        return self.current(timestamp_ms - milliseconds(before, "delta"))

    def range(self, start_ms: int) -> WindowRange:
        """The window that starts here, for its user to read."""
        return WindowRange(start_ms / 1000, (start_ms + self.size_ms) / 1000)

    def is_late(self, start_ms: int, stream_time_ms: int) -> bool:
        """Whether the window that starts here is closed: no record may change it."""
        return start_ms + self.size_ms + self.grace_ms <= stream_time_ms

    def closed_before(self, stream_time_ms: int) -> int:
        """Windows that start before this are closed, and no others."""
        return stream_time_ms - self.size_ms - self.grace_ms + 1

    def expired_before(self, stream_time_ms: int) -> int | None:
        """Windows that start before this are to be removed; None: windows stay."""
        if self.expires_ms is None:
            return None
        return stream_time_ms - self.size_ms - max(self.expires_ms, self.grace_ms) + 1


@dataclass(frozen=True, init=False)
class Tumbling(Window):
    """Windows one after the other: each record is in exactly one."""

    def __init__(
        self, size: Duration, *, grace: Duration = 0, expires: Duration | None = None
    ) -> None:
        super().__init__(size, size, grace, expires)


@dataclass(frozen=True, init=False)
class Hopping(Window):
    """Windows that overlap: a new one every `step`, each `size` long."""

    def __init__(
        self,
        size: Duration,
        step: Duration,
        *,
        grace: Duration = 0,
        expires: Duration | None = None,
    ) -> None:
        super().__init__(size, step, grace, expires)


# Faust's names.
TumblingWindow = Tumbling
HoppingWindow = Hopping


def _at_least_one(found: int, what: str) -> int:
    if found < 1:
        raise InvalidWindow(f"{what} = 0: a window takes a millisecond at least.")
    return found


# Stores compare keys as unsigned bytes; shifted by this, negative starts come first.
_SHIFT = 2**63


def window_key(start_ms: int, key: bytes = b"") -> bytes:
    """The key in a store; without `key`, the bound below all windows that start here."""
    return (start_ms + _SHIFT).to_bytes(8, "big") + key


def split_window_key(stored: bytes) -> tuple[int, bytes]:
    """The start and the key of which `window_key` made this."""
    if len(stored) < 8:
        raise InvalidWindow(
            f"The stored key {stored!r} is not one of a windowed table.",
            remedy="A table that had no window yet needs a new name to get one.",
        )
    return int.from_bytes(stored[:8], "big") - _SHIFT, stored[8:]
