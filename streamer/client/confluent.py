"""Kafka by way of librdkafka: the only module that imports confluent_kafka.

librdkafka fetches, decompresses, batches and retries in threads of its own; we
hand it records and take batches of records from it. `SETTINGS` is everything that
we set, each with the reason and, in brackets, librdkafka's default; callers may add
their own.

librdkafka's log goes to the logger `streamer.librdkafka`, which says nothing unless
the program configures logging: what a user must know comes as a `ClientError`.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

# Its stubs do not say that it exports these.
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry as NewConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streamer.client.interface import (
    Broker,
    BrokerUnavailable,
    ClientError,
    Cluster,
    ConfigEntry,
    Failure,
    Headers,
    Message,
    NoSuchTopic,
    Partition,
    Topic,
    TopicExists,
    TopicPartition,
)

T = TypeVar("T")
Settings = Mapping[str, str | int | float | bool]

NOTHING: Settings = MappingProxyType({})

CONNECT_S = 3.0  # until a host must have accepted the connection
METADATA_S = 5.0  # until it must have answered as a Kafka broker
ADMIN_S = 15.0  # until a change must be done; creating 1,000 partitions takes a while
FAILURES_KEPT = 100

LATEST, EARLIEST = -1, -2  # moments, where ListOffsets takes a timestamp

SETTINGS: dict[str, Settings] = {
    "all": {
        # So that the broker's log can say who it was.
        "client.id": "streamer",
        # Brokers hang up on the idle: no news. (true)
        "log.connection.close": False,
        # A broker that was restarted is found again in a second, not in ten. (10000)
        "reconnect.backoff.max.ms": 1000,
    },
    "consumer": {
        # Must be set, even where no group is used.
        "group.id": "streamer",
        # It cannot know what is done; and storing offsets costs per record. (true, true)
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # To know when a partition has no more. (false)
        "enable.partition.eof": True,
        # Who reads more slowly than retention deletes goes on with the oldest that is
        # left, and does not jump over what there still is. (largest)
        "auto.offset.reset": "earliest",
        # A consumer whose queue was full once waits this long before it fetches again:
        # with the default it reaches an eighth of its rate. (1000)
        "fetch.queue.backoff.ms": 2,
    },
    "producer": {
        # A key goes to the partition that Java clients choose. librdkafka's own choice
        # agrees with theirs on a quarter of keys only. (consistent_random)
        "partitioner": "murmur2_random",
        # A retry writes nothing twice and keeps the order. (false)
        "enable.idempotence": True,
        # Fewer bytes to send, to keep and to read, for little CPU. (none)
        "compression.type": "lz4",
        # The broker decides what is too large, since its topics can be told. (1000000)
        "message.max.bytes": 100_000_000,
        # Reports of success cost as much as producing does; those of failure cost
        # nothing, and are needed: `flush` tells of no failure. (false)
        "delivery.report.only.error": True,
        # Small records fill the default before the network is busy; large ones must
        # not fill the memory. (100000, 1 GiB)
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
    },
    "admin": {},
}

# Idempotence needs all acknowledgements: who wants fewer gives it up.
WITHOUT_IDEMPOTENCE = {"0", "1"}

# What passes by itself.
NOT_NOW = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
}

REMEDIES = {
    KafkaError.INVALID_CONFIG: "`streamer topic describe TOPIC -o wide` lists them all.",
    KafkaError.INVALID_PARTITIONS: "A topic can only grow: ask for more than it has.",
    KafkaError.MSG_SIZE_TOO_LARGE: (
        "`streamer topic alter TOPIC -c max.message.bytes=N` lets larger ones in."
    ),
}

SOURCES = {
    ConfigSource.DYNAMIC_TOPIC_CONFIG: "topic",
    ConfigSource.DYNAMIC_BROKER_CONFIG: "dynamic broker",
    ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG: "dynamic default broker",
    ConfigSource.STATIC_BROKER_CONFIG: "static broker",
    ConfigSource.DEFAULT_CONFIG: "default",
}

_logger = logging.getLogger("streamer.librdkafka")
_logger.addHandler(logging.NullHandler())


class NotNow(ClientError):
    """Refused for a reason that passes."""


def settings_for(who: str, bootstrap: str, extra: Settings) -> dict[str, Any]:
    """librdkafka's configuration: ours from the table, then the caller's on top."""
    config: dict[str, Any] = {**SETTINGS["all"], **SETTINGS[who]}
    config |= extra
    if str(config.get("acks")) in WITHOUT_IDEMPOTENCE and "enable.idempotence" not in extra:
        config["enable.idempotence"] = False
    return config | {"bootstrap.servers": bootstrap, "logger": _logger}


def check_reachable(bootstrap: str) -> None:
    """Raise BrokerUnavailable unless one of the hosts accepts a connection.

    librdkafka would try for as long as it is asked to and not say what is wrong.
    """
    problems = []
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
            return
        except OSError as error:
            problems.append(f"No broker at {address}: {error.strerror or error}.")
    raise BrokerUnavailable(" ".join(problems))


def translated(error: KafkaError, about: str) -> ClientError:
    """librdkafka's error as one of ours; `about` says what was tried."""
    code, words = error.code(), error.str().rstrip(".")
    if code in (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    ):
        return BrokerUnavailable(f"{about}: no answer from the broker ({words}).")
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return NoSuchTopic(f"{about}: there is no such topic.")
    if code == KafkaError._UNKNOWN_PARTITION:
        return NoSuchTopic(f"{about}: there is no such partition.")
    if code == KafkaError.TOPIC_ALREADY_EXISTS:
        return TopicExists(f"{about}: there is one of that name already.")
    kind = NotNow if error.retriable() or code in NOT_NOW else ClientError
    return kind(
        f"{about}: {words} ({error.name()}).",
        remedy=REMEDIES.get(code, "The broker refused it; its log may say more."),
    )


class ConfluentConsumer:
    """`interface.Consumer` on librdkafka."""

    def __init__(self, bootstrap: str, extra: Settings = NOTHING) -> None:
        self._consumer = confluent_kafka.Consumer(
            settings_for("consumer", bootstrap, extra)
        )
        self._ended: set[TopicPartition] = set()
        self._problem: ClientError | None = None

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._ended.clear()
        # librdkafka waits half a second where it does not know the leaders yet.
        for topic in {topic for topic, _ in positions}:
            self._consumer.list_topics(topic, timeout=METADATA_S)
        self._consumer.assign(
            [
                confluent_kafka.TopicPartition(topic, partition, offset)
                for (topic, partition), offset in positions.items()
            ]
        )

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

    def ended(self) -> frozenset[TopicPartition]:
        return frozenset(self._ended)

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
                self._ended.add(partition)
            elif not error.retriable():
                self._problem = translated(error, f"Reading {partition.topic}")
        if self._problem and not records:
            problem, self._problem = self._problem, None
            raise problem
        return records


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


class ConfluentAdmin:
    """`interface.Admin` on librdkafka. Making one finds out whether the broker is there."""

    def __init__(self, bootstrap: str, extra: Settings = NOTHING) -> None:
        check_reachable(bootstrap)
        self._bootstrap = bootstrap
        self._admin: Any = AdminClient(settings_for("admin", bootstrap, extra))

    def cluster(self) -> Cluster:
        try:
            found = self._admin.list_topics(timeout=METADATA_S)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                raise BrokerUnavailable(
                    f"{self._bootstrap} accepts connections, "
                    "but does not answer as a Kafka broker."
                ) from None
            raise translated(error.args[0], f"Asking {self._bootstrap}") from None
        return Cluster(
            id=found.cluster_id,
            controller=found.controller_id,
            brokers=tuple(
                Broker(broker.id, broker.host or "", broker.port)
                for broker in sorted(found.brokers.values(), key=lambda broker: broker.id)
            ),
            topics=tuple(
                Topic(
                    name,
                    tuple(
                        Partition(
                            index, each.leader, tuple(each.replicas), tuple(each.isrs)
                        )
                        for index, each in sorted(topic.partitions.items())
                    ),
                )
                for name, topic in sorted(found.topics.items())
            ),
        )

    def topic(self, name: str) -> Topic:
        # All topics are asked for: asking for one by name might create it.
        for topic in self.cluster().topics:
            if topic.name == name:
                return topic
        raise NoSuchTopic(f"There is no topic {name!r} at {self._bootstrap}.")

    def create_topic(
        self, name: str, *, partitions: int, replication: int, configs: Mapping[str, str]
    ) -> None:
        wanted = NewTopic(name, partitions, replication, config=dict(configs))
        futures = self._admin.create_topics([wanted], operation_timeout=ADMIN_S)
        self._wait(futures[name], f"Creating topic {name!r}")

    def delete_topics(self, names: Sequence[str]) -> None:
        futures = self._admin.delete_topics(list(names), operation_timeout=ADMIN_S)
        for name, future in futures.items():
            self._wait(future, f"Deleting topic {name!r}")

    def add_partitions(self, name: str, total: int) -> None:
        futures = self._admin.create_partitions([NewPartitions(name, total)])
        self._wait(futures[name], f"Adding partitions to {name!r}")

    def topic_configs(self, name: str) -> list[ConfigEntry]:
        resource = ConfigResource(ResourceType.TOPIC, name)
        future = self._admin.describe_configs([resource])[resource]
        entries = self._wait(future, f"Reading the configs of {name!r}")
        return [
            ConfigEntry(
                entry.name,
                entry.value,
                SOURCES.get(ConfigSource(entry.source), "unknown"),
                entry.is_read_only,
                entry.is_sensitive,
            )
            for entry in sorted(entries.values(), key=lambda entry: str(entry.name))
        ]

    def alter_topic_configs(
        self, name: str, *, changed: Mapping[str, str], deleted: Sequence[str]
    ) -> None:
        entries = [
            NewConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in changed.items()
        ]
        entries += [
            NewConfigEntry(key, None, incremental_operation=AlterConfigOpType.DELETE)
            for key in deleted
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        future = self._admin.incremental_alter_configs([resource])[resource]
        self._wait(future, f"Changing the configs of {name!r}")

    def first_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return self._offsets(partitions, EARLIEST)

    def end_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return self._offsets(partitions, LATEST)

    def offsets_at(
        self, partitions: Iterable[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int]:
        found = self._offsets(partitions, timestamp_ms)
        later = [partition for partition, offset in found.items() if offset < 0]
        return found | (self.end_offsets(later) if later else {})

    def _offsets(
        self, partitions: Iterable[TopicPartition], moment: int
    ) -> dict[TopicPartition, int]:
        spec = OffsetSpec(moment)  # type: ignore[abstract]  # it makes a subclass
        request = {
            confluent_kafka.TopicPartition(topic, partition): spec
            for topic, partition in partitions
        }
        # The leader of a partition that was just created may not know of it yet, and
        # librdkafka's admin does not ask again.
        until = time.monotonic() + ADMIN_S
        while True:
            try:
                return {
                    TopicPartition(asked.topic, asked.partition): self._wait(
                        future, f"Asking for offsets of {asked.topic}"
                    ).offset
                    for asked, future in self._admin.list_offsets(request).items()
                }
            except NotNow:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _wait(self, future: "Future[T]", about: str) -> T:
        try:
            return future.result(ADMIN_S + 1)
        except KafkaException as error:
            raise translated(error.args[0], about) from None
        except TimeoutError:
            raise BrokerUnavailable(
                f"{about}: no answer in {ADMIN_S:.0f} s from {self._bootstrap}."
            ) from None
