"""What compaction keeps of a batch.

    a record            if it is the newest of its key; without a key it goes
    a tombstone         until its batch's delete horizon: the first cleaning sets that to
                        `delete.retention.ms` from then, so that readers see the deletion
    an aborted one      never
    a marker            until nothing of its transaction is left and its horizon, set the
                        same way, has passed
    an empty batch      if it tells of a producer's latest batches or of its epoch: who
                        sends again must be recognised

Batches keep their offsets, producer, sequence and codec; those that lose nothing stay as
they are, to the byte. Nothing is decided beyond the end of the key map.

`KeyMap` is filled in a first pass over the dirty part; `Rules` judge in a second pass over
everything. Both passes follow the transactions (`Transactions`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from streamer.log.transactions import Aborted
from streamer.wire.batch import (
    DELETE_HORIZON,
    HEADER_SIZE,
    Buffer,
    Header,
    emptied,
    read_marker,
    sealed,
)
from streamer.wire.compression import UNPACKED_BYTES_MAX
from streamer.wire.record import skim_records, unpacked, with_some_records

SHORT_KEY_BYTES = 24
"""Longer keys are remembered by a digest, which is longer than any short key."""


class Producer(NamedTuple):
    """What must be known of one after a restart."""

    epoch: int
    last_offsets: tuple[int, ...]
    """Of its latest batches; none if only a marker tells of it."""


class Transactions:
    """Follows transactions through the batches: which were aborted, and whose records are
    still there."""

    __slots__ = ("_aborted", "_coming", "_committed", "kept")

    def __init__(self, aborted: Iterable[Aborted]) -> None:
        self._coming = sorted(aborted, key=lambda one: one.first_offset, reverse=True)
        self._aborted: dict[int, tuple[Aborted, bool]] = {}
        """By producer, those that we are amid of; whether a batch of it was seen."""
        self._committed: set[int] = set()
        self.kept: list[Aborted] = []
        """Those that readers must still be told of, as their markers are met."""

    def sees(self, header: Header, batch: Buffer) -> bool:
        """Go past a batch; whether what is in it may go, for all that transactions say."""
        while self._coming and self._coming[-1].first_offset <= header.last_offset:
            begun = self._coming.pop()
            self._aborted.setdefault(begun.producer_id, (begun, False))
        if header.is_control:
            return self._ends(header, batch)
        if not header.is_transactional:
            return False
        if header.producer_id in self._aborted:
            self._aborted[header.producer_id] = (self._aborted[header.producer_id][0], True)
            return True
        self._committed.add(header.producer_id)
        return False

    def _ends(self, header: Header, batch: Buffer) -> bool:
        """Whether the transaction has left nothing but this marker."""
        marker = read_marker(batch)
        if marker is None:
            return header.record_count == 0
        if marker.commit:
            was_there = header.producer_id in self._committed
            self._committed.discard(header.producer_id)
            return not was_there
        aborted, was_there = self._aborted.pop(header.producer_id, (None, False))
        if aborted is not None and was_there:
            self.kept.append(aborted)
        return not was_there


def remembered(key: bytes) -> bytes:
    """A key as the map has it; a map's memory must not depend on how long keys are."""
    if len(key) <= SHORT_KEY_BYTES:
        return key
    return blake2b(key, digest_size=SHORT_KEY_BYTES + 1).digest()


class KeyMap:
    """The newest offset of each key in the dirty part, as far as memory goes."""

    __slots__ = ("_keys_max", "_start", "end", "latest", "tombstones")

    def __init__(self, start: int, keys_max: int) -> None:
        self._start = start
        self._keys_max = keys_max
        self.end = start
        """What lies behind is not mapped, and left alone."""
        self.latest: dict[bytes, int] = {}
        self.tombstones: set[int] = set()
        """Base offsets of the batches that have some."""

    def has_room_for(self, header: Header) -> bool:
        """For one batch there always is."""
        return not self.latest or len(self.latest) + header.record_count <= self._keys_max

    def add(self, header: Header, batch: Buffer) -> None:
        base_offset, start, latest = header.base_offset, self._start, self.latest
        data = unpacked(batch, header, UNPACKED_BYTES_MAX)
        for _, _, delta, key, has_value in skim_records(data, header.record_count):
            if key is not None and base_offset + delta >= start:
                if len(key) > SHORT_KEY_BYTES:
                    key = remembered(key)
                latest[key] = base_offset + delta
            if not has_value:
                self.tombstones.add(base_offset)

    def passed(self, header: Header) -> None:
        """It is mapped, or there was nothing in it to be."""
        self.end = max(self.end, header.last_offset + 1)

    def survivors(self) -> array[int]:
        """The offsets that are the newest of their key, rising."""
        return array("q", sorted(self.latest.values()))


class Rules:
    """The judgement of each batch in turn, oldest first."""

    __slots__ = (
        "_first_dirty",
        "_keys",
        "_new_horizon",
        "_now_ms",
        "_producers",
        "_survivors",
        "transactions",
    )

    def __init__(
        self,
        keys: KeyMap,
        first_dirty: int,
        transactions: Transactions,
        producers: Mapping[int, Producer],
        *,
        now_ms: int,
        delete_retention_ms: int,
    ) -> None:
        self._keys = keys
        self._first_dirty = first_dirty
        self._survivors = keys.survivors()
        self._producers = producers
        self._now_ms = now_ms
        self._new_horizon = now_ms + delete_retention_ms
        self.transactions = transactions

    def kept(self, header: Header, batch: Buffer) -> Buffer | None:
        """What stays of a batch: `batch` itself if all does, None if nothing."""
        may_go = self.transactions.sees(header, batch)
        if header.base_offset >= self._keys.end:
            return batch
        if header.is_control:
            return self._kept_marker(header, batch, may_go)
        kept = None if may_go else self._kept_records(header, batch)
        if kept is None and self._tells_of_producer(header):
            return batch if header.record_count == 0 else emptied(header)
        return kept

    def _kept_marker(self, header: Header, batch: Buffer, may_go: bool) -> Buffer | None:
        if not may_go or self._tells_of_producer(header):
            return batch
        if header.delete_horizon is None:
            return _with_horizon(header, batch, self._new_horizon)
        return batch if self._now_ms < header.delete_horizon else None

    def _tells_of_producer(self, header: Header) -> bool:
        producer = self._producers.get(header.producer_id)
        if producer is None:
            return False
        if producer.last_offsets:
            return header.last_offset in producer.last_offsets
        return header.is_control and header.producer_epoch == producer.epoch

    def _kept_records(self, header: Header, batch: Buffer) -> Buffer | None:
        if header.base_offset >= self._first_dirty:
            # The map knows all of them: mostly there is no need to look.
            count = self._count_survivors(header)
            if count == 0:
                return None
            whole = count == header.record_count
            if whole and header.base_offset not in self._keys.tombstones:
                return batch
        if header.record_count == 0:
            return None
        return self._filtered(header, batch)

    def _count_survivors(self, header: Header) -> int:
        first = bisect_left(self._survivors, header.base_offset)
        return bisect_left(self._survivors, header.last_offset + 1, first) - first

    def _filtered(self, header: Header, batch: Buffer) -> Buffer | None:
        base_offset, latest = header.base_offset, self._keys.latest
        horizon = header.delete_horizon
        deletions_stay = horizon is None or self._now_ms < horizon
        data = unpacked(batch, header, UNPACKED_BYTES_MAX)
        kept: list[tuple[int, int]] = []
        has_tombstone = False
        for start, end, delta, key, has_value in skim_records(data, header.record_count):
            if key is None:
                continue
            if len(key) > SHORT_KEY_BYTES:
                key = remembered(key)
            if latest.get(key, -1) <= base_offset + delta and (has_value or deletions_stay):
                kept.append((start, end))
                has_tombstone = has_tombstone or not has_value
        if not kept:
            return None
        dated = has_tombstone and horizon is None
        if len(kept) == header.record_count and not dated:
            return batch
        return with_some_records(header, data, kept, self._new_horizon if dated else None)


def _with_horizon(header: Header, batch: Buffer, horizon: int) -> bytes:
    """A marker with its date. Its record is told by the base timestamp, as is any."""
    data = bytes(memoryview(batch)[HEADER_SIZE : header.size])
    spans = [(start, end) for start, end, *_ in skim_records(data, header.record_count)]
    if not spans:
        attributes = header.attributes | DELETE_HORIZON
        return sealed(header._replace(attributes=attributes, base_timestamp=horizon), data)
    return with_some_records(header, data, spans, horizon)


def producers_from(rows: Iterable[Sequence[int]]) -> dict[int, Producer]:
    """From id, epoch and last offsets of each."""
    return {row[0]: Producer(row[1], tuple(row[2:])) for row in rows}
