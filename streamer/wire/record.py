"""The records inside a batch: one by one, for those who have to look.

A record is measured in zigzag varints, all relative to its batch:

    length, attributes (unused), timestamp delta, offset delta,
    key length, key, value length, value,      -1 is null
    header count, then for each: name length, name, value length, value

The broker passes batches on without opening them. Searching by time, the key
check of compacted topics, compaction and the command line come here.
`batch.py` knows the header in front of the records.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from streamer.wire.batch import (
    APPEND_TIME,
    CONTROL,
    DELETE_HORIZON,
    HEADER_SIZE,
    LENGTH_END,
    MAGIC,
    TRANSACTIONAL,
    Header,
    crc_of,
    read_header,
    sealed,
)
from streamer.wire.codec import Buffer
from streamer.wire.compression import (
    UNPACKED_BYTES_MAX,
    Compression,
    Undecodable,
    compress,
    decompress,
)

HEADER = Struct(">qiibIhiqqqhii")
CRC = Struct(">I")
CRC_AT = 17

# Seven numbers of at least a byte each.
RECORD_BYTES_MIN = 7
HEADER_BYTES_MIN = 2
VARLONG_BYTES_MAX = 10

Headers = tuple[tuple[str, bytes | None], ...]
Skimmed = tuple[int, int, int, bytes | None, bool]


class CorruptRecords(Exception):
    """What follows the header of a batch is not the records it announces."""


class Record(NamedTuple):
    offset: int = 0
    timestamp: int = -1
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()


def read_records(batch: Buffer, limit: int = UNPACKED_BYTES_MAX) -> Iterator[Record]:
    """The records of one whole batch, whose checksum the caller has verified.

    Nothing is decompressed before the first record is asked for, and no more
    than `limit` bytes. Raises CorruptRecords, possibly after some good ones.
    """
    if len(batch) < HEADER_SIZE:
        raise CorruptRecords(f"a batch of {len(batch)} bytes is shorter than its header")
    header = read_header(batch)
    if not HEADER_SIZE <= header.size <= len(batch):
        raise CorruptRecords(
            f"a batch of {header.size} bytes, of which {len(batch)} are there"
        )
    data = unpacked(batch, header, limit)
    if not 0 <= header.record_count * RECORD_BYTES_MIN <= len(data):
        raise CorruptRecords(f"{header.record_count} records in {len(data)} bytes")
    at = 0
    try:
        for _ in range(header.record_count):
            record, at = read_record(data, at, header)
            yield record
    except (IndexError, UnicodeDecodeError) as error:
        raise CorruptRecords(f"the record at byte {at} of {len(data)}: {error}") from error
    if at != len(data):
        raise CorruptRecords(f"{len(data) - at} bytes behind the last record")


def unpacked(batch: Buffer, header: Header, limit: int) -> bytes:
    """The bytes of the records: as `bytes`, of which slices are quickest to take."""
    data = memoryview(batch)[HEADER_SIZE : header.size]
    if header.compression == Compression.NONE:
        return bytes(data)
    try:
        return bytes(decompress(Compression(header.compression), data, limit))
    except (Undecodable, ValueError) as error:
        raise CorruptRecords(str(error)) from error


def read_record(data: bytes, at: int, header: Header) -> tuple[Record, int]:
    """The record at `at`, and where the next one begins."""
    length, start = read_zigzag(data, at)
    end = start + length
    if length < RECORD_BYTES_MIN - 1 or end > len(data):
        raise CorruptRecords(f"the record at byte {at} claims {length} bytes")
    timestamp_delta, at = read_zigzag(data, start + 1)  # behind the attributes
    offset_delta, at = read_zigzag(data, at)
    key, at = read_bytes(data, at, end)
    value, at = read_bytes(data, at, end)
    headers: Headers = ()
    if data[at] == 0:  # nearly always
        at += 1
    else:
        headers, at = read_headers_of(data, at, end)
    if at != end:
        raise CorruptRecords(
            f"the record that ends at byte {end} is not as long as it says"
        )
    timestamp = header.max_timestamp
    if not header.is_append_time:
        timestamp = header.base_timestamp + timestamp_delta
    return Record(header.base_offset + offset_delta, timestamp, key, value, headers), at


def read_headers_of(data: bytes, at: int, end: int) -> tuple[Headers, int]:
    count, at = read_zigzag(data, at)
    if not 0 < count * HEADER_BYTES_MIN <= end - at:
        raise CorruptRecords(f"{count} headers in {end - at} bytes")
    headers = []
    for _ in range(count):
        name, at = read_bytes(data, at, end)
        value, at = read_bytes(data, at, end)
        if name is None:
            raise CorruptRecords("a header without a name")
        headers.append((str(name, "utf-8"), value))
    return tuple(headers), at


def read_bytes(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = read_zigzag(data, at)
    if 0 <= length <= end - at:
        return data[at : at + length], at + length
    if length == -1:
        return None, at
    raise CorruptRecords(f"{length} bytes of key, value or header, {end - at} remain")


def read_zigzag(data: bytes, at: int) -> tuple[int, int]:
    """A signed varint: 0, -1, 1, -2, ... are written as 0, 1, 2, 3, ..."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    value = byte & 0x7F
    for shift in range(7, 7 * VARLONG_BYTES_MAX, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise CorruptRecords(
        f"a number of more than {VARLONG_BYTES_MAX} bytes before byte {at}"
    )


def skim_records(data: bytes, count: int) -> Iterator[Skimmed]:
    """What compaction asks of each record: where it begins and ends in the unpacked `data`,
    its offset delta, its key, and whether it has a value.

    Values and headers are stepped over: a third of what reading them costs.
    """
    at = 0
    try:
        for _ in range(count):
            start = at
            # A number of one or two bytes is read on the spot: a call costs more than
            # all the rest.
            length = data[at]
            at += 1
            if length > 0x7F:
                second = data[at]
                if second > 0x7F:
                    length, at = read_zigzag(data, start)
                    length <<= 1
                else:
                    length += (second << 7) - 0x80
                    at += 1
            end = at + (length >> 1)
            at += 1  # behind the attributes
            while data[at] > 0x7F:
                at += 1
            at += 1  # behind the timestamp delta
            delta = data[at]
            at += 1
            if delta > 0x7F:
                second = data[at]
                if second > 0x7F:
                    delta, at = read_zigzag(data, at - 1)
                    delta <<= 1
                else:
                    delta += (second << 7) - 0x80
                    at += 1
            size = data[at]
            if size < 0x80:
                at += 1
                size = (size >> 1) ^ -(size & 1)
            else:
                size, at = read_zigzag(data, at)
            key = None
            if size >= 0:
                key = data[at : at + size]
                at += size
            yield start, end, delta >> 1, key, data[at] != 1  # 1 is the length of null
            at = end
    except IndexError as error:
        raise CorruptRecords(f"the record at byte {at} of {len(data)}: {error}") from error
    if at != len(data):
        raise CorruptRecords(f"{len(data) - at} bytes behind the last record")


def with_some_records(
    header: Header, data: bytes, kept: Sequence[tuple[int, int]], horizon: int | None
) -> bytes:
    """The batch with those records only that lie in `data` from .. to, packed as before.

    They keep their offsets, and the batch its first and last: gaps are left. With a
    `horizon` its base timestamp becomes that, and what is told by it is told anew.
    """
    deltas = [timestamp_delta(data, start) for start, _ in kept]
    max_timestamp = header.max_timestamp
    if not header.is_append_time:
        max_timestamp = header.base_timestamp + max(deltas)
    changed = header._replace(record_count=len(kept), max_timestamp=max_timestamp)
    if horizon is None:
        records = [data[start:end] for start, end in kept]
    else:
        shift = header.base_timestamp - horizon
        records = [moved_in_time(data, start, end, shift) for start, end in kept]
        changed = changed._replace(
            attributes=header.attributes | DELETE_HORIZON, base_timestamp=horizon
        )
    return sealed(changed, compress(Compression(header.compression), b"".join(records)))


def timestamp_delta(data: bytes, start: int) -> int:
    at = start
    while data[at] > 0x7F:
        at += 1  # over the length
    return read_zigzag(data, at + 2)[0]


def moved_in_time(data: bytes, start: int, end: int, shift: int) -> bytes:
    """The record with `shift` more in its timestamp delta."""
    _, at = read_zigzag(data, start)
    delta, rest = read_zigzag(data, at + 1)
    body = data[at : at + 1] + write_zigzag(delta + shift) + data[rest:end]
    return write_zigzag(len(body)) + body


def write_batch(
    records: Iterable[Record],
    *,
    base_offset: int = 0,
    leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    compression: Compression = Compression.NONE,
    append_time_ms: int | None = None,
    transactional: bool = False,
    control: bool = False,
) -> bytes:
    """One batch of these records, numbered from `base_offset`, whatever offset they had.

    With `append_time_ms` the log's clock counts in place of the records' own.
    """
    kept = list(records)
    timestamps = [record.timestamp for record in kept]
    base_timestamp = timestamps[0] if timestamps else -1
    data = b"".join(
        write_record(record, delta, record.timestamp - base_timestamp)
        for delta, record in enumerate(kept)
    )
    packed = compress(compression, data)
    header = Header(
        base_offset=base_offset,
        length=HEADER_SIZE - LENGTH_END + len(packed),
        leader_epoch=leader_epoch,
        magic=MAGIC,
        crc=0,
        attributes=compression
        | (APPEND_TIME if append_time_ms is not None else 0)
        | (TRANSACTIONAL if transactional else 0)
        | (CONTROL if control else 0),
        last_offset_delta=len(kept) - 1,
        base_timestamp=base_timestamp,
        max_timestamp=max(timestamps, default=-1)
        if append_time_ms is None
        else append_time_ms,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        record_count=len(kept),
    )
    batch = bytearray(HEADER.pack(*header))
    batch += packed
    CRC.pack_into(batch, CRC_AT, crc_of(batch, header))
    return bytes(batch)


def write_record(record: Record, offset_delta: int, timestamp_delta: int) -> bytes:
    parts = [
        b"\x00",
        write_zigzag(timestamp_delta),
        write_zigzag(offset_delta),
        *write_bytes(record.key),
        *write_bytes(record.value),
        write_zigzag(len(record.headers)),
    ]
    for name, value in record.headers:
        parts += write_bytes(name.encode())
        parts += write_bytes(value)
    body = b"".join(parts)
    return write_zigzag(len(body)) + body


def write_bytes(data: bytes | None) -> tuple[bytes, bytes]:
    return (write_zigzag(-1), b"") if data is None else (write_zigzag(len(data)), data)


def write_zigzag(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    written = bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)
