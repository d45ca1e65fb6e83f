"""What records change before they are done, by the simplest model: a dict for each hand.

Several handlers have records in hand at once and take turns at two tables. What each has
changed stands in the partition or beside it, as it happens; nobody may notice which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import streamer
from streamer.processing import Hand, Later, hold
from streamer.state.store import MemoryStores
from streamer.state.table_partition import TablePartition

HANDS = st.integers(0, 2)
TABLES = st.integers(0, 1)
KEYS = st.sampled_from("abc")
# Lists can be changed, and are kept as bytes; numbers are kept as they are.
VALUES = st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2)

Changes = dict[tuple[int, str], Any]
GONE = object()


class HandsAreDicts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        app = streamer.App("model", broker="kafka://nowhere")
        self.tables: list[streamer.Table[str, Any]] = [
            app.Table(name, partitions=1) for name in ("one", "other")
        ]
        stores = MemoryStores()
        self.parts: list[TablePartition] = [
            table.partition_in(stores.open(table.name, 0), 0) for table in self.tables
        ]
        for table, part in zip(self.tables, self.parts, strict=True):
            table.here = {0: part}
        self.hands = [Hand([]) for _ in range(3)]
        for hand in self.hands:
            hand.parts = dict(zip(self.tables, self.parts, strict=True))
        self.in_hand: list[Changes] = [{} for _ in self.hands]
        self.put_by: list[tuple[Hand, Later, Changes]] = []
        self.done: Changes = {}
        self.closing: Changes = {}
        self.committed: Changes = {}

    def seen(self, number: int | None) -> Changes:
        found = self.committed | self.closing | self.done
        if number is not None:
            found |= self.in_hand[number]
        return {place: value for place, value in found.items() if value is not GONE}

    @rule(number=HANDS, table=TABLES, key=KEYS, value=VALUES)
    def write(self, number: int, table: int, key: str, value: Any) -> None:
        hold(self.hands[number])
        self.tables[table][key] = value
        self.in_hand[number][table, key] = value

    @rule(number=HANDS, table=TABLES, key=KEYS)
    def delete(self, number: int, table: int, key: str) -> None:
        hold(self.hands[number])
        there = self.seen(number)
        assert self.tables[table].pop(key, None) == there.get((table, key))
        if (table, key) in there:
            self.in_hand[number][table, key] = GONE

    @rule(number=HANDS, table=TABLES, key=KEYS)
    def read(self, number: int, table: int, key: str) -> None:
        hold(self.hands[number])
        expected = self.seen(number).get((table, key))
        assert self.tables[table].get(key) == expected
        if expected is not None:
            assert self.tables[table][key] == expected

    @rule(number=HANDS, table=TABLES)
    def read_all(self, number: int, table: int) -> None:
        hold(self.hands[number])
        expected = {
            key: value for (at, key), value in self.seen(number).items() if at == table
        }
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
        for table, part in enumerate(self.parts):
            closed = part.close_changes()
            assert len(closed) == sum(1 for at, _ in self.done if at == table)
            part.store.write(closed, 0)
        self.closing, self.done = self.done, {}

    @rule()
    def end_commit(self) -> None:
        for part in self.parts:
            part.committed()
        self.committed |= self.closing
        self.closing = {}

    @precondition(lambda self: not self.closing)
    @rule()
    def abort(self) -> None:
        for part in self.parts:
            part.aborted()
        self.done = {}

    @invariant()
    def the_journal_is_the_holders(self) -> None:
        for hand in self.hands:
            assert all(part.holder is hand for part, _, _ in hand.undo)
            assert not any(part.holder is hand for part in hand.aside)


HandsAreDicts.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
test_hands_are_dicts = HandsAreDicts.TestCase


@pytest.fixture(autouse=True)
def _nobody_is_at_it() -> Iterator[None]:
    yield
    hold(None)
