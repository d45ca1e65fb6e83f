"""What a partition remembers about those who write to it.

A producer that hears no answer sends its batch again, so the same batch may arrive twice.
For each producer id we keep its epoch and its last five batches, which tells apart:

    sequence range among the last five   repeated: answer with the offset it got before
    epoch below ours                     fenced: a newer producer has taken over
    new epoch, sequence 0                new: append it
    sequence follows the last            new: append it
    any other sequence                   out of order: a batch was lost on the way
    transactional                        as its coordinator says (`Verify`)
    not so, but a transaction is open    refused

Five, because a client keeps at most five requests in flight to a broker. A producer that
we know nothing of (it is new, or was quiet for so long that we forgot it) may start with
any sequence.

A producer may have one transaction open; the first of all open ones bounds what readers of
committed records may see.

A snapshot is Kafka's file with a row per batch, oldest first: Kafka's reader keeps the last
row of an id, ours gets the window back. Nothing here touches the disk; `recovery.py` brings
snapshot and log together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple, TypeAlias

from streamer.wire.batch import NO_SEQUENCE, Fault, Header, Marker, advance_sequence
from streamer.wire.checksum import crc32c
from streamer.wire.error_codes import ErrorCode

WINDOW = 5
NO_EPOCH = -1
NO_OFFSET = -1

SNAPSHOT_VERSION = 1
_SNAPSHOT_HEAD = Struct(">hI")
_COUNT = Struct(">i")
ROW = Struct(">qhiqiqiq")
"""Producer id, epoch, last sequence, last offset, offset delta, timestamp, coordinator's
epoch, first offset of the open transaction."""


class Sent(NamedTuple):
    """One batch of a producer that is in the log."""

    first_sequence: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    """When it was appended, by our clock."""

    @property
    def base_offset(self) -> int:
        return self.last_offset - self.offset_delta


class ProducerState(NamedTuple):
    epoch: int
    batches: tuple[Sent, ...]
    """The last five at most, oldest first, all of this epoch."""
    heard_ms: int
    """When its last batch or marker came, by our clock: clients' clocks expire nobody."""
    transaction_start: int = NO_OFFSET
    coordinator_epoch: int = NO_EPOCH

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE


class FinishedTransaction(NamedTuple):
    producer_id: int
    first_offset: int
    last_offset: int
    """Where its marker is."""
    commit: bool


class SnapshotDamaged(Exception):
    """Not what was written; an older snapshot and the log say the same."""


# Why a transactional batch may not be written, if so: from its header, and whether its
# producer has a transaction open on this partition already.
Verify: TypeAlias = Callable[[Header, bool], Fault | None]


def nobody_knows(header: Header, goes_on: bool) -> Fault | None:
    """Without a coordinator nobody can open a transaction."""
    if goes_on:
        return None
    return Fault(
        ErrorCode.INVALID_TXN_STATE,
        f"Producer {header.producer_id} has no transaction open on this partition.",
    )


def judge(
    state: ProducerState | None, header: Header, verify: Verify = nobody_knows
) -> Sent | Fault | None:
    """Where a repeated batch already is, why a batch is refused, or None: append it.

    `verify` knows what the coordinator of its transaction says.
    """
    if state is None:
        return _judge_transaction(state, header, verify)
    first, last = header.base_sequence, header.last_sequence
    if header.producer_epoch == state.epoch:
        for sent in state.batches:
            if sent.first_sequence == first and sent.last_sequence == last:
                return sent
    elif header.producer_epoch < state.epoch:
        return Fault(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"Producer {header.producer_id} has epoch {state.epoch} by now,"
            f" the batch has {header.producer_epoch}.",
        )
    expected = _next_sequence(state, header.producer_epoch)
    if first != expected:
        return Fault(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"Producer {header.producer_id} sent sequence {first} instead of {expected}.",
        )
    return _judge_transaction(state, header, verify)


def _judge_transaction(
    state: ProducerState | None, header: Header, verify: Verify
) -> Fault | None:
    is_open = state is not None and state.transaction_start >= 0
    if header.is_transactional:
        # What a later epoch writes is no part of what an earlier one has begun.
        goes_on = is_open and state is not None and state.epoch == header.producer_epoch
        return verify(header, goes_on)
    if is_open:
        return Fault(
            ErrorCode.INVALID_TXN_STATE,
            f"Producer {header.producer_id} has a transaction open, the batch has none.",
        )
    return None


def _next_sequence(state: ProducerState, epoch: int) -> int:
    if epoch != state.epoch or not state.batches:
        return 0
    return advance_sequence(state.last_sequence, 1)


def judge_marker(
    state: ProducerState | None, producer_id: int, producer_epoch: int, marker: Marker
) -> Fault | None:
    if state is None:
        return None
    if producer_epoch < state.epoch:
        return Fault(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"Producer {producer_id} has epoch {state.epoch} by now,"
            f" the marker has {producer_epoch}.",
        )
    if marker.coordinator_epoch < state.coordinator_epoch:
        return Fault(
            ErrorCode.TRANSACTION_COORDINATOR_FENCED,
            f"A coordinator of epoch {state.coordinator_epoch} has written here,"
            f" the marker is from epoch {marker.coordinator_epoch}.",
        )
    return None


class Producers:
    """All producers of one partition."""

    __slots__ = ("_states", "_transactions")

    def __init__(self) -> None:
        self._states: dict[int, ProducerState] = {}
        # First offset of each open transaction. They open at rising offsets and a dict
        # keeps their order, so the first one is the lowest.
        self._transactions: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._states)

    def get(self, producer_id: int) -> ProducerState | None:
        return self._states.get(producer_id)

    def items(self) -> Iterator[tuple[int, ProducerState]]:
        return iter(self._states.items())

    @property
    def first_open_transaction(self) -> int | None:
        return next(iter(self._transactions.values()), None)

    def accept(self, header: Header, base_offset: int, now_ms: int) -> None:
        """Note a batch that is in the log."""
        producer_id = header.producer_id
        state = self._states.get(producer_id)
        delta = header.last_offset_delta
        sent = Sent(
            header.base_sequence, header.last_sequence, base_offset + delta, delta, now_ms
        )
        start, coordinator_epoch = NO_OFFSET, NO_EPOCH
        batches: tuple[Sent, ...] = (sent,)
        if state is not None:
            start, coordinator_epoch = state.transaction_start, state.coordinator_epoch
            if state.epoch == header.producer_epoch:
                batches = (*state.batches[1 - WINDOW :], sent)
        if start < 0 and header.is_transactional:
            start = self._transactions[producer_id] = base_offset
        self._states[producer_id] = ProducerState(
            header.producer_epoch, batches, now_ms, start, coordinator_epoch
        )

    def finish(
        self, header: Header, marker: Marker, offset: int, now_ms: int
    ) -> FinishedTransaction | None:
        """Note a marker that is in the log; the transaction it ended, if one was open."""
        producer_id = header.producer_id
        state = self._states.get(producer_id)
        same_epoch = state is not None and state.epoch == header.producer_epoch
        self._states[producer_id] = ProducerState(
            header.producer_epoch,
            state.batches if state is not None and same_epoch else (),
            now_ms,
            NO_OFFSET,
            marker.coordinator_epoch,
        )
        first = self._transactions.pop(producer_id, None)
        if first is None:
            return None
        return FinishedTransaction(producer_id, first, offset, marker.commit)

    def expire(self, now_ms: int, expiration_ms: int) -> list[int]:
        """Forget who was quiet for so long; never amid a transaction."""
        quiet = [
            producer_id
            for producer_id, state in self._states.items()
            if now_ms - state.heard_ms >= expiration_ms and state.transaction_start < 0
        ]
        for producer_id in quiet:
            del self._states[producer_id]
        return quiet

    def snapshot(self) -> bytes:
        rows = b"".join([_rows(*item) for item in self._states.items()])
        body = _COUNT.pack(len(rows) // ROW.size) + rows
        return _SNAPSHOT_HEAD.pack(SNAPSHOT_VERSION, crc32c(body)) + body

    @classmethod
    def restore(cls, data: bytes) -> Producers:
        producers = cls()
        for row in read_snapshot(data):
            producers._restore_row(row)
        producers._transactions = dict(
            sorted(producers._transactions.items(), key=lambda item: item[1])
        )
        return producers

    def _restore_row(self, row: SnapshotRow) -> None:
        known = self._states.get(row.producer_id)
        before = known.batches if known is not None and known.epoch == row.epoch else ()
        sent = row.sent
        self._states[row.producer_id] = ProducerState(
            row.epoch,
            before if sent is None else (*before[1 - WINDOW :], sent),
            row.timestamp,
            row.transaction_start,
            row.coordinator_epoch,
        )
        if row.transaction_start >= 0:
            self._transactions[row.producer_id] = row.transaction_start


class SnapshotRow(NamedTuple):
    producer_id: int
    epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    coordinator_epoch: int
    transaction_start: int

    @property
    def sent(self) -> Sent | None:
        """None for a producer of which only a marker is known."""
        if self.last_sequence < 0:
            return None
        first = advance_sequence(self.last_sequence, -self.offset_delta)
        return Sent(
            first, self.last_sequence, self.last_offset, self.offset_delta, self.timestamp
        )


def _rows(producer_id: int, state: ProducerState) -> bytes:
    sent_or_nothing = state.batches or (
        Sent(-1, NO_SEQUENCE, NO_OFFSET, 0, state.heard_ms),
    )
    return b"".join(
        [
            ROW.pack(
                producer_id,
                state.epoch,
                sent.last_sequence,
                sent.last_offset,
                sent.offset_delta,
                sent.timestamp,
                state.coordinator_epoch,
                state.transaction_start,
            )
            for sent in sent_or_nothing
        ]
    )


def read_snapshot(data: bytes) -> list[SnapshotRow]:
    """The rows of a `.snapshot` file, ours or Kafka's."""
    start = _SNAPSHOT_HEAD.size + _COUNT.size
    if len(data) < start:
        raise SnapshotDamaged("it is too short")
    version, crc = _SNAPSHOT_HEAD.unpack_from(data)
    if version != SNAPSHOT_VERSION:
        raise SnapshotDamaged(f"its version is {version}, not {SNAPSHOT_VERSION}")
    if crc32c(data[_SNAPSHOT_HEAD.size :]) != crc:
        raise SnapshotDamaged("it does not match its checksum")
    (count,) = _COUNT.unpack_from(data, _SNAPSHOT_HEAD.size)
    if len(data) != start + count * ROW.size:
        raise SnapshotDamaged(f"it says {count} rows and has {len(data)} bytes")
    return [SnapshotRow._make(row) for row in ROW.iter_unpack(data[start:])]
