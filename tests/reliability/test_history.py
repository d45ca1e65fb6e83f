"""The checker of histories: each anomaly in a tiny history, and the same without it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from support.history.anomalies import anomalies, report
from support.history.cycles import cycles
from support.history.events import (
    Acknowledged,
    Asked,
    Calm,
    Committed,
    Committing,
    Ended,
    Ending,
    Event,
    Journal,
    Moved,
    Partition,
    Polled,
    Position,
    Record,
    Sent,
    read_history,
)

P = Partition("out", 0)
Q = Partition("out", 1)

_seconds = itertools.count(1)


def now() -> float:
    """Each event of a history comes a second after the one before it."""
    return float(next(_seconds))


def wrote(
    transaction: str | None,
    *places: Record,
    client: str = "writer",
    acknowledged: bool = True,
) -> list[Event]:
    """These values sent and, as a rule, acknowledged where they lie."""
    found: list[Event] = []
    for place in places:
        sent = Sent(
            at=now(),
            client=client,
            partition=place.partition,
            values=[place.value],
            transaction=transaction,
        )
        found.append(sent)
        if acknowledged:
            found.append(Acknowledged(at=now(), client=client, records=[place]))
    return found


def ended(transaction: str, *, commit: bool = True, answered: bool = True) -> list[Event]:
    what = {"client": "writer", "transaction": transaction, "commit": commit}
    found: list[Event] = [Ending(at=now(), **what)]  # type: ignore[arg-type]
    if answered:
        found.append(Ended(at=now(), **what))  # type: ignore[arg-type]
    return found


def read(
    *records: Record,
    consumer: str = "reader",
    group: str | None = None,
    transaction: str | None = None,
) -> list[Event]:
    poll = Polled(
        at=now(),
        client=consumer,
        consumer=consumer,
        records=records,
        group=group,
        transaction=transaction,
    )
    return [poll]


def moved(consumer: str = "reader", group: str | None = None) -> list[Event]:
    event = Moved(at=now(), client=consumer, consumer=consumer, group=group, partitions=[P])
    return [event]


def kinds(*parts: list[Event]) -> list[str]:
    return [anomaly.kind for anomaly in anomalies(itertools.chain(*parts))]


A, B, C = Record(P, 0, "a"), Record(P, 1, "b"), Record(P, 2, "c")
X = Record(Q, 0, "x")


def test_a_history_without_faults_has_no_anomaly() -> None:
    history = [*wrote("t", A, B), *ended("t"), *wrote(None, C), *read(A, B, C)]

    assert kinds(history) == []
    assert report(anomalies(history)) == "no anomaly"


def test_reading_what_was_aborted_is_an_aborted_read() -> None:
    assert kinds(wrote("t", A), ended("t", commit=False), read(A)) == ["aborted read"]
    assert kinds(wrote("t", A), ended("t", commit=False), read()) == []


def test_a_transaction_that_never_asked_to_commit_counts_as_aborted() -> None:
    assert kinds(wrote("t", A), read(A)) == ["aborted read"]
    assert kinds(wrote("t", A), ended("t", commit=False, answered=False), read(A)) == [
        "aborted read"
    ]


def test_a_commit_whose_answer_is_unknown_may_have_happened_or_not() -> None:
    asked = [*wrote("t", A), *ended("t", answered=False)]

    assert kinds(asked, read(A)) == []
    assert kinds(asked, read()) == []


def test_reading_before_the_commit_was_asked_for_is_a_precommitted_read() -> None:
    assert kinds(wrote("t", A), read(A), ended("t")) == ["precommitted read"]
    assert kinds(wrote("t", A), ended("t"), read(A)) == []


def test_reading_ones_own_transaction_is_a_precommitted_read() -> None:
    own = [*wrote("t", A), *ended("t", answered=False), *read(A, transaction="t")]

    assert kinds(own) == ["precommitted read"]


def test_reading_what_nobody_sent_is_an_unwritten_read() -> None:
    assert kinds(read(A)) == ["unwritten read"]
    assert kinds(wrote(None, A, acknowledged=False), read(A)) == []


def test_two_values_at_one_offset_are_inconsistent_offsets() -> None:
    other = Record(P, A.offset, "other")

    assert "inconsistent offsets" in kinds(wrote(None, A, other), read(A))
    assert kinds(wrote(None, A, B), read(A, B)) == []


def test_one_value_at_two_offsets_is_a_duplicate() -> None:
    again = Record(P, 5, A.value)

    assert kinds(wrote(None, A), read(A, again)) == ["duplicate"]
    assert kinds(wrote(None, A), read(A), moved(), read(A)) == []


def test_a_value_is_looked_for_in_each_partition_by_itself() -> None:
    elsewhere = Record(Q, 5, A.value)

    assert kinds(wrote(None, A, elsewhere), read(A, elsewhere)) == []


def test_a_later_send_at_a_lower_offset_is_out_of_order() -> None:
    assert "out of order send" in kinds(wrote(None, B, A), read(A, B))
    assert kinds(wrote(None, B), wrote(None, A, client="another"), read(A, B)) == []


def test_a_committed_value_that_nobody_read_although_they_read_on_is_lost() -> None:
    behind = [*wrote(None, A, B)]

    assert kinds(behind, read(B)) == ["lost write"]
    assert kinds(behind, read(A)) == []
    assert kinds(behind, read(A, B)) == []


def test_half_a_transaction_is_a_lost_write_even_if_its_answer_is_unknown() -> None:
    torn = [*wrote("t", A, B), *ended("t", answered=False)]

    assert kinds(torn, read(B)) == ["lost write"]
    assert kinds(torn, read(A, B)) == []
    assert kinds(torn, wrote(None, C), read(C)) == []


def test_a_committed_value_that_a_group_never_got_is_unseen() -> None:
    there = [*wrote(None, A, B), *moved("member", "g")]

    assert kinds(there, read(A, consumer="member", group="g")) == ["unseen"]
    assert kinds(there, read(A, B, consumer="member", group="g")) == []


def test_what_one_group_got_another_may_still_miss() -> None:
    there = [*wrote(None, A), *moved("member", "g"), *moved("other", "h")]

    missing = kinds(there, read(A, consumer="member", group="g"))

    assert missing == ["unseen"]


def test_passing_over_a_committed_value_is_a_skip_inside_a_poll_and_between_polls() -> None:
    there = [*wrote(None, A, B, C), *read(A, B, C, consumer="another")]

    assert kinds(there, read(A, C)) == ["internal poll skip"]
    assert kinds(there, read(A), read(C)) == ["external poll skip"]
    assert kinds(there, read(A), moved(), read(C)) == []
    assert kinds(there, read(A, B), read(C)) == []


def test_gaps_of_aborted_values_are_no_skip() -> None:
    there = [*wrote(None, A), *wrote("t", B), *ended("t", commit=False), *wrote(None, C)]

    assert kinds(there, read(A, C)) == []


def test_reading_backwards_is_non_monotonic_inside_a_poll_and_between_polls() -> None:
    there = wrote(None, A, B)

    assert kinds(there, read(B, A)) == ["internal poll non-monotonic"]
    assert kinds(there, read(A, B), read(A)) == ["external poll non-monotonic"]
    assert kinds(there, read(A, B), moved(), read(A)) == []


def test_transactions_that_read_each_other_are_a_circle() -> None:
    t = [*wrote("t", A), *ended("t", answered=False)]
    u = [*wrote("u", X), *ended("u", answered=False)]

    circle = [*t, *u, *read(X, transaction="t"), *read(A, transaction="u")]
    straight = [*t, *u, *read(X, transaction="t"), *read(A, transaction="v")]

    assert kinds(circle) == ["circular reads (G1c)"]
    assert "t" in anomalies(circle)[0].words
    assert kinds(straight) == []


def test_writes_ordered_in_a_circle_are_no_anomaly() -> None:
    """G0: t before u in one partition, u before t in the other."""
    y = Record(Q, 1, "y")
    history = [*wrote("t", A), *wrote("u", B), *wrote("u", X), *wrote("t", y)]

    assert kinds(history, ended("t"), ended("u"), read(A, B, X, y)) == []


def positions(kind: type[Event], offset: int, **more: object) -> list[Event]:
    what = {"group": "g", "positions": [Position(P, offset)], **more}
    return [kind(at=now(), client="member", **what)]


def test_a_group_behind_an_acknowledged_commit_lost_it() -> None:
    first = [*positions(Committing, 5), *positions(Committed, 5)]
    second = [*positions(Committing, 9), *positions(Committed, 9)]

    assert kinds(first, second, positions(Asked, 5)) == ["lost commit"]
    assert kinds(first, second, positions(Asked, 9)) == []
    assert kinds(first, positions(Committing, 9), positions(Asked, 9)) == []


def test_a_group_behind_a_committed_transaction_lost_its_commit() -> None:
    sent = positions(Committing, 5, transaction="t")

    assert kinds(sent, ended("t"), positions(Asked, -1)) == ["lost commit"]
    assert kinds(sent, ended("t"), positions(Asked, 5)) == []


def test_a_group_where_only_an_aborted_transaction_put_it_is_an_anomaly() -> None:
    sent = positions(Committing, 5, transaction="t")

    assert kinds(sent, ended("t", commit=False), positions(Asked, 5)) == ["aborted commit"]
    assert kinds(sent, ended("t", answered=False), positions(Asked, 5)) == []


def at_rest(*parts: list[Event]) -> list[Event]:
    """Calm from the first of these events on."""
    events = [event for part in parts for event in part]
    return [Calm(at=events[0].at, client="test"), *events]


def wait(seconds: int) -> list[Event]:
    for _ in range(seconds):
        next(_seconds)
    return read()


def test_a_group_that_reads_nothing_for_half_a_minute_although_there_is_more_is_stuck() -> (
    None
):
    def history(pause: Callable[[], list[Event]]) -> list[Event]:
        member = moved("member", "g")
        return at_rest(
            member, wrote(None, A), pause(), read(A, consumer="member", group="g")
        )

    assert kinds(history(lambda: wait(40))) == ["stuck"]
    assert kinds(history(lambda: wait(10))) == []


def test_a_transaction_without_an_end_for_half_a_minute_is_stuck() -> None:
    assert kinds(at_rest(ended("t", answered=False), wait(40))) == ["stuck"]
    assert kinds(at_rest(ended("t", answered=False), wait(10))) == []
    assert kinds(at_rest(ended("t"), wait(40))) == []


def test_while_clients_are_killed_nothing_counts_as_stuck() -> None:
    assert kinds(ended("t", answered=False), wait(40)) == []


def test_a_report_counts_each_kind_and_says_what_happened() -> None:
    text = report(anomalies([*wrote("t", A, B), *ended("t", commit=False), *read(A, B)]))

    assert text.splitlines() == [
        "2 x aborted read",
        "aborted read: reader read a (out-0@0); t was aborted",
        "aborted read: reader read b (out-0@1); t was aborted",
    ]


def test_a_journal_comes_back_as_it_was_written_up_to_a_torn_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "writer.jsonl", "writer")
    journal.write(Sent, partition=P, values=["a"], transaction="t")
    journal.write(Acknowledged, records=[A])
    journal.close()
    with (tmp_path / "writer.jsonl").open("a") as file:
        file.write('{"kind":"Sent","at":')

    sent, acknowledged = read_history([tmp_path / "writer.jsonl"])

    assert isinstance(sent, Sent)
    assert (sent.partition, sent.values, sent.transaction) == (P, ["a"], "t")
    assert isinstance(acknowledged, Acknowledged)
    assert acknowledged.records == [A]


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        # The short way round, of two that lead through the same nodes.
        ({"a": {"b", "c"}, "b": {"c"}, "c": {"a"}}, [["a", "c"]]),
        ({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c", "a"}}, [["a", "b"], ["c", "d"]]),
    ],
)
def test_each_component_gives_one_short_circle(
    edges: dict[str, set[str]], expected: list[list[str]]
) -> None:
    assert cycles(edges) == expected


def test_a_chain_of_a_hundred_thousand_needs_no_deep_stack() -> None:
    chain = {f"{number:06}": {f"{number + 1:06}"} for number in range(100_000)}

    assert cycles(chain) == []
