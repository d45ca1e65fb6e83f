"""The same trial on Apache Kafka, where workers are killed; and on three nodes of it,
where leader and controller are killed too."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest
from crash.checker import exactly_once
from crash.test_crash import SEED, trouble
from crash.trial import Trial
from support.kafka import start_kafka
from support.kafka_cluster import Cluster
from support.server import Server

# A node is missed after some seconds; a worker must not be missed sooner.
SILENT_MS = 6000


class OnKafka(Trial):
    """On one node of Apache Kafka."""

    def _start_broker(self) -> Server:
        return start_kafka(self.directory / "broker")


class OnCluster(Trial):
    """On three nodes; every record is on two of them before it counts."""

    replication = -1

    def _start_broker(self) -> Server:
        self.cluster = Cluster(self.directory / "cluster")
        # Of a server, a trial asks where it is, and to stop at the end.
        return cast(Server, self.cluster)

    def open_transactions(self) -> list[str]:
        return [
            each
            for address in self.cluster.address.split(",")
            for each in self.open_transactions_of(address)
        ]

    def kill_node(self, number: int, away_s: float) -> None:
        self.cluster.kill(number)
        self.wait(away_s)
        self.cluster.start(number)

    def leader(self) -> int:
        return self.admin.topic("in").partitions[0].leader

    def controller(self) -> int:
        return self.admin.cluster().controller


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_each_entry_counts_once_on_apache_kafka(tmp_path: Path) -> None:
    with OnKafka(tmp_path, records=20_000, rate=1500, seed=SEED) as trial:
        trouble(trial, kills=5)
        assert exactly_once(trial.settle()) == []


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_each_entry_counts_once_while_leader_and_controller_are_killed(
    tmp_path: Path,
) -> None:
    with OnCluster(
        tmp_path,
        records=20_000,
        rate=700,
        seed=SEED,
        session_timeout_ms=SILENT_MS,
        transaction_timeout_ms=SILENT_MS,
    ) as trial:
        rng = random.Random(SEED)
        trial.wait(4.0)
        trial.kill_worker()
        trial.kill_node(trial.leader(), rng.uniform(2, 5))
        trial.wait(3.0)
        trial.kill_node(trial.controller(), rng.uniform(2, 5))
        trial.kill_worker()
        assert exactly_once(trial.settle()) == []
