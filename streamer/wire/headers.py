"""What stands before each message: who asks for what, and which answer is whose.

    request    api key, api version, correlation id, client id; tagged fields in
               flexible versions
    response   correlation id; tagged fields in flexible versions

Two exceptions, both the protocol's: the client id has its int16 length in every
version, and ApiVersions is always answered with the short header, since a client
that asks does not know yet what the broker understands.
"""

from struct import Struct, error as StructError  # noqa: N812
from typing import NamedTuple

from streamer.wire.api_keys import ApiKey
from streamer.wire.codec import Buffer, Malformed, skip_tags, wrong_length
from streamer.wire.messages import flexible_from

REQUEST = Struct(">hhih")  # ends with the length of the client id
CORRELATION = Struct(">i")
NO_TAGS = b"\x00"


class RequestHeader(NamedTuple):
    api_key: int  # not an ApiKey: it may be one we have never heard of
    api_version: int
    correlation_id: int
    client_id: str | None
    body: int  # where in the frame the message begins


def read_request_header(frame: Buffer) -> RequestHeader:
    """The header; of a key we do not know, without the tagged fields it may have."""
    try:
        api_key, version, correlation_id, n = REQUEST.unpack_from(frame)
        at, client_id = REQUEST.size, None
        if n != -1:
            if n < 0 or n > len(frame) - at:
                raise wrong_length("client id", n, len(frame) - at)
            client_id = str(frame[at : at + n], "utf-8")
            at += n
        if version >= flexible_from(api_key):
            at = skip_tags(frame, at, len(frame))
    except (StructError, IndexError, UnicodeDecodeError) as error:
        raise Malformed(
            f"a request header in a frame of {len(frame)} bytes: {error}"
        ) from error
    return RequestHeader(api_key, version, correlation_id, client_id, at)


def write_request_header(
    api_key: int, version: int, correlation_id: int, client_id: str | None
) -> bytes:
    text = b"" if client_id is None else client_id.encode()
    length = -1 if client_id is None else len(text)
    head = REQUEST.pack(api_key, version, correlation_id, length)
    return head + text + (NO_TAGS if version >= flexible_from(api_key) else b"")


def response_header(api_key: int, version: int, correlation_id: int) -> bytes:
    head = CORRELATION.pack(correlation_id)
    return head + NO_TAGS if has_tags(api_key, version) else head


def read_response_header(api_key: int, version: int, frame: Buffer) -> tuple[int, int]:
    """The correlation id, and where in the frame the message begins."""
    try:
        (correlation_id,) = CORRELATION.unpack_from(frame)
        at = CORRELATION.size
        if has_tags(api_key, version):
            at = skip_tags(frame, at, len(frame))
    except (StructError, IndexError) as error:
        raise Malformed(f"a response header in {len(frame)} bytes: {error}") from error
    return correlation_id, at


def has_tags(api_key: int, version: int) -> bool:
    """Whether the header of a response has tagged fields."""
    return api_key != ApiKey.API_VERSIONS and version >= flexible_from(api_key)
