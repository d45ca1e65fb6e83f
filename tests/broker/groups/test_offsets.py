"""What a group has committed: as a table, and against the simplest model of a log."""

from typing import NamedTuple

import pytest
from hypothesis import given, strategies as st

from streamer.broker.groups.offsets import Commit, GroupOffsets
from streamer.broker.names import Place

ORDERS_0 = Place("orders", 0)
PRODUCER, OTHER = 7, 8
HOUR = 3_600_000


def commit(offset: int, at: int, *, time_ms: int = 0, expires: int | None = None) -> Commit:
    return Commit(offset=offset, at=at, time_ms=time_ms, expires_ms=expires)


class Write(NamedTuple):
    """A record of the log; what it commits is its own number in the log."""

    producer: int | None = None


class Delete(NamedTuple):
    pass


class End(NamedTuple):
    producer: int = PRODUCER
    commit: bool = True


PLAIN, HELD, GONE = Write(), Write(PRODUCER), Delete()
COMMIT, ABORT = End(), End(commit=False)

Step = Write | Delete | End


def applied(log: list[Step]) -> GroupOffsets:
    offsets = GroupOffsets()
    for at, step in enumerate(log):
        match step:
            case Write(None):
                offsets.commit(ORDERS_0, commit(at, at))
            case Write(int() as producer):
                offsets.hold(producer, ORDERS_0, commit(at, at))
            case Delete():
                offsets.delete(ORDERS_0, at)
            case End(producer, commits):
                offsets.finish(producer, commit=commits)
    return offsets


@pytest.mark.parametrize(
    ("log", "committed", "stable"),
    [
        ([], None, True),
        ([PLAIN], 0, True),
        ([PLAIN, PLAIN], 1, True),
        ([HELD], None, False),
        ([PLAIN, HELD], 0, False),
        ([HELD, COMMIT], 0, True),
        ([HELD, ABORT], None, True),
        ([PLAIN, HELD, COMMIT], 1, True),
        ([PLAIN, HELD, ABORT], 0, True),
        # The later record counts, although the earlier one is released after it.
        ([HELD, PLAIN, COMMIT], 1, True),
        ([HELD, PLAIN, ABORT], 1, True),
        ([HELD, HELD, COMMIT], 1, True),
        ([HELD, Write(OTHER), COMMIT], 0, False),
        ([HELD, Write(OTHER), COMMIT, End(OTHER)], 1, True),
        ([HELD, Write(OTHER), End(OTHER), COMMIT], 1, True),
        ([HELD, COMMIT, ABORT], 0, True),
        ([COMMIT], None, True),
        ([PLAIN, GONE], None, True),
        ([PLAIN, GONE, PLAIN], 2, True),
        # What was held before a tombstone is gone; what is held after it is not.
        ([HELD, GONE], None, True),
        ([HELD, GONE, COMMIT], None, True),
        ([GONE, HELD, COMMIT], 1, True),
        ([HELD, COMMIT, GONE], None, True),
    ],
)
def test_the_latest_record_that_counts_is_what_is_committed(
    log: list[Step], committed: int | None, stable: bool
) -> None:
    offsets = applied(log)

    found = offsets.get(ORDERS_0)
    assert (found and found.offset) == committed
    assert offsets.stable(ORDERS_0) is stable
    assert bool(offsets) is (committed is not None or not stable)


def test_what_is_applied_late_does_not_undo_what_was_written_later() -> None:
    offsets = GroupOffsets()
    offsets.commit(ORDERS_0, commit(50, at=5))
    offsets.hold(PRODUCER, ORDERS_0, commit(60, at=6))

    offsets.commit(ORDERS_0, commit(40, at=4))
    offsets.delete(ORDERS_0, at=3)

    assert offsets.get(ORDERS_0) == commit(50, at=5)
    assert not offsets.stable(ORDERS_0)


def test_partitions_are_apart() -> None:
    offsets = GroupOffsets()
    other = Place("orders", 1)
    offsets.commit(ORDERS_0, commit(1, at=0))
    offsets.hold(PRODUCER, other, commit(2, at=1))

    assert list(offsets) == [ORDERS_0]
    assert offsets.places() == {ORDERS_0, other}
    assert (offsets.stable(ORDERS_0), offsets.stable(other)) == (True, False)


@pytest.mark.parametrize(
    ("committed", "now_ms", "since_ms", "gone"),
    [
        # A group that had members: from when the last one left.
        (commit(1, 0), 2 * HOUR - 1, HOUR, False),
        (commit(1, 0), 2 * HOUR, HOUR, True),
        (commit(1, 0, time_ms=3 * HOUR), 2 * HOUR, HOUR, True),
        # One that never had: from each commit.
        (commit(1, 0, time_ms=HOUR), 2 * HOUR - 1, None, False),
        (commit(1, 0, time_ms=HOUR), 2 * HOUR, None, True),
        # An old client has said when.
        (commit(1, 0, expires=5 * HOUR), 5 * HOUR - 1, 0, False),
        (commit(1, 0, expires=5), 5, None, True),
    ],
)
def test_an_offset_expires(
    committed: Commit, now_ms: int, since_ms: int | None, gone: bool
) -> None:
    offsets = GroupOffsets()
    offsets.commit(ORDERS_0, committed)

    expired = offsets.expired(
        now_ms, HOUR, since_ms=since_ms, subscribed=lambda topic: False
    )

    assert expired == ([ORDERS_0] if gone else [])


def test_what_somebody_still_reads_or_is_about_to_commit_does_not_expire() -> None:
    offsets = GroupOffsets()
    for topic in ("read", "held", "forgotten"):
        offsets.commit(Place(topic, 0), commit(1, 0))
    offsets.hold(PRODUCER, Place("held", 0), commit(2, 1))

    expired = offsets.expired(
        HOUR, HOUR, since_ms=None, subscribed=lambda topic: topic == "read"
    )

    assert expired == [Place("forgotten", 0)]


# The model: a log of one partition, read from its beginning.


def expected(log: list[Step]) -> int | None:
    """The last write that counts: no tombstone behind it, no end but a commit for it."""
    found = None
    for at, step in enumerate(log):
        rest = log[at + 1 :]
        if isinstance(step, Write) and Delete() not in rest and counts(step, rest):
            found = at
    return found


def counts(write: Write, rest: list[Step]) -> bool:
    if write.producer is None:
        return True
    ends = (step for step in rest if isinstance(step, End))
    end = next((end for end in ends if end.producer == write.producer), None)
    return end is not None and end.commit


producers = st.sampled_from([PRODUCER, OTHER])
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Write, st.none() | producers),
    st.just(Delete()),
    st.builds(End, producers, st.booleans()),
)


@given(st.lists(steps, max_size=12))
def test_memory_says_what_the_log_says(log: list[Step]) -> None:
    found = applied(log).get(ORDERS_0)

    assert (found and found.offset) == expected(log)
