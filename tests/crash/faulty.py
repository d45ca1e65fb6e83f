"""A producer whose commits go wrong, now and then, in all the ways they can.

    lost       it is committed, and the answer gets lost
    unsent     it is not committed, and nobody says so
    refused    the transaction must be aborted
    gone on    the group does not take the positions

Which, and when, a seed decides.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from streamer.client.interface import (
    BrokerUnavailable,
    MustAbort,
    NotAMember,
    Position,
    TopicPartition,
    TransactionalProducer,
)
from streamer.worker.clients import Clients

OF_COMMITS = 0.04


class Faulty:
    """`interface.TransactionalProducer` around a real one."""

    def __init__(self, producer: TransactionalProducer, rng: random.Random) -> None:
        self._real = producer
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send_offsets(
        self, positions: Mapping[TopicPartition, Position], membership: object
    ) -> None:
        if self._rng.random() < OF_COMMITS:
            raise NotAMember("The group is said to have gone on.")
        self._real.send_offsets(positions, membership)

    def commit(self) -> None:
        chance = self._rng.random()
        if chance < OF_COMMITS:
            raise BrokerUnavailable("It is not committed.")
        if chance < 2 * OF_COMMITS:
            raise MustAbort("It is said to be refused.")
        self._real.commit()
        if chance < 3 * OF_COMMITS:
            raise BrokerUnavailable("It is committed, and the answer is lost.")


def install(seed: int) -> None:
    """From now on all transactional producers of this process are like that."""
    rng = random.Random(seed)
    make = Clients.producer

    def producer(self: Clients, transactional_id: str) -> Any:
        return Faulty(make(self, transactional_id), rng)  # type: ignore[arg-type]

    Clients.producer = producer  # type: ignore[method-assign]
