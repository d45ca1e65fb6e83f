"""Frames as clients send them, mutated at random: read, or refused as malformed.

No other error may come out, and no decode may take more than eight times the
bytes it was given (4 KiB for short frames), as `tracemalloc` counts it. That holds
for dense frames too: thousands of elements of a few bytes each.
"""

import tracemalloc
from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import UUID

import pytest
from wire.dense import EMPTY, EVERY_REQUEST, LARGE, LETTERS, WIDE, dense, framed

from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.headers import read_request_header, write_request_header
from streamer.wire.messages import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    AlterConfigsRequest,
    AlterUserScramCredentialsRequest,
    ApiVersionsRequest,
    CreateAclsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteAclsRequest,
    DeleteGroupsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeAclsRequest,
    DescribeClientQuotasRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeGroupsRequest,
    DescribeLogDirsRequest,
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest,
    ElectLeadersRequest,
    EndTxnRequest,
    FetchRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListGroupsRequest,
    ListOffsetsRequest,
    ListPartitionReassignmentsRequest,
    ListTransactionsRequest,
    Malformed,
    MetadataRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
    ProduceRequest,
    SyncGroupRequest,
    TxnOffsetCommitRequest,
    UnsupportedVersion,
    Unwritable,
    WriteTxnMarkersRequest,
    read_request,
    write_request,
)
from streamer.wire.record import Record, write_batch

SEED = 20_261_120
FRAMES, ROUNDS = 200_000, 4
FACTOR, FLOOR_BYTES = 8, 4096

# How many elements the outer arrays have, and how many those inside each of them:
# few and many; one topic with many partitions, and many topics with one partition.
SHAPES = [(1, 1), (3, 3), (5, 1), (1, 10), (30, 0), (20, 20)]
SHAPES += [(1000, 0), (1, 2000), (1000, 1)]
VALUES = ["empty", "letters", "large", "wide"]
LARGE_ASK = {"index": 1 << 30, "fetch_offset": 1 << 62, "max_bytes": 1 << 30}

TOPICS = ["orders-eu", "orders-asia-pacific"]
MEMBER = {"group_id": "shop", "generation_id": 7, "member_id": "rdkafka-0b6c9e2d"}
PRODUCER = {"transactional_id": "shop-0", "producer_id": 4000, "producer_epoch": 3}


def by_topic(cls: Any, **fields: Any) -> list[Any]:
    partitions = [cls.Partition(index=index, **fields) for index in range(4)]
    return [cls.Topic(name=name, partitions=partitions) for name in TOPICS]


def requests() -> Iterator[Any]:
    """What clients ask, one or two of each kind."""
    yield from requests_for_records()
    yield from requests_for_topics()
    yield from requests_for_groups()
    yield from requests_for_transactions()
    yield from requests_for_administration()


def requests_for_records() -> Iterator[Any]:
    values = Random(SEED)
    batch = write_batch(
        [Record(0, 1_700_000_000_000, b"key", values.randbytes(100)) for _ in range(10)]
    )
    yield ProduceRequest(
        acks=-1, timeout_ms=30_000, topics=by_topic(ProduceRequest, records=batch)
    )
    yield FetchRequest(
        max_wait_ms=500,
        min_bytes=1,
        topics=by_topic(FetchRequest, fetch_offset=123_456, max_bytes=1 << 20),
    )
    partition = FetchRequest.Partition(fetch_offset=123_456, last_fetched_epoch=1)
    yield FetchRequest(
        topics=[FetchRequest.Topic(name="wide", partitions=[partition] * 100)]
    )
    yield ListOffsetsRequest(topics=by_topic(ListOffsetsRequest, timestamp=-1))
    yield MetadataRequest(topics=[MetadataRequest.Topic(name=name) for name in TOPICS])
    yield MetadataRequest(topics=[])
    yield ApiVersionsRequest(
        client_software_name="librdkafka", client_software_version="2.15"
    )
    yield FindCoordinatorRequest(key="shop")
    yield FindCoordinatorRequest(coordinator_keys=["shop", "shop-2"])
    yield InitProducerIdRequest(transactional_id="shop-0", transaction_timeout_ms=10_000)
    yield OffsetForLeaderEpochRequest(topics=by_topic(OffsetForLeaderEpochRequest))


def requests_for_topics() -> Iterator[Any]:
    yield CreateTopicsRequest(
        topics=[
            CreateTopicsRequest.Topic(
                name=name,
                num_partitions=4,
                replication_factor=1,
                configs=[CreateTopicsRequest.Config(name="retention.ms", value="60000")],
            )
            for name in TOPICS
        ]
    )
    yield DeleteTopicsRequest(topic_names=TOPICS, timeout_ms=5000)
    yield DeleteTopicsRequest(
        topics=[DeleteTopicsRequest.Topic(topic_id=UUID(int=1 << 100))], timeout_ms=5000
    )
    yield DeleteRecordsRequest(topics=by_topic(DeleteRecordsRequest, offset=5000))
    yield DescribeConfigsRequest(
        resources=[
            DescribeConfigsRequest.Resource(resource_type=2, resource_name="orders-eu")
        ]
    )
    for cls in (AlterConfigsRequest, IncrementalAlterConfigsRequest):
        configs = [cls.Config(name="cleanup.policy", value="compact")]
        yield cls(resources=[cls.Resource(resource_type=2, configs=configs)])
    yield DescribeLogDirsRequest(
        topics=[
            DescribeLogDirsRequest.Topic(name=name, partitions=[0, 1]) for name in TOPICS
        ]
    )
    yield CreatePartitionsRequest(
        topics=[CreatePartitionsRequest.Topic(name="orders-eu", count=8)]
    )
    yield DescribeClusterRequest()


def requests_for_groups() -> Iterator[Any]:
    yield OffsetCommitRequest(
        **MEMBER,
        topics=by_topic(OffsetCommitRequest, committed_offset=5000, committed_metadata=""),
    )
    topics = [
        OffsetFetchRequest.Topic(name=name, partition_indexes=[0, 1, 2]) for name in TOPICS
    ]
    yield OffsetFetchRequest(group_id="shop", topics=topics)
    of_group = [
        OffsetFetchRequest.GroupTopic(name=name, partition_indexes=[0, 1])
        for name in TOPICS
    ]
    yield OffsetFetchRequest(
        groups=[OffsetFetchRequest.Group(group_id="shop", topics=of_group)]
    )
    yield JoinGroupRequest(
        group_id="shop",
        session_timeout_ms=45_000,
        protocol_type="consumer",
        protocols=[
            JoinGroupRequest.Protocol(name=name, metadata=b"\0\1" + bytes(40))
            for name in ("range", "roundrobin")
        ],
    )
    yield HeartbeatRequest(**MEMBER)
    yield LeaveGroupRequest(group_id="shop", member_id=MEMBER["member_id"])
    yield LeaveGroupRequest(
        group_id="shop", members=[LeaveGroupRequest.Member(group_instance_id="till-1")]
    )
    yield SyncGroupRequest(
        **MEMBER,
        assignments=[
            SyncGroupRequest.Assignment(member_id=f"rdkafka-{i}", assignment=bytes(40))
            for i in range(3)
        ],
    )
    yield DescribeGroupsRequest(groups=["shop", "shop-2"])
    yield ListGroupsRequest()
    yield ListGroupsRequest(states_filter=["Stable", "Empty"])
    yield DeleteGroupsRequest(groups_names=["shop", "shop-2"])
    yield OffsetDeleteRequest(group_id="shop", topics=by_topic(OffsetDeleteRequest))


def requests_for_transactions() -> Iterator[Any]:
    topics = [
        AddPartitionsToTxnRequest.Topic(name=name, partitions=[0, 1]) for name in TOPICS
    ]
    yield AddPartitionsToTxnRequest(**PRODUCER, topics=topics)
    yield AddOffsetsToTxnRequest(**PRODUCER, group_id="shop")
    yield EndTxnRequest(**PRODUCER, committed=True)
    ended = [
        WriteTxnMarkersRequest.Topic(name=name, partition_indexes=[0]) for name in TOPICS
    ]
    yield WriteTxnMarkersRequest(
        markers=[WriteTxnMarkersRequest.Marker(producer_id=4000, topics=ended)]
    )
    committed = by_topic(TxnOffsetCommitRequest, committed_offset=5000)
    yield TxnOffsetCommitRequest(**PRODUCER, group_id="shop", topics=committed)
    watched = [
        DescribeProducersRequest.Topic(name=name, partition_indexes=[0]) for name in TOPICS
    ]
    yield DescribeProducersRequest(topics=watched)
    yield DescribeTransactionsRequest(transactional_ids=["shop-0", "shop-1"])
    yield ListTransactionsRequest(state_filters=["Ongoing"], producer_id_filters=[4000])


def requests_for_administration() -> Iterator[Any]:
    yield messages.SaslHandshakeRequest(mechanism="PLAIN")
    yield messages.SaslAuthenticateRequest(auth_bytes=b"\0shop\0secret")
    led = [ElectLeadersRequest.Topic(name=name, partitions=[0, 1]) for name in TOPICS]
    yield ElectLeadersRequest(topics=led)
    yield ListPartitionReassignmentsRequest()
    component = DescribeClientQuotasRequest.Component(entity_type="user", match_type=2)
    yield DescribeClientQuotasRequest(components=[component])
    rule = {"resource_type": 2, "resource_name": "orders-eu", "principal": "User:ann"}
    yield DescribeAclsRequest(resource_type_filter=2, principal_filter="User:ann")
    yield CreateAclsRequest(creations=[CreateAclsRequest.Creation(**rule, host="*")])
    filtered = DeleteAclsRequest.Filter(resource_type_filter=2, host_filter="*")
    yield DeleteAclsRequest(filters=[filtered])
    user = DescribeUserScramCredentialsRequest.User(name="ann")
    yield DescribeUserScramCredentialsRequest(users=[user])
    password = AlterUserScramCredentialsRequest.Upsertion(
        name="ann", mechanism=1, iterations=4096, salt=bytes(16), salted_password=bytes(32)
    )
    yield AlterUserScramCredentialsRequest(
        deletions=[AlterUserScramCredentialsRequest.Deletion(name="bob", mechanism=2)],
        upsertions=[password],
    )


def frames() -> list[bytes]:
    """Each request in each version that can carry it."""
    made = []
    for request in requests():
        key = request.definition.api_key
        for version in request.definition.versions:
            try:
                chunks = write_request(request, version)
            except Unwritable:
                continue
            header = write_request_header(key, version, 7, "rdkafka")
            made.append(header + b"".join(chunks))
    return made


def mutated(frame: bytes, others: list[bytes], random: Random) -> bytes:
    """One to three changes of the kinds that break parsers."""
    data = bytearray(frame)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 1] = random.randbytes(1)
            case 2:
                data[at : at + 1] = random.choice((b"\x00", b"\x7f", b"\x80", b"\xff"))
            case 3:
                data[at : at + 4] = random.choice(
                    (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x00\x00\xff\xff")
                )
            case 4:
                data[at:at] = random.randbytes(random.randint(1, 8))
            case 5:
                data[at:] = random.choice(others)[at:]
            case 6 if data:
                data[random.randrange(min(4, len(data)))] ^= 1 << random.randrange(8)
    return bytes(data)


def decode(frame: bytes) -> bool:
    """Whether the frame is a request that we read."""
    try:
        header = read_request_header(frame)
        read_request(header.api_key, header.api_version, frame, header.body)
    except (Malformed, UnsupportedVersion):
        return False
    return True


def test_every_kind_of_request_is_among_the_frames() -> None:
    seen = {read_request_header(frame)[:2] for frame in frames()}

    assert seen == {(key, version) for key in ApiKey for version in messages.versions(key)}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_mutated_frames_are_read_or_malformed_in_bounded_memory(seed: int) -> None:
    known, random = frames(), Random(SEED + seed)
    for frame in [*known, *frames_of_rows()]:  # so that every reader has been compiled
        assert decode(frame)
    for key in ApiKey:  # and every table has been looked for
        messages.versions(key)

    read = 0
    tracemalloc.start()
    try:
        for _ in range(FRAMES // ROUNDS):
            frame = mutated(random.choice(known), known, random)
            taken, was_read = memory_taken(frame)
            bound = max(FLOOR_BYTES, FACTOR * len(frame))
            # What other tests have left behind may be tidied up just now: look twice.
            assert taken <= bound or memory_taken(frame)[0] <= bound, frame.hex()
            read += was_read
    finally:
        tracemalloc.stop()

    assert read > FRAMES // ROUNDS // 20, (
        "hardly a frame is still read: too coarse a mutation"
    )


def frames_of_rows() -> list[bytes]:
    """Each request with arrays too long for lists: all, those inside, those in these."""
    return [
        framed(dense(cls, version, EMPTY, *counts), version)
        for cls, version in EVERY_REQUEST
        for counts in [(300, 1), (1, 300), (1, 1, 300)]
    ]


def memory_taken(frame: bytes) -> tuple[int, bool]:
    """The most memory in use while decoding, and whether the frame was read."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    read = decode(frame)
    return tracemalloc.get_traced_memory()[1] - before, read


@pytest.mark.parametrize("counts", SHAPES, ids=str)
@pytest.mark.parametrize("values", [EMPTY, LETTERS, LARGE, WIDE], ids=VALUES)
def test_the_densest_requests_take_no_more_than_others(
    values: dict[str, Any], counts: tuple[int, int]
) -> None:
    """Thousands of elements: objects of a hundred bytes for a few bytes each."""
    dense_frames = [
        framed(dense(cls, version, values, *counts), version)
        for cls, version in EVERY_REQUEST
    ]
    assert_bounded(dense_frames)


@pytest.mark.parametrize("letters", [1_500, 6_000, 30_000])
def test_a_long_text_may_stand_beside_a_dense_array(letters: int) -> None:
    """Each wider letter makes all the text wider: what is read first is the worst."""
    text = "\N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CRAB}"
    text += "x" * letters
    last, ask = FetchRequest.Topic(name=text), FetchRequest.Partition(**LARGE_ASK)
    for share in range(0, 60, 3):  # the most that fits as a list is among them
        asks = [ask] * (letters * share // 100 // 16)
        request = FetchRequest(topics=[FetchRequest.Topic(partitions=asks), last])
        assert_bounded([framed(request, version) for version in (4, 11, 12)])


def assert_bounded(requests: list[bytes]) -> None:
    for frame in requests:  # so that every reader has been compiled
        assert decode(frame)
    tracemalloc.start()
    try:
        for frame in requests:
            taken, _ = memory_taken(frame)
            asked = read_request_header(frame)[:2]
            assert taken <= max(FLOOR_BYTES, FACTOR * len(frame)), (asked, len(frame))
    finally:
        tracemalloc.stop()
