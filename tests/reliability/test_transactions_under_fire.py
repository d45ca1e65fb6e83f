"""Exactly once, while the broker and its clients are killed.

`plan.py` says who takes part, `trial.py` how it ends: each record of the input is in each
partition of the output exactly once, nothing in anybody's history is out of order, no
transaction is left open and no group has lag.

    SEED=21 KILLS=100 pytest tests/reliability -m ''
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from reliability.clients.command import SESSION_MS, TRANSACTION_MS
from reliability.plan import COPIER_NAMES, FEEDER_NAMES, READER_NAMES
from reliability.trial import Trial, mixed, verdict
from support.broker import start_streamer
from support.kafka import start_kafka
from support.server import Server

SEED = int(os.environ.get("SEED", "7"))
KILLS = int(os.environ.get("KILLS", "20"))
KILLS_SHORT = 5

SETTINGS = {
    "group.min.session.timeout.ms": "100",
    "group.initial.rebalance.delay.ms": "0",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
}


@pytest.fixture(autouse=True)
def _the_seed_is_told() -> None:
    # Shown with the output of a test that fails.
    print(f"SEED={SEED} KILLS={KILLS}")  # noqa: T201


def kill_the_broker(directory: Path, kills: int) -> str:
    rng = random.Random(SEED)
    server = start_streamer(directory / "broker", settings=SETTINGS)
    address = server.address
    try:
        with Trial(directory, address, SEED) as trial:
            time.sleep(2)
            for _ in range(kills):
                time.sleep(rng.uniform(0.2, 2.0))
                server.kill()
                server = start_streamer(directory / "broker", settings=SETTINGS)
                assert server.address == address, "clients would not find it again"
                trial.nobody_left()
            return verdict(trial.settle())
    finally:
        server.stop()


def trouble_the_clients(directory: Path, server: Server, kills: int) -> str:
    """Kill one of them, then stop a copier until the group has forgotten it, and so on."""
    rng = random.Random(SEED)
    asleep = max(SESSION_MS, TRANSACTION_MS) / 1000 + 1.0
    killed = mixed(rng, [*COPIER_NAMES, *FEEDER_NAMES, *READER_NAMES], kills)
    stopped = mixed(rng, COPIER_NAMES, kills)
    with Trial(directory, server.address, SEED) as trial:
        time.sleep(2)
        for turn in range(kills):
            time.sleep(rng.uniform(0.2, 1.5))
            if turn % 2:
                trial.stop(stopped[turn])
                time.sleep(asleep)
                trial.resume(stopped[turn])
            else:
                trial.kill(killed[turn])
            trial.nobody_left()
        return verdict(trial.settle())


@pytest.mark.timeout(120)
def test_a_few_kills_of_the_broker_leave_no_anomaly(tmp_path: Path) -> None:
    assert kill_the_broker(tmp_path, KILLS_SHORT) == "no anomaly"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_of_the_broker_leave_no_anomaly(tmp_path: Path) -> None:
    assert kill_the_broker(tmp_path, KILLS) == "no anomaly"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_and_sleeps_of_clients_leave_no_anomaly(tmp_path: Path, against: str) -> None:
    start = start_kafka if against == "kafka" else start_streamer
    with start(tmp_path / "broker", settings=SETTINGS) as server:
        assert trouble_the_clients(tmp_path, server, KILLS) == "no anomaly"


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_apache_kafka_passes_the_same_trial(tmp_path: Path) -> None:
    with start_kafka(tmp_path / "broker", settings=SETTINGS) as server:
        assert trouble_the_clients(tmp_path, server, KILLS_SHORT) == "no anomaly"
