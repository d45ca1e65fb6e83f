"""Frames, headers, versions: what holds before any request is understood."""

from __future__ import annotations

import struct
import time

import pytest
from support.raw import (
    FETCH,
    METADATA,
    Closed,
    Wire,
    fetch_request,
    request_header,
)

from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    ApiVersionsRequest,
    ListOffsetsRequest,
    MetadataRequest,
    read_response,
    write_request,
)

LARGEST_FRAME = 104_857_600  # socket.request.max.bytes
HELLO = ApiVersionsRequest(client_software_name="raw", client_software_version="1.0")


def still_serves(bootstrap: str) -> bool:
    with Wire(bootstrap) as other:
        return bool(other.ask(HELLO, 3).error_code == 0)


@pytest.mark.parametrize("version", range(5))
def test_every_version_of_the_greeting_is_answered(wire: Wire, version: int) -> None:
    hello = HELLO if version >= 3 else ApiVersionsRequest()
    answer = wire.ask(hello, version)

    assert answer.error_code == ErrorCode.NONE
    ranges = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
    # librdkafka before 2.11 looks for version 0 of Produce and takes the broker for
    # one that knows no compression when it is missing.
    assert ranges[ApiKey.PRODUCE][0] == 0
    assert ranges[ApiKey.FETCH][0] <= 4
    assert all(low <= high for low, high in ranges.values())


def test_what_is_advertised_before_version_4_has_no_feature_from_zero(wire: Wire) -> None:
    answer = wire.ask(HELLO, 3)

    assert all(feature.min_version > 0 for feature in answer.supported_features)


def test_a_greeting_from_the_future_is_answered_in_version_0(wire: Wire) -> None:
    wire.send_frame(future_greeting())
    frame = wire.receive_frame()

    answer = read_response(ApiKey.API_VERSIONS, 0, frame, 4)
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
    ranges = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
    low, high = ranges[ApiKey.API_VERSIONS]
    assert (low, high >= 3) == (0, True)


def test_after_a_greeting_from_the_future_a_known_one_is_welcome(wire: Wire) -> None:
    wire.send_frame(future_greeting())
    wire.receive_frame()

    assert wire.ask(HELLO, 3).error_code == ErrorCode.NONE


def future_greeting() -> bytes:
    """ApiVersions 99: a flexible header as since version 3, a body nobody knows."""
    return request_header(ApiKey.API_VERSIONS, 3, 7).replace(
        struct.pack(">hh", ApiKey.API_VERSIONS, 3),
        struct.pack(">hh", ApiKey.API_VERSIONS, 99),
        1,
    ) + bytes(20)


@pytest.mark.parametrize("name", ["", "-raw", "raw-", "my client", "raw!"])
def test_a_client_must_have_a_proper_name(wire: Wire, name: str) -> None:
    hello = ApiVersionsRequest(client_software_name=name, client_software_version="1")

    assert wire.ask(hello, 3).error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("key", "version"), [(999, 0), (-1, 0), (ApiKey.METADATA, 99), (ApiKey.FETCH, 1)]
)
def test_a_request_nobody_knows_closes_the_connection(
    bootstrap: str, wire: Wire, key: int, version: int
) -> None:
    wire.send_frame(request_header(key, version, 1) + bytes(10))

    assert wire.is_closed()
    assert still_serves(bootstrap)


@pytest.mark.parametrize("size", [LARGEST_FRAME + 1, 2**31 - 1, -1, 0])
def test_a_frame_of_impossible_size_closes_the_connection(
    bootstrap: str, wire: Wire, size: int
) -> None:
    wire.send_bytes(struct.pack(">i", size) + bytes(8))

    assert wire.is_closed()
    assert still_serves(bootstrap)


def test_a_body_that_is_cut_off_closes_the_connection(bootstrap: str, wire: Wire) -> None:
    request = MetadataRequest(topics=[MetadataRequest.Topic(name="somebody")])
    body = b"".join(bytes(chunk) for chunk in write_request(request, METADATA))
    wire.send_frame(request_header(ApiKey.METADATA, METADATA, 1) + body[:6])

    assert wire.is_closed()
    assert still_serves(bootstrap)


def test_what_follows_a_request_in_its_frame_is_not_looked_at(wire: Wire) -> None:
    # librdkafka asks for all topics with a null of four bytes where one belongs.
    header = request_header(ApiKey.METADATA, 12, 1)
    wire.send_frame(header + bytes([0, 0, 0, 0, 1, 0, 0]))

    answer = read_response(ApiKey.METADATA, 12, wire.receive_frame(), 5)
    assert len(answer.brokers) == 1


def test_a_frame_may_come_byte_by_byte(wire: Wire) -> None:
    body = b"".join(bytes(chunk) for chunk in write_request(HELLO, 3))
    frame = request_header(ApiKey.API_VERSIONS, 3, 5) + body
    for byte in struct.pack(">i", len(frame)) + frame:
        wire.send_bytes(bytes([byte]))

    answer = wire.receive_frame()
    assert struct.unpack_from(">ih", answer) == (5, ErrorCode.NONE)


def test_answers_come_in_the_order_of_the_questions(wire: Wire, log: str) -> None:
    ends = ListOffsetsRequest(
        topics=[
            ListOffsetsRequest.Topic(
                name=log,
                partitions=[ListOffsetsRequest.Partition(index=0, timestamp=-1)],
            )
        ]
    )
    # The first question is a long poll: the others are ready long before it.
    wire.send(fetch_request(log, 0, max_wait_ms=300), FETCH)
    for _ in range(10):
        wire.send(MetadataRequest(topics=None), METADATA)
        wire.send(ends, 4)
        wire.send(HELLO, 3)

    while wire.asked:
        wire.receive()  # checks the correlation id


def test_a_client_may_leave_in_the_middle_of_a_frame(bootstrap: str) -> None:
    with Wire(bootstrap) as leaving:
        leaving.send_bytes(struct.pack(">i", 1000) + b"only this")

    assert still_serves(bootstrap)


def test_a_client_may_leave_before_its_answer(bootstrap: str, log: str) -> None:
    with Wire(bootstrap) as leaving:
        leaving.send(fetch_request(log, 0, max_wait_ms=200), FETCH)

    assert still_serves(bootstrap)


def test_a_hundred_connections_are_served_at_once(bootstrap: str) -> None:
    started = time.monotonic()
    connections = [Wire(bootstrap) for _ in range(100)]
    for connection in connections:
        connection.send(HELLO, 3)

    try:
        assert all(each.receive().error_code == 0 for each in connections)
    except Closed:
        pytest.fail("a connection was closed")
    finally:
        for each in connections:
            each.socket.close()
    assert time.monotonic() - started < 5
