"""Windows: which records are in which, and when each is over."""

from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from streamer.errors import StreamerError
from streamer.schedule import InvalidDuration
from streamer.window import (
    Hopping,
    HoppingWindow,
    InvalidWindow,
    Tumbling,
    TumblingWindow,
    Window,
    WindowRange,
    split_window_key,
    window_key,
)

# About now, in milliseconds.
NOW = 1_785_000_000_000


def milli(count: int) -> timedelta:
    return timedelta(milliseconds=count)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    size = draw(st.integers(1, 60))
    grace = milli(draw(st.integers(0, 30)))
    expires = draw(st.none() | st.integers(0, 90).map(milli))
    if draw(st.booleans()):
        return Tumbling(milli(size), grace=grace, expires=expires)
    step = draw(st.integers(1, size))
    return Hopping(milli(size), milli(step), grace=grace, expires=expires)


timestamps = st.integers(0, 500) | st.integers(NOW, NOW + 500)


def naive_starts(window: Window, timestamp: int) -> list[int]:
    """Try every multiple of the step in reach."""
    nearest = timestamp // window.step_ms
    multiples = (
        step * window.step_ms
        for step in range(nearest - window.size_ms - 1, nearest + window.size_ms + 1)
    )
    return [
        start for start in multiples if 0 <= start <= timestamp < start + window.size_ms
    ]


@given(windows(), timestamps)
def test_a_timestamp_is_in_exactly_the_windows_that_span_it(
    window: Window, timestamp: int
) -> None:
    starts = window.starts(timestamp)

    assert list(starts) == naive_starts(window, timestamp)
    assert window.current(timestamp) == starts[-1]


@given(windows(), st.integers(-500, -1))
def test_a_timestamp_before_the_epoch_has_its_windows_too(
    window: Window, timestamp: int
) -> None:
    starts = window.starts(timestamp)

    assert starts[-1] == window.current(timestamp)
    assert len(starts) in {
        window.size_ms // window.step_ms,
        -(-window.size_ms // window.step_ms),
    }
    for start in starts:
        assert start % window.step_ms == 0
        assert start <= timestamp < start + window.size_ms


# What Kafka Streams 4.3.1 answers when these records come in this order: (key,
# timestamp), and the starts of the windows that each one changes. Measured.
RECORDS = [
    *[("A", 0), ("A", 5), ("B", 9), ("A", 10), ("A", 7), ("B", 19), ("A", 20), ("A", 12)],
    *[("B", 35), ("A", 21), ("A", 3), ("A", 100), ("B", 34), ("A", 95), ("A", 101)],
]
NOTHING: list[int] = []


@pytest.mark.parametrize(
    ("window", "changed"),
    [
        pytest.param(
            Tumbling(0.010),
            [
                *[[0], [0], [0], [10], NOTHING, [10], [20], NOTHING, [30], NOTHING],
                *[NOTHING, [100], NOTHING, NOTHING, [100]],
            ],
            id="tumbling",
        ),
        pytest.param(
            Tumbling(0.010, grace=0.005),
            [
                *[[0], [0], [0], [10], [0], [10], [20], [10], [30], NOTHING],
                *[NOTHING, [100], NOTHING, [90], [100]],
            ],
            id="tumbling, grace 5 ms",
        ),
        pytest.param(
            Tumbling(0.010, grace=1),
            [
                *[[0], [0], [0], [10], [0], [10], [20], [10], [30], [20]],
                *[[0], [100], [30], [90], [100]],
            ],
            id="tumbling, grace 1 s",
        ),
        pytest.param(
            Hopping(0.010, 0.005),
            [
                *[[0], [0, 5], [0, 5], [5, 10], [5], [10, 15], [15, 20], NOTHING, [30, 35]],
                *[NOTHING, NOTHING, [95, 100], NOTHING, [95], [95, 100]],
            ],
            id="hopping",
        ),
        pytest.param(
            Hopping(0.010, 0.005, grace=0.005),
            [
                *[[0], [0, 5], [0, 5], [5, 10], [0, 5], [10, 15], [15, 20], [10], [30, 35]],
                *[NOTHING, NOTHING, [95, 100], NOTHING, [90, 95], [95, 100]],
            ],
            id="hopping, grace 5 ms",
        ),
        pytest.param(
            Hopping(0.010, 0.005, grace=1),
            [
                *[[0], [0, 5], [0, 5], [5, 10], [0, 5], [10, 15], [15, 20], [5, 10]],
                *[[30, 35], [15, 20], [0], [95, 100], [25, 30], [90, 95], [95, 100]],
            ],
            id="hopping, grace 1 s",
        ),
        pytest.param(
            Hopping(0.010, 0.007),
            [
                *[[0], [0], [0, 7], [7], [7], [14], [14], NOTHING, [28, 35], NOTHING],
                *[NOTHING, [91, 98], NOTHING, [91], [98]],
            ],
            id="hopping, the size no multiple of the step",
        ),
    ],
)
def test_a_record_changes_the_windows_that_it_changes_in_kafka_streams(
    window: Window, changed: list[list[int]]
) -> None:
    stream_time = 0
    answers = []
    for _, timestamp in RECORDS:
        stream_time = max(stream_time, timestamp)
        starts = window.starts(timestamp)
        answers.append(
            [start for start in starts if not window.is_late(start, stream_time)]
        )

    assert answers == changed


# As above: the final results of windows of 10 ms, each right after the record at which
# it comes out: (key, start, the timestamps in it).
FINAL = {
    0: {
        3: [("A", 0, [0, 5]), ("B", 0, [9])],
        6: [("A", 10, [10]), ("B", 10, [19])],
        8: [("A", 20, [20])],
        11: [("B", 30, [35])],
    },
    5: {
        5: [("A", 0, [0, 5, 7]), ("B", 0, [9])],
        8: [("A", 10, [10, 12]), ("B", 10, [19]), ("A", 20, [20])],
        11: [("B", 30, [35])],
    },
    1000: {},
}


@pytest.mark.parametrize("grace", FINAL)
def test_a_window_closes_when_it_closes_in_kafka_streams_and_once(grace: int) -> None:
    window = Tumbling(milli(10), grace=milli(grace))
    store: dict[bytes, list[int]] = {}
    closed_until = window_key(0)
    stream_time = 0
    results: dict[int, list[tuple[str, int, list[int]]]] = {}
    # The last one is a record without a value, which our tables do not count.
    for step, (key, timestamp) in enumerate(RECORDS[:-1]):
        stream_time = max(stream_time, timestamp)
        for start in window.starts(timestamp):
            if not window.is_late(start, stream_time):
                store.setdefault(window_key(start, key.encode()), []).append(timestamp)
        bound = window_key(window.closed_before(stream_time))
        for stored in scan(store, closed_until, bound):
            start, raw = split_window_key(stored)
            results.setdefault(step, []).append((raw.decode(), start, store[stored]))
        closed_until = max(closed_until, bound)

    assert results == FINAL[grace]


def scan(store: Iterable[bytes], start: bytes, stop: bytes) -> list[bytes]:
    return [key for key in sorted(store) if start <= key < stop]


@given(windows(), st.integers(-100, 100), st.integers(-100, 300))
def test_the_windows_to_close_are_all_those_before_one_start(
    window: Window, start: int, stream_time: int
) -> None:
    is_before = start < window.closed_before(stream_time)

    assert is_before == window.is_late(start, stream_time)


@given(windows(), st.integers(-100, 100), st.integers(-100, 400))
def test_a_window_is_removed_once_it_expired_but_never_before_it_is_closed(
    window: Window, start: int, stream_time: int
) -> None:
    bound = window.expired_before(stream_time)

    if window.expires_ms is None:
        assert bound is None
    else:
        assert bound is not None
        end = start + window.size_ms
        is_due = end + window.expires_ms <= stream_time
        assert (start < bound) == (is_due and window.is_late(start, stream_time))


def test_a_grace_longer_than_expires_keeps_the_window() -> None:
    window = Tumbling("10ms", grace="5ms", expires="2ms")

    assert window.expired_before(14) == window.closed_before(14) == 0
    assert window.expired_before(15) == window.closed_before(15) == 1
    assert Tumbling("10ms", grace="2ms", expires="5ms").expired_before(14) == 0


def test_delta_is_the_window_that_was_current_so_long_before() -> None:
    window = Hopping("1m", "20s")

    assert window.current(125_000) == 120_000
    assert window.delta(125_000, 0) == 120_000
    assert window.delta(125_000, "5s") == 120_000
    assert window.delta(125_000, 5.001) == 100_000
    assert window.delta(125_000, timedelta(minutes=1)) == 60_000


@pytest.mark.parametrize(
    ("size", "milliseconds"),
    [
        (10, 10_000),
        (0.1, 100),
        (0.1 + 0.2, 300),
        (2.5, 2500),
        ("500ms", 500),
        ("1h30m", 5_400_000),
        (timedelta(milliseconds=1), 1),
    ],
)
def test_a_size_is_given_in_seconds_or_in_words_and_is_exact(
    size: float | str | timedelta, milliseconds: int
) -> None:
    window = Tumbling(size)

    assert window.size_ms == milliseconds
    for place in (0, 1, 7, 35_999):
        start = NOW // milliseconds * milliseconds + place * milliseconds
        assert list(window.starts(start)) == [start]
        assert list(window.starts(start - 1)) == [start - milliseconds]


def test_windows_that_say_the_same_are_equal_and_cannot_be_changed() -> None:
    window = Tumbling("1m", grace="5s")

    assert window == Tumbling(60, grace=timedelta(seconds=5))
    assert hash(window) == hash(Tumbling(60.0, grace=5))
    assert window != Tumbling(60)
    assert len({Tumbling(60), Hopping(60, 60)}) == 2
    for name in ("size_ms", "grace"):
        with pytest.raises(AttributeError):
            setattr(window, name, 1)


def test_fausts_names_are_the_same_windows() -> None:
    assert TumblingWindow(10, expires=60) == Tumbling(10, expires=60)
    assert HoppingWindow(10, 5, expires=60) == Hopping(10, step=5, expires=60)


def test_its_user_sees_a_window_in_seconds_with_an_exclusive_end() -> None:
    window = Tumbling(0.1)

    assert window.range(NOW) == WindowRange(NOW / 1000, NOW / 1000 + 0.1)
    start, end = window.range(300)
    assert (start, end) == (0.3, 0.4)
    assert window.range(300).end == window.range(400).start


@given(st.integers(-(2**45), 2**45))
def test_a_range_leads_back_to_its_window(start: int) -> None:
    assert Tumbling("1m").range(start).start_ms == start


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9), st.binary()),
        max_size=5,
    )
)
def test_a_store_sorts_windows_by_their_start_then_by_key(
    pairs: list[tuple[int, bytes]],
) -> None:
    stored = sorted(window_key(start, key) for start, key in pairs)

    assert [split_window_key(key) for key in stored] == sorted(pairs)


def test_the_key_in_a_store_stays_as_it_is_for_old_stores_hold_it() -> None:
    assert window_key(0, b"red") == b"\x80\x00\x00\x00\x00\x00\x00\x00red"
    assert window_key(-1) == b"\x7f\xff\xff\xff\xff\xff\xff\xff"
    assert window_key(258, b"") == b"\x80\x00\x00\x00\x00\x00\x01\x02"


def test_a_key_without_a_window_is_refused() -> None:
    with pytest.raises(InvalidWindow, match="needs a new name"):
        split_window_key(b"red")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Tumbling(0), "size = 0: a window takes a millisecond"),
        (lambda: Tumbling("5 parsecs"), "size = '5 parsecs' is not a length of time"),
        (lambda: Tumbling(-1), "size = -1 is not a length of time"),
        (lambda: Tumbling(1 / 3), "is not a whole number of milliseconds"),
        (lambda: Tumbling("0.5ms"), "size = '0.5ms' is not a whole number"),
        (lambda: Tumbling(10, grace=-1), "grace = -1 is not"),
        (lambda: Tumbling(10, expires="never"), "expires = 'never' is not"),
        (lambda: Hopping(10, 0), "step = 0: a window"),
        (
            lambda: Hopping(10, "11s"),
            "A step of 11000 ms is longer than",
        ),
    ],
)
def test_a_window_that_cannot_be_is_refused_with_a_way_out(
    make: Callable[[], Window], problem: str
) -> None:
    with pytest.raises(StreamerError) as caught:
        make()

    assert isinstance(caught.value, InvalidWindow | InvalidDuration)
    assert problem in caught.value.problem
    assert caught.value.remedy
