"""Writing, in transactions or without."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import confluent_kafka
from confluent_kafka import (
    KafkaError,
    KafkaException,
)

from streamer.client.confluent.errors import REFUSED, in_transaction, made, not_taken
from streamer.client.confluent.partitions import with_notes
from streamer.client.interface import (
    ClientError,
    Delivered,
    Failure,
    Headers,
    Message,
    Position,
    Produce,
    TopicPartition,
    Unsendable,
)
from streamer.client.librdkafka import NOTHING, Settings, settings_for

METADATA_S = 5.0  # until it must have answered as a Kafka broker
# Until a step of a transaction must be done; if not, the same call goes on with it.
TRANSACTION_S = 5.0
FAILURES_KEPT = 100


class ConfluentProducer:
    """`interface.Producer` on librdkafka."""

    def __init__(
        self, bootstrap: str, extra: Settings = NOTHING, *, successes: bool = False
    ) -> None:
        """`successes`: a record produced with a callback hears of its arrival as well."""
        # By error, None for success: the first record it was said of.
        self._reported: dict[KafkaError | None, Any] = {}
        config = settings_for("producer", bootstrap, extra)
        config |= self._reports(successes)
        self._producer = made(confluent_kafka.Producer, config)
        self.failures: list[Failure] = []
        self.failed = 0
        # The C function itself: a Python call around it costs a quarter as much again.
        self.produce: Produce = cast(Any, self._producer.produce)

    def _reports(self, successes: bool) -> dict[str, Any]:
        if not successes:
            return {"on_delivery": self._delivered}
        # Then it is called for each record: a function in C, that costs next to nothing.
        report = self._reported.setdefault
        return {"on_delivery": report, "delivery.report.only.error": False}

    def _look_at_reports(self) -> None:
        while self._reported:
            self._delivered(*self._reported.popitem())

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
        # One that is shut out raises here, again and again. It says the same to whoever
        # asks it for anything else, and there it is understood.
        with suppress(KafkaException):
            self._producer.poll(wait_s)
        self._look_at_reports()

    def flush(self, wait_s: float) -> int:
        # In slices: a signal such as Ctrl-C is only seen between calls of librdkafka.
        until = time.monotonic() + wait_s
        while True:
            left = until - time.monotonic()
            try:
                waiting = self._producer.flush(max(0.0, min(left, 0.2)))
            except KafkaException:  # as in `poll`
                waiting, left = len(self._producer), 0.0
            self._look_at_reports()
            if not waiting or left <= 0:
                return waiting

    def noting(self, arrived: Callable[[Message], None]) -> Delivered:
        def delivered(error: Any, message: Message) -> None:
            if error is None:
                arrived(message)
            else:
                self._delivered(error, message)

        return delivered

    def meaning(self, error: Exception, topic: str) -> ClientError:
        about = f"Sending a record to {topic}"
        if isinstance(error, KafkaException):
            return not_taken(error.args[0], about)
        return Unsendable(f"{about}: {error}.")

    def forget(self) -> None:
        self._producer.purge()
        self.poll(0)

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
            refused = error.code() in REFUSED
            self.failures.append(replace(failure, problem=problem, refused=refused))


class ConfluentTransactionalProducer(ConfluentProducer):
    """`interface.TransactionalProducer` on librdkafka.

    Making one ends what an earlier producer of the same id has left open, and shuts that
    one out.
    """

    def __init__(
        self,
        bootstrap: str,
        transactional_id: str,
        extra: Settings = NOTHING,
        *,
        successes: bool = False,
    ) -> None:
        settings = {"transactional.id": transactional_id, **extra}
        super().__init__(bootstrap, settings, successes=successes)
        self._id = transactional_id
        self._done(self._producer.init_transactions, "Starting", TRANSACTION_S)

    def _reports(self, successes: bool) -> dict[str, Any]:
        # What fails makes the commit fail. So nobody need hear of each record, which
        # costs as much again as a fourth of producing it.
        if successes:
            return {"delivery.report.only.error": False}
        return super()._reports(successes)

    def begin(self) -> None:
        self._done(self._producer.begin_transaction, "Beginning")

    def send_offsets(
        self, positions: Mapping[TopicPartition, Position], membership: object
    ) -> None:
        self._done(
            self._producer.send_offsets_to_transaction,
            "Committing offsets in",
            with_notes(positions),
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
            raise in_transaction(
                error.args[0], f"{doing} a transaction of {self._id!r}"
            ) from None
