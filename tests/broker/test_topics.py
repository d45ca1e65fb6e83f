"""CreateTopics, DeleteTopics, CreatePartitions, Metadata: every rule, and its code."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.core import Client

from streamer.broker.core import Broker
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    MetadataRequest,
)

NO_ID = UUID(int=0)


async def create(client: Client, *topics: Any, validate_only: bool = False) -> list[Any]:
    request = CreateTopicsRequest(topics=list(topics), validate_only=validate_only)
    answer = await client.ask(ApiKey.CREATE_TOPICS, 7, request)
    return list(answer.topics)


def wanted(name: str, partitions: int = 1, copies: int = 1, **more: Any) -> Any:
    return CreateTopicsRequest.Topic(
        name=name, num_partitions=partitions, replication_factor=copies, **more
    )


def assigned(*brokers: list[int], first: int = 0) -> list[Any]:
    return [
        CreateTopicsRequest.Assignment(partition_index=index, broker_ids=ids)
        for index, ids in enumerate(brokers, first)
    ]


def config(name: str, value: str | None) -> Any:
    return CreateTopicsRequest.Config(name=name, value=value)


async def delete(client: Client, *topics: tuple[str | None, UUID]) -> list[Any]:
    request = DeleteTopicsRequest(
        topics=[DeleteTopicsRequest.Topic(name=name, topic_id=id) for name, id in topics]
    )
    answer = await client.ask(ApiKey.DELETE_TOPICS, 6, request)
    return list(answer.topics)


async def extend(
    client: Client, *topics: tuple[str, int], validate_only: bool = False, **more: Any
) -> list[int]:
    request = CreatePartitionsRequest(
        topics=[
            CreatePartitionsRequest.Topic(name=name, count=count, **more)
            for name, count in topics
        ],
        validate_only=validate_only,
    )
    answer = await client.ask(ApiKey.CREATE_PARTITIONS, 3, request)
    return codes(answer.topics)


async def look_up(
    client: Client, *topics: Any, version: int = 12, **more: Any
) -> list[Any]:
    request = MetadataRequest(topics=list(topics), **more)
    answer = await client.ask(ApiKey.METADATA, version, request)
    return list(answer.topics)


def codes(results: list[Any]) -> list[int]:
    return [result.error_code for result in results]


# CreateTopics


async def test_a_topic_is_described_as_it_was_made(broker: Broker, client: Client) -> None:
    (made,) = await create(
        client, wanted("new", -1, -1, configs=[config("retention.ms", "5")])
    )

    assert (made.error_code, made.num_partitions, made.replication_factor) == (0, 4, 1)
    assert made.topic_id == broker.catalog.topics["new"].id
    assert {one.name: one.value for one in made.configs}["retention.ms"] == "5"


async def test_three_copies_are_one_here(broker: Broker, client: Client) -> None:
    (made,) = await create(client, wanted("new", copies=3))

    assert (made.error_code, made.replication_factor) == (0, 1)


async def test_what_is_only_checked_is_not_made(broker: Broker, client: Client) -> None:
    checked = await create(client, wanted("new"), wanted("t"), validate_only=True)

    assert codes(checked) == [ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS]
    assert checked[0].topic_id == NO_ID
    assert list(broker.catalog.topics) == ["t"]


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (wanted("t"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (wanted("a b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (wanted("new", 0), ErrorCode.INVALID_PARTITIONS),
        (wanted("new", -2), ErrorCode.INVALID_PARTITIONS),
        (wanted("new", 10_001), ErrorCode.INVALID_PARTITIONS),
        (wanted("new", 1, 0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (wanted("new", configs=[config("segment.bites", "1")]), ErrorCode.INVALID_CONFIG),
        (wanted("new", configs=[config("segment.ms", "x")]), ErrorCode.INVALID_CONFIG),
        (wanted("new", configs=[config("segment.ms", None)]), ErrorCode.INVALID_CONFIG),
        (wanted("new", 1, -1, assignments=assigned([1])), ErrorCode.INVALID_REQUEST),
        (wanted("new", -1, 1, assignments=assigned([1])), ErrorCode.INVALID_REQUEST),
        (
            wanted("new", -1, -1, assignments=assigned([1], first=1)),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            wanted("new", -1, -1, assignments=assigned([2])),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            wanted("new", -1, -1, assignments=assigned([1, 1])),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            wanted("new", -1, -1, assignments=assigned(*[[1]] * 10_001)),
            ErrorCode.INVALID_PARTITIONS,
        ),
    ],
)
async def test_a_topic_that_breaks_a_rule_is_not_made(
    broker: Broker, client: Client, topic: Any, code: ErrorCode
) -> None:
    (refused, made) = await create(client, topic, wanted("other"))

    assert (refused.error_code, made.error_code) == (code, ErrorCode.NONE)
    assert refused.error_message
    assert "new" not in broker.catalog.topics


async def test_names_that_look_the_same_in_metrics_do_not_stand_together(
    client: Client,
) -> None:
    results = await create(client, wanted("a.b_c"), wanted("a_b.c"), wanted("a-b-c"))

    assert codes(results) == [0, ErrorCode.INVALID_TOPIC_EXCEPTION, 0]


async def test_a_name_twice_is_answered_once_and_not_made(
    broker: Broker, client: Client
) -> None:
    results = await create(client, wanted("new", 1), wanted("new", 2), wanted("other"))

    assert [(one.name, one.error_code) for one in results] == [
        ("new", ErrorCode.INVALID_REQUEST),
        ("other", ErrorCode.NONE),
    ]
    assert "new" not in broker.catalog.topics


async def test_a_client_that_hangs_up_leaves_a_whole_topic_or_none(broker: Broker) -> None:
    client = Client(broker)

    client.send(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=[wanted("new", 2)]))
    client.connection.connection_lost(None)
    again = await create(Client(broker), wanted("new", 3))

    assert codes(again) == [ErrorCode.TOPIC_ALREADY_EXISTS]
    assert len(broker.catalog.topics["new"].partitions) == 2


async def test_an_offline_broker_changes_no_topics(broker: Broker, client: Client) -> None:
    broker.go_offline("a test says so")

    assert codes(await create(client, wanted("new"))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert codes(await delete(client, ("t", NO_ID))) == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert await extend(client, ("t", 2)) == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert list(broker.catalog.topics) == ["t"]


# DeleteTopics


async def test_a_topic_is_deleted_by_its_id_and_named_in_the_answer(
    broker: Broker, client: Client
) -> None:
    topic_id = broker.catalog.topics["t"].id

    (deleted,) = await delete(client, (None, topic_id))

    assert (deleted.error_code, deleted.name, deleted.topic_id) == (0, "t", topic_id)
    assert broker.catalog.topics == {}


async def test_what_is_not_there_cannot_be_deleted(client: Client) -> None:
    results = await delete(client, ("missing", NO_ID), (None, uuid4()))

    assert codes(results) == [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
    ]


async def test_an_unclear_deletion_deletes_nothing(broker: Broker, client: Client) -> None:
    topic_id = broker.catalog.topics["t"].id

    twice = await delete(client, ("t", NO_ID), ("t", NO_ID))
    both = await delete(client, ("t", topic_id))
    neither = await delete(client, (None, NO_ID))

    assert codes(twice + both + neither) == [ErrorCode.INVALID_REQUEST] * 3
    assert "t" in broker.catalog.topics


async def test_deleting_can_be_forbidden(broker: Broker, client: Client) -> None:
    broker.config.alter({"delete.topic.enable": "false"})

    old = DeleteTopicsRequest(topic_names=["t"])
    answer = await client.ask(ApiKey.DELETE_TOPICS, 2, old)
    assert codes(answer.topics) == [ErrorCode.INVALID_REQUEST]
    refused = await delete(client, ("t", NO_ID))
    assert codes(refused) == [ErrorCode.TOPIC_DELETION_DISABLED]


# CreatePartitions


async def test_a_topic_grows(broker: Broker, client: Client) -> None:
    assert await extend(client, ("t", 3), validate_only=True) == [ErrorCode.NONE]
    assert len(broker.catalog.topics["t"].partitions) == 1

    assert await extend(client, ("t", 3)) == [ErrorCode.NONE]
    assert len(broker.catalog.topics["t"].partitions) == 3


async def test_growing_has_rules(broker: Broker, client: Client) -> None:
    assert await extend(client, ("missing", 2)) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    for count in (-1, 0, 1, 10_001):
        assert await extend(client, ("t", count)) == [ErrorCode.INVALID_PARTITIONS]
    assert await extend(client, ("t", 2), ("t", 3)) == [ErrorCode.INVALID_REQUEST]
    assert len(broker.catalog.topics["t"].partitions) == 1


async def test_new_partitions_may_be_assigned_to_this_broker_only(client: Client) -> None:
    def to(*brokers: list[int]) -> list[Any]:
        return [CreatePartitionsRequest.Assignment(broker_ids=ids) for ids in brokers]

    refused = [ErrorCode.INVALID_REPLICA_ASSIGNMENT]
    assert await extend(client, ("t", 3), assignments=to([1])) == refused
    assert await extend(client, ("t", 3), assignments=to([1], [2])) == refused
    assert await extend(client, ("t", 3), assignments=to([1], [1])) == [ErrorCode.NONE]


async def test_of_two_who_make_a_topic_grow_one_is_told_that_it_has(
    broker: Broker,
) -> None:
    results = await asyncio.gather(
        extend(Client(broker), ("t", 3)), extend(Client(broker), ("t", 3))
    )

    assert sorted(results) == [[ErrorCode.NONE], [ErrorCode.INVALID_PARTITIONS]]


# Metadata


async def test_a_topic_is_made_for_who_asks_and_allows_it(
    broker: Broker, client: Client
) -> None:
    new, bad = MetadataRequest.Topic(name="new"), MetadataRequest.Topic(name="a b")

    (missing,) = await look_up(client, new, allow_auto_topic_creation=False)
    assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    made, refused = await look_up(client, new, bad)
    assert (made.error_code, len(made.partitions)) == (ErrorCode.NONE, 4)
    assert refused.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


async def test_all_who_ask_for_a_new_topic_at_once_get_it(broker: Broker) -> None:
    new = MetadataRequest.Topic(name="new")

    found = await asyncio.gather(*[look_up(Client(broker), new) for _ in range(3)])

    assert [(one.error_code, len(one.partitions)) for (one,) in found] == [(0, 4)] * 3


async def test_no_topic_is_made_where_the_broker_does_not_allow_it(
    broker: Broker, client: Client
) -> None:
    broker.config.alter({"auto.create.topics.enable": "false"})

    (missing,) = await look_up(client, MetadataRequest.Topic(name="new"))

    assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert list(broker.catalog.topics) == ["t"]


async def test_a_topic_that_is_asked_for_a_thousand_times_is_described_once(
    client: Client,
) -> None:
    found = await look_up(client, *[MetadataRequest.Topic(name="t")] * 1000)

    assert [one.name for one in found] == ["t"]


async def test_topics_are_looked_up_by_id_from_version_12_on(
    broker: Broker, client: Client
) -> None:
    topic_id = broker.catalog.topics["t"].id
    by_id = MetadataRequest.Topic(name=None, topic_id=topic_id)
    unknown = MetadataRequest.Topic(name=None, topic_id=uuid4())

    found, missing = await look_up(client, by_id, unknown)
    assert (found.name, found.error_code) == ("t", ErrorCode.NONE)
    assert (missing.name, missing.error_code) == (None, ErrorCode.UNKNOWN_TOPIC_ID)
    (early,) = await look_up(client, by_id, version=11)
    assert (early.name, early.error_code) == ("", ErrorCode.INVALID_REQUEST)


async def test_all_topics_and_none(client: Client) -> None:
    everything = await client.ask(ApiKey.METADATA, 12, MetadataRequest(topics=None))
    oldest = await client.ask(ApiKey.METADATA, 0, MetadataRequest(topics=[]))
    nothing = await client.ask(ApiKey.METADATA, 12, MetadataRequest(topics=[]))

    assert [one.name for one in everything.topics] == ["t"]
    assert [one.name for one in oldest.topics] == ["t"]
    assert nothing.topics == []


async def test_what_may_be_done_is_told_only_when_asked_for(client: Client) -> None:
    (quiet,) = await look_up(client, MetadataRequest.Topic(name="t"))
    (told,) = await look_up(
        client,
        MetadataRequest.Topic(name="t"),
        include_topic_authorized_operations=True,
    )

    assert quiet.authorized_operations == -(2**31)
    assert told.authorized_operations > 0
