"""Exactly once, end to end, while workers and the broker are killed and put to sleep.

    SEED=21 KILLS=40 pytest tests/crash -m ''

`trial.py` says how it goes, `checker.py` what must come out. KILLS are those of workers in
the long form; the broker is killed half as often, and a worker put to sleep a quarter.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.checker import exactly_once, nothing_lost, nothing_twice
from crash.trial import ASLEEP_S, Trial

SEED = int(os.environ.get("SEED", "7"))
KILLS = int(os.environ.get("KILLS", "20"))
BROKER_AWAY_S = ASLEEP_S


@pytest.fixture(autouse=True)
def _the_seed_is_told() -> None:
    # Shown with the output of a test that fails.
    print(f"SEED={SEED} KILLS={KILLS}")  # noqa: T201


def trouble(
    trial: Trial, kills: int, broker_kills: int = 0, sleeps: int = 0, ends: int = 0
) -> None:
    """All of it, in a random order, at random moments."""
    rng = random.Random(SEED)
    faults: list[Callable[[], None]] = [trial.kill_worker] * kills
    # Now and then it is away for longer than sessions and transactions last.
    faults += [lambda: trial.kill_broker(rng.choice((0.0, 0.0, 1.0, BROKER_AWAY_S)))] * (
        broker_kills
    )
    faults += [trial.stop_worker] * sleeps
    faults += [trial.end_worker] * ends
    rng.shuffle(faults)
    trial.wait(1.5)
    for fault in faults:
        fault()
        trial.wait(rng.uniform(0.3, 2.5))


@pytest.mark.timeout(150)
def test_each_entry_counts_once_whoever_is_killed(tmp_path: Path) -> None:
    with Trial(tmp_path, records=20_000, rate=2000, seed=SEED) as trial:
        trouble(trial, kills=2, broker_kills=1, sleeps=1, ends=1)
        assert exactly_once(trial.settle()) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_entry_counts_once_however_many_are_killed(tmp_path: Path) -> None:
    with Trial(tmp_path, records=200_000, rate=3000, seed=SEED) as trial:
        some = KILLS // 4
        trouble(trial, kills=KILLS, broker_kills=KILLS // 2, sleeps=some, ends=some)
        assert exactly_once(trial.settle()) == []


@pytest.mark.timeout(150)
def test_each_entry_counts_once_whatever_becomes_of_commits(tmp_path: Path) -> None:
    with Trial(tmp_path, records=5_000, rate=1000, seed=SEED, faulty=True) as trial:
        trouble(trial, kills=1, ends=1)
        assert exactly_once(trial.settle()) == []


@pytest.mark.timeout(150)
def test_at_least_once_loses_nothing(tmp_path: Path) -> None:
    with Trial(
        tmp_path, records=3_000, rate=1000, seed=SEED, processing_guarantee="at_least_once"
    ) as trial:
        trouble(trial, kills=1, broker_kills=1)
        assert nothing_lost(trial.settle()) == []


@pytest.mark.timeout(150)
def test_at_most_once_repeats_nothing(tmp_path: Path) -> None:
    with Trial(
        tmp_path, records=3_000, rate=1000, seed=SEED, processing_guarantee="at_most_once"
    ) as trial:
        trouble(trial, kills=2)
        assert nothing_twice(trial.settle()) == []
