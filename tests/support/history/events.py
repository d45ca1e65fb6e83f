"""What clients write down: each call before it is made, each answer as it comes.

Each client has a file of its own, one line of JSON an event (`Journal`); put together they
are a history (`read_history`). Rules for those who write one:

- a value is sent to a partition once, whoever sends it;
- all reads are of committed records;
- a line is in the file before the call that it announces is made, and the line of an
  answer comes after it: a kill in between leaves the call without an answer;
- times are of the machine's monotonic clock, which is the same for all its processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Partition(NamedTuple):
    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


class Record(NamedTuple):
    partition: Partition
    offset: int
    value: str


class Position(NamedTuple):
    """Where a group reads on: the offset of the next record."""

    partition: Partition
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    at: float
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Event):
    """About to be handed to the producer; without a transaction each value stands alone."""

    partition: Partition
    values: Sequence[str]
    transaction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged(Event):
    """The broker took these values and said where they lie."""

    records: Sequence[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(Event):
    """About to ask that a transaction be committed or aborted."""

    transaction: str
    commit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Event):
    """The broker said that a transaction is committed or aborted."""

    transaction: str
    commit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled(Event):
    consumer: str
    records: Sequence[Record]
    group: str | None = None
    transaction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(Event):
    """Partitions were assigned or a position was sought: what comes now follows nothing."""

    consumer: str
    group: str | None = None
    partitions: Sequence[Partition] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committing(Event):
    """About to commit a group's positions, inside a transaction or by themselves."""

    group: str
    positions: Sequence[Position]
    transaction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Event):
    """The broker acknowledged positions that were committed by themselves."""

    group: str
    positions: Sequence[Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Event):
    """What the broker says when it is asked for a group's positions."""

    group: str
    positions: Sequence[Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm(Event):
    """From here on nobody is killed or stopped."""


EVENTS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        *(Sent, Acknowledged, Ending, Ended, Polled),
        *(Moved, Committing, Committed, Asked, Calm),
    )
}


class Journal:
    """One client's file; each line is with the system before the next call is made."""

    def __init__(self, path: Path, client: str) -> None:
        self.client = client
        self._file = path.open("ab", buffering=0)

    def write(self, kind: type[Event], **what: object) -> None:
        line = {"kind": kind.__name__, "at": time.monotonic(), "client": self.client} | what
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read_history(paths: Iterable[Path]) -> list[Event]:
    """The events of all clients in the order of time."""
    found = [event for path in sorted(paths) for event in read_journal(path)]
    return sorted(found, key=lambda event: event.at)


def read_journal(path: Path) -> Iterator[Event]:
    """The events of one client; after a line cut short by a kill there was no call."""
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield event_of(json.loads(line))


def event_of(line: dict[str, Any]) -> Event:
    """Lists of lists become what they stand for; JSON knows no more."""
    kind = EVENTS[line.pop("kind")]
    if "partition" in line:
        line["partition"] = Partition(*line["partition"])
    if "partitions" in line:
        line["partitions"] = [Partition(*each) for each in line["partitions"]]
    if "records" in line:
        line["records"] = [Record(Partition(*p), o, v) for p, o, v in line["records"]]
    if "positions" in line:
        line["positions"] = [Position(Partition(*p), o) for p, o in line["positions"]]
    return kind(**line)
