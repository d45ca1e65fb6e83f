"""A store: one partition of one table, keys and values as bytes, sorted by key.

A write is atomic: the changes and the position they stand for, that is the offset of the
changelog to read next, are there together or not at all. So after a crash a store is as it
was at its position, and is brought up to date from there.

    stores.open("sold", 3)      → a store, as it was left
    store.write(changes, 120)   → it holds the changelog up to offset 119
    stores.forget("sold", 3)    → nothing of it is left

`write` may be called in a thread while others read; two writes at once may not. Each item
is read as it is at that moment; a scan shows the store as it was when the scan began, also
when it is written to meanwhile. What is read while it is being written is the table's
care: it looks at its own changes first.

Here are also the stores that live in memory: for tests, and for tables that are small
enough to be read from the changelog at each start. On disk: `rocksdb.py`; both must pass
`tests/contract/`. Whose a store is: `identity.py`.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol

from streamer.state.errors import StoreClosed, StoreHeld
from streamer.state.identity import Identity

Changes = Mapping[bytes, bytes | None]
"""The new value of each key; None: it is deleted."""

REFRESH_MS = 60_000
"""So exact is the moment that a store keeps of when it was in step."""


class Place(NamedTuple):
    table: str
    partition: int

    def __str__(self) -> str:
        return f"{self.table}:{self.partition}"


class Store(Protocol):
    def get(self, key: bytes) -> bytes | None: ...

    def items(
        self, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `start`, before `stop`, in order, as they are now."""

    def write(self, changes: Changes, position: int, *, in_step: bool = True) -> None:
        """All changes and the position, or nothing.

        `in_step`: they are the latest there are, as those of a transaction of ours; not so
        while the store is being brought up to date. `identity.py` says what it is for.
        """

    @property
    def position(self) -> int | None:
        """The offset of the changelog to read next; None: never written to."""

    @property
    def identity(self) -> Identity | None:
        """Whose it is; None: nobody has said, or in words we do not know."""

    def claim(self, identity: Identity) -> None:
        """Say whose it is; kept with the next write."""

    def count(self) -> int:
        """How many keys there are, exactly.

        The first call counts them; from then on each write keeps count, which makes it
        dearer: on disk it looks each key up.
        """

    def size_bytes(self) -> int:
        """The room it takes, about."""

    def close(self) -> None: ...


class Stores(Protocol):
    """Where stores are kept."""

    def open(self, table: str, partition: int) -> Store:
        """As it was left; empty if it was not. Raises StoreDamaged, StoreHeld."""

    def forget(self, table: str, partition: int) -> None:
        """Leave nothing of it, wherever it was; it must not be open."""

    def kept(self) -> Mapping[Place, int]:
        """What outlives this process, and when each was last in use (milliseconds)."""

    def close(self) -> None:
        """Close all that is open."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def refreshed(identity: Identity | None, in_step: bool, now: int) -> Identity | None:
    """The identity to be kept with a write, if the one that is kept will not do."""
    if identity is None or not in_step or now - identity.in_step_ms < REFRESH_MS:
        return None
    return replace(identity, in_step_ms=now)


class MemoryStore:
    """A dict, and its keys in order for those who scan."""

    def __init__(self, place: Place, clock: Callable[[], int]) -> None:
        self.place = place
        self.closed = False
        self._clock = clock
        self._data: dict[bytes, bytes] = {}
        self._bytes = 0
        # The keys as they were in order at the last scan, and those that are new since.
        self._order: list[bytes] = []
        self._added: set[bytes] = set()
        self._position: int | None = None
        self._identity: Identity | None = None
        # Writes come from another thread than scans.
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        if self.closed:
            raise _closed(self.place)
        return self._data.get(key)

    def items(
        self, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._lock:
            if self.closed:
                raise _closed(self.place)
            order = self._sorted()
            first = bisect_left(order, start)
            last = len(order) if stop is None else bisect_left(order, stop)
            return iter([(key, self._data[key]) for key in order[first:last]])

    def write(self, changes: Changes, position: int, *, in_step: bool = True) -> None:
        with self._lock:
            if self.closed:
                raise _closed(self.place)
            data = self._data
            for key, value in changes.items():
                before = data.pop(key, None) if value is None else data.get(key)
                if before is not None:
                    self._bytes -= len(key) + len(before)
                if value is None:
                    self._added.discard(key)
                    continue
                if before is None:
                    self._added.add(key)
                data[key] = value
                self._bytes += len(key) + len(value)
            self._position = position
            self._identity = (
                refreshed(self._identity, in_step, self._clock()) or self._identity
            )

    def _sorted(self) -> list[bytes]:
        if self._added or len(self._order) != len(self._data):
            # A key that was deleted and came back is among both. What is left of the old
            # order comes first: `sort` is quick at what is almost in order.
            left = [k for k in self._order if k in self._data and k not in self._added]
            self._order = sorted(left + list(self._added))
            self._added.clear()
        return self._order

    @property
    def position(self) -> int | None:
        return self._position

    @property
    def identity(self) -> Identity | None:
        return self._identity

    def claim(self, identity: Identity) -> None:
        self._identity = identity

    def count(self) -> int:
        return len(self._data)

    def size_bytes(self) -> int:
        return self._bytes

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._data = {}
            self._order, self._added = [], set()


class MemoryStores:
    """Stores that end with their process, or when they are closed."""

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._open: dict[Place, MemoryStore] = {}

    def open(self, table: str, partition: int) -> MemoryStore:
        place = Place(table, partition)
        before = self._open.get(place)
        if before and not before.closed:
            raise StoreHeld(f"{place} is open already.")
        self._open[place] = MemoryStore(place, self._clock)
        return self._open[place]

    def forget(self, table: str, partition: int) -> None:
        place = Place(table, partition)
        before = self._open.pop(place, None)
        assert before is None or before.closed, f"{place} is open"

    def kept(self) -> Mapping[Place, int]:
        return {}

    def close(self) -> None:
        for store in self._open.values():
            store.close()


def _closed(place: Place) -> StoreClosed:
    return StoreClosed(f"{place} is closed.")
