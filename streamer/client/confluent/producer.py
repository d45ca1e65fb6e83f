"""Writing, in transactions or without."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import confluent_kafka
from confluent_kafka import (
    KafkaError,
    KafkaException,
)

from streamer.client.confluent.errors import translated
from streamer.client.confluent.partitions import librdkafkas
from streamer.client.interface import (
    Failure,
    Headers,
    TopicPartition,
)
from streamer.client.librdkafka import NOTHING, Settings, settings_for

METADATA_S = 5.0  # until it must have answered as a Kafka broker
TRANSACTION_S = 30.0  # until each step of a transaction must be done
FAILURES_KEPT = 100


class ConfluentProducer:
    """`interface.Producer` on librdkafka."""

    def __init__(self, bootstrap: str, extra: Settings = NOTHING) -> None:
        config = settings_for("producer", bootstrap, extra)
        self._producer = confluent_kafka.Producer(config | {"on_delivery": self._delivered})
        self.failures: list[Failure] = []
        self.failed = 0
        # The C function itself: a Python call around it costs a quarter as much again.
        self.produce: Callable[..., None] = self._producer.produce

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> None:
        while True:
            try:
                if headers:  # an empty list would cost as much as a full one
                    self._producer.produce(
                        topic, value, key, partition, headers=list(headers)
                    )
                else:
                    self._producer.produce(topic, value, key, partition)
                return
            except BufferError:
                self.poll(0.1)
            except KafkaException as error:
                self._failed(error.args[0], Failure(topic, partition, key, value, ""))
                return

    def poll(self, wait_s: float = 0) -> None:
        self._producer.poll(wait_s)

    def flush(self, wait_s: float) -> int:
        # In slices: a signal such as Ctrl-C is only seen between calls of librdkafka.
        until = time.monotonic() + wait_s
        while True:
            left = until - time.monotonic()
            waiting = self._producer.flush(max(0.0, min(left, 0.2)))
            if not waiting or left <= 0:
                return waiting

    def __len__(self) -> int:
        return len(self._producer)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            partition = -1 if message.partition() is None else message.partition()
            self._failed(
                error,
                Failure(message.topic(), partition, message.key(), message.value(), ""),
            )

    def _failed(self, error: KafkaError, failure: Failure) -> None:
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            problem = f"{error.str().rstrip('.')} ({error.name()})"
            self.failures.append(replace(failure, problem=problem))


class ConfluentTransactionalProducer(ConfluentProducer):
    """`interface.TransactionalProducer` on librdkafka.

    Making one ends what an earlier producer of the same id has left open, and shuts that
    one out.
    """

    def __init__(
        self, bootstrap: str, transactional_id: str, extra: Settings = NOTHING
    ) -> None:
        super().__init__(bootstrap, {"transactional.id": transactional_id, **extra})
        self._id = transactional_id
        self._done(self._producer.init_transactions, "Starting", TRANSACTION_S)

    def begin(self) -> None:
        self._done(self._producer.begin_transaction, "Beginning")

    def send_offsets(
        self, positions: Mapping[TopicPartition, int], membership: object
    ) -> None:
        self._done(
            self._producer.send_offsets_to_transaction,
            "Committing offsets in",
            librdkafkas(positions),
            membership,
            TRANSACTION_S,
        )

    def commit(self) -> None:
        self._done(self._producer.commit_transaction, "Committing", TRANSACTION_S)

    def abort(self) -> None:
        self._done(self._producer.abort_transaction, "Aborting", TRANSACTION_S)

    def _done(self, step: Callable[..., object], doing: str, *arguments: object) -> None:
        try:
            step(*arguments)
        except KafkaException as error:
            raise translated(
                error.args[0], f"{doing} a transaction of {self._id!r}"
            ) from None
