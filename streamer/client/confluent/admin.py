"""Looking after topics, their settings, groups and their offsets."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import confluent_kafka
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
)

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

from streamer.client.confluent.errors import (
    SECURITY_REMEDY,
    Heard,
    check_reachable,
    made,
    translated,
)
from streamer.client.confluent.partitions import librdkafkas, plain
from streamer.client.interface import (
    Broker,
    BrokerUnavailable,
    ClientError,
    Cluster,
    ConfigEntry,
    Group,
    GroupMember,
    GroupNotEmpty,
    NoSuchGroup,
    NoSuchTopic,
    NotNow,
    Partition,
    Topic,
    TopicPartition,
)
from streamer.client.librdkafka import NOTHING, Settings, settings_for

T = TypeVar("T")

METADATA_S = 5.0  # until it must have answered as a Kafka broker
ADMIN_S = 15.0  # until a change must be done; creating 1,000 partitions takes a while

# What goes by a group's coordinator must not time out in librdkafka: when the coordinator
# is found after that, it ends the process with a failed assertion (its issues 3663 and
# 4605). So it may take as long as can be said, and we stop waiting for it.
COORDINATED_S = 3600.0

LATEST, EARLIEST = -1, -2  # moments, where ListOffsets takes a timestamp

DEAD = "Dead"  # also what is said of a group that never was
STATES = {
    ConsumerGroupState.DEAD: DEAD,
    ConsumerGroupState.EMPTY: "Empty",
    ConsumerGroupState.PREPARING_REBALANCING: "PreparingRebalance",
    ConsumerGroupState.COMPLETING_REBALANCING: "CompletingRebalance",
    ConsumerGroupState.STABLE: "Stable",
}

SOURCES = {
    ConfigSource.DYNAMIC_TOPIC_CONFIG: "topic",
    ConfigSource.DYNAMIC_BROKER_CONFIG: "dynamic broker",
    ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG: "dynamic default broker",
    ConfigSource.STATIC_BROKER_CONFIG: "static broker",
    ConfigSource.DEFAULT_CONFIG: "default",
}


class ConfluentAdmin:
    """`interface.Admin` on librdkafka. Making one finds out whether the broker is there."""

    def __init__(self, bootstrap: str, extra: Settings = NOTHING) -> None:
        check_reachable(bootstrap)
        self._bootstrap = bootstrap
        self._has_protocol = bool(extra.get("security.protocol"))
        self._heard = Heard()
        config = settings_for("admin", bootstrap, extra) | {"error_cb": self._heard}
        self._admin: Any = made(AdminClient, config)

    def cluster(self) -> Cluster:
        try:
            found = self._admin.list_topics(timeout=METADATA_S)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                raise self._unanswered(
                    f"{self._bootstrap} accepts connections, "
                    "but does not answer as a Kafka broker."
                ) from None
            raise translated(error.args[0], f"Asking {self._bootstrap}") from None
        self._forget_trouble()
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
        self, partitions: Iterable[TopicPartition], *, committed: bool = False
    ) -> dict[TopicPartition, int]:
        return self._offsets(partitions, LATEST, committed=committed)

    def offsets_at(
        self, partitions: Iterable[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int]:
        found = self._offsets(partitions, timestamp_ms)
        later = [partition for partition, offset in found.items() if offset < 0]
        return found | (self.end_offsets(later) if later else {})

    def groups(self) -> list[Group]:
        found = self._wait(self._admin.list_consumer_groups(), "Asking for groups")
        if found.errors:
            raise translated(found.errors[0].args[0], "Asking for groups")
        names = sorted(listed.group_id for listed in found.valid)
        # One that was deleted meanwhile is Dead.
        return [group for group in self._described(names) if group.state != DEAD]

    def group(self, name: str) -> Group:
        (found,) = self._described([name])
        if found.state == DEAD:
            raise NoSuchGroup(f"There is no group {name!r} at {self._bootstrap}.")
        return found

    def _described(self, names: Sequence[str]) -> list[Group]:
        if not names:
            return []
        check_reachable(self._bootstrap)

        def ask() -> list[Group]:
            futures = self._admin.describe_consumer_groups(
                list(names), request_timeout=COORDINATED_S
            )
            return [
                described(self._wait(future, f"Asking for group {name!r}"))
                for name, future in futures.items()
            ]

        return self._patiently(ask)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        asked = [ConsumerGroupTopicPartitions(group)]
        about = f"Asking for the offsets of group {group!r}"
        check_reachable(self._bootstrap)
        found = self._patiently(
            lambda: self._wait(
                self._admin.list_consumer_group_offsets(
                    asked, request_timeout=COORDINATED_S
                )[group],
                about,
            )
        )
        return {
            plain(each): each.offset
            for each in sorted(found.topic_partitions)
            if each.offset >= 0
        }

    def set_committed(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        about = f"Setting the offsets of group {group!r}"
        asked = [ConsumerGroupTopicPartitions(group, librdkafkas(offsets))]
        found = self._patiently(
            lambda: self._wait(
                self._admin.alter_consumer_group_offsets(
                    asked, request_timeout=COORDINATED_S
                )[group],
                about,
            )
        )
        for each in found.topic_partitions:
            if each.error and each.error.code() == KafkaError.UNKNOWN_MEMBER_ID:
                raise GroupNotEmpty(f"{about}: it has members.")
            if each.error:
                raise translated(each.error, f"{about} to {each.offset} in {plain(each)}")

    def delete_group(self, name: str) -> None:
        about = f"Deleting group {name!r}"
        self._patiently(
            lambda: self._wait(
                self._admin.delete_consumer_groups([name], request_timeout=COORDINATED_S)[
                    name
                ],
                about,
            )
        )

    def _offsets(
        self,
        partitions: Iterable[TopicPartition],
        moment: int,
        *,
        committed: bool = False,
    ) -> dict[TopicPartition, int]:
        spec = OffsetSpec(moment)  # type: ignore[abstract]  # it makes a subclass
        request = {
            confluent_kafka.TopicPartition(topic, partition): spec
            for topic, partition in partitions
        }
        # librdkafka takes no empty question.
        if not request:
            return {}
        level = (
            IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        )

        def ask() -> dict[TopicPartition, int]:
            futures = self._admin.list_offsets(request, isolation_level=level)
            return {
                plain(asked): self._wait(
                    future, f"Asking for offsets of {asked.topic}"
                ).offset
                for asked, future in futures.items()
            }

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the answer is that it cannot be answered now.

        The leader of a partition that was just created may not know of it yet, nor the
        coordinator of its groups; librdkafka's admin does not ask again. And it goes by the
        leaders that it has heard of last, which may have been others.
        """
        until = time.monotonic() + ADMIN_S
        while True:
            try:
                return ask()
            except NotNow:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
                try:
                    self._admin.list_topics(timeout=METADATA_S)
                except KafkaException:
                    pass  # the next question says it better

    def _wait(self, future: "Future[T]", about: str) -> T:
        try:
            try:
                return future.result(METADATA_S)
            except TimeoutError:
                # Whom it does not let in it will not let in later.
                self._raise_refusal()
            return future.result(ADMIN_S + 1 - METADATA_S)
        except KafkaException as error:
            found = translated(error.args[0], about)
            if isinstance(found, BrokerUnavailable):
                found = self._unanswered(found.problem)
            raise found from None
        except TimeoutError:
            raise self._unanswered(
                f"{about}: no answer in {ADMIN_S:.0f} s from {self._bootstrap}."
            ) from None

    def _forget_trouble(self) -> None:
        """All is well: what was said before that explains nothing any more."""
        self._admin.poll(0)
        self._heard.refusal = None

    def _raise_refusal(self) -> None:
        # It tells of trouble when it is polled, and not before.
        self._admin.poll(0)
        if self._heard.refusal is not None:
            raise self._heard.refusal

    def _unanswered(self, problem: str) -> ClientError:
        """Why there was no answer, as far as anybody has said so."""
        self._admin.poll(0)
        if self._heard.refusal is not None:
            return self._heard.refusal
        remedy = BrokerUnavailable.remedy
        if not self._has_protocol:
            remedy = f"{SECURITY_REMEDY} {remedy}"
        return BrokerUnavailable(problem, remedy=remedy)


def described(found: Any) -> Group:
    """librdkafka's description of a group as ours."""
    node = found.coordinator
    return Group(
        name=found.group_id,
        state=STATES.get(found.state, "Unknown"),
        kind=found.type.name.lower(),
        assignor=found.partition_assignor,
        coordinator=Broker(node.id, node.host, node.port),
        members=tuple(
            GroupMember(
                id=member.member_id,
                instance_id=member.group_instance_id,
                client_id=member.client_id,
                host=member.host.removeprefix("/"),
                partitions=tuple(sorted(map(plain, member.assignment.topic_partitions))),
            )
            for member in sorted(found.members, key=lambda each: str(each.member_id))
        ),
    )
