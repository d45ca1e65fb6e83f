"""The checker notices what it is there for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from crash.checker import (
    Entry,
    Evidence,
    Update,
    exactly_once,
    nothing_lost,
    nothing_twice,
    recomputed,
    view_of,
)

TEA, MILK, MORE_TEA = Entry(1, "tea", 5), Entry(2, "milk", 7), Entry(3, "tea", 1)
ROW = [TEA, MILK, MORE_TEA]

RIGHT = Evidence(
    entries={0: ROW},
    regrouped={0: ROW},
    updates={0: recomputed(ROW)},
    changelogs={("counts", 0): view_of("counts", ROW)},
    stores={("totals", 0): view_of("totals", ROW)},
)


def test_what_is_right_is_right() -> None:
    assert recomputed(ROW) == [
        Update(1, "tea", 1, 5),
        Update(2, "milk", 1, 7),
        Update(3, "tea", 2, 6),
    ]
    assert exactly_once(RIGHT) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (replace(RIGHT, regrouped={0: ROW[:2]}), "1 entries were lost: 3"),
        (
            replace(RIGHT, regrouped={0: [*ROW, TEA]}),
            "1 entries were regrouped twice: 1",
        ),
        (
            replace(RIGHT, regrouped={0: [MORE_TEA, MILK, TEA]}),
            "regrouped 0: entry 2 comes too late",
        ),
        (
            replace(RIGHT, updates={0: recomputed(ROW)[:2]}),
            "out 0: 2 updates, and not 3",
        ),
        (
            replace(RIGHT, updates={0: recomputed([TEA, MILK, TEA])}),
            "out 0: update 2 is Update(id=1, key='tea', number=2, total=10), "
            "and not Update(id=3, key='tea', number=2, total=6)",
        ),
        (
            replace(RIGHT, changelogs={("counts", 0): {"tea": 1, "milk": 1}}),
            "changelog counts 0: tea is 1, and not 2",
        ),
        (
            replace(RIGHT, stores={("totals", 0): {"tea": 6}}),
            "store totals 0: milk is None, and not 7",
        ),
        (
            replace(RIGHT, stores={("totals", 0): {"tea": 6, "milk": 7, "rum": 1}}),
            "store totals 0: rum is 1, and not None",
        ),
    ],
)
def test_what_is_wrong_is_said(wrong: Evidence, said: str) -> None:
    assert said in exactly_once(wrong)


def test_at_least_once_may_repeat_and_not_lose() -> None:
    twice = replace(RIGHT, updates={0: recomputed([*ROW, TEA])})
    lost = replace(RIGHT, updates={0: recomputed(ROW[:2])})

    assert nothing_lost(twice) == []
    assert nothing_lost(lost) == ["1 entries were lost: 3"]


def test_at_most_once_may_lose_and_not_repeat() -> None:
    twice = replace(RIGHT, updates={0: recomputed([*ROW, TEA])})
    lost = replace(RIGHT, updates={0: recomputed(ROW[:2])})

    assert nothing_twice(lost) == []
    assert nothing_twice(twice) == ["1 entries came through twice: 1"]
