"""The verdict: what the app of the trial left behind, against a recomputation.

Everything is recomputed from the input by a dict, record by record:

    input        is regrouped by key: each entry once, those of a partition in their order
    regrouped    gives one update each, in the same order: count and total by then
    last counts  are the changelog's view (the last value of each key), and the store's

Pure: it is given what was read, and says in words what is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SHOWN = 5


class Entry(NamedTuple):
    id: int
    key: str
    amount: int


class Update(NamedTuple):
    id: int
    key: str
    number: int
    total: int


View = Mapping[str, int]
Place = tuple[str, int]
"""Table, partition."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Each by partition, as readers of committed records see it."""

    entries: Mapping[int, Sequence[Entry]]
    regrouped: Mapping[int, Sequence[Entry]]
    updates: Mapping[int, Sequence[Update]]
    changelogs: Mapping[Place, View] = field(default_factory=dict)
    stores: Mapping[Place, View] = field(default_factory=dict)


def exactly_once(found: Evidence) -> list[str]:
    """All that is wrong; nothing if each entry counts once."""
    return [
        *_not_once(found),
        *_out_of_order(found),
        *_wrong_updates(found),
        *_wrong_views(found),
    ]


def nothing_lost(found: Evidence) -> list[str]:
    """What at least once promises: each entry has come through, maybe twice."""
    there = _ids(found.updates)
    lost = [id for id in _ids(found.entries) if id not in there]
    return _listed("entries were lost", lost)


def nothing_twice(found: Evidence) -> list[str]:
    """What at most once promises: no entry has come through twice."""
    twice = [id for id, times in _ids(found.updates).items() if times > 1]
    return _listed("entries came through twice", twice)


def _not_once(found: Evidence) -> Iterator[str]:
    before, after = _ids(found.entries), _ids(found.regrouped)
    yield from _listed("entries were lost", before - after)
    yield from _listed("entries were regrouped twice", after - before)


def _out_of_order(found: Evidence) -> Iterator[str]:
    place = {
        entry.id: (number, index)
        for number, row in found.entries.items()
        for index, entry in enumerate(row)
    }
    for number, row in found.regrouped.items():
        latest: dict[int, int] = defaultdict(lambda: -1)
        for entry in row:
            origin, index = place.get(entry.id, (-1, -1))
            if origin >= 0 and index < latest[origin]:
                yield f"regrouped {number}: entry {entry.id} comes too late"
                break
            latest[origin] = index


def _wrong_updates(found: Evidence) -> Iterator[str]:
    for number in sorted(found.regrouped.keys() | found.updates.keys()):
        expected = recomputed(found.regrouped.get(number, ()))
        updates = list(found.updates.get(number, ()))
        if len(updates) != len(expected):
            yield f"out {number}: {len(updates)} updates, and not {len(expected)}"
        for index, (right, there) in enumerate(zip(expected, updates, strict=False)):
            if right != there:
                yield f"out {number}: update {index} is {there}, and not {right}"
                break


def _wrong_views(found: Evidence) -> Iterator[str]:
    for name, views in (("changelog", found.changelogs), ("store", found.stores)):
        for (table, number), view in sorted(views.items()):
            expected = view_of(table, found.regrouped.get(number, ()))
            for key in sorted(expected.keys() | view.keys()):
                right, there = expected.get(key), view.get(key)
                if right != there:
                    yield f"{name} {table} {number}: {key} is {there}, and not {right}"
                    break


def recomputed(row: Sequence[Entry]) -> list[Update]:
    counts: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    found = []
    for entry in row:
        counts[entry.key] += 1
        totals[entry.key] += entry.amount
        found.append(Update(entry.id, entry.key, counts[entry.key], totals[entry.key]))
    return found


def view_of(table: str, row: Sequence[Entry]) -> dict[str, int]:
    column = {"counts": "number", "totals": "total"}[table]
    return {update.key: getattr(update, column) for update in recomputed(row)}


def _ids(rows: Mapping[int, Sequence[Entry | Update]]) -> Counter[int]:
    return Counter(one.id for row in rows.values() for one in row)


def _listed(what: str, ids: Counter[int] | Sequence[int]) -> list[str]:
    some = sorted(ids)
    if not some:
        return []
    shown = ", ".join(map(str, some[:SHOWN])) + (", ..." if len(some) > SHOWN else "")
    return [f"{len(some)} {what}: {shown}"]
