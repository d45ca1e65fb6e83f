"""One transactional id: who holds it, and how far its transaction is.

    Empty ──────┐
    Complete* ──┴─→ Ongoing ─→ Prepare{Commit,Abort} ─→ Complete{Commit,Abort}

A request is a function from the transaction as it is to what comes of it: an error code
(NONE: it is so already), or the transaction as it shall be. That one counts once it is
written down; the coordinator sees to it, and to what follows:

    Prepare*    the outcome is decided. Its markers go to every partition, then `completed`
    any other   nothing

CONCURRENT_TRANSACTIONS says that an outcome is decided and its markers are not all
written: who gets it may ask again a little later.

A producer is its id and its epoch. InitProducerId raises the epoch, and so fences whoever
had it before; an abort that the holder did not ask for raises it too. Epochs end at 32767,
which is for such an abort alone: then the next holder gets a new producer id.

    the holder asks for a new epoch itself (KIP-360)    it names the pair that it has
    it does so again, having heard no answer            it names the pair before: see
                                                        `previous_producer_id`, `last_epoch`

This is Apache Kafka's first version of transactions (TV1), where partitions are added
before they are written to and the epoch stays the same from one transaction to the next.
Nothing here waits or writes: see `coordinator.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeAlias

from streamer.broker.names import Place, Producer
from streamer.wire.error_codes import ErrorCode

NO_PRODUCER = -1
NO_EPOCH = -1
NO_TIME = -1
# An epoch from here on is not raised any more for a new holder.
LAST_EPOCH = (1 << 15) - 2


class Phase(IntEnum):
    """As numbered in `__transaction_state`. The last two are never written."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def title(self) -> str:
        """As Kafka's tools write it: `PrepareCommit`."""
        return self.name.title().replace("_", "")


PREPARED = frozenset({Phase.PREPARE_COMMIT, Phase.PREPARE_ABORT})
COMPLETE = {
    Phase.PREPARE_COMMIT: Phase.COMPLETE_COMMIT,
    Phase.PREPARE_ABORT: Phase.COMPLETE_ABORT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    transactional_id: str
    producer_id: int
    epoch: int = NO_EPOCH
    timeout_ms: int
    phase: Phase = Phase.EMPTY
    partitions: frozenset[Place] = frozenset()
    """Those of the transaction that is going on; none once its markers are written."""
    started_ms: int = NO_TIME
    """When the transaction began, also of the latest that is over."""
    updated_ms: int = NO_TIME
    previous_producer_id: int = NO_PRODUCER
    """The one whose epochs were used up, if the holder had the last of them."""
    last_epoch: int = NO_EPOCH
    """The epoch before, if whoever had that one may have this one too. Not written down:
    Kafka has no place for it, so who asks for it again over a restart is fenced."""

    @property
    def producer(self) -> Producer:
        return Producer(self.producer_id, self.epoch)

    @property
    def is_prepared(self) -> bool:
        """Whether its outcome is decided, and its markers are on their way."""
        return self.phase in PREPARED

    @property
    def is_commit(self) -> bool:
        return self.phase in (Phase.PREPARE_COMMIT, Phase.COMPLETE_COMMIT)

    @property
    def is_exhausted(self) -> bool:
        return self.epoch >= LAST_EPOCH


Outcome: TypeAlias = ErrorCode | Transaction


def init(
    transaction: Transaction | None,
    transactional_id: str,
    timeout_ms: int,
    expected: Producer | None,
    *,
    new_producer_id: int,
    now_ms: int,
) -> Outcome:
    """InitProducerId. The answer is the producer of an Empty transaction; one that is
    prepared to abort has to be completed first, and then this is asked again.

    `expected`: what the one who asks believes to be the producer. `new_producer_id`: one
    that nobody had, for when it is needed.
    """
    if transaction is None:
        return Transaction(
            transactional_id=transactional_id,
            producer_id=new_producer_id,
            epoch=0,
            timeout_ms=timeout_ms,
            updated_ms=now_ms,
        )
    if expected is not None and not _may_be_current(transaction, expected):
        return ErrorCode.PRODUCER_FENCED
    if transaction.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if expected is not None and expected.epoch not in (
        transaction.epoch,
        transaction.last_epoch,
    ):
        return ErrorCode.PRODUCER_FENCED
    if transaction.phase == Phase.ONGOING:
        return _fenced(transaction, now_ms)
    fresh = replace(
        transaction,
        timeout_ms=timeout_ms,
        phase=Phase.EMPTY,
        partitions=frozenset(),
        started_ms=NO_TIME,
        updated_ms=now_ms,
    )
    if expected is not None and expected.epoch == transaction.last_epoch:
        return fresh  # It asks again, and gets the same answer.
    last_epoch = NO_EPOCH if expected is None else transaction.epoch
    if transaction.is_exhausted:
        return replace(
            fresh,
            producer_id=new_producer_id,
            epoch=0,
            previous_producer_id=transaction.producer_id,
            last_epoch=last_epoch,
        )
    return replace(fresh, epoch=transaction.epoch + 1, last_epoch=last_epoch)


def _may_be_current(transaction: Transaction, expected: Producer) -> bool:
    if expected.id == transaction.producer_id:
        return True
    return expected.id == transaction.previous_producer_id and expected.epoch >= LAST_EPOCH


def _fenced(transaction: Transaction, now_ms: int) -> Transaction:
    """An abort that the holder did not ask for. While nobody else has come, it may go on
    with a new epoch, if it asks for one."""
    return replace(
        transaction,
        epoch=transaction.epoch + 1,
        last_epoch=transaction.epoch,
        phase=Phase.PREPARE_ABORT,
        updated_ms=now_ms,
    )


def add_partitions(
    transaction: Transaction | None,
    producer: Producer,
    partitions: Iterable[Place],
    *,
    now_ms: int,
) -> Outcome:
    """AddPartitionsToTxn; AddOffsetsToTxn with the partition of the group's offsets."""
    if transaction is None or transaction.producer_id != producer.id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if transaction.epoch != producer.epoch:
        return ErrorCode.PRODUCER_FENCED
    if transaction.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    added = transaction.partitions.union(partitions)
    if transaction.phase == Phase.ONGOING:
        if added == transaction.partitions:
            return ErrorCode.NONE
        return replace(transaction, partitions=added, updated_ms=now_ms)
    return replace(
        transaction,
        phase=Phase.ONGOING,
        partitions=added,
        started_ms=now_ms,
        updated_ms=now_ms,
    )


# What EndTxn is answered where no transaction is going on: to an abort, to a commit.
ENDED = {
    Phase.EMPTY: (ErrorCode.INVALID_TXN_STATE, ErrorCode.INVALID_TXN_STATE),
    Phase.PREPARE_COMMIT: (
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.CONCURRENT_TRANSACTIONS,
    ),
    Phase.PREPARE_ABORT: (
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.INVALID_TXN_STATE,
    ),
    Phase.COMPLETE_COMMIT: (ErrorCode.INVALID_TXN_STATE, ErrorCode.NONE),
    Phase.COMPLETE_ABORT: (ErrorCode.NONE, ErrorCode.INVALID_TXN_STATE),
}


def end(
    transaction: Transaction | None, producer: Producer, *, commit: bool, now_ms: int
) -> Outcome:
    """EndTxn."""
    if transaction is None or transaction.producer_id != producer.id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if transaction.epoch != producer.epoch:
        return ErrorCode.PRODUCER_FENCED
    if transaction.phase != Phase.ONGOING:
        return ENDED[transaction.phase][commit]
    phase = Phase.PREPARE_COMMIT if commit else Phase.PREPARE_ABORT
    return replace(transaction, phase=phase, updated_ms=now_ms)


def time_out(transaction: Transaction | None, *, now_ms: int) -> Outcome:
    """Abort it if it takes longer than its producer said."""
    if transaction is None or not is_late(transaction, now_ms):
        return ErrorCode.NONE
    return _fenced(transaction, now_ms)


def is_late(transaction: Transaction, now_ms: int) -> bool:
    return (
        transaction.phase == Phase.ONGOING
        and transaction.started_ms + transaction.timeout_ms < now_ms
    )


def is_expired(transaction: Transaction, expiration_ms: int, now_ms: int) -> bool:
    """Whether it was not used for so long that it is forgotten."""
    return (
        transaction.phase in (Phase.EMPTY, Phase.COMPLETE_COMMIT, Phase.COMPLETE_ABORT)
        and transaction.updated_ms + expiration_ms <= now_ms
    )


def completed(transaction: Transaction, *, now_ms: int) -> Transaction:
    """Its markers are written, everywhere."""
    return replace(
        transaction,
        phase=COMPLETE[transaction.phase],
        partitions=frozenset(),
        updated_ms=now_ms,
    )


def verify(transaction: Transaction | None, producer: Producer, place: Place) -> ErrorCode:
    """Whether this producer may write to a partition in its transaction now.

    INVALID_TXN_STATE: the partition was not added. A stale epoch is told as one, and not
    as a fenced producer: clients abort the transaction then, and go on.
    """
    if transaction is None or transaction.producer_id != producer.id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if transaction.epoch != producer.epoch:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if transaction.is_prepared:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if place not in transaction.partitions:
        return ErrorCode.INVALID_TXN_STATE
    return ErrorCode.NONE
