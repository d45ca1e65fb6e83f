"""Reading, as a member of a group or on one's own."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import confluent_kafka
from confluent_kafka import (
    KafkaError,
    KafkaException,
)

from streamer.client.confluent.errors import made, translated
from streamer.client.confluent.partitions import librdkafkas, plain
from streamer.client.interface import (
    ClientError,
    Message,
    TopicPartition,
)
from streamer.client.librdkafka import NOTHING, Settings, settings_for

METADATA_S = 5.0  # until it must have answered as a Kafka broker
ADMIN_S = 15.0  # until a change must be done; creating 1,000 partitions takes a while


class ConfluentConsumer:
    """`interface.Consumer` on librdkafka."""

    def __init__(self, bootstrap: str, extra: Settings = NOTHING) -> None:
        self._consumer = made(
            confluent_kafka.Consumer, settings_for("consumer", bootstrap, extra)
        )
        self._assigned: set[TopicPartition] | None = None
        self._ended: dict[TopicPartition, int] = {}
        self._problem: ClientError | None = None

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._assigned = set(positions)
        self._ended.clear()
        # librdkafka waits half a second where it does not know the leaders yet. While the
        # broker is away nobody knows them; it goes on looking.
        with suppress(KafkaException):
            for topic in {topic for topic, _ in positions}:
                self._consumer.list_topics(topic, timeout=METADATA_S)
        self._consumer.assign(librdkafkas(positions))

    def subscribe(self, topics: Sequence[str]) -> None:
        # librdkafka assigns by itself where the callback does not; both come from within
        # `consume`. Cooperative assignors give only what is new, eager ones all.
        self._consumer.subscribe(
            list(topics), on_assign=self._given, on_revoke=self._taken, on_lost=self._taken
        )

    def assigned(self) -> frozenset[TopicPartition] | None:
        return None if self._assigned is None else frozenset(self._assigned)

    def _given(self, _: object, partitions: Iterable[Any]) -> None:
        self._assigned = (self._assigned or set()) | set(map(plain, partitions))

    def _taken(self, _: object, partitions: Iterable[Any]) -> None:
        for partition in map(plain, partitions):
            self._ended.pop(partition, None)
            if self._assigned:
                self._assigned.discard(partition)
        # An eager group takes everything before it gives anew.
        self._assigned = self._assigned or None

    def consume(self, limit: int, wait_s: float) -> Sequence[Message]:
        if self._problem:
            problem, self._problem = self._problem, None
            raise problem
        # `consume(n, t)` waits until it has all n; so wait for one, then take the rest.
        found: list[Any] = self._consumer.consume(limit, 0)
        if not found and wait_s > 0:
            found = self._consumer.consume(1, wait_s)
            if found and limit > 1:
                found += self._consumer.consume(limit - 1, 0)
        if any(map(confluent_kafka.Message.error, found)):
            return self._without_events(found)
        return found

    def ended(self) -> Mapping[TopicPartition, int]:
        return MappingProxyType(self._ended)

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        if not positions:
            return  # librdkafka calls that an error
        offsets = librdkafkas(positions)
        try:
            committed = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise translated(error.args[0], "Committing offsets") from None
        for each in committed:
            if each.error:
                raise translated(each.error, f"Committing the offset of {plain(each)}")

    def membership(self) -> object:
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        self._consumer.close()

    def _without_events(self, found: Sequence[Any]) -> list[Message]:
        """The records among `found`; ends are noted, an error is kept for the next call."""
        records: list[Message] = []
        for message in found:
            error = message.error()
            partition = TopicPartition(message.topic(), message.partition())
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended[partition] = message.offset()
            elif not error.retriable():
                self._problem = translated(error, f"Reading {partition.topic}")
        if self._problem and not records:
            problem, self._problem = self._problem, None
            raise problem
        return records
