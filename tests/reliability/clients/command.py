"""What all clients of the trial share: their command line, their settings, their end.

Each is a process of its own, so that it can be killed and stopped: `python -m
reliability.clients.feeder --bootstrap ... --name feeder-0 --journal FILE --seed 7`. It
works until SIGTERM, brings what it has begun to an end, and leaves.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from confluent_kafka import KafkaException

_T = TypeVar("_T")

SESSION_MS = 2000
TRANSACTION_MS = 4000

# A broker that was killed is back in half a second; nobody should sleep through it.
COMMON: dict[str, object] = {
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 100,
    "retry.backoff.ms": 10,
    # When its only broker goes, librdkafka by default starts over from the bootstrap
    # addresses; a `send_offsets_to_transaction` under way then waits for ever for a
    # coordinator it has thrown away (its issues 5511 and 5456, Apache Kafka or not).
    "metadata.recovery.strategy": "none",
    "log_level": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    bootstrap: str
    name: str  # of the place it takes, for example its transactional id
    life: int  # how often the place was taken before
    journal: Path
    seed: str

    @property
    def client(self) -> str:
        return f"{self.name}.{self.life}"

    @property
    def settings(self) -> dict[str, object]:
        return COMMON | {"bootstrap.servers": self.bootstrap, "client.id": self.client}


def command() -> Command:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--life", required=True, type=int)
    parser.add_argument("--journal", required=True, type=Path)
    parser.add_argument("--seed", required=True)
    return Command(**vars(parser.parse_args()))


class Stop:
    """True once SIGTERM has come."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def __bool__(self) -> bool:
        return self._asked

    def _ask(self, *_: object) -> None:
        self._asked = True


def again(call: Callable[[], _T]) -> _T:
    """Until it succeeds, or fails for good: while the broker is away, calls time out."""
    while True:
        try:
            return call()
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
