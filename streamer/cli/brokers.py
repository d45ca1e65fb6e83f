"""The brokers of a cluster, spoken to directly: each, a partition's leader, a coordinator.

Some things only one broker of a cluster knows. Connections are made when they are first
needed and closed together.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from streamer.cli.access import Access
from streamer.cli.direct import Connection, check
from streamer.client.interface import (
    Broker,
    ClientError,
    NoSuchTopic,
    TopicPartition,
)
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import FindCoordinatorRequest

TRANSACTION = 1  # a kind of key that has a coordinator; groups are 0
# A coordinator that is just starting reads its log first; nobody waits longer than that.
PATIENCE_S = 10.0
NOT_NOW = {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
}


class Brokers:
    def __init__(self, access: Access) -> None:
        cluster = access.admin().cluster()
        self._settings = access.settings
        self._brokers = {broker.id: broker for broker in cluster.brokers}
        self._leaders = {
            TopicPartition(topic.name, partition.index): partition.leader
            for topic in cluster.topics
            for partition in topic.partitions
        }
        self._connections: dict[int, Connection] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Brokers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def each(self) -> Iterator[tuple[Broker, Connection]]:
        for broker in self._brokers.values():
            yield broker, self.to(broker.id)

    def to(self, broker_id: int) -> Connection:
        if broker_id not in self._connections:
            if broker_id not in self._brokers:
                raise ClientError(f"There is no broker {broker_id} in the cluster now.")
            broker = self._brokers[broker_id]
            connection = Connection(f"{broker.host}:{broker.port}", self._settings)
            self._connections[broker_id] = self._open.enter_context(connection)
        return self._connections[broker_id]

    def leader_of(self, partition: TopicPartition) -> Connection:
        if partition not in self._leaders:
            raise NoSuchTopic(f"There is no partition {partition}.")
        if self._leaders[partition] < 0:
            raise ClientError(f"Nobody leads {partition} at the moment.")
        return self.to(self._leaders[partition])

    def coordinator_of(self, transactional_id: str) -> tuple[Broker, Connection]:
        """The broker that looks after this transactional id, whether it exists or not."""
        anyone = next(iter(self._brokers))
        asked = FindCoordinatorRequest(
            key_type=TRANSACTION, coordinator_keys=[transactional_id]
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            response = self.to(anyone).call(ApiKey.FIND_COORDINATOR, asked)
            (found,) = response.coordinators
            if found.error_code not in NOT_NOW or time.monotonic() > until:
                break
            time.sleep(0.1)
        check(found.error_code, f"Looking for the coordinator of {transactional_id!r}")
        return self._brokers[found.node_id], self.to(found.node_id)


def call_coordinator(connection: Connection, key: ApiKey, request: Any) -> Any:
    """The answer of a coordinator; it is asked again while it reads its log."""
    until = time.monotonic() + PATIENCE_S
    while True:
        response = connection.call(key, request)
        if response.error_code not in NOT_NOW or time.monotonic() > until:
            check(response.error_code, f"{key.title} at {connection.address}")
            return response
        time.sleep(0.1)
