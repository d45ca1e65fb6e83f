"""Topics and settings on the wire: what the clients' own checks keep from a broker."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka.admin import AdminClient
from conformance.conftest import MakeTopic
from support.batches import batch
from support.clients import new_name, wait_until
from support.raw import Wire, produce, until_known

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest,
    MetadataRequest,
)

NO_UUID = UUID(int=0)
TOPIC, BROKER = 2, 4


def metadata(wire: Wire, *names: str, version: int = 12, create: bool = False) -> Any:
    topics = [MetadataRequest.Topic(name=name) for name in names]
    settings = {} if version < 4 else {"allow_auto_topic_creation": create}
    return wire.ask(MetadataRequest(topics=topics, **settings), version)


def creation(name: str, partitions: int = 1, copies: int = 1, **more: Any) -> Any:
    return CreateTopicsRequest.Topic(
        name=name, num_partitions=partitions, replication_factor=copies, **more
    )


def create(wire: Wire, *topics: Any, version: int = 7) -> list[Any]:
    found: list[Any] = wire.ask(CreateTopicsRequest(topics=list(topics)), version).topics
    return found


@pytest.mark.parametrize("version", range(13))
def test_every_version_of_metadata_is_answered(wire: Wire, log: str, version: int) -> None:
    answer = metadata(wire, log, version=version, create=True)

    (broker,) = answer.brokers
    (topic,) = answer.topics
    (partition,) = topic.partitions
    assert (topic.error_code, topic.name) == (ErrorCode.NONE, log)
    assert partition.replica_nodes == partition.isr_nodes == [broker.node_id]
    if version >= 1:
        assert answer.controller_id == broker.node_id
    if version >= 7:
        assert partition.leader_epoch >= 0
    if version >= 8:
        assert topic.authorized_operations == -(2**31)
    if version >= 10:
        assert topic.topic_id != NO_UUID


def test_no_topics_and_all_topics_are_different_questions(wire: Wire, log: str) -> None:
    assert wire.ask(MetadataRequest(topics=[]), 9).topics == []

    everything = [wire.ask(MetadataRequest(topics=[]), 0)]  # version 0 knew only "all"
    everything += [wire.ask(MetadataRequest(topics=None), version) for version in (1, 12)]
    for answer in everything:
        assert log in {topic.name for topic in answer.topics}


def test_a_topic_can_be_looked_up_by_its_id(wire: Wire, log: str) -> None:
    (known,) = metadata(wire, log).topics
    asked = [
        MetadataRequest.Topic(topic_id=known.topic_id, name=None),
        MetadataRequest.Topic(topic_id=uuid4(), name=None),
    ]
    found = wire.ask(MetadataRequest(topics=asked), 12).topics

    assert {(topic.name, topic.error_code) for topic in found} == {
        (log, ErrorCode.NONE),
        (None, ErrorCode.UNKNOWN_TOPIC_ID),
    }


def test_a_missing_topic_is_made_only_for_who_allows_it(wire: Wire) -> None:
    name = new_name()
    (topic,) = metadata(wire, name).topics
    assert topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    metadata(wire, name, create=True)
    wait_until(lambda: len(metadata(wire, name).topics[0].partitions) == 4, "not made")


def test_a_bad_name_is_not_looked_for(wire: Wire) -> None:
    (topic,) = metadata(wire, "two words", create=True).topics

    assert topic.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


@pytest.mark.parametrize("version", range(2, 8))
def test_every_version_makes_topics(wire: Wire, version: int) -> None:
    name = new_name()
    (made,) = create(wire, creation(name, 3), version=version)

    assert (made.name, made.error_code) == (name, ErrorCode.NONE)
    if version >= 5:
        assert (made.num_partitions, made.replication_factor) == (3, 1)
        # A null here makes the Java client fail.
        assert "retention.ms" in {config.name for config in made.configs}
    if version >= 7:
        assert metadata(wire, name).topics[0].topic_id == made.topic_id


@pytest.mark.parametrize(
    ("partitions", "code"),
    [(0, ErrorCode.INVALID_PARTITIONS), (-7, ErrorCode.INVALID_PARTITIONS)],
)
def test_a_topic_needs_a_number_of_partitions(
    wire: Wire, partitions: int, code: ErrorCode
) -> None:
    (made,) = create(wire, creation(new_name(), partitions))

    assert made.error_code == code


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "x" * 250])
def test_a_topic_needs_a_proper_name(wire: Wire, name: str) -> None:
    (made,) = create(wire, creation(name))

    assert made.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert made.error_message


def test_no_copies_at_all_is_not_enough(wire: Wire) -> None:
    (made,) = create(wire, creation(new_name(), copies=0))

    assert made.error_code == ErrorCode.INVALID_REPLICATION_FACTOR


def test_a_name_twice_in_one_request_is_refused(wire: Wire) -> None:
    name, other = new_name(), new_name()
    made = create(wire, creation(name), creation(name, 2), creation(other))

    codes = {(topic.name, topic.error_code) for topic in made}
    assert codes == {(name, ErrorCode.INVALID_REQUEST), (other, ErrorCode.NONE)}


def assignments(*partitions: int, broker: int) -> list[Any]:
    return [
        CreateTopicsRequest.Assignment(partition_index=index, broker_ids=[broker])
        for index in partitions
    ]


def test_partitions_may_be_assigned_by_hand(wire: Wire) -> None:
    broker = metadata(wire).controller_id
    by_hand = assignments(0, 1, broker=broker)
    (made,) = create(wire, creation(new_name(), -1, -1, assignments=by_hand))

    assert (made.error_code, made.num_partitions) == (ErrorCode.NONE, 2)


def test_partitions_assigned_by_hand_have_no_gaps(wire: Wire) -> None:
    broker = metadata(wire).controller_id
    by_hand = assignments(0, 2, broker=broker)
    (made,) = create(wire, creation(new_name(), -1, -1, assignments=by_hand))

    assert made.error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT


def test_a_number_and_an_assignment_contradict_each_other(wire: Wire) -> None:
    by_hand = assignments(0, broker=metadata(wire).controller_id)
    (made,) = create(wire, creation(new_name(), 1, 1, assignments=by_hand))

    assert made.error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", range(1, 6))
def test_every_version_deletes_by_name(wire: Wire, log: str, version: int) -> None:
    asked = DeleteTopicsRequest(topic_names=[log, "missing-one"], timeout_ms=5_000)
    codes = {topic.name: topic.error_code for topic in wire.ask(asked, version).topics}

    assert codes == {
        log: ErrorCode.NONE,
        "missing-one": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }


def test_topics_are_deleted_by_id(wire: Wire, log: str) -> None:
    (known,) = metadata(wire, log).topics
    ids = [known.topic_id, uuid4()]
    topics = [DeleteTopicsRequest.Topic(topic_id=each, name=None) for each in ids]
    answer = wire.ask(DeleteTopicsRequest(topics=topics, timeout_ms=5_000), 6)

    codes = {topic.topic_id: topic.error_code for topic in answer.topics}
    assert codes == {ids[0]: ErrorCode.NONE, ids[1]: ErrorCode.UNKNOWN_TOPIC_ID}


@pytest.mark.parametrize("version", range(4))
def test_every_topic_that_shall_grow_gets_an_answer(
    wire: Wire, log: str, version: int
) -> None:
    topics = [
        CreatePartitionsRequest.Topic(name=name, count=count, assignments=None)
        for name, count in ((log, 3), ("missing-one", 3))
    ]
    answer = wire.ask(CreatePartitionsRequest(topics=topics, timeout_ms=5_000), version)

    assert {(topic.name, topic.error_code) for topic in answer.topics} == {
        (log, ErrorCode.NONE),
        ("missing-one", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    }


@pytest.mark.parametrize("version", range(3))
def test_every_version_deletes_records(wire: Wire, log: str, version: int) -> None:
    produce(wire, log, batch([b"x"] * 5))
    for offset, expected in (
        (3, (ErrorCode.NONE, 3)),
        (-1, (ErrorCode.NONE, 5)),
        (9, (ErrorCode.OFFSET_OUT_OF_RANGE, -1)),
        (-5, (ErrorCode.OFFSET_OUT_OF_RANGE, -1)),
    ):
        part = DeleteRecordsRequest.Partition(index=0, offset=offset)
        topics = [DeleteRecordsRequest.Topic(name=log, partitions=[part])]
        answer = wire.ask(DeleteRecordsRequest(topics=topics, timeout_ms=5_000), version)
        (found,) = answer.topics[0].partitions
        assert (found.error_code, found.low_watermark) == expected


def describe(wire: Wire, kind: int, name: str, *, version: int = 4, **more: Any) -> Any:
    resource = DescribeConfigsRequest.Resource(
        resource_type=kind,
        resource_name=name,
        configuration_keys=more.pop("keys", None),
    )
    (found,) = wire.ask(
        DescribeConfigsRequest(resources=[resource], **more), version
    ).resources
    return found


@pytest.mark.parametrize("version", range(1, 5))
def test_every_version_describes_settings(wire: Wire, log: str, version: int) -> None:
    found = describe(wire, TOPIC, log, version=version, include_synonyms=True)

    assert found.error_code == ErrorCode.NONE
    configs = {config.name: config for config in found.configs}
    assert configs["retention.ms"].value == "604800000"
    if version >= 3:
        long, boolean, double, text = 5, 1, 6, 2
        types = {
            "retention.ms": long,
            "preallocate": boolean,
            "min.cleanable.dirty.ratio": double,
            "message.timestamp.type": text,
        }
        assert {name: configs[name].config_type for name in types} == types


def test_only_the_settings_asked_for_are_described(wire: Wire, log: str) -> None:
    found = describe(wire, TOPIC, log, keys=["segment.ms", "no.such.config"])

    assert [config.name for config in found.configs] == ["segment.ms"]


def test_settings_come_with_words_when_asked_for(wire: Wire, log: str) -> None:
    plain = describe(wire, TOPIC, log, keys=["retention.ms"])
    told = describe(wire, TOPIC, log, keys=["retention.ms"], include_documentation=True)

    assert not plain.configs[0].documentation
    assert len(told.configs[0].documentation) > 20


def test_settings_of_what_is_not_there(wire: Wire) -> None:
    for kind, name, code in (
        (TOPIC, "missing-one", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "two words", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (BROKER, "4711", ErrorCode.INVALID_REQUEST),
        (99, "what", ErrorCode.INVALID_REQUEST),
    ):
        assert describe(wire, kind, name).error_code == code


def test_a_setting_twice_in_one_change_is_refused(wire: Wire, log: str) -> None:
    change = IncrementalAlterConfigsRequest.Config(
        name="retention.ms", operation=0, value="1000"
    )
    resource = IncrementalAlterConfigsRequest.Resource(
        resource_type=TOPIC, resource_name=log, configs=[change, change]
    )
    (found,) = wire.ask(IncrementalAlterConfigsRequest(resources=[resource]), 1).resources

    assert found.error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", [0, 1])
def test_the_cluster_is_described(wire: Wire, version: int) -> None:
    found = wire.ask(DescribeClusterRequest(), version)

    assert found.error_code == ErrorCode.NONE
    assert [broker.broker_id for broker in found.brokers] == [found.controller_id]
    assert found.cluster_authorized_operations == -(2**31)


@pytest.mark.parametrize("version", range(1, 5))
def test_the_disk_tells_how_much_a_partition_takes(
    wire: Wire, log: str, version: int
) -> None:
    records = batch([b"x" * 1000])
    produce(wire, log, records)
    topics = [DescribeLogDirsRequest.Topic(name=log, partitions=[0])]
    (found,) = wire.ask(DescribeLogDirsRequest(topics=topics), version).log_dirs

    assert found.error_code == ErrorCode.NONE
    (topic,) = found.topics
    (partition,) = topic.partitions
    assert partition.size == len(records)
    assert (partition.offset_lag, partition.is_future) == (0, False)
    if version >= 4:
        assert 0 < found.usable_bytes <= found.total_bytes


def test_without_names_the_disk_tells_of_every_partition(
    wire: Wire, make_topic: MakeTopic, admin: AdminClient
) -> None:
    topic = make_topic(partitions=3)
    until_known(wire, topic, 3)
    (found,) = wire.ask(DescribeLogDirsRequest(topics=None), 4).log_dirs

    sizes = {each.name: len(each.partitions) for each in found.topics}
    assert sizes[topic] == 3
