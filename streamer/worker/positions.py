"""How far each agent is in a partition, and how that is noted beside a committed offset.

A group commits one offset a partition: the lowest that is not done. Agents of different
pace, and agents that handle many records at once, are further than that, each in its own
way. The note says so: per agent its own position, and the ranges that are done beyond it.

    {"count":"120", "audit":"100:3.5,2.1"}

`audit` goes on at offset 100, and has done five offsets from 103 on (100 + 3), then one
that lies two behind the end of those (110). An agent that is exactly at the committed
offset is left out, so in most cases there is no note at all; an agent without an entry
goes on at the committed offset.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamer.client.interface import Position

NOTE_BYTES_MAX = 2000
"""Brokers take 4096. When so much is noted of a partition, by all of its agents, no more
is begun until the lowest is done."""
RANGE_BYTES = 16
"""No range takes more, while the log of a partition has less than ten million records
between the lowest that is not done and the end."""


class Progress(NamedTuple):
    """Of one agent in one partition."""

    offset: int
    """The next to be done; all before it is."""
    ahead: tuple[tuple[int, int], ...] = ()
    """First and last offset of each range that is done beyond; rising, apart."""

    def has_done(self, offset: int) -> bool:
        if offset < self.offset:
            return True
        number = bisect_right(self.ahead, (offset, 2**63)) - 1
        return number >= 0 and offset <= self.ahead[number][1]


def committed(progress: Mapping[str, Progress]) -> Position:
    """What to commit for a partition, where each agent is that reads it."""
    offset = min(one.offset for one in progress.values())
    entries = {
        name: _text(one)
        for name, one in progress.items()
        if one.offset != offset or one.ahead
    }
    return Position(offset, json.dumps(entries, separators=(",", ":")) if entries else "")


def resumed(position: Position, agents: Iterable[str]) -> dict[str, Progress]:
    """Where each agent goes on. A note that is not ours says nothing."""
    noted = _entries(position.note)
    return {name: noted.get(name, Progress(position.offset)) for name in agents}


def has_reached(position: Position, goal: Position) -> bool:
    """Whether each agent has done, at `position`, what comes last in `goal`."""
    ours, theirs = _entries(position.note), _entries(goal.note)
    return all(
        _reach(ours.get(name, Progress(position.offset)))
        >= _reach(theirs.get(name, Progress(goal.offset)))
        for name in {*ours, *theirs, "those that are not noted"}
    )


def _reach(progress: Progress) -> int:
    return progress.ahead[-1][1] + 1 if progress.ahead else progress.offset


def note_bytes(progress: Progress) -> int:
    """How long the note about it gets, without the agent's name."""
    return len(_text(progress))


def _text(progress: Progress) -> str:
    at, ranges = progress.offset, []
    for first, last in progress.ahead:
        ranges.append(f"{first - at}.{last - first + 1}")
        at = last + 1
    return f"{progress.offset}:{','.join(ranges)}" if ranges else str(progress.offset)


def _entries(note: str) -> dict[str, Progress]:
    try:
        return {name: _progress(text) for name, text in json.loads(note or "{}").items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _progress(text: str) -> Progress:
    offset, _, ranges = text.partition(":")
    at, ahead = int(offset), []
    for one in filter(None, ranges.split(",")):
        gap, _, length = one.partition(".")
        first = at + int(gap)
        at = first + int(length)
        ahead.append((first, at - 1))
    return Progress(int(offset), tuple(ahead))
