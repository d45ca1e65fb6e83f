"""A history, arranged for the questions that are put to it.

Each value becomes a `Write` with the places it was seen at, each transaction gets its fate:

    committed   the broker said so
    aborted     the broker said so, or its client never asked to commit it
    unknown     its client asked to commit, and was killed or gave up before the answer

A transaction of unknown fate is proved to be committed as soon as one of its values is
read; then all of them must be readable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from support.history.events import (
    Acknowledged,
    Calm,
    Committing,
    Ended,
    Ending,
    Event,
    Moved,
    Partition,
    Polled,
    Record,
    Sent,
)


class Fate(StrEnum):
    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"  # asked to commit, and the answer is not known


@dataclass(slots=True, eq=False)
class Transaction:
    name: str
    client: str
    asked_at: float | None = None  # when it first asked to commit
    ending_at: float | None = None  # when it first asked for any end
    ended_at: float | None = None
    outcome: bool | None = None

    @property
    def fate(self) -> Fate:
        if self.outcome is not None:
            return Fate.COMMITTED if self.outcome else Fate.ABORTED
        # Nobody else can commit it; so long as it has not asked, it is not committed.
        return Fate.ABORTED if self.asked_at is None else Fate.UNKNOWN


@dataclass(slots=True)
class Write:
    """One value on its way into one partition."""

    partition: Partition
    value: str
    client: str
    transaction: Transaction | None
    offset: int | None = None
    acknowledged_at: float | None = None

    @property
    def fate(self) -> Fate:
        if self.transaction is not None:
            return self.transaction.fate
        return Fate.UNKNOWN if self.acknowledged_at is None else Fate.COMMITTED

    @property
    def writer(self) -> str:
        return self.transaction.name if self.transaction else self.client

    @property
    def committed_at(self) -> float | None:
        return self.transaction.ended_at if self.transaction else self.acknowledged_at


@dataclass(slots=True)
class Story:
    """A history, arranged for the questions that are put to it."""

    events: Sequence[Event]
    transactions: dict[str, Transaction] = field(default_factory=dict)
    writes: dict[tuple[Partition, str], Write] = field(default_factory=dict)
    # Every place that a value was seen at, by its writer or by a reader.
    places: dict[tuple[Partition, str], set[int]] = field(default_factory=dict)
    polls: list[Polled] = field(default_factory=list)
    # Per group, and under None for all together: when a value was first read.
    read_at: dict[str | None, dict[tuple[Partition, str], float]] = field(
        default_factory=lambda: {None: {}}
    )
    # Which partitions each group has ever had in hand.
    reads: dict[str, set[Partition]] = field(default_factory=lambda: defaultdict(set))
    calm_at: float | None = None

    @property
    def ended_at(self) -> float:
        return self.events[-1].at if self.events else 0.0

    def committed(self) -> Iterator[Write]:
        """What must be readable: said to be committed, or proved so by being read."""
        read = self.read_at[None].keys() & self.writes.keys()
        # A value without a transaction stands for itself alone.
        proved = {self.writes[key].transaction or key for key in read}
        for key, write in self.writes.items():
            fate = write.fate
            if fate is Fate.UNKNOWN and (write.transaction or key) in proved:
                fate = Fate.COMMITTED
            if fate is Fate.COMMITTED:
                yield write

    def offset_of(self, write: Write) -> int | None:
        return min(self.places.get((write.partition, write.value), ()), default=None)


def story_of(events: Iterable[Event]) -> Story:
    ordered = sorted(events, key=lambda event: event.at)
    story = Story(ordered)
    for event in ordered:
        take_in(story, event)
    return story


def take_in(story: Story, event: Event) -> None:
    match event:
        case Sent():
            transaction = transaction_of(story, event.transaction, event.client)
            for value in event.values:
                write = Write(event.partition, value, event.client, transaction)
                story.writes[event.partition, value] = write
        case Acknowledged():
            for record in event.records:
                acknowledge(story, record, event.at)
        case Ending():
            ending = transaction_of(story, event.transaction, event.client)
            assert ending is not None
            ending.ending_at = ending.ending_at or event.at
            if event.commit:
                ending.asked_at = ending.asked_at or event.at
        case Ended():
            ended = transaction_of(story, event.transaction, event.client)
            assert ended is not None
            ended.outcome, ended.ended_at = event.commit, event.at
        case Polled():
            take_in_poll(story, event)
        case Moved(group=str(group)):
            story.reads[group].update(event.partitions)
        case Committing():
            transaction_of(story, event.transaction, event.client)
        case Calm():
            story.calm_at = event.at


def transaction_of(story: Story, name: str | None, client: str) -> Transaction | None:
    if name is None:
        return None
    return story.transactions.setdefault(name, Transaction(name, client))


def acknowledge(story: Story, record: Record, at: float) -> None:
    key = record.partition, record.value
    story.places.setdefault(key, set()).add(record.offset)
    if (write := story.writes.get(key)) is not None:
        write.offset, write.acknowledged_at = record.offset, at


def take_in_poll(story: Story, event: Polled) -> None:
    story.polls.append(event)
    for record in event.records:
        key = record.partition, record.value
        story.places.setdefault(key, set()).add(record.offset)
        story.read_at[None].setdefault(key, event.at)
        if event.group is not None:
            story.reads[event.group].add(record.partition)
            story.read_at.setdefault(event.group, {}).setdefault(key, event.at)
