"""What a member of a group commits, and when: against a consumer that plays its part."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamer.cli.reader import CtrlC, member_batches
from streamer.client.interface import Message, NotAMember, TopicPartition

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)


@dataclass
class Read:
    at: TopicPartition
    number: int

    def topic(self) -> str:
        return self.at.topic

    def partition(self) -> int:
        return self.at.partition

    def offset(self) -> int:
        return self.number


@dataclass
class Script:
    """A consumer: each step is a batch of records, or a change to what it knows."""

    steps: list[Any]
    share: set[TopicPartition] | None = None
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    committed: list[dict[TopicPartition, int]] = field(default_factory=list)
    refuses: bool = False

    def subscribe(self, topics: Sequence[str]) -> None:
        assert topics == ["t"]

    def consume(self, limit: int, wait_s: float) -> Sequence[Any]:
        step = self.steps.pop(0)
        return step[:limit] if isinstance(step, list) else step(self) or []

    def assigned(self) -> frozenset[TopicPartition] | None:
        return None if self.share is None else frozenset(self.share)

    def ended(self) -> Mapping[TopicPartition, int]:
        return self.ends

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        if self.refuses:
            raise NotAMember("Committing offsets: gone.")
        self.committed.append(dict(positions))


def batches(
    script: Script, count: int | None = None, ctrl_c: CtrlC | None = None
) -> Iterator[Sequence[Message]]:
    consumer: Any = script  # it plays what is needed of one
    ctrl_c = ctrl_c or CtrlC()
    return member_batches(consumer, "t", count, lambda: None, ctrl_c, at_end=True)


def read_all(script: Script, count: int | None = None) -> None:
    for _ in batches(script, count):
        pass


def given(*share: TopicPartition) -> Any:
    return lambda script: setattr(script, "share", set(share))


def end(at: TopicPartition, offset: int) -> Any:
    return lambda script: script.ends.__setitem__(at, offset)


def test_what_was_printed_is_committed_batch_by_batch() -> None:
    script = Script([given(ONE), [Read(ONE, 0), Read(ONE, 1)], [Read(ONE, 4)], end(ONE, 5)])

    read_all(script)

    assert script.committed == [{ONE: 2}, {ONE: 5}]


def test_an_end_behind_the_last_record_is_committed_too() -> None:
    script = Script([given(ONE), [Read(ONE, 0)], end(ONE, 2)])

    read_all(script)

    assert script.committed == [{ONE: 1}, {ONE: 2}]


def test_an_end_that_is_old_takes_nothing_back() -> None:
    script = Script(
        [given(ONE, TWO), end(ONE, 1), [Read(ONE, 1), Read(ONE, 2)], end(TWO, 0)]
    )

    read_all(script)

    assert script.committed == [{ONE: 1}, {ONE: 3}, {TWO: 0}]


def test_a_commit_that_failed_takes_nothing_back() -> None:
    script = Script(
        [
            given(ONE, TWO),
            end(ONE, 1),
            [Read(ONE, 1), Read(ONE, 2)],
            lambda script: setattr(script, "refuses", True),
            [Read(ONE, 3)],
            lambda script: setattr(script, "refuses", False),
            end(TWO, 0),
        ]
    )

    read_all(script)

    assert script.committed == [{ONE: 1}, {ONE: 3}, {TWO: 0}]


def test_a_member_without_a_share_is_done_and_one_that_waits_for_it_is_not() -> None:
    waiting = Script([[], [], given()])

    read_all(waiting)

    assert not waiting.steps


def test_a_batch_that_was_not_printed_is_not_committed() -> None:
    script = Script([given(ONE), [Read(ONE, 0)]])

    read = batches(script)
    next(read)
    del read  # as when the pipe is broken

    assert script.committed == []


def test_ctrl_c_ends_it_once_the_batch_is_printed_and_committed() -> None:
    script = Script([given(ONE), [Read(ONE, 0)], [Read(ONE, 1)]])

    with CtrlC() as ctrl_c:
        for _ in batches(script, ctrl_c=ctrl_c):
            os.kill(os.getpid(), signal.SIGINT)

    assert script.committed == [{ONE: 1}]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait() -> None:
    script = (
        "import os, signal; from streamer.cli.reader import CtrlC\n"
        "with CtrlC():\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('second', flush=True)"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "first\n")


def test_what_others_read_by_now_is_not_committed() -> None:
    script = Script([given(ONE, TWO), [Read(ONE, 0), Read(TWO, 0)], end(TWO, 1)])

    for _ in batches(script):
        script.share = {TWO}

    assert script.committed == [{TWO: 1}]


def test_a_commit_that_comes_too_late_is_told_and_reading_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = Script(
        [
            given(ONE),
            [Read(ONE, 0)],
            lambda script: setattr(script, "refuses", False),
            [Read(ONE, 0)],
            end(ONE, 1),
        ],
        refuses=True,
    )

    read_all(script)

    assert "may print some records again" in capsys.readouterr().err
    assert script.committed == [{ONE: 1}]


def test_no_more_than_asked_for_are_read() -> None:
    script = Script([given(ONE), [Read(ONE, 0), Read(ONE, 1), Read(ONE, 2)]])

    read_all(script, count=2)

    assert script.committed == [{ONE: 2}]
