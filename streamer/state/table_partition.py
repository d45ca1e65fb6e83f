"""One partition of a table: what is committed, and on top of it what is not yet.

    open          changed by records that are done, in the transaction that is open
    closing       in the transaction that is being committed just now
    known         as in the store, in the form that users see: spares a look-up
    the store     committed, as bytes

A look-up goes from top to bottom. A commit moves `open` to `closing` and, once the broker
has it, into the store; an abort forgets both. So the store is never ahead of the log, and
a reader from outside, who sees the lower two only, never sees what may be undone.

A value that whoever holds it could change (a list, a Record) is kept as bytes and decoded
for each reader: what is in the table changes by being put there, and in no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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


class TablePartition:
    __slots__ = ("_coding", "closing", "known", "number", "open", "store")

    def __init__(self, store: Store, number: int, coding: Coding) -> None:
        self.store = store
        self.number = number
        self._coding = coding
        self.open: dict[Any, Any] = {}
        self.closing: dict[Any, Any] = {}
        self.known: dict[Any, Any] = {}

    # For records that are processed.

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

    def apply(self, changes: Mapping[Any, Any]) -> None:
        """A record is done, and has changed this."""
        self.open.update(changes)

    def items(self, staged: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Everything in it, with what is staged in a hand on top."""
        changed = {**self.closing, **self.open, **staged}
        for key, value in self.committed_items():
            if key not in changed:
                yield key, value
        for key, value in changed.items():
            if value is not ABSENT:
                yield key, self.as_seen(value)

    # For a transaction.

    @property
    def changed(self) -> int:
        return len(self.open)

    def close_changes(self) -> Changes:
        """What has changed, as the changelog and the store will have it."""
        assert not self.closing, "one commit at a time"
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
