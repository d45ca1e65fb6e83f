"""The 61 bytes in front of the records, and the rules for a batch that a client sends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.batches import batch, headers, sealed

from streamer.wire.batch import (
    HEADER_SIZE,
    Fault,
    Header,
    Limits,
    Marker,
    advance_sequence,
    check,
    control_batch,
    crc_of,
    read_header,
    read_headers,
    read_marker,
    stamp,
    with_append_time,
)
from streamer.wire.compression import Compression
from streamer.wire.error_codes import ErrorCode
from streamer.wire.record import Record, read_records, write_batch

NOW = 1_700_000_000_000


def judged(
    data: bytes, limits: Limits | None = None, version: int = 11
) -> ErrorCode | None:
    found = check(data, limits or Limits(), produce_version=version, now_ms=NOW)
    return found.code if isinstance(found, Fault) else None


def good(count: int = 2, **more: object) -> bytes:
    records = [Record(0, NOW + each, b"k", b"v%d" % each) for each in range(count)]
    return write_batch(records, **more)  # type: ignore[arg-type]


def changed(**fields: int) -> bytes:
    """A good batch but for these fields; its checksum is right."""
    data = good()
    (header,) = headers(data)
    return sealed(replace(header, crc=-1, **fields), data[HEADER_SIZE:])


def test_a_header_is_read_as_another_hand_wrote_it() -> None:
    data = batch([b"a", b"b"])
    header = read_header(data)
    assert header.size == len(data)
    assert header.record_count == 2
    assert header.last_offset == header.base_offset + 1
    assert crc_of(data, header) == header.crc
    assert crc_of(b"before" + data + b"after", header, 6) == header.crc


@pytest.mark.parametrize("codec", list(Compression))
def test_a_good_batch_is_accepted(codec: Compression) -> None:
    data = good(compression=codec, producer_id=5, producer_epoch=0, base_sequence=3)
    for each in (data, bytearray(data), memoryview(data)):
        header = check(each, Limits(), produce_version=7, now_ms=NOW)
        assert isinstance(header, Header)
        assert header.compression == codec
        assert (header.base_sequence, header.last_sequence) == (3, 4)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.INVALID_RECORD),
        (good()[:16], ErrorCode.CORRUPT_MESSAGE),
        (good()[:60], ErrorCode.CORRUPT_MESSAGE),
        (good()[:-1], ErrorCode.CORRUPT_MESSAGE),
        (good() + b"\0", ErrorCode.INVALID_RECORD),
        (good() + good(), ErrorCode.INVALID_RECORD),
        (changed(magic=1), ErrorCode.INVALID_RECORD),
        (changed(magic=0)[:30], ErrorCode.INVALID_RECORD),
        (changed(length=48), ErrorCode.CORRUPT_MESSAGE),
        (changed(length=-2), ErrorCode.CORRUPT_MESSAGE),
        (changed(base_offset=1), ErrorCode.INVALID_RECORD),
        (changed(record_count=0, last_offset_delta=-1), ErrorCode.INVALID_RECORD),
        (changed(record_count=3), ErrorCode.INVALID_RECORD),
        (changed(last_offset_delta=5), ErrorCode.INVALID_RECORD),
        (changed(attributes=0x20), ErrorCode.INVALID_RECORD),
        (changed(producer_id=1), ErrorCode.INVALID_RECORD),
        (changed(attributes=5), ErrorCode.CORRUPT_MESSAGE),
        (changed(attributes=0x08), ErrorCode.INVALID_TIMESTAMP),
        (changed(max_timestamp=NOW + 3_600_001), ErrorCode.INVALID_TIMESTAMP),
    ],
    ids=lambda value: value.name if isinstance(value, ErrorCode) else str(len(value)),
)
def test_a_bad_batch_is_refused_for_the_first_rule_that_it_breaks(
    data: bytes, code: ErrorCode
) -> None:
    assert judged(data) == code


def test_rules_come_in_kafkas_order() -> None:
    limits = Limits(max_message_bytes=50, segment_bytes=50)
    wrong_crc = bytearray(changed(attributes=0x20, record_count=7, base_offset=1))
    wrong_crc[-1] ^= 1
    order = [ErrorCode.INVALID_RECORD]
    assert judged(bytes(wrong_crc), limits) == order[0]
    wrong_crc[0:8] = bytes(8)
    assert judged(bytes(wrong_crc), limits) == ErrorCode.MESSAGE_TOO_LARGE
    assert judged(bytes(wrong_crc)) == ErrorCode.CORRUPT_MESSAGE
    wrong_crc[-1] ^= 1
    assert judged(bytes(wrong_crc)) == ErrorCode.INVALID_RECORD


def test_limits_are_those_of_the_topic() -> None:
    data = good()
    size = len(data)
    assert judged(data, Limits(max_message_bytes=size)) is None
    too_large = Limits(max_message_bytes=size - 1)
    assert judged(data, too_large) == ErrorCode.MESSAGE_TOO_LARGE
    no_room = Limits(segment_bytes=size - 1)
    assert judged(data, no_room) == ErrorCode.RECORD_LIST_TOO_LARGE
    assert judged(data, Limits(segment_bytes=size)) is None
    old = write_batch([Record(0, NOW - 11, None, b"v")])
    assert judged(old, Limits(timestamp_before_max_ms=10)) == ErrorCode.INVALID_TIMESTAMP
    assert judged(old, Limits(timestamp_before_max_ms=11)) is None
    assert judged(write_batch([Record(0, -1, None, b"v")])) is None
    ahead = write_batch([Record(0, NOW + 10**9, None, b"v")])
    assert judged(ahead, Limits(append_time=True)) is None


def test_zstd_is_for_clients_that_know_it() -> None:
    data = good(compression=Compression.ZSTD)
    assert judged(data, version=7) is None
    assert judged(data, version=6) == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


def test_every_flipped_bit_is_noticed() -> None:
    data = good()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit // 8 not in range(12, 16):  # the leader epoch, which the log overwrites
            assert judged(bytes(flipped)) is not None, f"bit {bit}"


def test_cut_anywhere_it_is_no_batch() -> None:
    data = good()
    for size in range(len(data)):
        assert judged(data[:size]) is not None


def test_the_stamp_changes_offset_and_epoch_and_nothing_that_is_signed() -> None:
    data = good()
    stamped = stamp(read_header(data), 1 << 40, 7) + data[16:]
    header = read_header(stamped)
    assert (header.base_offset, header.leader_epoch, header.size) == (1 << 40, 7, len(data))
    assert crc_of(stamped, header) == header.crc
    assert [one.offset for one in read_records(stamped)] == [1 << 40, (1 << 40) + 1]


def test_the_brokers_time_takes_the_place_of_the_clients() -> None:
    data = with_append_time(memoryview(good()), NOW + 99)
    header = read_header(data)
    assert header.is_append_time
    assert crc_of(data, header) == header.crc
    assert header.base_timestamp == NOW
    assert {one.timestamp for one in read_records(data)} == {NOW + 99}


@pytest.mark.parametrize("commit", [True, False])
def test_a_marker_is_read_as_it_was_written_and_has_its_value(commit: bool) -> None:
    marker = Marker(commit, coordinator_epoch=70_000)
    data = control_batch(marker, producer_id=5, producer_epoch=2, timestamp=NOW)
    header = read_header(data)
    assert header.size == len(data)
    assert crc_of(data, header) == header.crc
    assert header.is_control
    assert header.is_transactional
    assert header.attributes == 0x30
    assert (header.base_sequence, header.record_count) == (-1, 1)
    assert read_marker(data) == marker
    (record,) = read_records(data)
    assert record.key == b"\0\0\0" + bytes([commit])
    assert record.value == b"\0\0" + (70_000).to_bytes(4, "big")
    assert read_marker(data[:70]) is None
    assert read_marker(good()) is None


def test_the_headers_of_several_batches_are_found_and_a_torn_one_is_not() -> None:
    data = good(1) + good(2) + good(3)
    found = [header.record_count for _, header in read_headers(data)]
    assert found == [1, 2, 3]
    assert [header.record_count for _, header in read_headers(data[:-1])] == [1, 2]
    assert list(read_headers(b"")) == []


def test_a_sequence_wraps() -> None:
    assert advance_sequence(2**31 - 1, 1) == 0
    assert advance_sequence(2**31 - 1, 5) == 4
    assert advance_sequence(0, -1) == 2**31 - 1
