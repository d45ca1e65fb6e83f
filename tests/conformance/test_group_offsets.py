"""How far a group has read: kept, told, and found again by whoever reads next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from conformance.conftest import MakeTopic
from support.clients import (
    committed,
    create_topic,
    error_code,
    member,
    new_name,
    poll_until,
    produce,
    result,
    take,
    values,
    wait_until,
)

TEN = [b"%d" % number for number in range(10)]


@pytest.fixture
def filled(bootstrap: str, topic: str) -> str:
    """A topic with ten records."""
    produce(bootstrap, topic, TEN)
    return topic


@pytest.fixture
def simple(bootstrap: str, group: str) -> Iterator[Consumer]:
    """A consumer that keeps its offsets in the group, and joins nothing."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
    }
    consumer = Consumer(settings)
    yield consumer
    consumer.close()


def commit(consumer: Consumer, *offsets: TopicPartition) -> list[TopicPartition]:
    """Commit and wait for the answer."""
    found = consumer.commit(offsets=list(offsets), asynchronous=False)
    assert found is not None
    return found


def read_on(bootstrap: str, group: str, topic: str, count: int) -> list[bytes | None]:
    """What the group reads next."""
    consumer = member(bootstrap, group, topic)
    try:
        return values(take(consumer, count))
    finally:
        consumer.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_next_consumer_goes_on_where_the_last_one_committed(
    bootstrap: str, group: str, filled: str, asynchronous: bool
) -> None:
    consumer = member(bootstrap, group, filled)
    (*_, last) = take(consumer, 4)
    if asynchronous:
        consumer.commit(message=last)
    else:
        consumer.commit(message=last, asynchronous=False)
    consumer.close()  # waits for commits on their way

    assert committed(bootstrap, group, filled).offset == 4
    assert read_on(bootstrap, group, filled, 6) == TEN[4:]


def test_an_asynchronous_commit_is_reported(
    bootstrap: str, group: str, filled: str
) -> None:
    reports: list[tuple[KafkaError | None, list[TopicPartition]]] = []
    watch = {"on_commit": lambda *report: reports.append(report)}
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
        | {"auto.offset.reset": "earliest"}
        | watch
    )
    consumer.subscribe([filled])
    consumer.commit(message=take(consumer, 4)[-1], asynchronous=True)
    poll_until(lambda: reports, consumer)
    consumer.close()

    ((error, (partition,)),) = reports
    assert (error, partition.offset) == (None, 4)


def test_automatic_commits_are_made_at_the_end(
    bootstrap: str, group: str, filled: str
) -> None:
    consumer = member(bootstrap, group, filled, enable_auto_commit=True)
    take(consumer, 7)
    consumer.close()

    assert committed(bootstrap, group, filled).offset == 7


def test_what_was_never_committed_is_not_there(
    bootstrap: str, group: str, filled: str
) -> None:
    assert committed(bootstrap, group, filled).offset == OFFSET_INVALID


@pytest.mark.parametrize(("reset", "expected"), [("earliest", b"0"), ("latest", b"new")])
def test_without_an_offset_the_reset_policy_says_where_to_start(
    bootstrap: str, group: str, filled: str, reset: str, expected: bytes
) -> None:
    consumer = member(bootstrap, group, filled, auto_offset_reset=reset)
    if reset == "latest":
        # It looks for the end by itself, soon after it has been given the partition.
        poll_until(lambda: knows_the_end(consumer, filled), consumer)
        produce(bootstrap, filled, [b"new"])
    (message,) = take(consumer, 1)
    consumer.close()

    assert message.value() == expected


def knows_the_end(consumer: Consumer, topic: str) -> bool:
    """Whether it has fetched from the end already."""
    partition = TopicPartition(topic, 0)
    return consumer.get_watermark_offsets(partition, cached=True)[1] == len(TEN)


def test_without_an_offset_or_a_policy_it_is_an_error(
    bootstrap: str, group: str, filled: str
) -> None:
    consumer = member(bootstrap, group, filled, auto_offset_reset="error")
    with pytest.raises(KafkaException) as refused:
        take(consumer, 1)
    consumer.close()

    assert error_code(refused.value) == KafkaError._AUTO_OFFSET_RESET


def test_an_offset_beyond_the_log_is_replaced_by_the_policy(
    bootstrap: str, group: str, filled: str, simple: Consumer
) -> None:
    commit(simple, TopicPartition(filled, 0, 1_000))

    assert read_on(bootstrap, group, filled, 1) == TEN[:1]


@pytest.mark.parametrize("metadata", ["", "read by A", "größer als null", "x" * 4095])
def test_metadata_comes_back_as_it_was(
    simple: Consumer, filled: str, metadata: str
) -> None:
    commit(simple, TopicPartition(filled, 0, 5, metadata))

    (found,) = simple.committed([TopicPartition(filled, 0)], timeout=10)
    assert (found.offset, found.metadata or "") == (5, metadata)


def test_too_much_metadata_is_refused(simple: Consumer, filled: str) -> None:
    with pytest.raises(KafkaException) as refused:
        commit(simple, TopicPartition(filled, 0, 5, "x" * 4097))

    assert error_code(refused.value) == KafkaError.OFFSET_METADATA_TOO_LARGE
    (found,) = simple.committed([TopicPartition(filled, 0)], timeout=10)
    assert found.offset == OFFSET_INVALID


def test_leader_epochs_come_back_as_they_were(simple: Consumer, filled: str) -> None:
    commit(simple, TopicPartition(filled, 0, 5, leader_epoch=3))

    (found,) = simple.committed([TopicPartition(filled, 0)], timeout=10)
    assert (found.offset, found.leader_epoch) == (5, 3)


def test_a_consumer_without_members_keeps_offsets_too(
    bootstrap: str, filled: str, simple: Consumer
) -> None:
    simple.assign([TopicPartition(filled, 0, 0)])
    messages = take(simple, 3)
    simple.commit(message=messages[-1], asynchronous=False)

    simple.assign([TopicPartition(filled, 0, OFFSET_STORED)])
    assert values(take(simple, 7)) == TEN[3:]


def test_who_is_no_member_may_not_commit_for_those_who_are(
    bootstrap: str, group: str, filled: str, simple: Consumer
) -> None:
    consumer = member(bootstrap, group, filled)
    consumer.commit(message=take(consumer, 4)[-1], asynchronous=False)

    with pytest.raises(KafkaException) as refused:
        commit(simple, TopicPartition(filled, 0, 9))
    assert error_code(refused.value) == KafkaError.UNKNOWN_MEMBER_ID
    assert committed(bootstrap, group, filled).offset == 4
    consumer.close()


def test_offsets_may_go_back(
    bootstrap: str, group: str, filled: str, simple: Consumer
) -> None:
    for offset in (9, 2):
        commit(simple, TopicPartition(filled, 0, offset))

    assert read_on(bootstrap, group, filled, 8) == TEN[2:]


def test_groups_do_not_know_of_each_other(
    bootstrap: str, group: str, filled: str, simple: Consumer
) -> None:
    commit(simple, TopicPartition(filled, 0, 5))

    assert committed(bootstrap, new_name("group"), filled).offset == OFFSET_INVALID
    assert committed(bootstrap, group, filled).offset == 5


def test_each_partition_has_its_offset(
    bootstrap: str, group: str, make_topic: MakeTopic, simple: Consumer
) -> None:
    one, other = make_topic(partitions=3), make_topic()
    wanted = {(one, 0): 5, (one, 2): 7, (other, 0): 9}
    commit(simple, *(TopicPartition(*where, offset) for where, offset in wanted.items()))

    asked = [TopicPartition(*where) for where in [*wanted, (one, 1)]]
    found = simple.committed(asked, timeout=10)
    assert {(each.topic, each.partition): each.offset for each in found} == wanted | {
        (one, 1): OFFSET_INVALID
    }


def test_a_partition_that_does_not_exist_is_refused(simple: Consumer, filled: str) -> None:
    with pytest.raises(KafkaException) as refused:
        commit(simple, TopicPartition(filled, 7, 1))

    assert error_code(refused.value) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_offsets_of_a_deleted_topic_are_gone(
    bootstrap: str, admin: AdminClient, group: str, simple: Consumer
) -> None:
    topic = create_topic(admin)
    commit(simple, TopicPartition(topic, 0, 5))

    result(admin.delete_topics([topic])[topic])
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, "not deleted")
    create_topic(admin, name=topic)
    wait_until(
        lambda: committed(bootstrap, group, topic).offset == OFFSET_INVALID,
        "the offset outlived its topic",
    )


def test_it_may_seek_and_commit_from_there(bootstrap: str, group: str, filled: str) -> None:
    consumer = member(bootstrap, group, filled)
    take(consumer, 2)
    consumer.seek(TopicPartition(filled, 0, 8))
    (message,) = take(consumer, 1)
    consumer.commit(message=message, asynchronous=False)
    consumer.close()

    assert message.value() == b"8"
    assert read_on(bootstrap, group, filled, 1) == [b"9"]
