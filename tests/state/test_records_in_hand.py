"""What records change before they are done, by the simplest model: a dict for each hand.

Several handlers have records in hand at once and take turns at two tables. What each has
changed stands in the partition or beside it, as it happens; nobody may notice which. Each
table has two partitions, and a handler goes from one to the other between two records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import streamer
from streamer.processing import Hand, Later, Run, hold
from streamer.state.store import MemoryStores
from streamer.state.table_partition import TablePartition

HANDS = st.integers(0, 1)
PLACES = TABLES = st.integers(0, 1)
KEYS = st.sampled_from("ab")
# Lists can be changed, and are kept as bytes; numbers are kept as they are.
VALUES = st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2)

Changes = dict[tuple[int, int, str], Any]
"""By place, table and key."""
GONE = object()


class HandsAreDicts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        app = streamer.App("model", broker="kafka://nowhere")
        self.tables: list[streamer.Table[str, Any]] = [
            app.Table(name, partitions=2) for name in ("one", "other")
        ]
        stores = MemoryStores()
        self.parts: dict[tuple[int, int], TablePartition] = {
            (place, number): table.partition_in(stores.open(table.name, place), place)
            for place in range(2)
            for number, table in enumerate(self.tables)
        }
        self.there: list[dict[Any, TablePartition]] = [
            {table: self.parts[place, number] for number, table in enumerate(self.tables)}
            for place in range(2)
        ]
        self.hands = [Hand([]) for _ in range(2)]
        self.places = [0, 0]
        for hand in self.hands:
            hand.take(Run([], self.there[0]))
        self.in_hand: list[Changes] = [{} for _ in self.hands]
        self.put_by: list[tuple[Hand, Later, Changes]] = []
        self.done: Changes = {}
        self.closing: Changes = {}
        self.committed: Changes = {}

    def seen(self, number: int | None) -> Changes:
        found = self.committed | self.closing | self.done
        if number is not None:
            found |= self.in_hand[number]
        return {at: value for at, value in found.items() if value is not GONE}

    def at(self, number: int, table: int, key: str) -> tuple[int, int, str]:
        return self.places[number], table, key

    @rule(number=HANDS, place=PLACES)
    def go(self, number: int, place: int) -> None:
        self.finish(number)
        self.hands[number].take(Run([], self.there[place]))
        self.places[number] = place

    @rule(number=HANDS, table=TABLES, key=KEYS, value=VALUES)
    def write(self, number: int, table: int, key: str, value: Any) -> None:
        hold(self.hands[number])
        self.tables[table][key] = value
        self.in_hand[number][self.at(number, table, key)] = value

    @rule(number=HANDS, table=TABLES, key=KEYS)
    def delete(self, number: int, table: int, key: str) -> None:
        hold(self.hands[number])
        there = self.seen(number)
        at = self.at(number, table, key)
        assert self.tables[table].pop(key, None) == there.get(at)
        if at in there:
            self.in_hand[number][at] = GONE

    @rule(number=HANDS, table=TABLES, key=KEYS)
    def read(self, number: int, table: int, key: str) -> None:
        hold(self.hands[number])
        expected = self.seen(number).get(self.at(number, table, key))
        if expected is not None:
            assert self.tables[table][key] == expected
        assert self.tables[table].get(key) == expected

    @rule(number=HANDS, table=TABLES)
    def read_all(self, number: int, table: int) -> None:
        hold(self.hands[number])
        place = self.places[number]
        expected = {
            key: value
            for (*at, key), value in self.seen(number).items()
            if at == [place, table]
        }
        self.tables[table].here = {place: self.parts[place, table]}
        assert dict(self.tables[table].items()) == expected

    @rule(number=HANDS)
    def finish(self, number: int) -> None:
        self.hands[number].keep()
        self.done |= self.in_hand[number]
        self.in_hand[number] = {}

    @rule(number=HANDS)
    def fail(self, number: int) -> None:
        self.hands[number].drop()
        self.in_hand[number] = {}

    @rule(number=HANDS)
    def finish_later(self, number: int) -> None:
        hand = self.hands[number]
        hand.later = later = Later()
        hand.part()
        self.put_by.append((hand, later, self.in_hand[number]))
        self.in_hand[number] = {}

    @precondition(lambda self: self.put_by)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.put_by) - 1))
        hand, later, changes = self.put_by.pop(at)
        hand.keep_later(later)
        self.done |= changes

    @precondition(lambda self: not self.closing)
    @rule()
    def begin_commit(self) -> None:
        for at, part in self.parts.items():
            closed = part.close_changes()
            assert len(closed) == sum(1 for *where, _ in self.done if tuple(where) == at)
            part.store.write(closed, 0)
        self.closing, self.done = self.done, {}

    @rule()
    def end_commit(self) -> None:
        for part in self.parts.values():
            part.committed()
        self.committed |= self.closing
        self.closing = {}

    @precondition(lambda self: not self.closing)
    @rule()
    def abort(self) -> None:
        for part in self.parts.values():
            part.aborted()
        self.done = {}

    @invariant()
    def the_journal_is_the_holders(self) -> None:
        for hand in self.hands:
            assert all(part.holder is hand for part, _, _ in hand.undo)
            assert not any(part.holder is hand for part in hand.aside)


HandsAreDicts.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None
)
test_hands_are_dicts = HandsAreDicts.TestCase


@pytest.fixture(autouse=True)
def _nobody_is_at_it() -> Iterator[None]:
    yield
    hold(None)
