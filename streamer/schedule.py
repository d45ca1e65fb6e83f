"""Time as users write it: durations, and when timers and crontabs are due.

    seconds("1h30m")              5400.0; also numbers, timedeltas, and rates: "10/s"
    Every("10s")                  @app.timer: a grid of moments, one interval apart
    Crontab("30 2 * * MON-FRI")   @app.crontab: the times of day that five fields name

A crontab speaks of the clock on the wall, which jumps twice a year. For hours that it
names (`30 2 * * *`), each time on the wall counts once:

    a time that the clock jumps over    is due when the clock has jumped
    a time that comes twice             is due the first time

A crontab for every hour (`*/5 * * * *`) goes on evenly instead: nothing is made up for,
and in the hour that comes twice it is due twice.

Nothing here reads a clock or waits: callers say what time it is (`worker/`).
"""

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from streamer.errors import StreamerError

Duration = float | timedelta | str

UNITS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
}


class InvalidDuration(StreamerError):
    remedy = (
        'Give seconds (2.5), a timedelta, or text such as "500ms", "10s", "5m", "1h30m", '
        '"7d"; "10/s" is the time between two when there are ten a second.'
    )


class InvalidCrontab(StreamerError):
    remedy = (
        'Write five fields, "minute hour day month weekday": "30 2 * * MON-FRI" is half '
        'past two on working days, "*/15 * * * *" every quarter of an hour.'
    )


def seconds(duration: Duration, what: str = "duration") -> float:
    """A length of time in seconds; `what` is its name in the error."""
    found = _seconds(duration)
    if found is None or not 0 <= found < math.inf:
        raise InvalidDuration(f"{what} = {duration!r} is not a length of time.")
    return found


def milliseconds(duration: Duration, what: str = "duration") -> int:
    """A length of time in whole milliseconds; one that is none is refused, not rounded.

    Windows of 1/3 second that are taken for 333 ms would be 3 seconds off in an hour.
    """
    exact = seconds(duration, what) * 1000
    # Floats cannot write 0.3 s: what is nearer than a microsecond was meant.
    if abs(exact - round(exact)) >= 0.001:
        raise InvalidDuration(
            f"{what} = {duration!r} is not a whole number of milliseconds.",
            remedy=f'Write "{math.ceil(exact)}ms", or what else is near enough.',
        )
    return round(exact)


def _seconds(duration: object) -> float | None:
    """None: it is no length of time. Anything may come, for users need not check types."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        return _read(duration.strip())
    if isinstance(duration, int | float) and not isinstance(duration, bool):
        return float(duration)
    return None


# Not so many digits that a float could not hold them.
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"
_UNIT = f"({'|'.join(UNITS)})"


def _read(text: str) -> float | None:
    if re.fullmatch(_NUMBER, text):
        return float(text)
    # Faust reads "10/m" as 10/60 seconds, the rate itself; we take it at its word.
    if rate := re.fullmatch(f"{_NUMBER}/{_UNIT}", text):
        times = Fraction(rate[1])
        return float(UNITS[rate[2]] / times) if times else None
    if re.fullmatch(rf"(?:{_NUMBER}\s*{_UNIT}\s*)+", text):
        parts = re.findall(rf"{_NUMBER}\s*{_UNIT}", text)
        return float(sum(Fraction(number) * UNITS[unit] for number, unit in parts))
    return None


@dataclass(frozen=True, init=False)
class Every:
    """A timer: due every interval, the first time one interval after its start."""

    interval_s: float

    def __init__(self, interval: Duration) -> None:
        object.__setattr__(self, "interval_s", seconds(interval, "interval"))
        if self.interval_s < 0.001:
            raise InvalidDuration(
                f"interval = {interval!r}: a timer waits a millisecond at least."
            )

    def next_after(self, now: float, previous_due: float) -> float:
        """When it is due next; to begin with, `previous_due` is the time of the start.

        Counted from when it was due, not from when it ran, so that small delays do not
        add up. What was missed meanwhile is left out: no burst follows a stall. A clock
        that was set back by more than an interval is followed, not waited for.
        """
        passed = math.floor((now - previous_due) / self.interval_s)
        # Woken a little early (-1) is no reason to be due for the same moment again.
        due = previous_due + ((passed + 1) or 1) * self.interval_s
        # Rounding may put it onto `now` itself.
        return due if due > now else due + self.interval_s


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five fields, and what may be written in it."""

    name: str
    lowest: int
    highest: int
    words: tuple[str, ...] = ()

    @property
    def cycle(self) -> int:
        """After so many the values begin again."""
        # Sunday is 0 and 7.
        return 7 if self.name == "weekday" else self.highest - self.lowest + 1

    def parse(self, text: str) -> frozenset[int]:
        """The values that `text` names: `*`, `5`, `1-5`, `*/15`, `MON,WED-FRI`."""
        return frozenset(value for part in text.split(",") for value in self._part(part))

    def _part(self, text: str) -> Iterator[int]:
        span, slash, step = text.partition("/")
        low, dash, high = span.partition("-")
        first, last = self.lowest, self.lowest + self.cycle - 1
        if span != "*":
            first = self._value(low)
            # "5/15" goes on to the end, like "5-59/15".
            last = self._value(high) if dash else last if slash else first
        if last < first:  # over the turn: 22-2, FRI-MON
            last += self.cycle
        for value in range(first, last + 1, self._step(step) if slash else 1):
            yield self.lowest + (value - self.lowest) % self.cycle

    def _value(self, text: str) -> int:
        if text.upper() in self.words:
            return self.lowest + self.words.index(text.upper())
        value = _whole(text)
        if value is None or not self.lowest <= value <= self.highest:
            words = f" or {self.words[0]}-{self.words[-1]}" if self.words else ""
            raise ValueError(f"{text!r} is not {self.lowest}-{self.highest}{words}")
        return value

    def _step(self, text: str) -> int:
        step = _whole(text)
        if step is None or not 1 <= step <= self.cycle:
            # A longer step would be due once each cycle: not what it says.
            raise ValueError(f"the step {text!r} is not 1-{self.cycle}")
        return step


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else None


MONTHS = (
    "JAN",
    "FEB",
    "MAR",
    "APR",
    "MAY",
    "JUN",
    "JUL",
    "AUG",
    "SEP",
    "OCT",
    "NOV",
    "DEC",
)
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("weekday", 0, 7, WEEKDAYS),
)
SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST_MONTHS = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Minutes on the clock on the wall, in a world without time zones."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    # Day and weekday are both named (neither begins with `*`): one of them is enough.
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> "_Pattern":
        fields = SHORTHANDS.get(text.strip().lower(), text).split()
        if len(fields) != len(FIELDS):
            raise InvalidCrontab(_number_of_fields(text, len(fields)))
        values = []
        for kind, written in zip(FIELDS, fields, strict=True):
            try:
                values.append(kind.parse(written))
            except ValueError as error:
                raise InvalidCrontab(f"Crontab {text!r}, {kind.name}: {error}.") from None
        minutes, hours, days, months, weekdays = values
        either_day = not (fields[2].startswith("*") or fields[4].startswith("*"))
        if not either_day and all(min(days) > LONGEST_MONTHS[month] for month in months):
            raise InvalidCrontab(
                f"Crontab {text!r} is never due: day {min(days)} is in none of its months.",
                remedy='For the end of a month take a day it has: "0 0 28 2 *".',
            )
        return cls(
            tuple(sorted(minutes)), tuple(sorted(hours)), days, months, weekdays, either_day
        )

    @property
    def every_hour(self) -> bool:
        return len(self.hours) == 24

    def names(self, wall: datetime) -> bool:
        return (
            wall.minute in self.minutes and wall.hour in self.hours and self.names_day(wall)
        )

    def names_day(self, wall: datetime) -> bool:
        day = wall.day in self.days
        weekday = wall.isoweekday() % 7 in self.weekdays
        fits = (day or weekday) if self.either_day else (day and weekday)
        return fits and wall.month in self.months

    def first_from(self, wall: datetime) -> datetime:
        """The first minute that this names, `wall` itself included."""
        if self.names_day(wall):
            for hour in self.hours:
                for minute in self.minutes:
                    if (hour, minute) >= (wall.hour, wall.minute):
                        return wall.replace(hour=hour, minute=minute)
        day = wall.replace(hour=self.hours[0], minute=self.minutes[0]) + DAY
        while not self.names_day(day):
            if day.month in self.months:
                day += DAY
            else:  # to the first of the next: the 29th of February may be years away
                day = (day.replace(day=28) + 4 * DAY).replace(day=1)
        return day


def _number_of_fields(text: str, count: int) -> str:
    if text.strip().lower().startswith("@"):
        return f"Crontab {text!r} is none of {', '.join(SHORTHANDS)}."
    return f"Crontab {text!r} has {count} fields, not 5."


@dataclass(frozen=True)
class Crontab:
    """The moments that a crontab names, in its time zone or in that of who asks."""

    text: str
    timezone: str | tzinfo | None = None
    _pattern: _Pattern = field(init=False, repr=False, compare=False)
    _zone: tzinfo | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pattern", _Pattern.parse(self.text))
        object.__setattr__(self, "_zone", _zone(self.timezone))

    def next_after(self, moment: datetime) -> datetime:
        """The first moment after this one at which it is due, in the crontab's zone."""
        zone = self._zone or moment.tzinfo
        assert zone is not None, "a moment without a time zone could be any"
        # Two moments of one zone are compared by what the wall shows: wrong, when that
        # comes twice. In UTC nothing does.
        moment = moment.astimezone(UTC)
        if self._pattern.every_hour:
            return self._evenly(moment, zone)
        wall = _wall(moment, zone)
        while True:
            wall = self._pattern.first_from(wall + MINUTE)
            due = _first_existing(wall, zone)
            # A time may lie behind us though the wall has still to show it, again.
            if due > moment:
                return due

    def _evenly(self, moment: datetime, zone: tzinfo) -> datetime:
        """The next moment at which the wall shows a time of this crontab, be it again."""
        # A day minute by minute: if the clock goes back, what comes next is not what comes
        # next on the wall. No clock goes back by more than a day.
        start = moment.replace(second=0, microsecond=0)
        for minutes in range(1, 25 * 60):
            due = (start + minutes * MINUTE).astimezone(zone)
            if self._pattern.names(due):
                return due
        wall = self._pattern.first_from(_wall(start + timedelta(hours=25), zone))
        while not _exists(wall, zone):
            wall = self._pattern.first_from(wall + MINUTE)
        return wall.replace(tzinfo=zone)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    """What the clock on the wall shows, to the minute."""
    return moment.astimezone(zone).replace(second=0, microsecond=0, tzinfo=None, fold=0)


def _exists(wall: datetime, zone: tzinfo) -> bool:
    return _wall(wall.replace(tzinfo=zone).astimezone(UTC), zone) == wall


def _first_existing(wall: datetime, zone: tzinfo) -> datetime:
    """The moment when the wall shows this, or has just jumped over it; the first of two."""
    while not _exists(wall, zone):
        wall += MINUTE
    return wall.replace(tzinfo=zone)


def _zone(timezone: object) -> tzinfo | None:
    # pytz's zones, which Faust's users have, cannot be put into a datetime: take the name.
    name = getattr(timezone, "zone", None) or timezone
    if name is None or isinstance(name, tzinfo):
        return name
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(str(name), available_timezones(), n=1)
        raise InvalidCrontab(
            f"There is no time zone {name!r} here.",
            remedy=f"Did you mean {near[0]!r}?"
            if near
            else 'Zones are named "Europe/Berlin"; `pip install tzdata` if you have none.',
        ) from None
