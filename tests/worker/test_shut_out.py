"""Silence is told from another worker by how long it takes."""

from __future__ import annotations

import pytest

from streamer.worker.shut_out import TIMES, ShutOut

TIMEOUT_S = 3.0


def answers(every_s: float) -> list[bool]:
    clock = iter(every_s * number for number in range(100))
    shut_out = ShutOut(TIMEOUT_S, lambda: next(clock))
    return [shut_out.again() for _ in range(20)]


@pytest.mark.parametrize("every_s", [TIMEOUT_S, 4.0, 100.0])
def test_a_broker_that_goes_away_again_and_again_is_no_other_worker(every_s: float) -> None:
    assert not any(answers(every_s))


@pytest.mark.parametrize("every_s", [0.0, 0.1, 2.0])
def test_whoever_shuts_us_out_with_each_commit_is_one(every_s: float) -> None:
    assert answers(every_s) == [False] * (TIMES - 1) + [True] * (20 - TIMES + 1)
