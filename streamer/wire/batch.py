"""The record batch, version 2: the one format on the wire and on disk.

A batch is 61 bytes of header and then its records, which are nobody's business here:

     0 base offset i64      21 attributes i16          43 producer id i64
     8 length i32           23 last offset delta i32   51 producer epoch i16
    12 leader epoch i32     27 base timestamp i64      53 base sequence i32
    16 magic i8 = 2         35 max timestamp i64       57 record count i32
    17 crc u32

`length` counts from byte 12 on. The CRC32C covers byte 21 to the end, so the log may give
a batch its offset and its leader epoch without touching what the client has signed.

`check` holds the rules for a batch that a client wants to append, in Apache Kafka's order.
Rules that need memory (sequences, epochs) are in `log/producers.py`; what is inside the
records is read by `wire/record.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple, TypeAlias

from streamer.wire.checksum import crc32c
from streamer.wire.error_codes import ErrorCode

Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER_SIZE = 61
LENGTH_END = 12
"""What `length` does not count: the base offset and the length itself."""
CRC_START = 21
STAMP_SIZE = 16
MAGIC = 2

NO_PRODUCER = -1
NO_SEQUENCE = -1
NO_TIMESTAMP = -1

COMPRESSION_MASK = 0x07
APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
DELETE_HORIZON = 0x40
"""The base timestamp is when compaction may drop the batch's tombstones or its marker."""
ZSTD = 4
ZSTD_SINCE_PRODUCE = 7

_HEADER = Struct(">qiibIhiqqqhii")
_STAMP = Struct(">qii")
_CRC = Struct(">I")
_ATTRIBUTES = Struct(">h")
_MAX_TIMESTAMP = Struct(">q")
_SIGNED = Struct(">hiqqqhii")
"""The header from the attributes on: what the CRC covers."""
_MARKER_KEY = Struct(">hh")
_MARKER_VALUE = Struct(">hi")


class Header(NamedTuple):
    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LENGTH_END

    @property
    def compression(self) -> int:
        return self.attributes & COMPRESSION_MASK

    @property
    def is_append_time(self) -> bool:
        return self.attributes & APPEND_TIME != 0

    @property
    def is_transactional(self) -> bool:
        return self.attributes & TRANSACTIONAL != 0

    @property
    def is_control(self) -> bool:
        return self.attributes & CONTROL != 0

    @property
    def delete_horizon(self) -> int | None:
        """When compaction may drop its tombstones or its marker; None if it has no date."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON else None

    @property
    def last_sequence(self) -> int:
        """Sequences wrap: after 2^31 - 1 comes 0."""
        return advance_sequence(self.base_sequence, self.last_offset_delta)


class Fault(NamedTuple):
    """Why a batch may not be appended."""

    code: ErrorCode
    message: str


class Limits(NamedTuple):
    """What a topic's settings say about a batch."""

    max_message_bytes: int = 1_048_588
    segment_bytes: int = 1 << 30
    append_time: bool = False
    timestamp_before_max_ms: int = (1 << 63) - 1
    timestamp_after_max_ms: int = 3_600_000


class Marker(NamedTuple):
    """The one record of a control batch: how a transaction ended."""

    commit: bool
    coordinator_epoch: int


def read_header(buffer: Buffer, position: int = 0) -> Header:
    """The header at `position`; the caller has seen to it that 61 bytes are there."""
    return Header._make(_HEADER.unpack_from(buffer, position))


def read_headers(buffer: Buffer) -> Iterator[tuple[int, Header]]:
    """Position and header of each whole batch in `buffer`, unverified."""
    position, end = 0, len(buffer)
    while end - position >= HEADER_SIZE:
        header = read_header(buffer, position)
        if header.size < HEADER_SIZE or position + header.size > end:
            return
        yield position, header
        position += header.size


def crc_of(buffer: Buffer, header: Header, position: int = 0) -> int:
    """The CRC32C that the batch at `position` should carry."""
    signed = memoryview(buffer)[
        position + CRC_START : position + header.length + LENGTH_END
    ]
    return crc32c(signed)


def stamp(header: Header, base_offset: int, leader_epoch: int) -> bytes:
    """The first 16 bytes as the log wants them; the rest of the batch follows unchanged."""
    return _STAMP.pack(base_offset, header.length, leader_epoch)


def with_append_time(batch: Buffer, now_ms: int) -> bytes:
    """The batch with the broker's time in place of the client's, signed anew."""
    changed = bytearray(batch)
    attributes = _ATTRIBUTES.unpack_from(changed, CRC_START)[0] | APPEND_TIME
    _ATTRIBUTES.pack_into(changed, CRC_START, attributes)
    _MAX_TIMESTAMP.pack_into(changed, 35, now_ms)
    _CRC.pack_into(changed, 17, crc32c(memoryview(changed)[CRC_START:]))
    return bytes(changed)


def emptied(header: Header) -> bytes:
    """What stays of a batch without its records: offsets, producer, sequence."""
    kept = header.attributes & (APPEND_TIME | TRANSACTIONAL | CONTROL)
    return sealed(
        header._replace(attributes=kept, base_timestamp=NO_TIMESTAMP, record_count=0), b""
    )


def sealed(header: Header, packed: Buffer) -> bytes:
    """The batch of this header and what follows it, its length and checksum made right."""
    length = HEADER_SIZE - LENGTH_END + len(packed)
    batch = bytearray(_HEADER.pack(*header._replace(length=length)))
    batch += packed
    _CRC.pack_into(batch, 17, crc32c(memoryview(batch)[CRC_START:]))
    return bytes(batch)


def control_batch(
    marker: Marker, *, producer_id: int, producer_epoch: int, timestamp: int
) -> bytes:
    """A transaction's commit or abort, to be written behind the transaction's records."""
    key = _MARKER_KEY.pack(0, int(marker.commit))
    # Never null: some clients give up the partition over a marker without its value.
    value = _MARKER_VALUE.pack(0, marker.coordinator_epoch)
    # Attributes, timestamp delta, offset delta, key, value, no headers. The lengths are
    # zigzag varints, which double small numbers.
    record = (
        b"\0\0\0" + bytes([2 * len(key)]) + key + bytes([2 * len(value)]) + value + b"\0"
    )
    signed = (
        _SIGNED.pack(
            TRANSACTIONAL | CONTROL,
            0,
            timestamp,
            timestamp,
            producer_id,
            producer_epoch,
            NO_SEQUENCE,
            1,
        )
        + bytes([2 * len(record)])
        + record
    )
    length = len(signed) + CRC_START - LENGTH_END
    head = _STAMP.pack(0, length, -1) + bytes([MAGIC])
    return head + _CRC.pack(crc32c(signed)) + signed


def read_marker(batch: Buffer) -> Marker | None:
    """What a control batch says; None for kinds of control record that are not ours."""
    # A marker is so short that its length, like all within it, is a varint of one byte. But
    # for its timestamp's delta: that is 0 until compaction has dated the batch.
    start = HEADER_SIZE + 2
    record = bytes(batch[start : start + 32])
    at = 1
    while at < len(record) and record[at - 1] > 0x7F:
        at += 1
    if len(record) < at + 13 or record[at : at + 2] != b"\0\x08":
        return None
    version, kind = _MARKER_KEY.unpack_from(record, at + 2)
    if version < 0 or kind not in (0, 1) or record[at + 6] != 2 * _MARKER_VALUE.size:
        return None
    return Marker(bool(kind), _MARKER_VALUE.unpack_from(record, at + 7)[1])


def advance_sequence(sequence: int, by: int) -> int:
    return (sequence + by) & 0x7FFF_FFFF


def check(
    batch: Buffer, limits: Limits, *, produce_version: int, now_ms: int
) -> Header | Fault:
    """The header of a batch that a client may append, or the first rule that it breaks."""
    size = len(batch)
    if size == 0:
        return Fault(ErrorCode.INVALID_RECORD, "There is no record batch.")
    if size > STAMP_SIZE and batch[STAMP_SIZE] != MAGIC:
        return Fault(
            ErrorCode.INVALID_RECORD,
            f"Message format {batch[STAMP_SIZE]} is not served, only {MAGIC} is.",
        )
    if size < HEADER_SIZE:
        return Fault(ErrorCode.CORRUPT_MESSAGE, "The batch is shorter than its header.")

    header = read_header(batch)
    announced = header.length + LENGTH_END
    if announced < HEADER_SIZE or announced > size:
        return Fault(
            ErrorCode.CORRUPT_MESSAGE, f"The batch says {announced} bytes, {size} came."
        )
    if announced < size:
        return Fault(ErrorCode.INVALID_RECORD, "More than one batch for one partition.")
    if header.base_offset != 0:
        return Fault(
            ErrorCode.INVALID_RECORD, f"Base offset {header.base_offset}, 0 is expected."
        )
    if size > limits.max_message_bytes:
        return Fault(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"The batch has {size} bytes, max.message.bytes is {limits.max_message_bytes}.",
        )
    if crc_of(batch, header) != header.crc:
        return Fault(ErrorCode.CORRUPT_MESSAGE, "The batch does not match its checksum.")
    if header.record_count <= 0 or header.last_offset_delta + 1 != header.record_count:
        return Fault(
            ErrorCode.INVALID_RECORD,
            f"{header.record_count} records, last delta {header.last_offset_delta}.",
        )
    return (
        _check_attributes(header, limits, produce_version)
        or _check_timestamps(header, limits, now_ms)
        or _check_segment(header, limits)
        or header
    )


def _check_attributes(header: Header, limits: Limits, produce_version: int) -> Fault | None:
    attributes = header.attributes
    if attributes & CONTROL:
        return Fault(ErrorCode.INVALID_RECORD, "Clients may not write control batches.")
    if header.producer_id >= 0 and header.base_sequence < 0:
        return Fault(
            ErrorCode.INVALID_RECORD,
            f"Producer {header.producer_id} sent a batch without a sequence number.",
        )
    compression = attributes & COMPRESSION_MASK
    if compression > ZSTD:
        return Fault(ErrorCode.CORRUPT_MESSAGE, f"Unknown compression {compression}.")
    if compression == ZSTD and produce_version < ZSTD_SINCE_PRODUCE:
        return Fault(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
            f"zstd needs Produce version {ZSTD_SINCE_PRODUCE}, this is {produce_version}.",
        )
    if attributes & APPEND_TIME and not limits.append_time:
        return Fault(
            ErrorCode.INVALID_TIMESTAMP, "The topic's timestamps are those of its clients."
        )
    return None


def _check_timestamps(header: Header, limits: Limits, now_ms: int) -> Fault | None:
    """Judged by the batch's own bounds; its records are not opened."""
    if limits.append_time or header.max_timestamp == NO_TIMESTAMP:
        return None
    if header.max_timestamp - now_ms > limits.timestamp_after_max_ms:
        return Fault(
            ErrorCode.INVALID_TIMESTAMP,
            f"Timestamp {header.max_timestamp} is more than "
            f"{limits.timestamp_after_max_ms} ms ahead of {now_ms}.",
        )
    if now_ms - header.base_timestamp > limits.timestamp_before_max_ms:
        return Fault(
            ErrorCode.INVALID_TIMESTAMP,
            f"Timestamp {header.base_timestamp} is more than "
            f"{limits.timestamp_before_max_ms} ms behind {now_ms}.",
        )
    return None


def _check_segment(header: Header, limits: Limits) -> Fault | None:
    if header.size > limits.segment_bytes:
        return Fault(
            ErrorCode.RECORD_LIST_TOO_LARGE,
            f"The batch has {header.size} bytes, segment.bytes is {limits.segment_bytes}.",
        )
    return None
