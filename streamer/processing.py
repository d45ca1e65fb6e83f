"""The record in hand: who holds it, and what it has sent and written so far.

A record is atomic. What its handler sends and writes belongs to the hand that holds the
record, seen by nobody else, until the record is done; then it joins the transaction, and
later records see it. If the handler raises, it is dropped.

    worker/feed.py    a Run: the next records of one partition
    Hand.run          the run in hand, and the record of it that is being handled
    stream.py         gives the record to the user's code, and keeps it when it is done
    topic.py          what the code sends: in the hand, then in the worker's outbox
    table.py          what it writes: in the table's partition, and how to undo it in the
                      hand; `state/table_partition.py` says how others do not see it

Outside of processing, in a timer say, `current()` is None: sends go at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import Any

from streamer.client.interface import Message
from streamer.state.table_partition import Holder, TablePartition, keep

Send = tuple[Any, ...]
"""Arguments of `Producer.produce`: topic, value, key, partition, and seldom more."""


class Run:
    """Records of one partition that follow one another, and how many of them are done."""

    __slots__ = (
        *("done", "lane", "manual", "messages", "rest"),
        *("since", "tables", "void", "whole"),
    )

    def __init__(
        self,
        messages: list[Message],
        tables: Mapping[Any, TablePartition],
        lane: Any = None,
        *,
        whole: bool = False,
    ) -> None:
        self.messages = messages
        self.done = 0
        # By Table: the partition of it that lives with these records.
        self.tables = tables
        self.lane = lane
        # They are handled as one: `take`.
        self.whole = whole
        self.rest: Iterator[Message] = iter(messages)
        # When it was taken.
        self.since = 0.0
        # It is done when the user says so: `noack`.
        self.manual = False
        # Its records are read again, here or elsewhere: what is done with them counts no
        # more.
        self.void = False

    @property
    def is_done(self) -> bool:
        return self.done >= len(self.messages)

    def decoded(self, decode: Callable[[bytes], Any]) -> Iterator[tuple[Message, Any]]:
        """What is left of it, with values; decoded one by one as they are asked for.

        In C from end to end. What `decode` raises is raised here, with the record that it
        could not read at `done`; a tombstone is such a one.
        """
        # A method of the class, not of each record: that spares a look-up.
        value_of: Callable[[Message], Any] = type(self.messages[0]).value
        values = map(decode, map(value_of, self.messages[self.done :]))
        # The messages come first: `cut` takes away from them while somebody is at it.
        return zip(self.rest, values, strict=False)

    def again(self) -> Run:
        """From the first on that is not done."""
        self.rest = islice(self.messages, self.done, None)
        return self

    def cut(self) -> list[Message]:
        """Whoever goes through it comes to its end with the record in hand; the rest."""
        if self.whole:
            return []
        rest = self.messages[self.done + 1 :]
        del self.messages[self.done + 1 :]
        return rest


class Later:
    """The effects of a record that is done later than the next one is begun: `noack`."""

    __slots__ = ("changes", "sends")

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.changes: dict[TablePartition, dict[Any, Any]] = {}


class Hand(Holder):
    """Holds the record that an actor is handling, and its effects."""

    __slots__ = (
        *("acked", "later", "message", "outbox"),
        *("parts", "run", "sends", "stream"),
    )

    def __init__(self, outbox: list[Send]) -> None:
        super().__init__()
        self.outbox = outbox
        self.run: Run | None = None
        self.message: Message | None = None
        # The stream that gives the records, for `current_event()`.
        self.stream: Any = None
        self.sends: list[Send] = []
        # By Table: the partition of it that lives with the run in hand.
        self.parts: Mapping[Any, TablePartition] = {}
        # Where the record in hand leaves its effects if it is not done with it.
        self.later: Later | None = None
        # The event in hand was acknowledged: not an earlier one of the same record, which
        # was given again.
        self.acked = False

    def take(self, run: Run) -> None:
        if run.tables is not self.parts:
            # What it holds is always of the partition that it has a record of.
            for part in self.parts.values():
                if part.holder is self:
                    part.let_go()
        self.run, self.parts = run, run.tables

    def keep(self) -> None:
        """What is done stays done: the effects join the transaction."""
        self.outbox += self.sends
        self.sends.clear()
        self.keep_changes()

    def drop(self) -> None:
        """As if nothing had been done since the last record was kept."""
        self.sends.clear()
        self.drop_changes()
        self.later, self.acked = None, False

    def part(self) -> None:
        """Come for the next record, whether this one is done already or will be later."""
        assert self.later is not None, "only where the user says when a record is done"
        if self.acked:
            self.keep()
        else:
            self.later.sends += self.sends
            self.sends.clear()
            self.later.changes = self.put_by_changes()
        self.later, self.acked, self.run = None, False, None

    def keep_later(self, later: Later) -> None:
        """Keep the effects of a record that was put by."""
        self.outbox += later.sends
        keep(later.changes)

    @property
    def timestamp_ms(self) -> int:
        assert self.message is not None
        return self.message.timestamp()[1]


_hand: ContextVar[Hand | None] = ContextVar("hand", default=None)

current: Callable[[], Hand | None] = _hand.get
"""Who is processing here; None outside of processing."""

hold: Callable[[Hand | None], object] = _hand.set
"""From now on, in this task, `current()` is this."""
