"""Lanes and feeds against the simplest model: a set of offsets that are done."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from streamer.client.interface import Message, TopicPartition
from streamer.processing import Run
from streamer.worker.feed import Feed, Lane
from streamer.worker.positions import NOTE_BYTES_MAX, Progress, committed, resumed

AT = TopicPartition("orders", 0)
OTHER = TopicPartition("orders", 1)


class Record:
    """As much of a message as a lane looks at."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


def records(*offsets: int) -> list[Message]:
    found: list[Any] = [Record(offset) for offset in offsets]
    return found


def offsets(run: Run) -> list[int]:
    return [message.offset() for message in run.messages]


BEGIN = Progress(0)


def lane(progress: Progress = BEGIN, **options: Any) -> Lane:
    return Lane(AT, progress, {}, lambda: 0.0, **options)


class EveryRecordIsHandledOnce(RuleBasedStateMachine):
    """One partition with gaps in its offsets, read, handled in any order, and read again
    from what was committed, after a crash or after an orderly end."""

    @initialize(gaps=st.lists(st.integers(1, 3), min_size=30, max_size=120))
    def begin(self, gaps: list[int]) -> None:
        self.log = [sum(gaps[:number]) for number in range(1, len(gaps) + 1)]
        self.done: list[int] = []
        self.open(Progress(self.log[0]))

    def open(self, progress: Progress) -> None:
        self.lane = lane(progress)
        self.fetched = [one for one in self.log if one >= progress.offset]
        self.hands: list[Run] = []

    @rule(count=st.integers(1, 20))
    def fetch(self, count: int) -> None:
        now, self.fetched = self.fetched[:count], self.fetched[count:]
        if now:
            self.lane.offer(records(*now))

    @rule(count=st.integers(1, 5))
    def what_is_fetched_twice_is_taken_once(self, count: int) -> None:
        end = len(self.log) - len(self.fetched)
        if twice := self.log[max(0, end - count) : end]:
            self.lane.offer(records(*twice))

    @precondition(lambda self: self.lane.waiting)
    @rule(limit=st.integers(1, 9), whole=st.booleans())
    def take(self, limit: int, whole: bool) -> None:
        run = self.lane.take_all(limit) if whole else self.lane.take(limit)
        assert 1 <= len(run.messages) <= limit
        self.hands.append(run)

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def a_record_is_done(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(self.hands)))

    def finish(self, run: Run) -> None:
        count = len(run.messages) if run.whole else 1
        self.done += offsets(run)[run.done : run.done + count]
        run.done += count
        if run.is_done:
            self.hands.remove(run)
        self.the_progress_is_what_is_done()

    @precondition(lambda self: len(self.hands) > 1)
    @rule(data=st.data())
    def a_worker_ends_in_order(self, data: st.DataObject) -> None:
        in_hand = sum(len(run.messages) if run.whole else 1 for run in self.hands)
        self.lane.retire()
        assert self.lane.in_hand == in_hand
        self.the_progress_is_what_is_done()
        for run in data.draw(st.permutations(self.hands)):
            if data.draw(st.booleans()):
                self.finish(run)
        self.a_worker_crashes()

    @precondition(lambda self: len(self.hands) > 1)
    @rule()
    def a_worker_crashes(self) -> None:
        progress = self.lane.progress()
        again = resumed(committed({"a": progress, "b": Progress(progress.offset)}), ["a"])
        self.lane.close()
        assert all(run.void for run in self.hands)
        self.open(again["a"])

    @rule()
    def neighbours_are_put_together(self) -> None:
        self.lane._settle()
        self.lane._put_together()

    @invariant()
    def the_progress_is_what_is_done(self) -> None:
        progress = self.lane.progress()
        assert len(self.done) == len(set(self.done)), "a record was handled twice"
        assert {one for one in self.log if progress.has_done(one)} == set(self.done)
        left = [one for one in self.log if one not in self.done]
        if left and left[0] not in self.fetched:
            assert progress.offset == left[0]
        assert sorted(progress.ahead) == list(progress.ahead)
        assert all(first <= last for first, last in progress.ahead)

    @invariant()
    def what_waits_is_what_nobody_has(self) -> None:
        in_hand = [one for run in self.hands for one in offsets(run)[run.done :]]
        known = set(self.log[: len(self.log) - len(self.fetched)])
        assert self.lane.waiting == len(known - set(self.done) - set(in_hand))
        assert self.lane.idle == (not in_hand and not self.lane.waiting)


TestEveryRecordIsHandledOnce = EveryRecordIsHandledOnce.TestCase
TestEveryRecordIsHandledOnce.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)


def test_a_retired_lane_takes_no_more_and_gives_no_more() -> None:
    feed = Feed("a", lambda: 0.0, lambda: None)
    feed.add(AT, Progress(0), {})
    feed.offer(AT, records(*range(10)))
    run = feed.take(4)
    assert run is not None
    run.done = 1

    feed.retire()
    feed.offer(AT, records(10, 11))

    assert feed.take(1) is None
    assert feed.in_hand == 1
    run.done = 2
    assert feed.in_hand == 0
    assert feed.lanes[AT].progress() == Progress(2)


def test_what_was_cut_from_a_run_is_not_passed_by_those_behind_it() -> None:
    this = lane()
    this.offer(records(*range(10)))
    first, second = this.take(5), this.take(5)

    this.retire()
    first.done = 1
    second.done = 1

    assert this.progress() == Progress(1, ((5, 5),))


def test_no_more_is_begun_when_no_more_can_be_noted() -> None:
    this = lane(note_bytes_max=200)
    this.offer(records(*range(1000)))
    runs = []
    while this.waiting and not this.held_up:
        runs.append(this.take(1))
        if len(runs) % 2 == 0:
            runs[-1].done = 1

    note = committed({"a": this.progress(), "b": Progress(-1)}).note
    assert this.waiting
    assert 150 < len(note) < 230

    for run in runs:
        run.done = 1
    assert not this.held_up


def test_noted_ranges_of_all_agents_stay_below_what_a_broker_takes() -> None:
    feeds = [Feed(f"{number}", lambda: 0.0, lambda: None) for number in range(4)]
    for feed in feeds:
        feed.add(AT, Progress(0), {}, note_bytes_max=NOTE_BYTES_MAX // len(feeds))
        feed.offer(AT, records(*range(5000)))
        taken: list[Run] = []
        while (run := feed.take(1)) is not None:
            taken.append(run)
            if len(taken) % 2 == 0:
                run.done = 1

    position = committed({feed.name: feed.lanes[AT].progress() for feed in feeds})

    assert len(position.note) < NOTE_BYTES_MAX + 100


def test_whoever_waits_for_a_place_is_woken_when_a_record_is_done_later() -> None:
    woken: list[int] = []
    this = lane(note_bytes_max=100, wake=lambda: woken.append(1))
    this.offer(records(*range(1000)))
    runs = []
    while not this.held_up:
        runs.append(this.take(1))
        if len(runs) % 2 == 0:
            runs[-1].done = 1
            this.eased()
    assert not woken

    runs[0].done = 1
    this.eased()
    assert woken


def test_lanes_are_taken_from_in_turns() -> None:
    feed = Feed("a", lambda: 0.0, lambda: None)
    for at in (AT, OTHER):
        feed.add(at, Progress(0), {})
        feed.offer(at, records(0, 1, 2))

    runs = [feed.take(1) for _ in range(4)]

    assert [run.lane.at for run in runs if run] == [AT, OTHER, AT, OTHER]


def test_a_batch_is_full_or_old_enough() -> None:
    now = [0.0]
    feed = Feed("a", lambda: now[0], lambda: None)
    feed.add(AT, Progress(0), {})
    assert feed.take_batch(3, 5.0) == (None, None)

    feed.offer(AT, records(0, 1))
    now[0] = 2.0
    assert feed.take_batch(3, 5.0) == (None, 3.0)
    feed.offer(AT, records(2, 3))
    full, _ = feed.take_batch(3, 5.0)
    assert full is not None
    assert offsets(full) == [0, 1, 2]

    now[0] = 6.0
    assert feed.take_batch(3, 5.0) == (None, 1.0)
    now[0] = 7.0
    old, _ = feed.take_batch(3, 5.0)
    assert old is not None
    assert offsets(old) == [3]


async def test_those_who_wait_for_a_partition_of_their_own_are_all_woken() -> None:
    feed = Feed("a", lambda: 0.0, lambda: None)
    for at in (AT, OTHER):
        feed.add(at, Progress(0), {})

    async def one(number: int) -> int:
        while (run := feed.take(1, number)) is None:
            await feed.wait()
        return run.messages[0].offset()

    tasks = [asyncio.create_task(one(number)) for number in (0, 1)]
    await asyncio.sleep(0)
    feed.offer(OTHER, records(7))
    async with asyncio.timeout(1):
        assert await tasks[1] == 7
    tasks[0].cancel()
