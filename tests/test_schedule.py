"""Durations, and the moments at which timers and crontabs are due."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings, strategies as st

from streamer.schedule import (
    Crontab,
    Every,
    InvalidCrontab,
    InvalidDuration,
    milliseconds,
    seconds,
)

MINUTE = timedelta(minutes=1)


# Durations


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (10, 10.0),
        (0, 0.0),
        (2.5, 2.5),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        ("500ms", 0.5),
        ("10s", 10.0),
        (" 5 m ", 300.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("1h 30m 0.1s", 5400.1),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("7", 7.0),
        ("10/s", 0.1),
        ("10/m", 6.0),
        ("0.5/h", 7200.0),
    ],
)
def test_a_duration_is_a_number_a_timedelta_or_words(
    duration: float | timedelta | str, expected: float
) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize(
    "duration",
    [
        *["", "soon", "5 parsecs", "1h30", "5M", "-5s", "1_0s", "٣s", "nan"],
        *["5m/s", "0/s", "10/", "/s"],
        *[-1, -0.001, float("nan"), float("inf"), timedelta(seconds=-1), True, None, [5]],
        "9" * 400,
    ],
)
def test_what_is_no_length_of_time_is_refused_with_examples(duration: Any) -> None:
    with pytest.raises(InvalidDuration) as caught:
        seconds(duration, "size")

    assert f"size = {duration!r} is not a length of time" in caught.value.problem
    assert '"1h30m"' in caught.value.remedy


@given(st.integers(0, 10**13))
def test_milliseconds_are_exact_however_they_are_written(count: int) -> None:
    assert milliseconds(count / 1000) == count
    assert milliseconds(timedelta(milliseconds=count)) == count
    assert milliseconds(f"{count}ms") == count
    assert milliseconds(f"{count // 1000}.{count % 1000:03}s") == count


@pytest.mark.parametrize("duration", [1 / 3, "3/s", "0.1ms", timedelta(microseconds=1500)])
def test_milliseconds_are_never_rounded_in_silence(
    duration: float | str | timedelta,
) -> None:
    with pytest.raises(InvalidDuration, match="is not a whole number of milliseconds"):
        milliseconds(duration)


# Timers


def test_a_timer_is_due_first_after_one_interval() -> None:
    assert Every("10s").next_after(now=100.0, previous_due=100.0) == 110.0


def test_small_delays_do_not_add_up() -> None:
    every, due = Every(10), 0.0
    for turn in range(1, 100):
        due = every.next_after(now=due + 0.7, previous_due=due)
        assert due == 10.0 * turn


def test_after_a_stall_it_is_due_once_and_in_its_old_step() -> None:
    every = Every(10)

    due = every.next_after(now=57.0, previous_due=10.0)
    assert due == 60.0
    assert every.next_after(now=60.1, previous_due=due) == 70.0


def test_waking_a_little_early_does_not_make_it_due_twice() -> None:
    assert Every(10).next_after(now=19.999, previous_due=20.0) == 30.0


def test_a_clock_that_was_set_back_does_not_stop_it() -> None:
    due = Every(10).next_after(now=1003.0, previous_due=5000.0)

    assert due == 1010.0


@given(st.floats(0.001, 1e6), st.floats(0, 2e9), st.floats(-1e6, 1e6) | st.integers(-9, 9))
def test_the_next_is_always_ahead_and_at_most_two_intervals_away(
    interval: float, previous: float, passed: float
) -> None:
    now = previous + passed

    due = Every(interval).next_after(now, previous)

    assert now < due <= now + 2 * interval + 1e-6


@pytest.mark.parametrize("interval", [0, "0s", 0.0001, "10000/s"])
def test_a_timer_without_an_interval_is_refused(interval: float | str) -> None:
    with pytest.raises(InvalidDuration, match="waits a millisecond at least"):
        Every(interval)


# Crontabs


def due_after(text: str, moment: str, zone: str = "UTC", count: int = 1) -> list[str]:
    """The next moments as text: by the clock in the zone, and its distance from UTC."""
    crontab = Crontab(text, zone)
    found = datetime.fromisoformat(moment)
    if found.tzinfo is None:
        found = found.replace(tzinfo=ZoneInfo(zone))
    answers = []
    for _ in range(count):
        found = crontab.next_after(found)
        answers.append(found.strftime("%Y-%m-%d %H:%M %z").removesuffix(" +0000"))
    return answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Asked on Wednesday 2026-01-14 at 10:20:30.
        ("* * * * *", ["2026-01-14 10:21", "2026-01-14 10:22"]),
        ("20 * * * *", ["2026-01-14 11:20", "2026-01-14 12:20"]),
        ("*/15 * * * *", ["2026-01-14 10:30", "2026-01-14 10:45"]),
        ("50/5 * * * *", ["2026-01-14 10:50", "2026-01-14 10:55"]),
        ("5,25 9-11 * * *", ["2026-01-14 10:25", "2026-01-14 11:05"]),
        ("0 22-2 * * *", ["2026-01-14 22:00", "2026-01-14 23:00"]),
        ("10-30/10 8 * * *", ["2026-01-15 08:10", "2026-01-15 08:20"]),
        ("0 0 31 * *", ["2026-01-31 00:00", "2026-03-31 00:00"]),
        ("0 0 1 5 *", ["2026-05-01 00:00", "2027-05-01 00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 0 29 FEB *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 8 * jan,mar MON-FRI", ["2026-01-15 08:00", "2026-01-16 08:00"]),
        ("0 8 * * 7", ["2026-01-18 08:00", "2026-01-25 08:00"]),
        ("0 8 * * 0", ["2026-01-18 08:00", "2026-01-25 08:00"]),
        ("0 8 * * FRI-SUN/2", ["2026-01-16 08:00", "2026-01-18 08:00"]),
        ("0 8 * * SAT-MON", ["2026-01-17 08:00", "2026-01-18 08:00"]),
        ("0 8 * * 6-7", ["2026-01-17 08:00", "2026-01-18 08:00"]),
        ("@hourly", ["2026-01-14 11:00", "2026-01-14 12:00"]),
        ("@daily", ["2026-01-15 00:00", "2026-01-16 00:00"]),
        ("@midnight", ["2026-01-15 00:00", "2026-01-16 00:00"]),
        ("@weekly", ["2026-01-18 00:00", "2026-01-25 00:00"]),
        ("@monthly", ["2026-02-01 00:00", "2026-03-01 00:00"]),
        ("@Yearly", ["2027-01-01 00:00", "2028-01-01 00:00"]),
        ("@annually", ["2027-01-01 00:00", "2028-01-01 00:00"]),
    ],
)
def test_a_crontab_is_due_when_its_five_fields_say(text: str, expected: list[str]) -> None:
    assert due_after(text, "2026-01-14 10:20:30", count=2) == expected


def test_it_is_due_after_the_moment_not_at_it() -> None:
    assert due_after("20 10 * * *", "2026-01-14 10:19:59.999") == ["2026-01-14 10:20"]
    assert due_after("20 10 * * *", "2026-01-14 10:20:00") == ["2026-01-15 10:20"]


def test_day_or_weekday_is_enough_when_both_are_named() -> None:
    """crontab(5): a field that begins with `*` does not count as named."""
    asked = "2026-01-14"

    either = due_after("0 0 13 * FRI", asked, count=5)
    assert either == [f"2026-01-{day} 00:00" for day in (16, 23, 30)] + [
        f"2026-02-{day} 00:00" for day in ("06", 13)
    ]
    both = due_after("0 0 */12 * FRI", asked, count=2)
    assert both == ["2026-02-13 00:00", "2026-03-13 00:00"]
    # A day that no month has is no fault then.
    assert due_after("0 0 30 2 MON", asked) == ["2026-02-02 00:00"]


def test_a_time_that_the_clock_jumps_over_is_due_when_it_has_jumped() -> None:
    # On 2026-03-29 Berlin goes from 02:00 to 03:00.
    assert due_after("30 2 * * *", "2026-03-28 03:00", "Europe/Berlin", 2) == [
        "2026-03-29 03:00 +0200",
        "2026-03-30 02:30 +0200",
    ]
    # Several in the gap, and one at its end: due once.
    assert due_after("*/20 2,3 * * *", "2026-03-28 12:00", "Europe/Berlin", 3) == [
        "2026-03-29 03:00 +0200",
        "2026-03-29 03:20 +0200",
        "2026-03-29 03:40 +0200",
    ]


def test_a_time_that_comes_twice_is_due_once() -> None:
    # On 2026-10-25 Berlin goes from 03:00 back to 02:00.
    assert due_after("30 2 * * *", "2026-10-24 12:00", "Europe/Berlin", 2) == [
        "2026-10-25 02:30 +0200",
        "2026-10-26 02:30 +0100",
    ]
    # Asked when the wall shows 02:10 for the second time.
    second = "2026-10-25T02:10:00+01:00"
    assert due_after("30 2 * * *", second, "Europe/Berlin") == ["2026-10-26 02:30 +0100"]
    assert due_after("0 3 * * *", second, "Europe/Berlin") == ["2026-10-25 03:00 +0100"]


def test_a_moment_of_the_same_zone_is_not_taken_for_its_twin() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    second = datetime(2026, 10, 25, 2, 10, tzinfo=berlin, fold=1)

    due = Crontab("30 2 * * *", berlin).next_after(second)

    assert due == datetime(2026, 10, 26, 2, 30, tzinfo=berlin)


def test_a_crontab_for_every_hour_goes_on_evenly_when_the_clock_changes() -> None:
    assert due_after("30 * * * *", "2026-03-29 01:00", "Europe/Berlin", 2) == [
        "2026-03-29 01:30 +0100",
        "2026-03-29 03:30 +0200",
    ]
    assert due_after("30 * * * *", "2026-10-25 02:00", "Europe/Berlin", 3) == [
        "2026-10-25 02:30 +0200",
        "2026-10-25 02:30 +0100",
        "2026-10-25 03:30 +0100",
    ]


def test_a_crontab_for_every_hour_of_a_far_day_is_found() -> None:
    assert due_after("30 * 29 2 *", "2026-03-29 01:00", "Europe/Berlin") == [
        "2028-02-29 00:30 +0100"
    ]
    # On 2026-04-24 Cairo goes from 00:00 to 01:00.
    assert due_after("15 * 24 4 *", "2026-04-01", "Africa/Cairo") == [
        "2026-04-24 01:15 +0300"
    ]


def test_a_day_that_a_zone_left_out_is_made_up_for() -> None:
    # Samoa had no 2011-12-30: it went over the date line.
    assert due_after("0 12 30 12 *", "2011-12-29 13:00", "Pacific/Apia") == [
        "2011-12-31 00:00 +1400"
    ]


def test_without_a_zone_it_takes_that_of_who_asks() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    crontab = Crontab("0 8 * * *")

    due = crontab.next_after(datetime(2026, 1, 14, 10, tzinfo=tokyo))

    assert due == datetime(2026, 1, 15, 8, tzinfo=tokyo)
    assert crontab.next_after(due.astimezone(UTC)) == datetime(2026, 1, 15, 8, tzinfo=UTC)


def test_the_zone_may_be_a_name_or_a_zone_even_one_of_pytz() -> None:
    class ZoneOfPytz(tzinfo):
        """As far as we look at it: the name is right, the offset is of 1893."""

        zone = "Europe/Berlin"

        def utcoffset(self, moment: datetime | None) -> timedelta:
            return timedelta(minutes=53)

        def dst(self, moment: datetime | None) -> None:
            return None

        def tzname(self, moment: datetime | None) -> str:
            return "LMT"

    asked = datetime(2026, 1, 14, tzinfo=UTC)
    eight = datetime(2026, 1, 14, 7, tzinfo=UTC)

    for zone in ("Europe/Berlin", ZoneInfo("Europe/Berlin"), ZoneOfPytz()):
        assert Crontab("0 8 * * *", zone).next_after(asked) == eight
    fixed = timezone(timedelta(hours=1))
    assert Crontab("0 8 * * *", fixed).next_after(asked) == eight


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' has 0 fields, not 5"),
        ("* * * *", "has 4 fields, not 5"),
        ("0 0 * * * *", "has 6 fields, not 5"),
        ("@reboot", "'@reboot' is none of @hourly, @daily"),
        ("60 * * * *", "minute: '60' is not 0-59"),
        ("* 24 * * *", "hour: '24' is not 0-23"),
        ("* * 0 * *", "day: '0' is not 1-31"),
        ("* * * 13 *", "month: '13' is not 1-12 or JAN-DEC"),
        ("* * * * 8", "weekday: '8' is not 0-7 or SUN-SAT"),
        ("* * * * MONDAY", "weekday: 'MONDAY' is not"),
        ("1,,2 * * * *", "minute: '' is not"),
        ("1-2-3 * * * *", "minute: '2-3' is not"),
        ("*-3 * * * *", "minute: '*' is not"),
        ("٣ * * * *", "minute: '٣' is not"),
        ("*/0 * * * *", "minute: the step '0' is not 1-60"),
        ("*/90 * * * *", "minute: the step '90' is not 1-60"),
        ("*/ * * * *", "minute: the step '' is not"),
        ("0 0 30 2 *", "is never due: day 30 is in none of its months"),
        ("0 0 31 4,6,9,11 *", "is never due: day 31"),
    ],
)
def test_a_crontab_that_cannot_be_is_refused_with_an_example(
    text: str, problem: str
) -> None:
    with pytest.raises(InvalidCrontab) as caught:
        Crontab(text)

    assert problem in caught.value.problem
    assert '"' in caught.value.remedy


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc", "Europe", 5])
def test_an_unknown_zone_is_refused(zone: Any) -> None:
    with pytest.raises(InvalidCrontab, match="There is no time zone"):
        Crontab("@daily", zone)


def test_a_misspelt_zone_is_answered_with_the_right_one() -> None:
    with pytest.raises(InvalidCrontab, match="Did you mean 'Europe/Berlin'"):
        Crontab("@daily", "Europe/Berln")


# A crontab and, written down while it is made up, the values that its fields mean.


@dataclass(frozen=True)
class Written:
    fields: tuple[tuple[str, frozenset[int]], ...]

    @property
    def text(self) -> str:
        return " ".join(text for text, _ in self.fields)

    def names(self, wall: datetime) -> bool:
        minutes, hours, days, months, weekdays = (values for _, values in self.fields)
        is_day = wall.day in days
        is_weekday = wall.strftime("%w") in {str(value % 7) for value in weekdays}
        if self.fields[2][0][0] == "*" or self.fields[4][0][0] == "*":
            is_right_day = is_day and is_weekday
        else:
            is_right_day = is_day or is_weekday
        is_time = wall.minute in minutes and wall.hour in hours
        return is_time and is_right_day and wall.month in months

    @property
    def every_hour(self) -> bool:
        return self.fields[1][1] >= set(range(24))

    @property
    def never(self) -> bool:
        """Whether no day of 28 years fits: after these the calendar repeats itself."""
        hour, minute = min(self.fields[1][1]), min(self.fields[0][1])
        first = datetime(2000, 1, 1, hour, minute, tzinfo=UTC)
        return not any(self.names(first + timedelta(days=day)) for day in range(28 * 366))


@st.composite
def fields(draw: st.DrawFn, lowest: int, highest: int) -> tuple[str, frozenset[int]]:
    everything = range(lowest, highest + 1)
    parts: list[tuple[str, Iterable[int]]] = []
    for _ in range(draw(st.integers(1, 3))):
        first, last = sorted(draw(st.tuples(*[st.sampled_from(everything)] * 2)))
        step = draw(st.integers(1, 5))
        forms: list[tuple[str, Iterable[int]]] = [
            ("*", everything),
            (f"*/{step}", everything[::step]),
            (f"{first}", [first]),
            (f"{first}-{last}", range(first, last + 1)),
            (f"{first}-{last}/{step}", range(first, last + 1, step)),
            (f"{first}/{step}", range(first, highest + 1, step)),
            (
                f"{last}-{first}",
                [*range(last, highest + 1), *range(lowest, first + 1)]
                if first < last
                else [first],
            ),
        ]
        parts.append(draw(st.sampled_from(forms)))
    values = frozenset(value for _, part in parts for value in part)
    return ",".join(text for text, _ in parts), values


anything = st.just(("*", frozenset(range(60))))
crontabs = st.builds(
    lambda *parts: Written(parts),
    fields(0, 59),
    fields(0, 23) | anything,
    fields(1, 31) | anything,
    fields(1, 12) | anything,
    fields(0, 6) | anything,
)
# Moments near which a clock jumps: over the seasons, by half an hour, over a whole day.
JUMPS = [
    ("Europe/Berlin", "2026-03-29T01:00+00:00"),
    ("Europe/Berlin", "2026-10-25T01:00+00:00"),
    ("America/New_York", "2026-11-01T06:00+00:00"),
    ("Africa/Cairo", "2026-04-23T22:00+00:00"),
    ("Africa/Cairo", "2026-10-29T21:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00+00:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30+00:00"),
    ("Pacific/Apia", "2011-12-30T10:00+00:00"),
    ("Asia/Kathmandu", "2026-12-31T18:15+00:00"),
    ("UTC", "2028-02-29T00:00+00:00"),
]


def brute_force(crontab: Written, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """Look at the clock on the wall each minute, for three days."""
    now = moment.replace(second=0, microsecond=0)
    before = now.astimezone(zone).replace(tzinfo=None)
    for _ in range(3 * 24 * 60):
        now += MINUTE
        shown = now.astimezone(zone)
        wall = shown.replace(tzinfo=None)
        if crontab.every_hour:
            is_due = crontab.names(wall)
        else:
            passed = [wall]
            while passed[-1] - MINUTE > before:
                passed.append(passed[-1] - MINUTE)
            is_due = shown.fold == 0 and any(crontab.names(each) for each in passed)
        if is_due:
            return now
        before = wall
    return None


@settings(max_examples=150, deadline=None)
@given(crontabs, st.sampled_from(JUMPS), st.integers(-3000 * 60, 200 * 60))
@example(
    Written(
        (
            ("30", frozenset({30})),
            ("2", frozenset({2})),
            *[("*", frozenset(range(60)))] * 3,
        )
    ),
    JUMPS[0],
    -3600,
)
def test_it_is_due_when_someone_who_looks_each_minute_says_so(
    written: Written, jump: tuple[str, str], seconds_after: int
) -> None:
    zone = ZoneInfo(jump[0])
    moment = datetime.fromisoformat(jump[1]) + timedelta(seconds=seconds_after)
    if written.never:
        with pytest.raises(InvalidCrontab, match="is never due"):
            Crontab(written.text, zone)
        return

    due = Crontab(written.text, zone).next_after(moment.astimezone(zone))

    expected = brute_force(written, moment, zone)
    if expected is None:
        assert due.astimezone(UTC) > moment + timedelta(days=3) - MINUTE
    else:
        assert due.astimezone(UTC) == expected
    assert due.tzinfo is zone
