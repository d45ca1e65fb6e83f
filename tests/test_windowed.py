"""Windowed tables, on one partition and without a worker: what is in which window, what is
late, and what is gone, on both stores and over commits, aborts and restarts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from streamer.processing import Hand, Run, hold
from streamer.state.rocksdb import RocksStores
from streamer.state.store import MemoryStores, Stores
from streamer.state.window_partition import TIME, WindowPartition
from streamer.table import Table, TableError
from streamer.window import Hopping, Tumbling, Window, WindowRange
from streamer.windowed import WindowedTable, WindowError, moment_ms

MakeStores = Callable[[], Stores]


@dataclass
class Record:
    """A record as an agent has it in hand; only its time matters."""

    timestamp_ms: int

    def topic(self) -> str:
        return "clicks"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return None

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, self.timestamp_ms


class Clicks:
    """A windowed table with one partition, and what its worker does with it."""

    def __init__(
        self, window: Window, stores: Stores | None = None, default: Any = int
    ) -> None:
        self.stores = stores or MemoryStores()
        self.table: Table[str, Any] = Table("clicks", default=default)
        self.windows: WindowedTable[str, Any] = self.table.using_window(window)
        self.changelog: dict[bytes, bytes] = {}
        self.position = 0
        self._open()

    def _open(self) -> None:
        self.store = self.stores.open("clicks", 0)
        part = self.table.partition_in(self.store, 0)
        assert isinstance(part, WindowPartition)
        self.part = part
        self.table.here = {0: part}
        self._tables = {self.table: part}
        self.hand = Hand([])

    @contextmanager
    def record(self, timestamp_ms: int) -> Iterator[None]:
        """Within, a record of this time is in hand; then it is done."""
        run = Run([Record(timestamp_ms)], self._tables)
        self.hand.take(run)
        self.hand.message = run.messages[0]
        hold(self.hand)
        try:
            yield
            self.hand.keep()
        finally:
            self.hand.drop()
            hold(None)

    def click(self, timestamp_ms: int, page: str = "a") -> None:
        with self.record(timestamp_ms):
            self.windows[page] += 1

    def commit(self) -> dict[bytes, bytes | None]:
        """What joined the changelog."""
        changes = self.part.close_changes() if self.part.changed else {}
        for key, value in changes.items():
            if value is None:
                self.changelog.pop(key, None)
            else:
                self.changelog[key] = value
        self.position += len(changes)
        if changes:
            self.store.write(changes, self.position)
            self.part.committed()
        return changes

    def restart(self) -> None:
        """The process ends without a commit, and another goes on."""
        self.store.close()
        if isinstance(self.stores, MemoryStores):
            self.rebuild()
        else:
            self._open()

    def rebuild(self) -> None:
        """What was stored is lost; the changelog has it."""
        self.store.close()
        self.stores.forget("clicks", 0)
        self._open()
        self.store.write(dict(self.changelog), self.position)
        self.part.forget_known()

    def in_window(self, start_s: float, page: str = "a") -> Any:
        return self.windows[page][WindowRange(start_s, start_s)]

    @property
    def late(self) -> int:
        return self.table.late["clicks"]

    def stored(self) -> list[bytes]:
        return [key for key, _ in self.store.items() if key != TIME]


@pytest.fixture(params=["memory", "rocksdb"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    found: Stores = MemoryStores() if request.param == "memory" else RocksStores(tmp_path)
    yield found
    found.close()


TEN = Tumbling(10.0, expires=30.0)


# Declaring.


def test_windows_are_declared_in_seconds_or_other_lengths_of_time() -> None:
    tumbling: WindowedTable[str, int] = Table[str, int]("a").tumbling(
        60.0, expires=timedelta(hours=1), grace="5s"
    )
    hopping: WindowedTable[str, int] = Table[str, int]("b").hopping("1m", 20.0, 3600)

    assert tumbling.window == Tumbling("1m", grace=5, expires=3600)
    assert hopping.window == Hopping(60, 20, expires="1h")


# Counting.


def test_each_record_is_counted_in_the_window_that_holds_its_time() -> None:
    clicks = Clicks(TEN)

    for moment in (0, 9_999, 10_000, 19_999, 25_000):
        clicks.click(moment)

    clicks.commit()
    assert [clicks.in_window(start) for start in (0, 10, 20, 30)] == [2, 2, 1, 0]


def test_a_record_is_counted_in_each_hopping_window_that_holds_it() -> None:
    clicks = Clicks(Hopping(10.0, 4.0))

    clicks.click(9_000)

    clicks.commit()
    assert [clicks.in_window(start) for start in (0, 4, 8, 12)] == [1, 1, 1, 0]


def test_what_a_record_reads_is_what_it_and_those_before_have_written() -> None:
    clicks = Clicks(TEN)
    clicks.click(1_000)
    clicks.commit()
    clicks.click(2_000)

    with clicks.record(3_000):
        clicks.windows["a"] += 1
        assert clicks.windows["a"].value() == 3
        assert dict(clicks.windows.items()) == {"a": 3}

    assert clicks.windows["a"].value() == 1, "others see what is committed"


def test_a_record_that_fails_has_counted_nothing() -> None:
    clicks = Clicks(TEN)

    with suppress(RuntimeError), clicks.record(1_000):
        clicks.windows["a"] += 1
        raise RuntimeError("after it has counted")

    clicks.click(2_000)
    clicks.commit()
    assert clicks.in_window(0) == 1


def test_value_current_now_and_delta_ask_for_different_windows() -> None:
    clicks = Clicks(TEN)
    clicks.windows.clock = lambda: 32_000
    for moment in (5_000, 12_000, 13_000, 31_000):
        clicks.click(moment)

    with clicks.record(14_000):
        page = clicks.windows["a"]
        assert (page.value(), page.current(), page.now(), page.delta(10.0)) == (2, 2, 1, 1)

    clicks.commit()
    outside = clicks.windows["a"]
    assert outside.value() == 1, "by the highest time seen: 31 s"
    assert outside.delta(20.0) == 2


def test_keys_and_items_are_those_of_a_window(stores: Stores) -> None:
    clicks = Clicks(TEN, stores)
    clicks.windows.clock = lambda: 3_000
    clicks.click(1_000, "a")
    clicks.click(2_000, "b")
    clicks.commit()
    clicks.click(11_000, "b")

    with clicks.record(12_000):
        assert dict(clicks.windows.items()) == {"b": 1}
        assert dict(clicks.windows.items().now()) == {"a": 1, "b": 1}
        assert set(clicks.windows.keys().delta(10.0)) == {"a", "b"}
        assert list(clicks.windows.values()) == [1]
        assert "b" in clicks.windows
        assert "a" not in clicks.windows
        assert len(clicks.windows) == 1

    assert set(clicks.windows) == {"a", "b"}, "the last window that is committed"


def test_a_value_is_put_and_deleted_in_all_windows_of_the_record() -> None:
    clicks = Clicks(Hopping(10.0, 5.0))

    with clicks.record(7_000):
        clicks.windows["a"] = 7
    assert [clicks.part.get((start, "a")) for start in (0, 5_000)] == [7, 7]

    with clicks.record(12_000):
        del clicks.windows["a"]
    clicks.commit()
    assert [clicks.in_window(start) for start in (0, 5, 10)] == [7, 0, 0]


def test_operators_work_on_lists_and_leave_what_is_stored_alone() -> None:
    clicks = Clicks(TEN, default=list)

    with clicks.record(1_000):
        clicks.windows["a"] += [1]
        clicks.windows["a"].value().append("mine")
    with clicks.record(2_000):
        clicks.windows["a"] += (2, 3)
        clicks.windows["a"] *= 2

    clicks.commit()
    assert clicks.in_window(0) == [1, 2, 3, 1, 2, 3]


def test_all_operators_have_their_meaning() -> None:
    clicks = Clicks(TEN)

    with clicks.record(1_000):
        windows = clicks.windows
        windows["a"] = 7
        windows["a"] -= 1
        windows["a"] *= 5
        windows["a"] //= 2
        windows["a"] %= 8
        windows["a"] **= 2
        windows["a"] <<= 3
        windows["a"] >>= 1
        windows["a"] |= 1
        windows["a"] &= 0xFF
        windows["a"] ^= 2
        assert windows["a"].value() == (((((30 // 2) % 8) ** 2 << 3 >> 1) | 1) & 0xFF) ^ 2
        windows["a"] /= 2
        assert windows["a"].apply(max, 1000).value() == 1000


def test_the_value_of_another_key_must_be_taken_by_name() -> None:
    clicks = Clicks(TEN)

    with clicks.record(1_000), pytest.raises(WindowError, match="value"):
        clicks.windows["a"] = clicks.windows["b"]


def test_a_windowed_table_is_changed_by_agents_only() -> None:
    clicks = Clicks(TEN)

    with pytest.raises(TableError, match="by an agent only"):
        clicks.windows["a"] += 1
    with pytest.raises(TableError, match="by an agent only"):
        clicks.windows["a"] = 1


def test_a_table_without_default_says_that_a_key_is_missing() -> None:
    clicks = Clicks(TEN, default=None)

    with clicks.record(1_000), pytest.raises(KeyError):
        clicks.windows["a"] += 1


def test_a_table_has_one_kind_of_windows() -> None:
    clicks = Clicks(TEN)

    with pytest.raises(TableError, match="has windows already"):
        clicks.table.tumbling(60.0)


def test_relative_to_now_counts_by_the_clock() -> None:
    clicks = Clicks(TEN)
    clicks.windows.clock = lambda: 55_000
    by_clock = clicks.windows.relative_to_now()

    with clicks.record(1_000):
        by_clock["a"] += 1
        assert by_clock["a"].value() == 1

    clicks.commit()
    assert clicks.in_window(50) == 1
    assert by_clock["a"].value() == 1, "outside of agents too"
    assert dict(by_clock.relative_to_stream().items()) == {"a": 1}


def test_times_are_datetimes_or_seconds() -> None:
    assert moment_ms(datetime(1970, 1, 2, tzinfo=UTC)) == 86_400_000
    assert moment_ms(12.3456) == 12_346
    with pytest.raises(WindowError, match="no time"):
        moment_ms("yesterday")


def test_a_list_of_records_has_no_time_but_each_may_be_given_one() -> None:
    clicks = Clicks(TEN)

    with clicks.record(1_000):
        assert clicks.hand.run is not None
        clicks.hand.run.whole = True
        with pytest.raises(WindowError, match="a list of records"):
            clicks.windows["a"] += 1
        with pytest.raises(WindowError, match="a list of records"):
            clicks.windows["a"].value()
        for moment in (5.0, 12.0, datetime.fromtimestamp(13, UTC)):
            clicks.windows.relative_to(moment)["a"] += 1

    clicks.commit()
    assert [clicks.in_window(start) for start in (0, 10)] == [1, 2]


def test_an_agent_that_has_not_begun_to_read_is_told_so() -> None:
    clicks = Clicks(TEN)

    with clicks.record(1_000):
        clicks.hand.message = None
        with pytest.raises(WindowError, match="no record in hand"):
            clicks.windows["a"] += 1


# Late.


def test_a_late_record_changes_nothing_and_is_counted() -> None:
    clicks = Clicks(TEN)

    clicks.click(5_000)
    clicks.click(10_000)
    clicks.click(9_000)

    clicks.commit()
    assert clicks.in_window(0) == 1
    assert clicks.late == 1


def test_within_its_grace_a_window_takes_late_records() -> None:
    clicks = Clicks(Tumbling(10.0, grace=5.0))

    for moment in (5_000, 14_999, 9_000, 15_000, 8_000):
        clicks.click(moment)

    clicks.commit()
    assert clicks.in_window(0) == 2
    assert clicks.late == 1


def test_a_record_may_be_late_for_some_of_its_windows() -> None:
    clicks = Clicks(Hopping(10.0, 5.0))

    clicks.click(11_000)
    clicks.click(9_000)

    clicks.commit()
    assert [clicks.in_window(start) for start in (0, 5, 10)] == [0, 2, 1]
    assert clicks.late == 1


def test_after_a_restart_records_are_as_late_as_before(stores: Stores) -> None:
    clicks = Clicks(Tumbling(10.0), stores)
    clicks.click(5_000)
    clicks.click(19_999)
    clicks.commit()

    clicks.restart()
    clicks.click(9_999)

    clicks.commit()
    assert clicks.in_window(0) == 1
    assert clicks.late == 1


def test_what_was_undone_makes_nobody_late() -> None:
    clicks = Clicks(TEN)
    clicks.click(5_000)
    clicks.commit()
    clicks.click(99_000)

    clicks.part.aborted()
    clicks.click(9_000)

    clicks.commit()
    assert clicks.in_window(0) == 2
    assert clicks.late == 0


# Expiring.


def test_windows_that_are_over_go_and_their_tombstones_are_in_the_changelog(
    stores: Stores,
) -> None:
    clicks = Clicks(TEN, stores)
    for moment in range(0, 40_000, 5_000):
        clicks.click(moment)
    clicks.commit()
    assert len(clicks.stored()) == 4

    clicks.click(55_000)

    assert list(clicks.commit().values()).count(None) == 2
    assert clicks.stored() == sorted(set(clicks.changelog) - {TIME})
    assert len(clicks.stored()) == 3
    assert clicks.in_window(20) == 2


def test_a_window_is_not_seen_any_more_as_soon_as_it_is_over(stores: Stores) -> None:
    clicks = Clicks(Tumbling(10.0, expires=0), stores)
    clicks.click(5_000)
    clicks.commit()

    with clicks.record(10_000):
        assert clicks.in_window(0) == 1
        clicks.windows["a"] += 1
        assert clicks.in_window(0) == 0
        assert dict(clicks.windows.items().delta(10.0)) == {}

    assert clicks.in_window(0) == 1, "what is committed has not come so far"
    clicks.commit()
    assert clicks.in_window(0) == 0


def test_windows_that_came_from_a_changelog_expire_as_well(stores: Stores) -> None:
    clicks = Clicks(TEN, stores)
    clicks.click(5_000)
    clicks.click(6_000, "b")
    clicks.commit()

    clicks.rebuild()
    clicks.click(100_000)
    clicks.commit()

    assert len(clicks.stored()) == 1
    assert set(clicks.changelog) == {*clicks.stored(), TIME}


def test_what_was_to_be_removed_by_an_aborted_commit_is_removed_by_the_next() -> None:
    clicks = Clicks(TEN)
    clicks.click(5_000)
    clicks.commit()
    clicks.click(100_000)
    clicks.part.close_changes()

    clicks.part.aborted()
    assert clicks.in_window(0) == 1
    clicks.click(100_000)
    clicks.commit()

    assert len(clicks.stored()) == 1


def test_a_commit_removes_so_many_keys_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamer.state.window_partition.EXPIRED_MAX", 3)
    clicks = Clicks(TEN)
    for number in range(10):
        clicks.click(5_000, str(number))
    clicks.commit()

    left = []
    for _ in range(4):
        clicks.click(100_000)
        clicks.commit()
        left.append(len(clicks.stored()) - 1)

    assert left == [7, 4, 1, 0]


def test_without_expires_windows_stay() -> None:
    clicks = Clicks(Tumbling(10.0))
    clicks.click(0)
    clicks.click(10**9)

    clicks.commit()
    assert len(clicks.stored()) == 2
    assert clicks.table.retention_ms is None


def test_the_changelog_keeps_a_window_for_as_long_as_it_is_asked_for() -> None:
    assert Clicks(TEN).table.retention_ms == 40_000
    assert Clicks(Tumbling(10.0, grace=50.0, expires=30.0)).table.retention_ms == 60_000


# Against a model.


class Model:
    """The same, by the book: every window in a dict."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.counts: dict[tuple[int, str], int] = {}
        self.time = -(2**62)
        self.committed = self.copy()

    def copy(self) -> tuple[dict[tuple[int, str], int], int]:
        return dict(self.counts), self.time

    def click(self, moment: int, page: str) -> None:
        self.time = max(self.time, moment)
        size, step = self.window.size_ms, self.window.step_ms
        for start in range(0, moment + 1, step):
            closed = start + size + self.window.grace_ms <= self.time
            if start <= moment < start + size and not closed:
                self.counts[start, page] = self.counts.get((start, page), 0) + 1

    def commit(self) -> None:
        self.committed = self.copy()

    def undo(self) -> None:
        counts, self.time = self.committed
        self.counts = dict(counts)

    def seen(self, start: int, page: str) -> int:
        counts, time = self.committed
        kept = self.window.expires_ms
        assert kept is not None
        if start + self.window.size_ms + max(kept, self.window.grace_ms) <= time:
            return 0
        return counts.get((start, page), 0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["click"] * 6 + ["commit", "undo", "restart"]),
        st.integers(0, 60),
        st.sampled_from("ab"),
    ),
    max_size=60,
)
WINDOWS = st.builds(
    lambda step, times, odd, grace, expires: Hopping(
        f"{step * times + min(odd, step - 1)}ms",
        f"{step}ms",
        grace=f"{grace}ms",
        expires=f"{expires}ms",
    ),
    *(st.integers(1, 9), st.integers(1, 4), st.integers(0, 8)),
    *(st.integers(0, 20), st.integers(0, 30)),
)


@settings(max_examples=150, deadline=None)
@given(WINDOWS, STEPS)
def test_hopping_counts_are_those_of_a_model_that_keeps_it_simple(
    window: Window, steps: list[tuple[str, int, str]]
) -> None:
    clicks, model = Clicks(window), Model(window)

    for step, moment, page in steps:
        if step == "click":
            clicks.click(moment, page)
            model.click(moment, page)
        elif step == "commit":
            clicks.commit()
            model.commit()
        elif step == "undo":
            clicks.part.aborted()
            model.undo()
        else:
            clicks.restart()
            model.undo()
        for start in range(0, 61, window.step_ms):
            assert clicks.in_window(start / 1000, page) == model.seen(start, page)


def test_memory_and_rocksdb_hold_the_same_at_each_moment(tmp_path: Path) -> None:
    rocks = RocksStores(tmp_path)
    both = [
        Clicks(Hopping(10.0, 4.0, expires=12.0), one) for one in (MemoryStores(), rocks)
    ]
    seeded, moment = random.Random(5), 0

    for round in range(60):
        for _ in range(seeded.randrange(8)):
            moment += seeded.randrange(3_000)
            late, page = seeded.randrange(9_000), seeded.choice("abc")
            for clicks in both:
                clicks.click(max(0, moment - late), page)
        for clicks in both:
            clicks.commit()
            if round % 7 == 6:
                clicks.restart()
        assert list(both[0].store.items()) == list(both[1].store.items())
        assert both[0].late == both[1].late

    assert 0 < len(both[0].stored()) < 40
    rocks.close()
