"""Frames as clients send them, mutated at random: read, or refused as malformed.

No other error may come out, and no decode may take more than eight times the
bytes it was given (4 KiB for short frames), as `tracemalloc` counts it.
"""

import tracemalloc
from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import UUID

import pytest

from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.definition import SCALARS, Field
from streamer.wire.headers import read_request_header, write_request_header
from streamer.wire.messages import (
    AlterConfigsRequest,
    ApiVersionsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeLogDirsRequest,
    FetchRequest,
    FindCoordinatorRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    ListOffsetsRequest,
    Malformed,
    MetadataRequest,
    OffsetForLeaderEpochRequest,
    ProduceRequest,
    UnsupportedVersion,
    Unwritable,
    read_request,
    write_request,
)
from streamer.wire.record import Record, write_batch

SEED = 20_261_120
FRAMES, ROUNDS = 200_000, 4
FACTOR, FLOOR_BYTES = 8, 4096
DENSEST_FACTOR = 40

TOPICS = ["orders-eu", "orders-asia-pacific"]


def requests() -> Iterator[Any]:
    """What clients ask, one or two of each kind."""
    values = Random(SEED)
    batch = write_batch(
        [Record(0, 1_700_000_000_000, b"key", values.randbytes(100)) for _ in range(10)]
    )

    def by_topic(cls: Any, **fields: Any) -> list[Any]:
        partitions = [cls.Partition(index=index, **fields) for index in range(4)]
        return [cls.Topic(name=name, partitions=partitions) for name in TOPICS]

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
    yield InitProducerIdRequest(transactional_id="shop-0", transaction_timeout_ms=10_000)
    yield OffsetForLeaderEpochRequest(topics=by_topic(OffsetForLeaderEpochRequest))
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
    for frame in known:  # so that every reader has been compiled
        assert decode(frame)
    for key in ApiKey:  # and every table has been looked for
        messages.versions(key)

    read = 0
    tracemalloc.start()
    try:
        for _ in range(FRAMES // ROUNDS):
            frame = mutated(random.choice(known), known, random)
            taken, was_read = memory_taken(frame)
            assert taken <= max(FLOOR_BYTES, FACTOR * len(frame)), frame.hex()
            read += was_read
    finally:
        tracemalloc.stop()

    assert read > FRAMES // ROUNDS // 20, (
        "hardly a frame is still read: too coarse a mutation"
    )


def memory_taken(frame: bytes) -> tuple[int, bool]:
    """The most memory in use while decoding, and whether the frame was read."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    read = decode(frame)
    return tracemalloc.get_traced_memory()[1] - before, read


@pytest.mark.parametrize("key", [key for key in ApiKey if messages.versions(key)])
def test_what_the_densest_request_takes_is_bounded_too(key: ApiKey) -> None:
    """Thousands of empty elements: objects of Python for a few bytes each.

    Nobody but an attacker sends these. They take more than the mutated frames,
    but no more than a fixed multiple of what was really received.
    """
    tracemalloc.start()
    try:
        for version in messages.versions(key):
            frame = densest(key, version)
            assert decode(frame)
            assert memory_taken(frame)[0] <= DENSEST_FACTOR * len(frame)
    finally:
        tracemalloc.stop()


def densest(key: ApiKey, version: int) -> bytes:
    """A request whose arrays hold nothing but defaults, a thousand of them."""
    cls, _ = messages.classes(key) or (None, None)
    assert cls is not None
    arrays = [f for f in cls.fields if f.array and version in f.versions]
    many = {f.name: [default(cls, f)] * 1000 for f in arrays}
    header = write_request_header(key, version, 7, None)
    return header + b"".join(write_request(cls(**many), version))


def default(cls: Any, field: Field) -> Any:
    return getattr(cls, field.type)() if field.is_struct else SCALARS[field.type]
