"""WindowedTable: a table with a value of its own for each key and window of time.

    clicks = app.Table("clicks", default=int).tumbling(60.0, expires=3600.0)

    clicks[page] += 1              in all windows that hold the time of the record in hand
    clicks[page].value()           in the current window; by hopping windows, the newest
    clicks[page].delta(60.0)       in the one that was current a minute before
    clicks.items().now()           all keys of the window of this moment

The time of a record is its timestamp, unless `relative_to_now()` or `relative_to_field()`
says otherwise. Outside of agents there is no record: `value()` is that of the latest window
then, by the highest timestamp seen.

A record that comes when its window is closed changes nothing, and is counted as late. What
has been removed is as if it had never been there. When that is: `window.py`.

A list of `take` has no one time: with it, windows go by `relative_to(order.at)`, a time
that is given each time, or by the clock.

What is stored, and how windows go: `state/window_partition.py`.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast

from streamer.client.interface import Message
from streamer.codecs import IMMUTABLE
from streamer.errors import StreamerError
from streamer.event import Event
from streamer.processing import Hand, current
from streamer.record import key_getter
from streamer.schedule import Duration
from streamer.state.store import now_ms
from streamer.state.table_partition import ABSENT, UNKNOWN, Encoded, TablePartition
from streamer.state.window_partition import WindowPartition
from streamer.window import Window, WindowRange

K = TypeVar("K")
V = TypeVar("V")
R_co = TypeVar("R_co", covariant=True)
Op = Callable[[Any, Any], Any]
EventTime = Callable[[Hand | None], int | None]
"""The time, in milliseconds, that decides in which windows the record in hand is; None: it
needs a record, and there is none."""


SETS_MAX = 20_000


class WindowError(StreamerError):
    """A windowed table was used in a way that cannot work."""


class Kept(Protocol):
    """The table beneath: its keys are (start of the window, key)."""

    name: str
    default: Callable[[], Any] | None
    here: dict[int, TablePartition]
    late: Counter[str]

    def held_by(self, hand: Hand) -> TablePartition: ...

    def _outside(self) -> StreamerError: ...


class WindowedTable(Generic[K, V]):
    def __init__(
        self,
        table: Kept,
        window: Window,
        *,
        event_time: EventTime | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """`event_time`: None is the record's timestamp. `clock`: what `now` is."""
        self.table = table
        self.window = window
        self.clock = clock or now_ms
        self.event_time = event_time
        # For the shortest way; 0: it is not open.
        self.tumbling_ms = (
            window.size_ms if event_time is None and window.step_ms == window.size_ms else 0
        )
        self.closes_after_ms = window.size_ms + window.grace_ms
        # They hold nothing but their key, and making one takes longer than finding it.
        self._sets: dict[K, WindowSet[K, V]] = {}

    def __repr__(self) -> str:
        return f"<WindowedTable {self.name}>"

    @property
    def name(self) -> str:
        return self.table.name

    # Which time counts.

    def relative_to_stream(self) -> WindowedTable[K, V]:
        """The same table, by the timestamps of records: that is how it begins."""
        return WindowedTable(self.table, self.window, clock=self.clock)

    def relative_to_now(self) -> WindowedTable[K, V]:
        """The same table, by the clock."""
        return self._relative_to(lambda _: self.clock())

    def relative_to_field(self, field: Any) -> WindowedTable[K, V]:
        """The same table, by a field of the record, `Order.at`: a datetime, or seconds."""
        get = key_getter(field)

        def by_field(hand: Hand | None) -> int | None:
            if hand is None:
                return None
            return moment_ms(get(_in_hand(hand).stream.current_event.value))

        return self._relative_to(by_field)

    def relative_to(self, moment: Any) -> WindowedTable[K, V]:
        """The same table, at a certain time, or at what a function says."""
        get = moment if callable(moment) else lambda: moment
        return self._relative_to(lambda _: moment_ms(get()))

    def _relative_to(self, event_time: EventTime) -> WindowedTable[K, V]:
        return WindowedTable(
            self.table, self.window, event_time=event_time, clock=self.clock
        )

    # One key.

    def __getitem__(self, key: K) -> WindowSet[K, V]:
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= SETS_MAX:
                self._sets.clear()
            found = self._sets[key] = WindowSet(self, key)
        return found

    def __setitem__(self, key: K, value: V | WindowSet[K, V]) -> None:
        if value.__class__ is WindowSet:
            # `t[k] += 1` ends here with what the addition gave: it is done.
            if value.key != key or value.table is not self:
                raise WindowError(
                    f"Table {self.name} was to keep a set of windows as a value.",
                    remedy="Take the value of one: t[a] = t[b].value()",
                )
            return
        self.change(key, _put, value)

    def __delitem__(self, key: K) -> None:
        """Delete it from all windows that hold the time of the record in hand."""
        self.change(key, _remove, None)

    def __contains__(self, key: K) -> bool:
        return self.find(key, self.moment()) is not ABSENT

    # All keys that a window has, of the partitions that are here.

    def keys(self) -> WindowedView[K]:
        return WindowedView(self, lambda key, _: key)

    def values(self) -> WindowedView[V]:
        return WindowedView(self, lambda _, value: value)

    def items(self) -> WindowedView[tuple[K, V]]:
        return WindowedView(self, lambda key, value: (key, value))

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def __len__(self) -> int:
        """How many keys the current window has."""
        return sum(1 for _ in self.keys())

    def __bool__(self) -> bool:
        return True

    # How it is done.

    def moment(self) -> int | None:
        """The time that counts here; None: the highest of each partition."""
        hand = current()
        if self.event_time is not None:
            return self.event_time(hand)
        return None if hand is None else _in_hand(hand).timestamp_ms

    def time_of(self, hand: Hand) -> int:
        if self.event_time is None:
            return _in_hand(hand).timestamp_ms
        found = self.event_time(hand)
        assert found is not None
        return found

    def change(self, key: K, op: Op, operand: Any) -> None:
        """In all windows that hold the time of the record in hand."""
        hand = current()
        if hand is None:
            raise self.table._outside()
        moment = self.time_of(hand)
        self.change_in(hand, key, moment, self.window.starts(moment), op, operand)

    def change_in(
        self,
        hand: Hand,
        key: K,
        moment_ms: int,
        starts: Sequence[int],
        op: Op,
        operand: Any,
    ) -> None:
        part = cast(WindowPartition, self.table.held_by(hand))
        part.time_ms = max(part.time_ms, moment_ms)
        late = False
        for start in starts:
            if start + self.closes_after_ms <= part.time_ms:
                late = True
                continue
            windowed = (start, key)
            value = op(self.seen(part, windowed, op), operand)
            if value is not ABSENT and value.__class__ not in IMMUTABLE:
                value = part.as_stored(value)
            part.put(windowed, value)
        if late:
            self.table.late[self.name] += 1

    def seen(self, part: WindowPartition, windowed: tuple[int, K], op: Op) -> Any:
        """The value before a change that asks for it."""
        if op is _put or op is _remove:
            return None
        value = part.get(windowed)
        return self.missing(windowed[1]) if value is ABSENT else value

    def missing(self, key: K) -> Any:
        if self.table.default is None:
            raise KeyError(key)
        return self.table.default()

    def find(self, key: K, moment_ms: int | None, before: Duration = 0) -> Any:
        """The value in the window that is current at this time, or was so long before."""
        hand = current()
        if hand is not None:
            assert moment_ms is not None
            return self.find_in(hand, key, self.window.delta(moment_ms, before))
        for part in self.parts():
            at = part.committed_ms if moment_ms is None else moment_ms
            value = self._committed(part, key, self.window.delta(at, before))
            if value is not ABSENT:
                return value
        return ABSENT

    def find_at(self, key: K, start_ms: int) -> Any:
        """The value in the window that starts there."""
        hand = current()
        if hand is not None:
            return self.find_in(hand, key, start_ms)
        for part in self.parts():
            value = self._committed(part, key, start_ms)
            if value is not ABSENT:
                return value
        return ABSENT

    def find_in(self, hand: Hand, key: K, start_ms: int) -> Any:
        part = cast(WindowPartition, self.table.held_by(hand))
        if self._is_over(start_ms, part.time_ms):
            return ABSENT
        return part.get((start_ms, key))

    def _committed(self, part: WindowPartition, key: K, start_ms: int) -> Any:
        if self._is_over(start_ms, part.committed_ms):
            return ABSENT
        return part.committed_get((start_ms, key))

    def _is_over(self, start_ms: int, stream_time_ms: int) -> bool:
        first = self.window.expired_before(stream_time_ms)
        return first is not None and start_ms < first

    def parts(self) -> list[WindowPartition]:
        here = self.table.here
        return [cast(WindowPartition, here[number]) for number in sorted(here)]

    def scan(self, moment_ms: int | None, before: Duration = 0) -> Iterator[tuple[K, V]]:
        """Keys and values of the window that is current at this time, or was before."""
        hand = current()
        for part in self.parts():
            highest = part.committed_ms if hand is None else part.time_ms
            start = self.window.delta(highest if moment_ms is None else moment_ms, before)
            if self._is_over(start, highest):
                continue
            if hand is None:
                yield from part.committed_window(start)
            else:
                if self.table.held_by(hand) is not part:
                    part.let_go()
                yield from part.window_items(start)


class WindowSet(Generic[K, V]):
    """A key of a windowed table: its values in all windows."""

    __slots__ = ("key", "table")

    def __init__(self, table: WindowedTable[K, V], key: K) -> None:
        self.table = table
        self.key = key

    def __repr__(self) -> str:
        return f"<WindowSet {self.table.name}[{self.key!r}]>"

    # Reading.

    def value(self, event: Event[Any] | None = None) -> V:
        """In the current window, by the time that counts for the table."""
        if event is None:
            return self._or_default(self.table.find(self.key, self.table.moment()))
        return self.current(event)

    def current(self, event: Event[Any] | None = None) -> V:
        """In the window of an event, or of the record in hand, by its timestamp."""
        return self._or_default(self.table.find(self.key, _stream_moment(event)))

    def now(self) -> V:
        """In the window of this moment, by the clock."""
        return self._or_default(self.table.find(self.key, self.table.clock()))

    def delta(self, before: Duration, event: Event[Any] | None = None) -> V:
        """In the window that was current so long before."""
        at = self.table.moment() if event is None else _time_of(event.message)
        return self._or_default(self.table.find(self.key, at, before))

    def __getitem__(self, window: WindowRange | Event[Any]) -> V:
        """In a certain window, or that of an event."""
        return self._or_default(self.table.find_at(self.key, self._start(window)))

    def _or_default(self, value: Any) -> V:
        found: V = self.table.missing(self.key) if value is ABSENT else value
        return found

    def _start(self, window: WindowRange | Event[Any]) -> int:
        if isinstance(window, Event):
            return self.table.window.current(_time_of(window.message))
        return round(window[0] * 1000)

    # Changing.

    def __setitem__(self, window: WindowRange | Event[Any], value: V) -> None:
        hand = current()
        if hand is None:
            raise self.table.table._outside()
        starts = [self._start(window)]
        self.table.change_in(hand, self.key, self.table.time_of(hand), starts, _put, value)

    def apply(self, op: Op, value: Any, event: Event[Any] | None = None) -> WindowSet[K, V]:
        """`op(old, value)` in all windows that hold the time of the record in hand."""
        if event is None:
            self.table.change(self.key, op, value)
            return self
        hand = current()
        if hand is None:
            raise self.table.table._outside()
        at = _time_of(event.message)
        self.table.change_in(hand, self.key, at, self.table.window.starts(at), op, value)
        return self

    def __iadd__(self, operand: Any) -> WindowSet[K, V]:
        # Counting in tumbling windows is what most such tables are for: this is `change`
        # written out, with one look-up where that makes several.
        windowed = self.table
        size = windowed.tumbling_ms
        hand: Any = current()
        if not size or hand is None or hand.message is None or hand.run.whole:
            windowed.change(self.key, operator.iadd, operand)
            return self
        part: Any = hand.parts.get(windowed.table)
        if part is None or part.holder is not hand:
            part = windowed.table.held_by(hand)
        moment = hand.message.timestamp()[1]
        start = moment - moment % size
        if moment > part.time_ms:
            part.time_ms = moment
        elif start + windowed.closes_after_ms <= part.time_ms:
            windowed.table.late[windowed.name] += 1
            return self
        at = (start, self.key)
        changes = part.open
        before = value = changes.get(at, UNKNOWN)
        if value is UNKNOWN:
            value = part.get(at)
        elif value.__class__ is Encoded:
            value = part.as_seen(value)
        if value is ABSENT:
            value = windowed.missing(self.key)
        value += operand
        if value.__class__ not in IMMUTABLE:
            value = part.as_stored(value)
        hand.undo.append((part, at, before))
        changes[at] = value
        return self

    def __isub__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.isub, operand)

    def __imul__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.imul, operand)

    def __itruediv__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.itruediv, operand)

    def __ifloordiv__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.ifloordiv, operand)

    def __imod__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.imod, operand)

    def __ipow__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.ipow, operand)

    def __ilshift__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.ilshift, operand)

    def __irshift__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.irshift, operand)

    def __iand__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.iand, operand)

    def __ixor__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.ixor, operand)

    def __ior__(self, operand: Any) -> WindowSet[K, V]:
        return self.apply(operator.ior, operand)


class WindowedView(Generic[R_co]):
    """Keys, values or items of a window; iterated as it is, of the current one."""

    def __init__(
        self, table: WindowedTable[Any, Any], form: Callable[[Any, Any], R_co]
    ) -> None:
        self._table = table
        self._form = form

    def __iter__(self) -> Iterator[R_co]:
        return self._formed(self._table.moment())

    def current(self, event: Event[Any] | None = None) -> Iterator[R_co]:
        """Of the window of an event, or of the record in hand."""
        return self._formed(_stream_moment(event))

    def now(self) -> Iterator[R_co]:
        """Of the window of this moment, by the clock."""
        return self._formed(self._table.clock())

    def delta(self, before: Duration, event: Event[Any] | None = None) -> Iterator[R_co]:
        """Of the window that was current so long before."""
        at = self._table.moment() if event is None else _time_of(event.message)
        return self._formed(at, before)

    def _formed(self, moment_ms: int | None, before: Duration = 0) -> Iterator[R_co]:
        form = self._form
        return (form(key, value) for key, value in self._table.scan(moment_ms, before))


def _put(_: Any, value: Any) -> Any:
    return value


def _remove(_: Any, __: Any) -> Any:
    return ABSENT


def _stream_moment(event: Event[Any] | None) -> int | None:
    if event is not None:
        return _time_of(event.message)
    hand = current()
    return None if hand is None else _in_hand(hand).timestamp_ms


def _in_hand(hand: Hand) -> Hand:
    """It, if it holds one record, which has a time."""
    if hand.message is None or hand.run is None:
        raise WindowError(
            "There is no record in hand that would have a time.",
            remedy="Use windows within `async for ... in stream:`.",
        )
    if hand.run.whole:
        raise WindowError(
            "There is a list of records in hand, each with a time of its own.",
            remedy="Take them one by one, or say the time of each:"
            " table.relative_to(order.at)[key] += 1",
        )
    return hand


def _time_of(message: Message) -> int:
    return message.timestamp()[1]


def moment_ms(moment: Any) -> int:
    """A time of whatever kind in milliseconds since 1970; numbers are seconds."""
    if isinstance(moment, datetime):
        return round(moment.timestamp() * 1000)
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        return round(moment * 1000)
    raise WindowError(
        f"{moment!r} is no time that windows could go by.",
        remedy="Name a field that is a datetime, or seconds since 1970.",
    )
