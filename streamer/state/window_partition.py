"""One partition of a windowed table: its keys are (start of the window, key).

    stream time    the highest timestamp that a record has brought to this partition; it
                   decides what is late and what is over
    in the store   windows by start, then by key, so that those that are over are one range
                   from the left; behind them all, under TIME, the stream time

Stream time is committed with the windows and undone with them: after a crash, or on
another worker, records are judged as they were the first time. That of a record in hand
may be among it: it is handled first when all goes on from there, and is not late for
having been seen.

Windows that have expired are not seen any more at once. They are removed when a commit
comes by, as keys that are deleted: by the same transaction, in the changelog too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from streamer.state.store import Store
from streamer.state.table_partition import ABSENT, Changes, Coding, TablePartition
from streamer.window import Window, split_window_key, window_key

TIME: Final = b"\xff"
"""Shorter than the key of any window, and behind those before the year 2000000."""
NEVER: Final = -(2**62)
"""The stream time of a partition that has seen no record."""

EXPIRED_MAX = 10_000
"""So many keys are removed by one commit, that it does not take long; others wait."""


def window_coding(plain: Coding) -> Coding:
    """That of a table, for keys with the start of a window."""
    encode_key, decode_key = plain.encode_key, plain.decode_key

    def encode(windowed: tuple[int, Any]) -> bytes:
        start_ms, key = windowed
        return window_key(start_ms, encode_key(key))

    def decode(stored: bytes) -> tuple[int, Any]:
        start_ms, data = split_window_key(stored)
        key = decode_key(data)
        # JSON has lists only: a key that comes from there was a tuple.
        return start_ms, tuple(key) if key.__class__ is list else key

    return plain._replace(encode_key=encode, decode_key=decode)


class WindowPartition(TablePartition):
    __slots__ = (
        "_cleaned_before",
        "_closing_ms",
        "_removed",
        "committed_ms",
        "time_ms",
        "window",
    )

    def __init__(self, store: Store, number: int, coding: Coding, window: Window) -> None:
        super().__init__(store, number, coding)
        self.window = window
        # Stream time: now, and of what is committed.
        self.time_ms = self.committed_ms = self._closing_ms = NEVER
        # Windows that start before this have been removed; None: nobody has looked.
        self._cleaned_before: int | None = None
        self._removed: list[bytes] = []
        self._load()

    def _load(self) -> None:
        found = self.store.get(TIME)
        self.time_ms = self.committed_ms = NEVER if found is None else int(found)
        self._cleaned_before = None

    # What is there.

    def window_items(self, start_ms: int) -> Iterator[tuple[Any, Any]]:
        """Keys and values of one window, with what is not committed on top."""
        changed = {
            windowed: value
            for windowed, value in {**self.closing, **self.open}.items()
            if windowed[0] == start_ms
        }
        for key, value in self.committed_window(start_ms):
            if (start_ms, key) not in changed:
                yield key, value
        for (_, key), value in changed.items():
            if value is not ABSENT:
                yield key, self.as_seen(value)

    def committed_window(self, start_ms: int) -> Iterator[tuple[Any, Any]]:
        """Keys and values of one window, for readers from outside."""
        start, stop = window_key(start_ms), window_key(start_ms + 1)
        for (_, key), value in self.committed_items(start, stop):
            yield key, value

    def committed_items(
        self, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[Any, Any]]:
        first = self.window.expired_before(self.committed_ms)
        if first is not None:
            start = max(start, _bound(first))
        return super().committed_items(start, TIME if stop is None else stop)

    # For a transaction.

    def close_changes(self) -> Changes:
        self.let_go()
        if not self.open:
            return {}  # only a record in hand has changed anything
        expired = self._expired()
        changes = super().close_changes()
        changes.update(dict.fromkeys(expired))
        if self.time_ms > self.committed_ms:
            changes[TIME] = b"%d" % self.time_ms
        self._closing_ms = self.time_ms
        return changes

    def committed(self) -> None:
        super().committed()
        self.committed_ms = self._closing_ms
        self.forget(self._removed)
        self._removed = []

    def aborted(self) -> None:
        super().aborted()
        self.time_ms = self.committed_ms
        self._cleaned_before = None
        self._removed = []

    def forget_known(self) -> None:
        super().forget_known()
        self._load()

    def _expired(self) -> list[bytes]:
        """Keys of windows that are over, if time has gone on by a window since the last."""
        before, cleaned = self.window.expired_before(self.time_ms), self._cleaned_before
        if before is None:
            return []
        if cleaned is not None and before - cleaned < self.window.step_ms:
            return []
        for windowed in [one for one in self.open if one[0] < before]:
            del self.open[windowed]
        start = b"" if cleaned is None else _bound(cleaned)
        found = islice(self.store.items(start, _bound(before)), EXPIRED_MAX)
        self._removed = [stored for stored, _ in found]
        full = len(self._removed) == EXPIRED_MAX
        self._cleaned_before = split_window_key(self._removed[-1])[0] if full else before
        return self._removed


def _bound(start_ms: int) -> bytes:
    """Below all windows that start here or later, however early that is."""
    return window_key(max(start_ms, -(2**63)))
