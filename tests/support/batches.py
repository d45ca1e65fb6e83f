"""Record batches made by hand, right or wrong on purpose.

Independent of `streamer.wire`, so that a broker's idea of a batch is checked against
a second one. `batch(values)` is what a client would send; any header field can be
given a value of its own, and the checksum is right unless a wrong one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from struct import Struct

import google_crc32c

HEADER = Struct(">qiibIhiqqqhii")
AFTER_CRC = 21

LOG_APPEND_TIME = 8
TRANSACTIONAL = 16
CONTROL = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHeader:
    """The 61 bytes before the records, in their order."""

    base_offset: int = 0
    length: int = -1  # -1: what it should be
    leader_epoch: int = -1
    magic: int = 2
    crc: int = -1  # -1: what it should be
    attributes: int = 0
    last_offset_delta: int = 0
    base_timestamp: int = 0
    max_timestamp: int = 0
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1
    record_count: int = 0

    def pack(self) -> bytes:
        fields = [getattr(self, name) for name in self.__slots__]
        return HEADER.pack(*fields)


def batch(
    values: Sequence[bytes | None],
    *,
    timestamp: int = 1_700_000_000_000,
    key: bytes | None = None,
    **header: int,
) -> bytes:
    """A batch of these values, with `header` fields as wished."""
    records = b"".join(record(delta, key, value) for delta, value in enumerate(values))
    return sealed(
        BatchHeader(
            **{
                "last_offset_delta": len(values) - 1,
                "base_timestamp": timestamp,
                "max_timestamp": timestamp,
                "record_count": len(values),
            }
            | header
        ),
        records,
    )


def sealed(header: BatchHeader, records: bytes) -> bytes:
    """Header and records, with length and checksum filled in where none was given."""
    if header.length == -1:
        header = replace(header, length=HEADER.size - 12 + len(records))
    if header.crc == -1:
        signed = replace(header, crc=0).pack()[AFTER_CRC:] + records
        header = replace(header, crc=google_crc32c.value(signed))
    return header.pack() + records


def record(offset_delta: int, key: bytes | None, value: bytes | None) -> bytes:
    body = b"\0" + varint(0) + varint(offset_delta) + blob(key) + blob(value) + varint(0)
    return varint(len(body)) + body


def blob(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def varint(number: int) -> bytes:
    """Zigzag, then seven bits a byte, lowest first."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def headers(data: bytes | memoryview) -> Iterator[BatchHeader]:
    """The header of each batch in what a fetch brought; the last one must be whole."""
    at = 0
    while at < len(data):
        names = BatchHeader.__slots__
        found = BatchHeader(**dict(zip(names, HEADER.unpack_from(data, at), strict=True)))
        at += found.length + 12
        assert at <= len(data), "a batch was cut"
        yield found
