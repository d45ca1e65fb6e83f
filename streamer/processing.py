"""The record in hand: who holds it, and what it has sent and written so far.

A record is atomic. What its handler sends and writes stays in the hand that holds the
record, seen by nobody else, until the record is done; then it joins the transaction, and
later records see it. If the handler raises, it is dropped.

    worker/feed.py    a Run: the next records of one partition
    Hand.run          the run in hand, and the record of it that is being handled
    stream.py         gives the record to the user's code, and keeps it when it is done
    topic.py, table.py    stage what the code sends and writes in `current()`
    Hand.keep         into the tables' open changes, and into the worker's outbox

Outside of processing, in a timer say, `current()` is None: sends go at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import Any

from streamer.client.interface import Message
from streamer.state.table_partition import TablePartition

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


class Staged:
    """Of one table: its partition that lives with the record in hand, and what the record
    has changed of it so far, by key."""

    __slots__ = ("changes", "part")

    def __init__(self, part: TablePartition) -> None:
        self.part = part
        self.changes: dict[Any, Any] = {}


class Hand:
    """Holds the record that an actor is handling, and its effects."""

    __slots__ = (
        *("acked", "message", "outbox", "run", "sends"),
        *("staged", "stream", "wrote"),
    )

    def __init__(self, outbox: list[Send]) -> None:
        self.outbox = outbox
        self.run: Run | None = None
        self.message: Message | None = None
        # The stream that gives the records, for `current_event()`.
        self.stream: Any = None
        self.sends: list[Send] = []
        # By Table: those that live with the run in hand, and whether any has changed.
        self.staged: dict[Any, Staged] = {}
        self.wrote = False
        # The event in hand was acknowledged: not an earlier one of the same record, which
        # was given again.
        self.acked = False

    def take(self, run: Run) -> None:
        if self.run is None or run.tables is not self.run.tables:
            self.staged = {table: Staged(part) for table, part in run.tables.items()}
        self.run = run

    def keep(self) -> None:
        """What is done stays done: the effects join the transaction."""
        if self.sends:
            self.outbox += self.sends
            self.sends.clear()
        if self.wrote:
            self.wrote = False
            for staged in self.staged.values():
                if staged.changes:
                    staged.part.open.update(staged.changes)
                    staged.changes.clear()

    def drop(self) -> None:
        """As if nothing had been done since the last record was kept."""
        self.put_by()

    def part(self) -> None:
        """Come for the next record, whether this one is done already or will be later."""
        if self.acked:
            self.keep()
        else:
            self.put_by()
        self.acked = False
        self.run = None

    def put_by(self) -> tuple[list[Send], list[Staged]]:
        """Begin a record with nothing; the effects of the last one, to be kept later."""
        sends, staged = self.sends, self.staged
        self.sends = []
        self.staged = {table: Staged(one.part) for table, one in staged.items()}
        self.wrote = self.acked = False
        return sends, list(staged.values())

    def keep_later(self, sends: list[Send], staged: list[Staged]) -> None:
        """Keep the effects of a record that was put by."""
        self.outbox += sends
        for one in staged:
            one.part.open.update(one.changes)

    @property
    def timestamp_ms(self) -> int:
        assert self.message is not None
        return self.message.timestamp()[1]


_hand: ContextVar[Hand | None] = ContextVar("hand", default=None)

current: Callable[[], Hand | None] = _hand.get
"""Who is processing here; None outside of processing."""

hold: Callable[[Hand | None], object] = _hand.set
"""From now on, in this task, `current()` is this."""
