"""Groups as their administrator sees them: listed, described, moved, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaError,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from conformance.conftest import MakeTopic
from support.clients import (
    code_of,
    committed,
    member,
    new_name,
    owned,
    poll_until,
    produce,
    result,
    take,
)


@pytest.fixture
def left(bootstrap: str, group: str, topic: str) -> str:
    """A group without members that has committed offset 5 of `topic`."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    consumer.close()
    return group


@pytest.fixture
def at_work(bootstrap: str, group: str, topic: str) -> Iterator[Consumer]:
    """The one member of a group that reads `topic` and has committed offset 2."""
    produce(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = member(bootstrap, group, topic, client_id="worker")
    consumer.commit(message=take(consumer, 2)[-1], asynchronous=False)
    yield consumer
    consumer.close()


def listed(admin: AdminClient, **filters: object) -> dict[str, object]:
    """The names of the groups that this test made, and their states."""
    found = result(admin.list_consumer_groups(**filters))
    assert found.errors == []
    return {each.group_id: each.state for each in found.valid}


def offsets(admin: AdminClient, group: str) -> dict[tuple[str, int], int]:
    asked = ConsumerGroupTopicPartitions(group)
    found = result(admin.list_consumer_group_offsets([asked])[group])
    return {(each.topic, each.partition): each.offset for each in found.topic_partitions}


def test_groups_are_listed_with_their_states(
    admin: AdminClient, bootstrap: str, left: str, make_topic: MakeTopic
) -> None:
    other = new_name("group")
    consumer = member(bootstrap, other, make_topic())
    poll_until(lambda: owned(consumer), consumer)

    stable, empty = ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY
    assert {left: empty, other: stable}.items() <= listed(admin).items()
    only_empty = listed(admin, states={empty})
    assert only_empty[left] == empty
    assert other not in only_empty
    assert left not in listed(admin, states={stable})
    assert other in listed(admin, states={stable, empty})
    consumer.close()


def test_groups_are_listed_by_their_type(admin: AdminClient, left: str) -> None:
    assert left in listed(admin, types={ConsumerGroupType.CLASSIC})
    assert left not in listed(admin, types={ConsumerGroupType.CONSUMER})


def test_a_group_at_work_is_described(
    admin: AdminClient, group: str, topic: str, at_work: Consumer
) -> None:
    described = result(admin.describe_consumer_groups([group])[group])

    assert described.state == ConsumerGroupState.STABLE
    assert described.partition_assignor == "range"
    assert described.coordinator.port > 0
    (worker,) = described.members
    assert worker.member_id == at_work.memberid()
    assert (worker.client_id, worker.group_instance_id) == ("worker", None)
    assert "127.0.0.1" in worker.host
    assert worker.assignment.topic_partitions == [TopicPartition(topic, 0)]


def test_a_static_member_is_described_with_its_name(
    admin: AdminClient, bootstrap: str, group: str, topic: str
) -> None:
    consumer = member(bootstrap, group, topic, group_instance_id="first")
    poll_until(lambda: owned(consumer), consumer)
    described = result(admin.describe_consumer_groups([group])[group])
    consumer.close()

    assert [each.group_instance_id for each in described.members] == ["first"]


def test_a_group_without_members_is_described(admin: AdminClient, left: str) -> None:
    described = result(admin.describe_consumer_groups([left])[left])

    assert described.state == ConsumerGroupState.EMPTY
    assert described.members == []


def test_a_group_nobody_knows_is_dead(admin: AdminClient) -> None:
    name = new_name("group")
    described = result(admin.describe_consumer_groups([name])[name])

    assert described.state == ConsumerGroupState.DEAD


def test_offsets_of_a_group_are_listed(admin: AdminClient, left: str, topic: str) -> None:
    assert offsets(admin, left) == {(topic, 0): 5}

    named = ConsumerGroupTopicPartitions(left, [TopicPartition(topic, 0)])
    found = result(admin.list_consumer_group_offsets([named], require_stable=True)[left])
    assert [each.offset for each in found.topic_partitions] == [5]
    assert offsets(admin, new_name("group")) == {}


def test_offsets_of_a_group_without_members_are_moved(
    admin: AdminClient, bootstrap: str, left: str, topic: str
) -> None:
    wanted = ConsumerGroupTopicPartitions(left, [TopicPartition(topic, 0, 3)])
    moved = result(admin.alter_consumer_group_offsets([wanted])[left])

    assert [each.error for each in moved.topic_partitions] == [None]
    assert committed(bootstrap, left, topic).offset == 3


def test_offsets_of_a_group_at_work_are_not_moved(
    admin: AdminClient, bootstrap: str, group: str, topic: str, at_work: Consumer
) -> None:
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 1)])
    future = admin.alter_consumer_group_offsets([wanted])[group]

    assert refusal(future) == KafkaError.UNKNOWN_MEMBER_ID
    assert committed(bootstrap, group, topic).offset == 2


def refusal(future: Future[ConsumerGroupTopicPartitions]) -> int:
    """The error of the call, or that of the only partition it is about."""
    if code := code_of(future):
        return code
    (partition,) = result(future).topic_partitions or []
    return 0 if partition.error is None else int(partition.error.code())


def test_a_group_without_members_is_deleted_with_its_offsets(
    admin: AdminClient, bootstrap: str, left: str, topic: str
) -> None:
    assert code_of(admin.delete_consumer_groups([left])[left]) == 0

    assert left not in listed(admin)
    assert committed(bootstrap, left, topic).offset == OFFSET_INVALID
    assert code_of(admin.delete_consumer_groups([left])[left]) == (
        KafkaError.GROUP_ID_NOT_FOUND
    )


def test_a_group_at_work_is_not_deleted(
    admin: AdminClient, group: str, at_work: Consumer
) -> None:
    code = code_of(admin.delete_consumer_groups([group])[group])

    assert code == KafkaError.NON_EMPTY_GROUP
    assert group in listed(admin)
