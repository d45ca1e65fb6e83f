"""One transactional id: every phase, every request, and what comes of it.

What is expected was seen of Apache Kafka 4.1, but where the table says "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given, strategies as st

from streamer.broker.names import Place, Producer
from streamer.broker.transactions import transaction as rules
from streamer.broker.transactions.transaction import Outcome, Phase, Transaction
from streamer.wire.error_codes import ErrorCode

NOW = 1_700_000_000_000
ID, OLD_ID, OTHER_ID, NEW_ID = 7, 6, 99, 100
EPOCH = 5
A, B = Place("a", 0), Place("b", 1)

OK = ErrorCode.NONE
FENCED = ErrorCode.PRODUCER_FENCED
STALE = ErrorCode.INVALID_PRODUCER_EPOCH
UNKNOWN = ErrorCode.INVALID_PRODUCER_ID_MAPPING
BUSY = ErrorCode.CONCURRENT_TRANSACTIONS
WRONG = ErrorCode.INVALID_TXN_STATE

PHASES = tuple(Phase)[:6]
EMPTY, ONGOING, PREPARE_COMMIT, PREPARE_ABORT, COMPLETE_COMMIT, COMPLETE_ABORT = PHASES
PREPARED = (PREPARE_COMMIT, PREPARE_ABORT)
IDLE = (EMPTY, COMPLETE_COMMIT, COMPLETE_ABORT)


def transaction(phase: Phase = EMPTY, **fields: int) -> Transaction:
    begun = phase in (ONGOING, *PREPARED)
    usual = Transaction(
        transactional_id="till",
        producer_id=ID,
        epoch=EPOCH,
        timeout_ms=60_000,
        phase=phase,
        partitions=frozenset({A}) if begun else frozenset(),
        started_ms=NOW - 1000 if begun else -1,
        updated_ms=NOW - 500,
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def init(before: Transaction | None, expected: Producer | None = None) -> Outcome:
    return rules.init(before, "till", 30_000, expected, new_producer_id=NEW_ID, now_ms=NOW)


def add(before: Transaction | None, producer: Producer, *places: Place) -> Outcome:
    return rules.add_partitions(before, producer, places or (A,), now_ms=NOW)


def end(before: Transaction | None, producer: Producer, *, commit: bool) -> Outcome:
    return rules.end(before, producer, commit=commit, now_ms=NOW)


def became(outcome: Outcome) -> tuple[Phase, int, int]:
    assert isinstance(outcome, Transaction), outcome
    return outcome.phase, outcome.producer_id, outcome.epoch


CURRENT = Producer(ID, EPOCH)
BELOW, ABOVE = Producer(ID, EPOCH - 1), Producer(ID, EPOCH + 1)
OTHER = Producer(OTHER_ID, EPOCH)


# InitProducerId


def test_the_first_to_ask_gets_a_new_producer_id() -> None:
    for expected in (None, CURRENT):
        found = init(None, expected)
        assert became(found) == (EMPTY, NEW_ID, 0)
        assert isinstance(found, Transaction)
        assert (found.timeout_ms, found.last_epoch) == (30_000, -1)


@pytest.mark.parametrize("phase", IDLE)
def test_whoever_asks_next_fences_whoever_was_before(phase: Phase) -> None:
    found = init(transaction(phase, started_ms=NOW - 9, last_epoch=EPOCH - 1))

    assert found == transaction(
        epoch=EPOCH + 1, last_epoch=-1, timeout_ms=30_000, updated_ms=NOW
    )


@pytest.mark.parametrize("expected", [None, CURRENT])
@pytest.mark.parametrize("phase", PREPARED)
def test_what_is_prepared_has_to_be_completed_first(
    phase: Phase, expected: Producer | None
) -> None:
    assert init(transaction(phase), expected) == BUSY


def test_a_transaction_that_goes_on_is_aborted_for_the_next_holder() -> None:
    aborted = init(transaction(ONGOING))
    assert became(aborted) == (PREPARE_ABORT, ID, EPOCH + 1)
    assert isinstance(aborted, Transaction)
    assert aborted.partitions == {A}

    assert init(aborted) == BUSY
    assert became(init(rules.completed(aborted, now_ms=NOW))) == (EMPTY, ID, EPOCH + 2)


@pytest.mark.parametrize("phase", [*IDLE, ONGOING])
def test_the_holder_itself_gets_one_epoch_however_often_it_asks(phase: Phase) -> None:
    found = init(transaction(phase), CURRENT)
    if phase == ONGOING:
        assert became(found) == (PREPARE_ABORT, ID, EPOCH + 1)
        assert isinstance(found, Transaction)
        found = init(rules.completed(found, now_ms=NOW), CURRENT)
    assert became(found) == (EMPTY, ID, EPOCH + 1)

    assert isinstance(found, Transaction)
    assert became(init(found, CURRENT)) == (EMPTY, ID, EPOCH + 1)
    # With what it was given, it gets the next one.
    assert became(init(found, ABOVE)) == (EMPTY, ID, EPOCH + 2)


def test_the_holder_does_not_get_the_epoch_of_who_came_after_it() -> None:
    after = init(transaction())
    assert isinstance(after, Transaction)

    assert init(after, CURRENT) == FENCED


@pytest.mark.parametrize("expected", [BELOW, ABOVE, OTHER, Producer(OTHER_ID, 32766)])
@pytest.mark.parametrize("phase", [*IDLE, ONGOING])
def test_who_names_another_producer_is_fenced_and_changes_nothing(
    phase: Phase, expected: Producer
) -> None:
    # Ours: Kafka aborts what the real holder has going on, and then says the same.
    assert init(transaction(phase), expected) == FENCED


@pytest.mark.parametrize("phase", PREPARED)
def test_who_names_another_producer_id_need_not_wait(phase: Phase) -> None:
    assert init(transaction(phase), OTHER) == FENCED


@pytest.mark.parametrize("phase", IDLE)
def test_after_the_last_epoch_comes_a_new_producer_id(phase: Phase) -> None:
    for epoch in (32766, 32767):
        found = init(transaction(phase, epoch=epoch))
        assert became(found) == (EMPTY, NEW_ID, 0)
        assert isinstance(found, Transaction)
        assert (found.previous_producer_id, found.last_epoch) == (ID, -1)
    assert became(init(transaction(phase, epoch=32765))) == (EMPTY, ID, 32766)


def test_the_holder_may_ask_again_for_the_new_producer_id_too() -> None:
    found = init(transaction(epoch=32766), Producer(ID, 32766))
    assert became(found) == (EMPTY, NEW_ID, 0)
    assert isinstance(found, Transaction)

    assert init(found, Producer(ID, 32766)) == found
    assert init(found, Producer(ID, 32765)) == FENCED
    assert init(found, Producer(OLD_ID, 32766)) == FENCED
    # Whoever comes after ends that.
    after = init(found)
    assert isinstance(after, Transaction)
    assert init(after, Producer(ID, 32766)) == FENCED


def test_the_very_last_epoch_is_for_an_abort() -> None:
    aborted = init(transaction(ONGOING, epoch=32766))
    assert became(aborted) == (PREPARE_ABORT, ID, 32767)
    assert isinstance(aborted, Transaction)

    assert became(init(rules.completed(aborted, now_ms=NOW))) == (EMPTY, NEW_ID, 0)


# AddPartitionsToTxn, AddOffsetsToTxn, EndTxn: who asks


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("producer", "code"), [(BELOW, FENCED), (ABOVE, FENCED), (OTHER, UNKNOWN)]
)
def test_only_the_holder_may(phase: Phase, producer: Producer, code: ErrorCode) -> None:
    assert add(transaction(phase), producer) == code
    for commit in (True, False):
        assert end(transaction(phase), producer, commit=commit) == code


def test_of_an_unknown_id_nobody_is_the_holder() -> None:
    assert add(None, CURRENT) == UNKNOWN
    assert end(None, CURRENT, commit=True) == UNKNOWN
    assert rules.verify(None, CURRENT, A) == UNKNOWN
    assert rules.time_out(None, now_ms=NOW) == OK


# AddPartitionsToTxn


@pytest.mark.parametrize("phase", IDLE)
def test_the_first_partition_begins_the_transaction(phase: Phase) -> None:
    found = add(transaction(phase, started_ms=NOW - 9), CURRENT, A, B)

    assert found == replace(
        transaction(phase),
        phase=ONGOING,
        partitions=frozenset({A, B}),
        started_ms=NOW,
        updated_ms=NOW,
    )


def test_more_partitions_do_not_begin_it_anew() -> None:
    found = add(transaction(ONGOING), CURRENT, B)

    assert isinstance(found, Transaction)
    assert found.partitions == {A, B}
    assert (found.started_ms, found.updated_ms) == (NOW - 1000, NOW)


def test_what_is_added_already_need_not_be_written_down() -> None:
    assert add(transaction(ONGOING), CURRENT, A) == OK


@pytest.mark.parametrize("phase", PREPARED)
def test_nothing_is_added_to_what_is_over(phase: Phase) -> None:
    assert add(transaction(phase), CURRENT, A) == BUSY


# EndTxn

ENDS = {
    # phase: what an abort is told, what a commit is told
    EMPTY: (WRONG, WRONG),
    ONGOING: (PREPARE_ABORT, PREPARE_COMMIT),
    PREPARE_COMMIT: (WRONG, BUSY),
    PREPARE_ABORT: (BUSY, WRONG),
    COMPLETE_COMMIT: (WRONG, OK),
    COMPLETE_ABORT: (OK, WRONG),
}


@pytest.mark.parametrize(("phase", "commit"), [*product(PHASES, (False, True))])
def test_a_transaction_ends_once_and_in_one_way(phase: Phase, commit: bool) -> None:
    before, expected = transaction(phase), ENDS[phase][commit]

    found = end(before, CURRENT, commit=commit)

    if isinstance(expected, Phase):
        assert found == replace(before, phase=expected, updated_ms=NOW)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("prepared", "complete"),
    [(PREPARE_COMMIT, COMPLETE_COMMIT), (PREPARE_ABORT, COMPLETE_ABORT)],
)
def test_once_its_markers_are_written_its_partitions_are_free(
    prepared: Phase, complete: Phase
) -> None:
    found = rules.completed(transaction(prepared), now_ms=NOW)

    assert found == replace(
        transaction(prepared), phase=complete, partitions=frozenset(), updated_ms=NOW
    )
    assert found.is_commit == (prepared == PREPARE_COMMIT)


# Time


@pytest.mark.parametrize("phase", PHASES)
def test_only_what_goes_on_is_ever_late(phase: Phase) -> None:
    late, in_time = NOW - 60_001, NOW - 60_000

    assert rules.time_out(transaction(phase, started_ms=in_time), now_ms=NOW) == OK
    outcome = rules.time_out(transaction(phase, started_ms=late), now_ms=NOW)
    if phase == ONGOING:
        assert became(outcome) == (PREPARE_ABORT, ID, EPOCH + 1)
    else:
        assert outcome == OK


def test_whose_transaction_was_late_is_fenced_and_may_ask_for_a_new_epoch() -> None:
    aborted = rules.time_out(transaction(ONGOING, started_ms=0), now_ms=NOW)
    assert isinstance(aborted, Transaction)
    done = rules.completed(aborted, now_ms=NOW)

    assert end(done, CURRENT, commit=True) == FENCED
    assert add(done, CURRENT, A) == FENCED
    assert rules.verify(done, CURRENT, A) == STALE
    assert became(init(done, CURRENT)) == (EMPTY, ID, EPOCH + 1)


@pytest.mark.parametrize("phase", PHASES)
def test_an_id_is_forgotten_only_when_nothing_goes_on(phase: Phase) -> None:
    before = transaction(phase)

    assert not rules.is_expired(before, 501, NOW)
    assert rules.is_expired(before, 500, NOW) == (phase in IDLE)


# Produce, TxnOffsetCommit


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("producer", "code"), [(BELOW, STALE), (ABOVE, STALE), (OTHER, UNKNOWN)]
)
def test_only_the_holder_may_write(
    phase: Phase, producer: Producer, code: ErrorCode
) -> None:
    assert rules.verify(transaction(phase), producer, A) == code


@pytest.mark.parametrize("phase", PHASES)
def test_the_holder_may_write_where_it_has_said_so(phase: Phase) -> None:
    expected = {ONGOING: (OK, WRONG), PREPARE_COMMIT: (BUSY, BUSY)}
    expected |= {PREPARE_ABORT: (BUSY, BUSY)}

    found = tuple(rules.verify(transaction(phase), CURRENT, place) for place in (A, B))

    assert found == expected.get(phase, (WRONG, WRONG))


# Histories: many who hold one id, one after another, against the simplest reference.


@dataclass
class Reference:
    """What must be so whatever the order: one holder, and no epoch given out twice."""

    holder: Producer | None = None
    given: frozenset[Producer] = frozenset()
    open: frozenset[Place] = frozenset()
    decided: bool | None = None
    """How the latest transaction ended; None while none did."""


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("init"), st.integers(-1, 4)),
        st.tuples(st.just("add"), st.integers(0, 4), st.sampled_from([A, B])),
        st.tuples(st.just("end"), st.integers(0, 4), st.booleans()),
        st.tuples(st.just("late")),
        st.tuples(st.just("complete")),
    ),
    max_size=40,
)


@given(steps=STEPS, first_epoch=st.sampled_from([-1, 3, 32763, 32764]))
def test_there_is_one_holder_and_no_epoch_is_given_twice(
    steps: list[tuple[object, ...]], first_epoch: int
) -> None:
    now: Transaction | None = None
    if first_epoch >= 0:
        now = transaction(epoch=first_epoch)
    clients: list[Producer] = [now.producer] if now else []
    model = Reference(now.producer if now else None, frozenset(clients))
    next_id = NEW_ID

    for kind, *arguments in steps:
        if kind == "init":
            which = arguments[0]
            assert isinstance(which, int)
            expected = clients[which] if 0 <= which < len(clients) else None
            next_id += 1
            before = now
            outcome = rules.init(
                now, "till", 60_000, expected, new_producer_id=next_id, now_ms=NOW
            )
            if isinstance(outcome, Transaction) and outcome.phase == EMPTY:
                retried = before is not None and outcome.producer == before.producer
                if retried:
                    # The same answer again, to whoever has had the epoch before this.
                    assert expected is not None
                    assert expected != outcome.producer
                else:
                    assert outcome.producer not in model.given
                assert not model.open, "what went on was not ended"
                model.holder = outcome.producer
                model.given |= {outcome.producer}
                model.decided = None
                clients = [*clients[-4:], outcome.producer]
            elif isinstance(outcome, Transaction):
                assert outcome.phase == PREPARE_ABORT
                model.holder = None
        elif kind in ("add", "end"):
            which = arguments[0]
            assert isinstance(which, int)
            if not clients:
                continue
            producer = clients[which % len(clients)]
            if kind == "add":
                place = arguments[1]
                assert isinstance(place, Place)
                outcome = rules.add_partitions(now, producer, [place], now_ms=NOW)
                if isinstance(outcome, Transaction):
                    assert producer == model.holder
                    model.open |= {place}
                    model.decided = None
                    assert outcome.partitions == model.open
            else:
                commit = bool(arguments[1])
                outcome = rules.end(now, producer, commit=commit, now_ms=NOW)
                if isinstance(outcome, Transaction):
                    assert producer == model.holder
                    assert model.decided is None
                    model.decided = commit
                elif outcome == OK:
                    assert model.decided == commit
        elif kind == "late":
            outcome = rules.time_out(now, now_ms=NOW + 100_000)
            if isinstance(outcome, Transaction):
                model.holder = None
        else:
            if now is None or not now.is_prepared:
                continue
            assert now.partitions == model.open, "a partition would get no marker"
            outcome = rules.completed(now, now_ms=NOW)
            model.open = frozenset()
        if isinstance(outcome, Transaction):
            now = outcome
            for place in (A, B):
                for client in clients:
                    may = rules.verify(now, client, place) == OK
                    assert may == (
                        client == model.holder
                        and place in model.open
                        and now.phase == ONGOING
                    )
