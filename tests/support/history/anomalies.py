"""What in a history no correct broker could have caused, in words.

    aborted read          a value was read whose writer aborted, or never asked to commit
    precommitted read     a value was read before its writer asked to commit
    unwritten read        a value was read that nobody sent
    inconsistent offsets  two values at one offset
    duplicate             one value at two offsets
    out of order send     a producer's later value lies before its earlier one
    lost write            committed, never read, though what lies behind it was
    unseen                committed, and a group never read it
    poll skip             a consumer passed over a committed value
    poll non-monotonic    a consumer read backwards or twice
    circular reads (G1c)  transactions that each read what another of them wrote
    lost commit           a group's position fell behind what was acknowledged
    aborted commit        a group's position is one that nobody committed
    stuck                 no progress for half a minute although all was calm

Polls are judged inside one (internal) and from one to the next without a rebalance or a
seek between them (external). Only reads make circles: a record gets its offset when it is
sent and not when its transaction commits, so writes may be ordered in a circle (G0), and
writes and reads together too, without anything being wrong.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from support.history.cycles import cycles
from support.history.events import (
    Asked,
    Committed,
    Committing,
    Ended,
    Event,
    Moved,
    Partition,
    Polled,
    Position,
    Record,
)
from support.history.story import Fate, Story, Transaction, Write, story_of

STUCK_SECONDS = 30.0
SHOWN_MAX = 20


class Anomaly(NamedTuple):
    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


def anomalies(events: Iterable[Event]) -> list[Anomaly]:
    """All that is wrong, in an order that depends on the history alone."""
    story = story_of(events)
    checks = (
        *(wrong_reads, wrong_offsets, unordered_sends, lost_writes, unseen_writes),
        *(wrong_polls, circular_reads, wrong_positions, stuck_groups, stuck_transactions),
    )
    return sorted({anomaly for check in checks for anomaly in check(story)})


def report(found: Sequence[Anomaly]) -> str:
    """The numbers of each kind, then the first of them in words."""
    if not found:
        return "no anomaly"
    lines = [f"{count} x {kind}" for kind, count in sorted(counted(found).items())]
    lines += [str(anomaly) for anomaly in found[:SHOWN_MAX]]
    if len(found) > SHOWN_MAX:
        lines.append(f"... and {len(found) - SHOWN_MAX} more")
    return "\n".join(lines)


def counted(found: Iterable[Anomaly]) -> Counter[str]:
    return Counter(anomaly.kind for anomaly in found)


def wrong_reads(story: Story) -> Iterator[Anomaly]:
    for poll in story.polls:
        for record in poll.records:
            wrong = wrong_read(story, poll, record)
            if wrong is not None:
                kind, why = wrong
                yield Anomaly(kind, f"{poll.consumer} read {shown(record)}{why}")


def wrong_read(story: Story, poll: Polled, record: Record) -> tuple[str, str] | None:
    write = story.writes.get((record.partition, record.value))
    if write is None:
        return "unwritten read", ", which nobody sent"
    if write.fate is Fate.ABORTED:
        return "aborted read", f"; {why_aborted(write)}"
    if write.transaction is not None and read_too_early(poll, write.transaction):
        return "precommitted read", f" before {write.writer} asked to commit it"
    return None


def read_too_early(poll: Polled, writer: Transaction) -> bool:
    if poll.transaction == writer.name:
        return True
    # The line of a poll is written after it, that of a commit before it.
    return writer.asked_at is not None and poll.at < writer.asked_at


def why_aborted(write: Write) -> str:
    assert write.transaction is not None
    if write.transaction.outcome is False:
        return f"{write.writer} was aborted"
    return f"{write.writer} never asked to commit"


def wrong_offsets(story: Story) -> Iterator[Anomaly]:
    values: dict[Position, set[str]] = defaultdict(set)
    for (partition, value), offsets in story.places.items():
        for offset in offsets:
            values[Position(partition, offset)].add(value)
        if len(offsets) > 1:
            words = f"{value} is in {partition} at the offsets {listed(sorted(offsets))}"
            yield Anomaly("duplicate", words)
    for place, found in values.items():
        if len(found) > 1:
            words = f"{place.partition} has at {place.offset} both {listed(sorted(found))}"
            yield Anomaly("inconsistent offsets", words)


def unordered_sends(story: Story) -> Iterator[Anomaly]:
    """By producer and partition, offsets rise as the values were sent."""
    before: dict[tuple[str, Partition], Write] = {}
    for write in story.writes.values():
        if write.offset is None:
            continue
        earlier = before.get((write.client, write.partition))
        if earlier is not None and (earlier.offset or 0) > write.offset:
            words = (
                f"{write.client} sent {write.value} after {earlier.value}, "
                f"and {write.partition} has them at {write.offset} and {earlier.offset}"
            )
            yield Anomaly("out of order send", words)
        before[write.client, write.partition] = write


def lost_writes(story: Story) -> Iterator[Anomaly]:
    """Committed and read by nobody, though somebody read what lies behind it."""
    highest: dict[Partition, Record] = {}
    for poll in story.polls:
        for record in poll.records:
            known = highest.get(record.partition)
            if known is None or record.offset > known.offset:
                highest[record.partition] = record
    for write in story.committed():
        offset, last = story.offset_of(write), highest.get(write.partition)
        if offset is None or last is None or offset > last.offset:
            continue
        if (write.partition, write.value) not in story.read_at[None]:
            record = Record(write.partition, offset, write.value)
            words = (
                f"{shown(record)} of {write.writer} was committed and never read, "
                f"though {shown(last)} was"
            )
            yield Anomaly("lost write", words)


def unseen_writes(story: Story) -> Iterator[Anomaly]:
    """Committed, and a group that reads the partition never got it."""
    readers: dict[Partition, list[str]] = defaultdict(list)
    for group in sorted(story.reads):
        for partition in story.reads[group]:
            readers[partition].append(group)
    for write in story.committed():
        for group in readers[write.partition]:
            seen = story.read_at.get(group, {})
            if (write.partition, write.value) not in seen:
                words = (
                    f"{write.value} of {write.writer} was committed to {write.partition} "
                    f"and the group {group} never read it"
                )
                yield Anomaly("unseen", words)


def wrong_polls(story: Story) -> Iterator[Anomaly]:
    """Inside a poll and from one to the next, a consumer goes forward and skips nothing."""
    known: dict[Partition, list[Record]] = defaultdict(list)
    for write in story.committed():
        offset = story.offset_of(write)
        if offset is not None:
            known[write.partition].append(Record(write.partition, offset, write.value))
    for records in known.values():
        records.sort()

    last: dict[tuple[str, Partition], tuple[Record, Polled]] = {}
    for event in story.events:
        if isinstance(event, Moved):
            for place in [place for place in last if place[0] == event.consumer]:
                del last[place]
        elif isinstance(event, Polled):
            for record in event.records:
                before = last.get((event.consumer, record.partition))
                if before is not None:
                    where = "internal" if before[1] is event else "external"
                    yield from steps(event.consumer, where, before[0], record, known)
                last[event.consumer, record.partition] = record, event


def steps(
    consumer: str,
    where: str,
    before: Record,
    record: Record,
    known: Mapping[Partition, Sequence[Record]],
) -> Iterator[Anomaly]:
    if record.offset <= before.offset:
        words = f"{consumer} read {shown(record)} after {shown(before)}"
        yield Anomaly(f"{where} poll non-monotonic", words)
        return
    there = known[record.partition]
    first = bisect_right(there, before.offset, key=offset_of)
    beyond = bisect_left(there, record.offset, key=offset_of)
    if first < beyond:
        words = (
            f"{consumer} read {shown(record)} after {shown(before)} "
            f"and passed over {beyond - first}, {shown(there[first])} first"
        )
        yield Anomaly(f"{where} poll skip", words)


def offset_of(record: Record) -> int:
    return record.offset


def circular_reads(story: Story) -> Iterator[Anomaly]:
    """What a transaction reads was committed before it; so reads cannot go in a circle."""
    edges: dict[str, dict[str, Record]] = defaultdict(dict)
    for poll in story.polls:
        if poll.transaction is None:
            continue
        for record in poll.records:
            write = story.writes.get((record.partition, record.value))
            writer = write.writer if write and write.transaction else poll.transaction
            if writer != poll.transaction:
                edges[writer].setdefault(poll.transaction, record)
    for circle in cycles({writer: set(readers) for writer, readers in edges.items()}):
        reads = [
            f"{reader} read {shown(edges[writer][reader])} of {writer}"
            for writer, reader in zip(circle, [*circle[1:], circle[0]], strict=True)
        ]
        yield Anomaly("circular reads (G1c)", "; ".join(reads))


def wrong_positions(story: Story) -> Iterator[Anomaly]:
    """A group is told what was acknowledged last, or something sent since: never less."""
    firm: dict[tuple[str, Partition], int] = {}
    possible: dict[tuple[str, Partition], set[int]] = defaultdict(set)
    held: dict[str, list[Committing]] = defaultdict(list)
    for event in story.events:
        match event:
            case Committing(transaction=None):
                for position in event.positions:
                    possible[event.group, position.partition].add(position.offset)
            case Committing(transaction=str(name)):
                held[name].append(event)
                if story.transactions[name].fate is not Fate.ABORTED:
                    for position in event.positions:
                        possible[event.group, position.partition].add(position.offset)
            case Committed():
                make_firm(firm, event.group, event.positions)
            case Ended(commit=True):
                for each in held[event.transaction]:
                    make_firm(firm, each.group, each.positions)
            case Asked():
                for position in event.positions:
                    place = event.group, position.partition
                    yield from wrong_position(event.group, position, firm, possible[place])


def make_firm(
    firm: dict[tuple[str, Partition], int], group: str, positions: Sequence[Position]
) -> None:
    for partition, offset in positions:
        firm[group, partition] = max(offset, firm.get((group, partition), 0))


def wrong_position(
    group: str,
    position: Position,
    firm: Mapping[tuple[str, Partition], int],
    possible: set[int],
) -> Iterator[Anomaly]:
    partition, offset = position
    expected = firm.get((group, partition), -1)
    what = f"the group {group} is at {offset} in {partition}"
    if offset < expected:
        yield Anomaly("lost commit", f"{what}, and {expected} was acknowledged")
    elif offset >= 0 and offset not in possible:
        yield Anomaly("aborted commit", f"{what}, which nobody committed")


def stuck_groups(story: Story) -> Iterator[Anomaly]:
    """A value lies ready, all is calm, and for half a minute its group reads nothing."""
    if story.calm_at is None:
        return
    polled: dict[tuple[str, Partition], list[float]] = defaultdict(list)
    for poll in story.polls:
        if poll.group is not None:
            for partition in {record.partition for record in poll.records}:
                polled[poll.group, partition].append(poll.at)
    for write in story.committed():
        if write.committed_at is None:
            continue
        since = max(write.committed_at, story.calm_at)
        until = since + STUCK_SECONDS
        if until > story.ended_at:
            continue
        for group in sorted(story.reads):
            if write.partition not in story.reads[group]:
                continue
            seen = story.read_at.get(group, {}).get((write.partition, write.value))
            times = polled[group, write.partition]
            idle = bisect_left(times, since) == bisect_right(times, until)
            if (seen is None or seen > until) and idle:
                words = (
                    f"the group {group} read nothing from {write.partition} for "
                    f"{STUCK_SECONDS:.0f} s, though there was more and all was calm"
                )
                yield Anomaly("stuck", words)


def stuck_transactions(story: Story) -> Iterator[Anomaly]:
    if story.calm_at is None:
        return
    for transaction in story.transactions.values():
        asked = transaction.ending_at
        if asked is None or asked < story.calm_at:
            continue
        # Without an answer, it has waited until the history ends.
        if (transaction.ended_at or story.ended_at) - asked > STUCK_SECONDS:
            words = f"{transaction.name} waited over {STUCK_SECONDS:.0f} s for its end"
            yield Anomaly("stuck", words)


def shown(record: Record) -> str:
    return f"{record.value} ({record.partition}@{record.offset})"


def listed(items: Iterable[object]) -> str:
    return " and ".join(str(item) for item in items)
