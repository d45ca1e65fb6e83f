"""One partition of a table: what is committed, and on top of it what is not yet.

    open          changed by records that are done, in the transaction that is open
    closing       in the transaction that is being committed just now
    known         as in the store, in the form that users see: spares a look-up
    the store     committed, as bytes

A look-up goes from top to bottom. A commit moves `open` to `closing` and, once the broker
has it, into the store; an abort forgets both. So the store is never ahead of the log, and
a reader from outside, who sees the lower two only, never sees what may be undone.

A record that is not done changes nothing for others. Yet its changes stand in `open`, as
long as nobody else looks: most handlers come and go without that, and then nothing has to
be moved when the record is done. Who has it in hand is the `holder`, and notes what was
there before. Whoever else wants to look (another handler, a commit) has the holder take
its changes out first, and aside; it puts them back when it looks here again.

    hold      the holder's changes stand in `open`, those of no one else
    let_go    only what is done stands there

A value that whoever holds it could change (a list, a Record) is kept as bytes and decoded
for each reader: what is in the table changes by being put there, and in no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from streamer.state.store import Store

KNOWN_MAX = 100_000
"""So many values are kept decoded; a table may be larger than memory."""


class _Sign:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ABSENT: Final = _Sign("ABSENT")
"""There is no such key; also, among changes: it is deleted."""
UNKNOWN: Final = _Sign("UNKNOWN")
"""Nothing is known of the key here; look further down."""


class Encoded(bytes):
    """A value that must be decoded for each who reads it."""


class Coding(NamedTuple):
    """Between what users see and what is stored."""

    encode_key: Callable[[Any], bytes]
    decode_key: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    shared: Callable[[Any], bool]
    """Whether a value may be given to several readers: nobody can change it."""


Changes = dict[bytes, bytes | None]


class Holder:
    """Who has a record in hand, and what that has changed so far: `processing.Hand`."""

    __slots__ = ("aside", "undo")

    def __init__(self) -> None:
        # Of changes that stand in `open`: where, of which key, what was there before.
        self.undo: list[tuple[TablePartition, Any, Any]] = []
        # Those that do not, since somebody else has looked.
        self.aside: dict[TablePartition, dict[Any, Any]] = {}

    def keep_changes(self) -> None:
        """The record is done."""
        self.undo.clear()
        if self.aside:
            keep(self.aside)
            self.aside.clear()

    def drop_changes(self) -> None:
        """The record has changed nothing."""
        while self.undo:
            part, key, before = self.undo.pop()
            part.put_back(key, before)
        self.aside.clear()

    def put_by_changes(self) -> dict[TablePartition, dict[Any, Any]]:
        """The record may be done later: until then nobody sees them, nor we ourselves."""
        while self.undo:
            self.undo[-1][0].let_go()
        put_by = self.aside.copy()
        self.aside.clear()
        return put_by


def keep(changes: Mapping[TablePartition, Mapping[Any, Any]]) -> None:
    """A record that was put by is done."""
    for part, of_it in changes.items():
        part.apply(of_it)


class TablePartition:
    __slots__ = ("_coding", "closing", "holder", "known", "number", "open", "store")

    def __init__(self, store: Store, number: int, coding: Coding) -> None:
        self.store = store
        self.number = number
        self._coding = coding
        self.open: dict[Any, Any] = {}
        self.closing: dict[Any, Any] = {}
        self.known: dict[Any, Any] = {}
        # With an empty journal it holds nothing, and is as good as none.
        self.holder: Holder | None = None

    # Whose changes stand in `open`.

    def hold(self, holder: Holder) -> None:
        self.let_go()
        self.holder = holder
        for key, value in holder.aside.pop(self, {}).items():
            self.put(key, value)

    def let_go(self) -> None:
        holder, self.holder = self.holder, None
        if holder is None or not holder.undo:
            return
        changes: dict[Any, Any] = {}
        others = []
        for part, key, before in reversed(holder.undo):
            if part is self:
                changes.setdefault(key, self.open[key])
                self.put_back(key, before)
            else:
                others.append((part, key, before))
        # Whoever iterates for the holder has this very list in hand.
        holder.undo[:] = reversed(others)
        if changes:
            holder.aside[self] = changes

    def put_back(self, key: Any, before: Any) -> None:
        if before is UNKNOWN:
            del self.open[key]
        else:
            self.open[key] = before

    # For records that are processed, by the holder.

    def get(self, key: Any) -> Any:
        """The value, or ABSENT; with what records before have changed."""
        value = self.open.get(key, UNKNOWN)
        if value is UNKNOWN:
            value = self.closing.get(key, UNKNOWN)
            if value is UNKNOWN:
                value = self.known.get(key, UNKNOWN)
                if value is UNKNOWN:
                    value = self._look_up(key)
        if value.__class__ is Encoded:
            return self._coding.decode(value)
        return value

    def as_stored(self, value: Any) -> Any:
        """A value in the form in which changes hold it."""
        return value if self._coding.shared(value) else Encoded(self._coding.encode(value))

    def as_seen(self, value: Any) -> Any:
        """A value of changes in the form that users see."""
        return self._coding.decode(value) if value.__class__ is Encoded else value

    def put(self, key: Any, value: Any) -> None:
        """Change it; `value` is as in changes, ABSENT to delete it."""
        assert self.holder is not None, "whoever changes it holds it"
        self.holder.undo.append((self, key, self.open.get(key, UNKNOWN)))
        self.open[key] = value

    def apply(self, changes: Mapping[Any, Any]) -> None:
        """A record is done, and has changed this."""
        self.let_go()
        self.open.update(changes)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Everything in it, as the holder sees it."""
        changed = {**self.closing, **self.open}
        for key, value in self.committed_items():
            if key not in changed:
                yield key, value
        for key, value in changed.items():
            if value is not ABSENT:
                yield key, self.as_seen(value)

    # For a transaction.

    @property
    def changed(self) -> int:
        """About how many keys: with those that a record in hand has changed."""
        return len(self.open)

    def close_changes(self) -> Changes:
        """What has changed, as the changelog and the store will have it."""
        assert not self.closing, "one commit at a time"
        self.let_go()
        self.closing, self.open = self.open, {}
        encode_key, encode = self._coding.encode_key, self._coding.encode
        return {
            encode_key(key): None
            if value is ABSENT
            else value
            if value.__class__ is Encoded
            else encode(value)
            for key, value in self.closing.items()
        }

    def committed(self) -> None:
        """The store has what was closed."""
        if len(self.known) + len(self.closing) > KNOWN_MAX:
            self.known = {}
        self.known.update(self.closing)
        self.closing = {}

    def aborted(self) -> None:
        """Nothing since the last commit has happened."""
        self.let_go()
        self.open, self.closing = {}, {}

    def forget_known(self) -> None:
        """The store has been written to by somebody else: a recovery."""
        self.aborted()
        self.known = {}

    def forget(self, keys: Iterable[bytes]) -> None:
        """The store has other values of these, which somebody else has written."""
        try:
            for key in keys:
                self.known.pop(self._coding.decode_key(key), None)
        except TypeError:
            self.known = {}  # keys that come back as something else, as tuples do in JSON

    # For readers from outside.

    def committed_get(self, key: Any) -> Any:
        """The committed value, or ABSENT."""
        value = self.known.get(key, UNKNOWN)
        if value is UNKNOWN:
            value = self._look_up(key)
        return self.as_seen(value)

    def committed_items(
        self, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[Any, Any]]:
        decode_key, decode = self._coding.decode_key, self._coding.decode
        for key, value in self.store.items(start, stop):
            yield decode_key(key), decode(value)

    def _look_up(self, key: Any) -> Any:
        found = self.store.get(self._coding.encode_key(key))
        if found is None:
            return ABSENT
        value = self._coding.decode(found)
        kept = value if self._coding.shared(value) else Encoded(found)
        if len(self.known) < KNOWN_MAX:
            self.known[key] = kept
        return kept


NOWHERE: Final[Any] = SimpleNamespace(holder=None)
"""A partition that nobody has."""
