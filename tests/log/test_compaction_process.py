"""How the process that compacts keeps its pace, and when it says that it is starved."""

from __future__ import annotations

import os

import pytest

from streamer.log import compaction_process
from streamer.log.compaction_process import PACE_MAX, Pace, Starved
from streamer.log.compaction_start import take_what_is_left

RATE = 1000.0
PATIENCE = 10.0


class Times:
    """A clock that goes when somebody waits or works, and the processor's."""

    def __init__(self) -> None:
        self.now = self.had = 0.0
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def processor(self) -> float:
        return self.had

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    def work(self, seconds: float, *, share: float) -> None:
        """Be at it for so long, with so much of a processor."""
        self.now += seconds
        self.had += share * seconds


@pytest.fixture
def times() -> Times:
    return Times()


def pace_of(
    times: Times,
    rate: float = RATE,
    patience: float | None = PATIENCE,
    share: float = 1.0,
) -> Pace:
    return Pace(
        rate,
        share=share,
        patience=patience,
        monotonic=times.monotonic,
        processor=times.processor,
        wait=times.wait,
    )


def test_it_waits_as_long_as_the_bytes_should_have_taken(times: Times) -> None:
    pace = pace_of(times)

    pace(500)
    times.work(0.25, share=1)
    pace(500)
    pace(0)

    assert times.waited == [0.5, 0.25, 0.0]
    assert times.now == 1.0


def test_it_waits_until_its_computing_was_no_more_than_its_share(times: Times) -> None:
    pace = pace_of(times, share=0.25)

    for _ in range(3):
        times.work(1, share=1)
        pace(1)

    assert times.waited == [3, 3, 3]


def test_waiting_for_the_disk_is_not_computing(times: Times) -> None:
    pace = pace_of(times, share=0.25)

    times.work(1, share=0.25)
    pace(1)

    assert times.waited == [0]


def test_it_keeps_to_its_bytes_where_it_computes_little(times: Times) -> None:
    pace = pace_of(times, share=0.25)

    times.work(0.1, share=1)
    pace(1000)

    assert times.waited == [0.9]


def test_who_was_to_have_little_is_starved_with_less(times: Times) -> None:
    enough, too_little = 0.03, 0.02
    pace = pace_of(times, share=0.25)
    for _ in range(10):
        times.work(PATIENCE, share=enough)
        pace(99)

    times.work(PATIENCE, share=too_little)
    with pytest.raises(Starved):
        pace(99)


def test_a_short_delay_is_made_up_for(times: Times) -> None:
    pace = pace_of(times)

    times.work(3, share=1)
    for _ in range(4):
        pace(1000)

    assert times.waited == [0, 0, 0, 1]


def test_a_long_delay_is_not_made_up_for(times: Times) -> None:
    pace = pace_of(times)

    times.work(PATIENCE, share=1)
    pace(1000)
    pace(1000)

    assert times.waited == [0, 1]


def test_who_gets_next_to_nothing_is_starved(times: Times) -> None:
    pace = pace_of(times)

    for _ in range(9):
        times.work(1, share=0.09)
        pace(99)

    times.work(1, share=0.09)
    with pytest.raises(Starved, match=r"0\.0 MiB in 10 s"):
        pace(99)


def test_a_job_that_went_well_for_an_hour_may_be_starved_then(times: Times) -> None:
    pace = pace_of(times)
    for _ in range(3600):
        pace(1000)

    times.work(PATIENCE, share=0.01)
    with pytest.raises(Starved):
        pace(100)


def test_who_waits_for_its_turn_is_not_starved(times: Times) -> None:
    pace = pace_of(times)

    for _ in range(10):
        pace(100_000)  # 100 seconds of doing nothing


@pytest.mark.parametrize(
    ("share", "count"),
    [(1.0, 0), (0.01, 5_000)],
    ids=["much to compute", "a disk that is half as fast"],
)
def test_who_is_slow_for_another_reason_is_not_starved(
    times: Times, share: float, count: int
) -> None:
    pace = pace_of(times)

    for _ in range(100):
        times.work(PATIENCE, share=share)
        pace(count)


def test_without_a_limit_nobody_is_starved_for_not_being_infinitely_fast(
    times: Times,
) -> None:
    pace = pace_of(times, rate=1e300)

    times.work(PATIENCE, share=0.05)
    pace(PACE_MAX)
    times.work(PATIENCE, share=0.05)
    with pytest.raises(Starved):
        pace(PACE_MAX - 1)


def test_with_a_share_of_its_own_it_takes_as_long_as_it_takes(times: Times) -> None:
    pace = pace_of(times, patience=None)

    times.work(1000, share=0)
    pace(1)


def test_where_the_system_cannot_leave_it_what_others_leave_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    assert not take_what_is_left()

    monkeypatch.delattr(os, "SCHED_IDLE", raising=False)
    assert not take_what_is_left()


def test_what_the_process_says_is_understood() -> None:
    starved = compaction_process.parsed({"starved": "1.0 MiB in 10 s"})

    assert isinstance(starved, Starved)
    assert str(starved) == "1.0 MiB in 10 s"
