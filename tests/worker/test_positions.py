"""How far each agent is, beside a committed offset: what is noted is what is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from streamer.client.interface import Position
from streamer.worker.positions import (
    RANGE_BYTES,
    Progress,
    committed,
    has_reached,
    note_bytes,
    resumed,
)


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    offset = draw(st.integers(0, 2**40))
    at, ahead = offset, []
    for gap, length in draw(
        st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**5)), max_size=20)
    ):
        ahead.append((at + gap, at + gap + length - 1))
        at += gap + length
    return Progress(offset, tuple(ahead))


names = st.text(min_size=1, max_size=20)


@given(st.dictionaries(names, progresses(), min_size=1, max_size=5))
def test_each_agent_goes_on_where_it_was(progress: dict[str, Progress]) -> None:
    assert resumed(committed(progress), progress) == progress


@given(st.dictionaries(names, progresses(), min_size=1, max_size=5))
def test_the_lowest_that_is_not_done_is_committed(progress: dict[str, Progress]) -> None:
    assert committed(progress).offset == min(one.offset for one in progress.values())


def test_there_is_no_note_where_all_agents_are_equally_far() -> None:
    assert committed({"a": Progress(7), "b": Progress(7)}) == Position(7, "")


def test_only_those_who_are_further_are_noted() -> None:
    ahead = Progress(100, ((103, 107), (110, 110)))

    found = committed({"count": Progress(120), "audit": ahead, "log": Progress(100)})

    assert found.offset == 100
    assert json.loads(found.note) == {"count": "120", "audit": "100:3.5,2.1"}


def test_an_agent_that_is_new_goes_on_at_the_committed_offset() -> None:
    position = committed({"old": Progress(9), "slow": Progress(4)})

    assert resumed(position, ["old", "new"]) == {"old": Progress(9), "new": Progress(4)}


@pytest.mark.parametrize(
    "note", ["", "hello", "[1]", '{"a": 3}', '{"a": "x"}', "null", "7"]
)
def test_a_note_of_somebody_else_says_nothing(note: str) -> None:
    assert resumed(Position(5, note), ["a"]) == {"a": Progress(5)}


@given(progresses(), st.integers(0, 10**6))
def test_what_is_done_is_what_lies_before_the_offset_or_in_a_range(
    progress: Progress, more: int
) -> None:
    offset = progress.offset + more

    expected = any(first <= offset <= last for first, last in progress.ahead)

    assert progress.has_done(offset) == expected
    assert progress.has_done(progress.offset - 1)


@given(progresses())
def test_the_length_of_a_note_is_known_before_it_is_written(progress: Progress) -> None:
    note = committed({"agent": progress, "lowest": Progress(progress.offset - 1)}).note

    assert len(note) == note_bytes(progress) + len('{"agent":""}')
    assert note_bytes(progress) <= len(str(progress.offset)) + 1 + RANGE_BYTES * len(
        progress.ahead
    )


def test_a_goal_is_reached_when_every_agent_has_done_what_comes_last_in_it() -> None:
    goal = committed({"a": Progress(5, ((8, 9),)), "b": Progress(7)})

    both = {"a": Progress(5, ((8, 9),)), "b": Progress(7)}
    assert has_reached(committed(both), goal)
    assert has_reached(Position(10), goal)
    assert not has_reached(committed({"a": Progress(5, ((8, 8),)), "b": Progress(7)}), goal)
    assert not has_reached(committed({"a": Progress(10), "b": Progress(6)}), goal)
