"""Every message in every version, there and back, whole and torn."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from wire.strategies import EVERY_MESSAGE, NAMES, read, values, written

from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.messages import (
    ApiVersionsResponse,
    FetchResponse,
    ListOffsetsRequest,
    Malformed,
    MetadataRequest,
    MetadataResponse,
    ProduceRequest,
    ProduceResponse,
    UnsupportedVersion,
    Unwritable,
    read_request,
    read_response,
    write_request,
    write_response,
)

EXAMPLES = settings(
    max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize(("cls", "version"), EVERY_MESSAGE, ids=NAMES)
def test_what_is_written_reads_back_equal_and_no_part_of_it_reads_at_all(
    cls: Any, version: int
) -> None:
    @EXAMPLES
    @given(values(cls, version))
    def check(message: Any) -> None:
        data = written(message, version)
        assert read(cls, version, data) == message
        assert written(read(cls, version, data), version) == data
        assert read(cls, version, memoryview(bytearray(data))) == message
        for end in range(len(data)):
            with pytest.raises(Malformed):
                read(cls, version, data[:end])
        if cls.__name__.endswith("Request"):
            assert read(cls, version, data + b"\x00") == message
        else:
            with pytest.raises(Malformed, match="1 bytes too many"):
                read(cls, version, data + b"\x00")

    check()


@pytest.mark.parametrize(("cls", "version"), EVERY_MESSAGE, ids=NAMES)
def test_a_message_of_defaults_can_be_written_in_every_version(
    cls: Any, version: int
) -> None:
    assert read(cls, version, written(cls(), version)) == cls()


@given(st.binary(max_size=64), st.integers(0, len(EVERY_MESSAGE) - 1))
@settings(max_examples=2000, deadline=None, database=None)
def test_any_bytes_are_a_message_or_malformed(data: bytes, which: int) -> None:
    cls, version = EVERY_MESSAGE[which]

    try:
        message = read(cls, version, data)
    except Malformed:
        return

    assert read(cls, version, written(message, version)) == message


def test_records_are_a_view_of_the_frame_and_written_without_a_copy() -> None:
    partition = ProduceRequest.Partition(index=1, records=b"r" * 1000)
    topic = ProduceRequest.Topic(name="orders", partitions=[partition])
    frame = b"".join(write_request(ProduceRequest(topics=[topic]), 9))

    records = read_request(ApiKey.PRODUCE, 9, frame).topics[0].partitions[0].records
    assert records.obj is frame

    answer = FetchResponse.Partition(index=1, records=records)
    fetched = FetchResponse(
        topics=[FetchResponse.Topic(name="orders", partitions=[answer])]
    )
    assert any(chunk is records for chunk in write_response(fetched, 12))


@pytest.mark.parametrize("version", [4, 11, 12])
def test_records_may_be_given_as_several_buffers(version: int) -> None:
    def fetched(records: Any) -> Any:
        partition = FetchResponse.Partition(index=1, records=records)
        return FetchResponse(topics=[FetchResponse.Topic(name="a", partitions=[partition])])

    pieces = written(fetched([b"one", memoryview(b"two"), b""]), version)

    assert pieces == written(fetched(b"onetwo"), version)
    assert written(fetched([]), version) == written(fetched(b""), version)
    assert written(fetched([]), version) != written(fetched(None), version)


def test_a_field_that_the_version_cannot_carry_is_not_lost_silently() -> None:
    asked = ListOffsetsRequest(isolation_level=1)

    assert read(ListOffsetsRequest, 2, written(asked, 2)) == asked
    with pytest.raises(Unwritable, match="ListOffsetsRequest version 1 has no field isol"):
        write_request(asked, 1)


def test_an_ignorable_field_is_left_out_where_there_is_no_place_for_it() -> None:
    response = MetadataResponse(cluster_id="streamer", throttle_time_ms=5)

    assert read(MetadataResponse, 1, written(response, 1)) == MetadataResponse()
    assert read(MetadataResponse, 3, written(response, 3)) == response


def test_null_is_refused_where_a_version_has_none() -> None:
    every_topic = MetadataRequest(topics=None)

    assert read(MetadataRequest, 1, written(every_topic, 1)) == every_topic
    with pytest.raises(Unwritable):
        write_request(every_topic, 0)
    with pytest.raises(Malformed, match="topics is null"):
        read_request(ApiKey.METADATA, 0, b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "wrong",
    [
        {"throttle_time_ms": 1 << 31},
        {"throttle_time_ms": "soon"},
        {"topics": [None]},
        {"topics": 7},
        {"topics": [ProduceResponse.Topic(name="\ud800")]},
        {"topics": [ProduceResponse.Topic(name=b"bytes")]},
    ],
)
def test_a_value_that_does_not_fit_its_field_is_unwritable(wrong: Any) -> None:
    with pytest.raises(Unwritable, match="ProduceResponse version 9"):
        write_response(ProduceResponse(**wrong), 9)


def test_a_tagged_struct_is_none_unless_it_was_sent() -> None:
    leader = ProduceResponse.Leader(leader_id=1, leader_epoch=4)
    moved = ProduceResponse.Partition(index=0, error_code=6, current_leader=leader)
    stayed = ProduceResponse.Partition(index=1)
    response = ProduceResponse(
        topics=[ProduceResponse.Topic(name="orders", partitions=[moved, stayed])]
    )

    answer = read(ProduceResponse, 10, written(response, 10))

    assert [p.current_leader for p in answer.topics[0].partitions] == [leader, None]


def test_unknown_tagged_fields_are_skipped() -> None:
    """KIP-482: a newer client may add fields to a version that we know."""
    data = written(ApiVersionsResponse(error_code=35), 3)
    assert data.endswith(b"\x00")

    unknown = data[:-1] + bytes([2, 50, 3]) + b"new" + bytes([0x80, 0x01, 0])

    assert read(ApiVersionsResponse, 3, unknown) == ApiVersionsResponse(error_code=35)


@pytest.mark.parametrize(
    "tags",
    [
        bytes([1, 50, 4]) + b"new",  # a size beyond the end
        bytes([1, 1, 7]) + bytes(7),  # too short for the int64 with this tag
        bytes([1, 1, 9]) + bytes(9),  # too long for it
        bytes([3, 50, 0]),  # fewer fields than announced
        b"\xff\xff\xff\xff\xff\xff\xff",  # a varint without an end
    ],
)
def test_tagged_fields_that_do_not_fit_are_malformed(tags: bytes) -> None:
    data = written(ApiVersionsResponse(), 3)[:-1]

    with pytest.raises(Malformed):
        read_response(ApiKey.API_VERSIONS, 3, data + tags)


def test_an_array_is_not_begun_if_the_rest_cannot_hold_its_elements() -> None:
    """Two billion topics of at least two bytes, in a frame of nine."""
    with pytest.raises(Malformed, match="topics claims 2147483647"):
        read_request(ApiKey.METADATA, 0, b"\x7f\xff\xff\xff\x00\x01a")


def test_a_version_or_key_without_a_table_is_unsupported() -> None:
    with pytest.raises(UnsupportedVersion, match="no version 99"):
        read_request(ApiKey.METADATA, 99, b"")
    with pytest.raises(UnsupportedVersion, match="key 4242"):
        read_request(4242, 0, b"")
    with pytest.raises(UnsupportedVersion, match="ProduceRequest has no version 2"):
        write_request(ProduceRequest(), 2)
    assert messages.versions(4242) == range(0)
    assert messages.versions(ApiKey.VOTE) == range(0)


def test_messages_take_fields_by_name_and_start_from_the_defaults_of_the_protocol() -> None:
    request = messages.FetchRequest(max_wait_ms=500)

    assert (request.replica_id, request.max_bytes, request.topics) == (-1, 0x7FFFFFFF, [])
    assert request != messages.FetchRequest()
    assert request != "request"
    with pytest.raises(TypeError):
        messages.FetchRequest(max_wait=500)
    with pytest.raises(TypeError):
        messages.FetchRequest("a position")
    with pytest.raises(AttributeError):
        request.max_wait = 500


def test_two_messages_do_not_share_a_default_list() -> None:
    ProduceRequest().topics.append(ProduceRequest.Topic())

    assert ProduceRequest().topics == []


def test_a_message_shows_its_fields_but_not_its_records() -> None:
    partition = ProduceRequest.Partition(index=3, records=memoryview(b"secret"))

    assert repr(partition) == "ProduceRequest.Partition(index=3, records=<6 bytes>)"


def test_the_door_opens_only_to_messages_that_have_a_table() -> None:
    assert messages.ProduceRequest is ProduceRequest
    assert messages.classes(0) == messages.classes(ApiKey.PRODUCE)
    assert type(read_request(22, 4, written(messages.InitProducerIdRequest(), 4))) is (
        messages.InitProducerIdRequest
    )
    for name in ("VoteRequest", "ProduceRequests", "Produce", "Request"):
        with pytest.raises(AttributeError, match=name):
            getattr(messages, name)
