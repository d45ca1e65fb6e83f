"""Bringing stores up to date from their changelogs.

Several partitions at once, as bytes: nothing is decoded. What is read is gathered in one
dict a partition, so that of many changes of a key only the last is written; each write
moves the store's position on, so a recovery that is stopped or killed goes on from there.

It ends where the changelog ended when it began. That is a position, and no record need be
there to see: a changelog may be empty, have been compacted, or end in records that were
aborted and in markers of transactions. Nor is it the end of what is committed. What the
former owner of a partition wrote last may be committed and its marker still on the way, and
a store without it would be wrong for good. So the end is that of all records, and whatever
is undecided before it is waited for; a transaction ends within its timeout. Begin once the
former owner can write no more: when the group's offsets have been told as stable.

`run` blocks and is meant for a thread; `progress` and `stop` are for others. Whether what a
store holds may be used at all was decided before (`opening.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import cast

from streamer.client.interface import (
    Admin,
    BrokerUnavailable,
    Consumer,
    Message,
    TopicPartition,
)
from streamer.state.store import Store

CHUNK = 20_000
"""Records fetched in one call; what is there, if it is less."""
WAIT_SECONDS = 0.05
"""For records, until `stop` is looked at again."""
KEYS_MAX = 100_000
"""Gathered in all before they are written: the more, the fewer writes of one key."""
BYTES_MAX = 32 << 20
KEY_BYTES = 100
"""What a key takes in a dict, about."""
SILENCE_SECONDS = 3.0
"""Without a record, until that is called trouble."""
WRITE_SECONDS = 1.0
"""As much is read again, at most, by a recovery that was killed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a recovery is, in offsets: of some of them there is no record any more."""

    done: int = 0
    total: int = 0
    records: int = 0
    # Records without a key say nothing of a table: somebody else has written them.
    skipped: int = 0
    seconds: float = 0.0
    # What each partition has still to do; those that are up to date are left out.
    left: Mapping[TopicPartition, int] = field(default_factory=dict)
    # What it waits for, if it does not get on.
    trouble: str = ""

    @property
    def rate(self) -> float:
        """Offsets a second, on average."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Until it is done, if it goes on like that; None: cannot be told."""
        if self.done >= self.total:
            return 0.0
        return (self.total - self.done) / self.rate if self.rate > 0 else None


@dataclass(slots=True)
class _Partition:
    """A changelog partition, on its way into its store."""

    store: Store
    start: int
    end: int
    position: int  # the next offset to be read
    # Read, and not yet written: the last value of each key.
    gathered: dict[bytes | None, bytes | None] = field(default_factory=dict)

    @property
    def is_restored(self) -> bool:
        return self.position >= self.end

    def gather(self, run: Sequence[Message]) -> tuple[int, float]:
        """Take the records of a run; how many were without a key, and the bytes added."""
        kind = type(run[0])
        # Methods of the class, not of each record: in C from end to end.
        keys = list(map(kind.key, run))
        values = list(map(kind.value, run))
        before = len(self.gathered)
        self.gathered.update(zip(keys, values, strict=True))
        without_key = 0
        if None in self.gathered:
            del self.gathered[None]
            without_key = keys.count(None)
        self.position = run[-1].offset() + 1
        return without_key, (len(self.gathered) - before) * (_average(values) + KEY_BYTES)

    def write(self) -> None:
        """Into the store, with the position. One that is behind is no younger for it."""
        changes = cast("dict[bytes, bytes | None]", self.gathered)
        self.store.write(changes, self.position, in_step=self.is_restored)
        self.gathered = {}


class Recovery:
    def __init__(
        self,
        consumer: Consumer,
        admin: Admin,
        wanted: Mapping[TopicPartition, Store],
        *,
        restored: Callable[[TopicPartition], None] = lambda _: None,
        in_vain: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`consumer` is ours while `run` lasts. `restored` is called, in that thread, for
        each partition that is up to date; from then on its store is left alone. `in_vain`
        stops it, as `stop` does, and may be set before."""
        self._consumer = consumer
        self._admin = admin
        self._wanted = dict(wanted)
        self._restored = restored
        self._clock = clock
        self._open: dict[TopicPartition, _Partition] = {}
        self._stopped = in_vain or threading.Event()
        self._records = self._skipped = self._total = 0
        self._began = self._heard = 0.0
        self._bytes = 0.0
        self._trouble = ""
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return self._progress

    def stop(self) -> None:
        """Let `run` return soon; what it had not written is read again by the next."""
        self._stopped.set()

    def run(self) -> bool:
        """Bring all stores up to date; False when it was stopped before."""
        self._began = self._heard = written = self._clock()
        self._begin()
        self._tell()
        self._finish_restored()
        if not self._open:
            return True
        try:
            self._consumer.assign({at: part.start for at, part in self._open.items()})
            while self._open and not self._stopped.is_set():
                self._read()
                now = self._clock()
                if self._is_much or now - written > WRITE_SECONDS:
                    self._write_all()
                    written = now
                self._tell()
                self._finish_restored()
        finally:
            self._consumer.assign({})
        return not self._open

    def _begin(self) -> None:
        """Find where to start and to end, before anything is read."""
        ends = self._admin.end_offsets(self._wanted)
        begins = self._admin.first_offsets(self._wanted)
        for at, store in self._wanted.items():
            start = max(store.position or 0, begins[at])
            self._open[at] = _Partition(store, start, ends[at], start)
        self._total = sum(max(0, part.end - part.start) for part in self._open.values())

    def _read(self) -> None:
        """Take what is there."""
        try:
            found = self._consumer.consume(CHUNK, WAIT_SECONDS)
        except BrokerUnavailable as error:
            self._trouble = error.problem  # the client goes on looking for it
            return
        for at, run in _runs(found):
            part = self._open.get(at)
            # One that is restored may be written to by its owner by now.
            if part is not None:
                without_key, added = part.gather(run)
                self._records += len(run)
                self._skipped += without_key
                self._bytes += added
        for at, end in self._consumer.ended().items():
            # Noted after the records before it have been handed out.
            if at in self._open:
                self._open[at].position = max(self._open[at].position, end)
        if found:
            self._heard, self._trouble = self._clock(), ""
        else:
            self._trouble = self._undecided() or self._silence()

    @property
    def _is_much(self) -> bool:
        keys = sum(len(part.gathered) for part in self._open.values())
        return keys > KEYS_MAX or self._bytes > BYTES_MAX

    def _write_all(self) -> None:
        for part in self._open.values():
            part.write()
        self._bytes = 0.0

    def _finish_restored(self) -> None:
        for at, part in list(self._open.items()):
            if part.is_restored:
                part.write()
                del self._open[at]
                self._tell()
                self._restored(at)

    def _undecided(self) -> str:
        for at, end in self._consumer.ended().items():
            part = self._open.get(at)
            if part is not None and end == part.position < part.end:
                return (
                    f"A transaction is open since offset {end} of {at}. It ends by itself "
                    "when its timeout has passed; `streamer txn list` shows it."
                )
        return ""

    def _silence(self) -> str:
        if self._clock() - self._heard < SILENCE_SECONDS:
            return ""
        return "The broker sends nothing, though there is more: is it there?"

    def _tell(self) -> None:
        left = {
            at: part.end - part.position
            for at, part in self._open.items()
            if not part.is_restored
        }
        self._progress = Progress(
            done=self._total - sum(left.values()),
            total=self._total,
            records=self._records,
            skipped=self._skipped,
            seconds=self._clock() - self._began,
            left=MappingProxyType(left),
            trouble=self._trouble if left else "",
        )


def _runs(found: Sequence[Message]) -> Iterator[tuple[TopicPartition, list[Message]]]:
    """Records in a row that are of one partition: they come in such rows."""
    if not found:
        return
    kind = type(found[0])
    for topic, of_topic in groupby(found, kind.topic):
        for partition, run in groupby(of_topic, kind.partition):
            yield TopicPartition(topic, partition), list(run)


def _average(values: Sequence[bytes | None]) -> float:
    """The size of a value, by a few of them."""
    some = values[:: len(values) // 16 + 1]
    return sum(len(value) for value in some if value is not None) / len(some)
