"""Headers, with the protocol's two exceptions; kio has the last word."""

from typing import Any

import pytest
from hypothesis import given, strategies as st
from kio.schema.request_header.v1.header import RequestHeader as KioHeaderV1
from kio.schema.request_header.v2.header import RequestHeader as KioHeaderV2
from kio.serial import entity_reader

from streamer.wire.api_keys import ApiKey
from streamer.wire.headers import (
    RequestHeader,
    read_request_header,
    read_response_header,
    response_header,
    write_request_header,
)
from streamer.wire.messages import Malformed, flexible_from

CLIENT_IDS = st.none() | st.text(max_size=20)


@given(st.sampled_from([0, 1, 3, 18, 60, 999]), st.integers(0, 12), CLIENT_IDS)
def test_a_request_header_reads_back_and_every_part_of_it_is_malformed(
    api_key: int, version: int, client_id: str | None
) -> None:
    data = write_request_header(api_key, version, 77, client_id)

    header = read_request_header(data + b"message")

    assert header == RequestHeader(api_key, version, 77, client_id, len(data))
    for end in range(len(data)):
        with pytest.raises(Malformed):
            read_request_header(data[:end])


@pytest.mark.parametrize("version", [8, 9])
def test_kio_reads_our_request_header(version: int) -> None:
    flexible = version >= flexible_from(ApiKey.PRODUCE)
    data = write_request_header(ApiKey.PRODUCE, version, 77, "rdkafka")

    header: Any
    header, size = entity_reader(KioHeaderV2 if flexible else KioHeaderV1)(data, 0)

    assert size == len(data)
    assert (header.request_api_key, header.correlation_id) == (0, 77)
    assert header.client_id == "rdkafka"


def test_the_tagged_fields_of_a_request_header_are_skipped() -> None:
    data = write_request_header(ApiKey.FETCH, 12, 1, "c")[:-1] + bytes([1, 9, 2]) + b"xx"

    assert read_request_header(data + b"m").body == len(data)


def test_the_header_of_an_unknown_key_can_be_read_for_the_log() -> None:
    data = write_request_header(4242, 5, 1, "stranger")

    assert read_request_header(data + b"whatever")[:4] == (4242, 5, 1, "stranger")


def test_a_later_version_of_a_known_key_has_tagged_fields() -> None:
    """A client from the future asks for ApiVersions 99 and has to get an answer."""
    data = write_request_header(ApiKey.API_VERSIONS, 99, 1, "future")

    assert data.endswith(b"future\x00")
    assert read_request_header(data).body == len(data)


@pytest.mark.parametrize(
    ("api_key", "version", "size"),
    [
        (ApiKey.PRODUCE, 8, 4),
        (ApiKey.PRODUCE, 9, 5),
        (ApiKey.API_VERSIONS, 0, 4),
        (ApiKey.API_VERSIONS, 4, 4),  # always short: the client does not know us yet
        (ApiKey.DESCRIBE_CLUSTER, 0, 5),
    ],
)
def test_a_response_header_is_short_or_has_tagged_fields(
    api_key: int, version: int, size: int
) -> None:
    data = response_header(api_key, version, -5)

    assert len(data) == size
    assert read_response_header(api_key, version, data + b"message") == (-5, size)
    for end in range(size):
        with pytest.raises(Malformed):
            read_response_header(api_key, version, data[:end])


@pytest.mark.parametrize(
    "frame",
    [
        bytes.fromhex("0000 0000 00000001 fffe"),  # a length of -2
        bytes.fromhex("0000 0000 00000001 7fff 61"),  # a client id beyond the end
        bytes.fromhex("0000 0000 00000001 0001 ff"),  # no text
    ],
)
def test_a_client_id_that_is_none_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        read_request_header(frame)
