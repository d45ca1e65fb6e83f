"""Topics through confluent-kafka's admin client: making, growing, deleting them."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
    NewTopic,
)
from conformance.conftest import MakeTopic
from support.clients import (
    DEADLINE_SECONDS,
    Sent,
    code_of,
    create_topic,
    error_code,
    leaders,
    new_name,
    produce,
    read,
    result,
    wait_until,
)


def exists(admin: AdminClient, topic: str) -> bool:
    return topic in admin.list_topics(timeout=DEADLINE_SECONDS).topics


def topic_id(admin: AdminClient, topic: str) -> str:
    described = admin.describe_topics(TopicCollection([topic]))[topic]
    return str(result(described).topic_id)


def test_a_created_topic_is_listed_with_its_partitions(
    admin: AdminClient, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=3)

    found = admin.list_topics(timeout=DEADLINE_SECONDS).topics[topic]
    assert sorted(found.partitions) == [0, 1, 2]
    for partition in found.partitions.values():
        assert partition.replicas == partition.isrs == [partition.leader]


def test_a_described_topic_names_its_leader_among_the_brokers(
    admin: AdminClient, topic: str
) -> None:
    brokers = admin.list_topics(timeout=DEADLINE_SECONDS).brokers
    described = result(admin.describe_topics(TopicCollection([topic]))[topic])

    assert described.name == topic
    assert not described.is_internal
    assert [partition.leader.id for partition in described.partitions] == list(brokers)


def test_a_topic_made_again_under_its_old_name_has_another_id(
    admin: AdminClient, topic: str
) -> None:
    first = topic_id(admin, topic)
    assert topic_id(admin, topic) == first

    result(admin.delete_topics([topic])[topic])
    wait_until(lambda: not exists(admin, topic), "the topic is still listed")
    create_topic(admin, name=topic)
    assert topic_id(admin, topic) != first


def test_a_topic_made_again_is_empty(
    bootstrap: str, admin: AdminClient, topic: str
) -> None:
    produce(bootstrap, topic, [b"old"] * 10)
    result(admin.delete_topics([topic])[topic])
    wait_until(lambda: not exists(admin, topic), "the topic is still listed")

    create_topic(admin, name=topic)
    (report,) = produce(bootstrap, topic, [b"new"])
    assert report.offset() == 0
    assert [message.value() for message in read(bootstrap, topic)] == [b"new"]


def test_producing_to_an_unknown_topic_makes_it_with_the_default_partitions(
    bootstrap: str, admin: AdminClient
) -> None:
    topic = new_name("unheard-of")
    produce(bootstrap, topic, [b"hello"])

    assert leaders(admin, topic) == 4
    assert [message.value() for message in read(bootstrap, topic)] == [b"hello"]


def test_a_topic_without_a_number_gets_the_default_partitions(admin: AdminClient) -> None:
    topic = new_name()
    result(admin.create_topics([NewTopic(topic)])[topic])

    wait_until(lambda: leaders(admin, topic) == 4, "the topic has no leaders")


def test_several_topics_are_made_at_once_and_fail_one_by_one(
    admin: AdminClient, topic: str
) -> None:
    names = [new_name(), topic, new_name()]
    futures = admin.create_topics([NewTopic(name, num_partitions=1) for name in names])

    assert [code_of(futures[name]) for name in names] == [
        0,
        KafkaError.TOPIC_ALREADY_EXISTS,
        0,
    ]


@pytest.mark.parametrize(
    "name", [".", "..", "two words", "a/b", "a\\b", "a:b", "ümlaut", "x" * 250]
)
def test_a_bad_name_is_refused(admin: AdminClient, name: str) -> None:
    futures = admin.create_topics([NewTopic(name, num_partitions=1)])

    assert code_of(futures[name]) == KafkaError.TOPIC_EXCEPTION


def test_the_longest_name_and_every_allowed_character_are_taken(admin: AdminClient) -> None:
    start = new_name("Az09._-")
    create_topic(admin, name=start + "x" * (249 - len(start)))


def test_producing_to_a_bad_name_makes_no_topic(bootstrap: str) -> None:
    with pytest.raises(KafkaException) as refused:
        produce(bootstrap, "two words", [b"x"], message_timeout_ms=5_000)
    assert error_code(refused.value) == KafkaError.TOPIC_EXCEPTION


def test_a_topic_needs_partitions(admin: AdminClient) -> None:
    topic = new_name()
    futures = admin.create_topics([NewTopic(topic, num_partitions=0)])

    assert code_of(futures[topic]) == KafkaError.INVALID_PARTITIONS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("segment.bytes", "1"),
        ("cleanup.policy", "shred"),
        ("message.timestamp.type", "Sundial"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("compression.type", "zip"),
        ("preallocate", "perhaps"),
        ("no.such.config", "1"),
    ],
)
def test_a_bad_config_is_refused(admin: AdminClient, name: str, value: str) -> None:
    topic = new_name()
    futures = admin.create_topics([NewTopic(topic, num_partitions=1, config={name: value})])

    assert code_of(futures[topic]) == KafkaError.INVALID_CONFIG
    assert not exists(admin, topic)


def test_validate_only_says_what_would_happen_and_does_nothing(
    admin: AdminClient, topic: str
) -> None:
    fresh = new_name()
    asked = [NewTopic(fresh, num_partitions=1), NewTopic(topic, num_partitions=1)]
    futures = admin.create_topics(asked, validate_only=True)

    assert code_of(futures[fresh]) == 0
    assert code_of(futures[topic]) == KafkaError.TOPIC_ALREADY_EXISTS
    assert not exists(admin, fresh)


def test_three_copies_on_one_broker(admin: AdminClient, against: str) -> None:
    """A difference on purpose: an app made for three brokers runs on ours unchanged."""
    topic = new_name()
    futures = admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=3)])

    expected = KafkaError.INVALID_REPLICATION_FACTOR if against == "kafka" else 0
    assert code_of(futures[topic]) == expected


def test_a_deleted_topic_is_gone(bootstrap: str, admin: AdminClient, topic: str) -> None:
    produce(bootstrap, topic, [b"x"])
    result(admin.delete_topics([topic])[topic])

    wait_until(lambda: not exists(admin, topic), "the topic is still listed")
    assert code_of(admin.delete_topics([topic])[topic]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_topic_grows_and_keeps_what_it_has(
    bootstrap: str, admin: AdminClient, topic: str
) -> None:
    produce(bootstrap, topic, [b"before"])
    result(admin.create_partitions([NewPartitions(topic, 3)])[topic])
    wait_until(lambda: leaders(admin, topic) == 3, "the new partitions have no leaders")

    produce(bootstrap, topic, [Sent(value=b"after", partition=2)])
    messages = read(bootstrap, topic, partitions=[0, 1, 2])
    assert {(message.partition(), message.value()) for message in messages} == {
        (0, b"before"),
        (2, b"after"),
    }


@pytest.mark.parametrize("wanted", [1, 2])
def test_a_topic_never_shrinks(
    admin: AdminClient, make_topic: MakeTopic, wanted: int
) -> None:
    topic = make_topic(partitions=2)
    futures = admin.create_partitions([NewPartitions(topic, wanted)])

    assert code_of(futures[topic]) == KafkaError.INVALID_PARTITIONS
    assert leaders(admin, topic) == 2


def test_an_unknown_topic_does_not_grow(admin: AdminClient) -> None:
    topic = new_name()
    futures = admin.create_partitions([NewPartitions(topic, 2)])

    assert code_of(futures[topic]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_growing_can_be_tried_first(admin: AdminClient, topic: str) -> None:
    asked = [NewPartitions(topic, 5)]
    assert code_of(admin.create_partitions(asked, validate_only=True)[topic]) == 0

    assert leaders(admin, topic) == 1
