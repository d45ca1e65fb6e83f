"""Sequences, epochs and markers, as Apache Kafka's ProducerStateManager judges them."""

from __future__ import annotations

import pytest
from support.logs import NOW, batch_of, coordinated

from streamer.log.producers import (
    Producers,
    Sent,
    SnapshotDamaged,
    judge,
    judge_marker,
    nobody_knows,
    read_snapshot,
)
from streamer.wire.batch import Fault, Header, Marker, control_batch, read_header
from streamer.wire.error_codes import ErrorCode

LAST = 2**31 - 1


def header(sequence: int, count: int = 1, epoch: int = 0, *, txn: bool = False) -> Header:
    values = [b"v"] * count
    data = batch_of(1, sequence, *values, epoch=epoch, transactional=txn)
    return read_header(data)


def producers(*headers: Header) -> Producers:
    made = Producers()
    offset = 0
    for each in headers:
        made.accept(each, offset, NOW)
        offset += each.record_count
    return made


def verdict(known: Producers, each: Header) -> Sent | Fault | None:
    return judge(known.get(1), each, coordinated)


def code(known: Producers, each: Header) -> ErrorCode | None:
    found = verdict(known, each)
    return found.code if isinstance(found, Fault) else None


@pytest.mark.parametrize("sent", range(1, 9))
@pytest.mark.parametrize("back", range(1, 9))
def test_the_last_five_batches_are_known_and_no_others(sent: int, back: int) -> None:
    known = producers(*[header(2 * each, 2) for each in range(sent)])
    number = sent - back
    if number < 0:
        return
    found = verdict(known, header(2 * number, 2))
    if back <= 5:
        assert isinstance(found, Sent)
        assert (found.base_offset, found.last_offset) == (2 * number, 2 * number + 1)
    else:
        assert isinstance(found, Fault)
        assert found.code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_batch_is_repeated_only_if_both_its_ends_are() -> None:
    known = producers(header(0, 2), header(2, 2))
    assert code(known, header(2, 1)) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert code(known, header(0, 4)) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize(
    ("epoch", "sequence", "expected"),
    [
        (3, 5, None),
        (3, 6, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (3, 0, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (4, 0, None),
        (4, 5, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (2, 5, ErrorCode.INVALID_PRODUCER_EPOCH),
        (2, 0, ErrorCode.INVALID_PRODUCER_EPOCH),
    ],
)
def test_epochs_and_sequences(
    epoch: int, sequence: int, expected: ErrorCode | None
) -> None:
    known = producers(header(0, 5, epoch=3))
    assert code(known, header(sequence, epoch=epoch)) == expected


def test_a_producer_nobody_knows_may_begin_anywhere() -> None:
    assert verdict(Producers(), header(1234)) is None


def test_a_sequence_wraps_to_zero() -> None:
    known = producers(header(LAST - 1, 1))
    assert verdict(known, header(LAST, 1)) is None
    known = producers(header(LAST, 1))
    assert verdict(known, header(0)) is None
    assert code(known, header(1)) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    across = producers(header(LAST - 1, 4))
    assert across.get(1) is not None
    assert across.get(1).last_sequence == 1  # type: ignore[union-attr]
    assert verdict(across, header(2)) is None
    assert isinstance(verdict(across, header(LAST - 1, 4)), Sent)
    assert isinstance(
        judge(Producers.restore(across.snapshot()).get(1), header(LAST - 1, 4)), Sent
    )


def test_a_new_epoch_forgets_the_batches_of_the_old_one() -> None:
    known = producers(header(0, epoch=0), header(1, epoch=0), header(0, epoch=1))
    assert isinstance(verdict(known, header(0, epoch=1)), Sent)
    assert code(known, header(0, epoch=0)) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert verdict(known, header(1, epoch=1)) is None


def test_within_a_transaction_a_batch_outside_it_is_refused() -> None:
    known = producers(header(0, txn=True))
    assert verdict(known, header(1, txn=True)) is None
    assert code(known, header(1)) == ErrorCode.INVALID_TXN_STATE
    assert known.first_open_transaction == 0


REFUSED = ErrorCode.INVALID_TXN_STATE
REPEATED = "repeated"


@pytest.mark.parametrize(
    ("known", "transactional", "coordinator_agrees", "expected"),
    [
        # Nobody knows the producer.
        ([], True, False, REFUSED),
        ([], True, True, None),
        ([], False, False, None),
        # It has written, outside of a transaction.
        ([header(0)], True, False, REFUSED),
        ([header(0)], True, True, None),
        ([header(0)], False, False, None),
        # It has a transaction open: the coordinator need not be asked again.
        ([header(0, txn=True)], True, False, None),
        ([header(0, txn=True)], True, True, None),
        ([header(0, txn=True)], False, True, REFUSED),
        # Sequences are judged first, repetitions before all else.
        ([header(0), header(1)], True, False, REPEATED),
        ([header(5)], True, False, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        ([header(0, epoch=1)], True, False, ErrorCode.INVALID_PRODUCER_EPOCH),
    ],
)
def test_only_a_coordinator_opens_a_transaction(
    known: list[Header],
    transactional: bool,
    coordinator_agrees: bool,
    expected: ErrorCode | str | None,
) -> None:
    found = judge(
        producers(*known).get(1),
        header(1, txn=transactional),
        coordinated if coordinator_agrees else nobody_knows,
    )
    if expected == REPEATED:
        assert isinstance(found, Sent)
    else:
        assert (found.code if isinstance(found, Fault) else found) == expected


def test_a_later_epoch_goes_on_with_nothing_that_an_earlier_one_has_open() -> None:
    known = producers(header(0, txn=True)).get(1)

    refused = judge(known, header(0, txn=True, epoch=1), nobody_knows)

    assert isinstance(refused, Fault)
    assert refused.code == REFUSED


def finish(known: Producers, marker: Marker, offset: int, epoch: int = 0) -> object:
    data = control_batch(marker, producer_id=1, producer_epoch=epoch, timestamp=NOW)
    return known.finish(read_header(data), marker, offset, NOW)


def test_a_marker_ends_the_transaction_and_fences_older_coordinators() -> None:
    known = producers(header(0, 2, txn=True), header(2, 2, txn=True))
    assert finish(known, Marker(commit=False, coordinator_epoch=5), 4) == (1, 0, 4, False)
    assert known.first_open_transaction is None
    assert verdict(known, header(4)) is None, "the same epoch goes on with its sequence"
    assert finish(known, Marker(commit=True, coordinator_epoch=5), 5) is None

    old = Marker(commit=True, coordinator_epoch=4)
    fault = judge_marker(known.get(1), 1, 0, old)
    assert fault is not None
    assert fault.code == ErrorCode.TRANSACTION_COORDINATOR_FENCED
    finish(known, Marker(commit=True, coordinator_epoch=5), 6, epoch=2)
    late = judge_marker(known.get(1), 1, 1, Marker(commit=True, coordinator_epoch=5))
    assert late is not None
    assert late.code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert verdict(known, header(0, epoch=2)) is None
    assert code(known, header(4, epoch=2)) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_quiet_producer_expires_but_not_amid_a_transaction() -> None:
    known = producers(header(0, txn=True))
    assert known.expire(NOW + 10**9, 1000) == []
    finish(known, Marker(commit=True, coordinator_epoch=0), 1)
    assert known.expire(NOW + 999, 1000) == []
    assert known.expire(NOW - 10**9, 1000) == [], "a clock that jumps back expires nobody"
    assert known.expire(NOW + 1000, 1000) == [1]
    assert verdict(known, header(77)) is None


def test_a_snapshot_brings_back_windows_epochs_and_open_transactions() -> None:
    known = producers(*[header(each) for each in range(7)], header(7, txn=True))
    finish(known, Marker(commit=True, coordinator_epoch=3), 8)
    known.accept(read_header(batch_of(2, 0, b"x", transactional=True)), 9, NOW)
    marker_only = Marker(commit=False, coordinator_epoch=1)
    data = control_batch(marker_only, producer_id=3, producer_epoch=6, timestamp=NOW)
    known.finish(read_header(data), marker_only, 10, NOW)

    restored = Producers.restore(known.snapshot())
    assert dict(restored.items()) == dict(known.items())
    assert restored.first_open_transaction == 9
    assert len(read_snapshot(known.snapshot())) == 5 + 1 + 1


def test_no_bit_of_a_snapshot_may_change() -> None:
    data = producers(header(0), header(1, txn=True)).snapshot()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotDamaged):
            read_snapshot(bytes(changed))
    for size in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            read_snapshot(data[:size])
