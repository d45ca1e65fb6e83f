"""Table: a dict that survives. Its partitions live with those of the records.

    for an agent       reads see the record in hand, then what records before it have done;
                       writes join the transaction of the record in hand
    for anybody else   reads see what is committed, of the partitions that are here

A write goes to the partition of the record in hand, whatever the key: so the records that
belong to a key must have come to one partition, by their own key or by `group_by`.

    sold[order.item] += order.quantity

A value that can be changed (a list, a Record) is a copy: change it, then put it back.
The partitions of the table are in `state/table_partition.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar, overload

from streamer.codecs import IMMUTABLE, Codec, codec_for
from streamer.errors import StreamerError
from streamer.processing import Hand, current
from streamer.schedule import Duration
from streamer.state.store import Store
from streamer.state.table_partition import (
    ABSENT,
    NOWHERE,
    UNKNOWN,
    Coding,
    Encoded,
    TablePartition,
)
from streamer.state.window_partition import WindowPartition, window_coding
from streamer.window import Hopping, Tumbling, Window
from streamer.windowed import WindowedTable

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_MISSING: Final = object()


class TableError(StreamerError):
    """A table was used in a way that cannot work."""


class PartitionsMismatch(StreamerError):
    """A table, and a topic that it is processed with, have different numbers of them."""

    remedy = (
        "Give the table the number of the topic: app.Table(..., partitions=N), "
        "or let the stream go through group_by(..., partitions=N)."
    )


class Table(Generic[K, V]):
    def __init__(
        self,
        name: str,
        *,
        default: Callable[[], V] | None = None,
        key_type: type[K] | Any = None,
        value_type: type[V] | Any = None,
        key_serializer: str | Codec | None = None,
        value_serializer: str | Codec | None = None,
        partitions: int | None = None,
        help: str | None = None,
    ) -> None:
        self.name = name
        self.default = default
        self.help = help or ""
        self.partitions = partitions
        self.key_type = key_type
        self.value_type = value_type
        keys = codec_for(key_type, key_serializer, default="json")
        values = codec_for(value_type, value_serializer, default="json")
        self.encode_key = keys.encode
        # Without the start of a window, if it has windows.
        self.decode_key = keys.decode
        self.coding = Coding(
            keys.encode, keys.decode, values.encode, values.decode, _is_shared
        )
        # By number: the partitions that are here, in a worker.
        self.here: dict[int, TablePartition] = {}
        # The one that was used last: mostly that of the record in hand.
        self._part: TablePartition = NOWHERE
        # With windows its keys are (start of the window, key): `windowed.py`.
        self.window: Window | None = None
        self.retention_ms: int | None = None
        # A worker puts its own here.
        self.late: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Table {self.name}>"

    # With windows.

    def tumbling(
        self,
        size: Duration,
        expires: Duration | None = None,
        key_index: bool = False,
        *,
        grace: Duration = 0,
    ) -> WindowedTable[K, V]:
        """A value for each key and window, one window after the other.

        `expires`: so long after its end a window is removed; without it, all stay.
        `grace`: so long after its end a window takes records that come late.
        `key_index` is not needed: it is there for Faust's sake.
        """
        return self.using_window(Tumbling(size, grace=grace, expires=expires))

    def hopping(
        self,
        size: Duration,
        step: Duration,
        expires: Duration | None = None,
        key_index: bool = False,
        *,
        grace: Duration = 0,
    ) -> WindowedTable[K, V]:
        """Like `tumbling`, but a new window begins every `step`: they overlap."""
        return self.using_window(Hopping(size, step, grace=grace, expires=expires))

    def using_window(self, window: Window, key_index: bool = False) -> WindowedTable[K, V]:
        if self.window is not None:
            raise TableError(
                f"Table {self.name} has windows already.",
                remedy="Declare one table for each kind of window.",
            )
        self.window = window
        self.coding = window_coding(self.coding)
        if window.expires_ms is not None:
            self.retention_ms = window.size_ms + max(window.expires_ms, window.grace_ms)
        return WindowedTable(self, window)

    # One key.

    # Reading and writing one key is most of what handlers do: `held_by`, `get` and `put`
    # are written out here, to spare the calls.

    def __getitem__(self, key: K) -> V:
        hand = current()
        if hand is None:
            value = self._committed(key)
        else:
            part = self._part
            if part.holder is not hand:
                part = self.held_by(hand)
            value = part.open.get(key, UNKNOWN)
            if value is UNKNOWN:
                value = part.get(key)
            elif value.__class__ is Encoded:
                value = part.as_seen(value)
        if value is ABSENT:
            return self.__missing__(key)
        found: V = value
        return found

    def __missing__(self, key: K) -> V:
        if self.default is None:
            raise KeyError(key)
        return self.default()

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        value = self._get(key)
        return default if value is ABSENT else value

    def __contains__(self, key: K) -> bool:
        return self._get(key) is not ABSENT

    def __setitem__(self, key: K, value: V) -> None:
        hand = current()
        if hand is None:
            raise self._outside()
        part = self._part
        if part.holder is not hand:
            part = self.held_by(hand)
        stored: Any = value
        if value.__class__ not in IMMUTABLE:
            # As it is now: what its holder does to it later is not ours.
            stored = part.as_stored(value)
        changes = part.open
        hand.undo.append((part, key, changes.get(key, UNKNOWN)))
        changes[key] = stored

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._delete(key)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | D) -> V | D: ...
    def pop(self, key: K, default: Any = _MISSING) -> Any:
        value = self._get(key)
        if value is not ABSENT:
            self._delete(key)
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def setdefault(self, key: K, default: V) -> V:
        value = self._get(key)
        if value is not ABSENT:
            found: V = value
            return found
        self[key] = default
        return default

    def update(self, *others: Any, **named: V) -> None:
        for key, value in dict(*others, **named).items():
            self[key] = value

    def clear(self) -> None:
        """Delete every key of the partition of the record in hand."""
        for key in list(self.keys()):
            self._delete(key)

    # All keys of the partitions that are here.

    def items(self) -> Iterator[tuple[K, V]]:
        hand = current()
        for part in self._parts(hand):
            if hand is None:
                yield from part.committed_items()
                continue
            if hand.parts.get(self) is part:
                part.hold(hand)
            else:
                part.let_go()
            yield from part.items()

    def keys(self) -> Iterator[K]:
        return (key for key, _ in self.items())

    def values(self) -> Iterator[V]:
        return (value for _, value in self.items())

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def __len__(self) -> int:
        return sum(1 for _ in self.items())

    def __bool__(self) -> bool:
        return True  # an empty table is a table

    def as_ansitable(
        self,
        *,
        key: str = "Key",
        value: str = "Value",
        title: str = "",
        sort: bool = False,
    ) -> str:
        """It as text, to be printed."""
        rows = [(str(one), str(other)) for one, other in self.items()]
        return _drawn([(key, value), *(sorted(rows) if sort else rows)], title)

    # What the worker does with it.

    def partition_in(self, store: Store, number: int) -> TablePartition:
        """A partition of it, with what the store holds."""
        if self.window is None:
            return TablePartition(store, number, self.coding)
        return WindowPartition(store, number, self.coding, self.window)

    def part_of(self, number: int) -> TablePartition | None:
        return self.here.get(number)

    def _get(self, key: K) -> Any:
        hand = current()
        return self._committed(key) if hand is None else self.held_by(hand).get(key)

    def _delete(self, key: K) -> None:
        hand = current()
        if hand is None:
            raise self._outside()
        self.held_by(hand).put(key, ABSENT)

    def held_by(self, hand: Hand) -> TablePartition:
        """The partition that lives with the record in hand, as it is for that record."""
        try:
            part = hand.parts[self]
        except KeyError:
            raise self._mismatch(hand) from None
        if part.holder is not hand:
            part.hold(hand)
        self._part = part
        return part

    def _parts(self, hand: Hand | None) -> list[TablePartition]:
        return [self.here[number] for number in sorted(self.here)]

    def _committed(self, key: K) -> Any:
        for part in self.here.values():
            value = part.committed_get(key)
            if value is not ABSENT:
                return value
        return ABSENT

    def _outside(self) -> TableError:
        return TableError(
            f"Table {self.name} can be changed by an agent only, while it has a record"
            " in hand.",
            remedy="Send a record to an agent that changes it.",
        )

    def _mismatch(self, hand: Hand) -> PartitionsMismatch:
        if hand.message is None:
            return PartitionsMismatch(
                f"Table {self.name} is asked for by an agent that has no record in hand.",
                remedy="Do it within `async for ... in stream:`.",
            )
        at = f"{hand.message.topic()}:{hand.message.partition()}"
        return PartitionsMismatch(
            f"Table {self.name} has {self.partitions} partitions and none that lives with"
            f" {at}: that topic has another number of them."
        )


def _is_shared(value: Any) -> bool:
    return value.__class__ in IMMUTABLE


def _drawn(rows: list[tuple[str, str]], title: str) -> str:
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    line = f"+{'-' * (wide[0] + 2)}+{'-' * (wide[1] + 2)}+"
    text = [f"| {one:<{wide[0]}} | {other:<{wide[1]}} |" for one, other in rows]
    inside = len(line) - 2
    head = [f"+{'-' * inside}+", f"|{title:^{inside}}|"] if title else []
    return "\n".join([*head, line, text[0], line, *text[1:], *([line] if text[1:] else [])])
