"""Records in a batch: there and back, by other writers, and damaged."""

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings, strategies as st

from streamer.wire.batch import (
    HEADER_SIZE,
    Marker,
    control_batch,
    crc_of,
    emptied,
    read_header,
    read_marker,
)
from streamer.wire.compression import Compression
from streamer.wire.record import (
    CorruptRecords,
    Record,
    read_records,
    read_zigzag,
    skim_records,
    unpacked,
    with_some_records,
    write_batch,
    write_zigzag,
)

DATA = st.none() | st.binary(max_size=20) | st.integers(60, 70).map(bytes)
TIMESTAMPS = st.integers(0, 1 << 42)
HEADERS = st.lists(st.tuples(st.text(max_size=5), DATA), max_size=3).map(tuple)


@st.composite
def numbered(draw: Callable[..., Any]) -> list[Record]:
    base = draw(st.integers(0, 1 << 50))
    made = st.tuples(TIMESTAMPS, DATA, DATA, HEADERS)
    return [
        Record(base + delta, *fields)
        for delta, fields in enumerate(draw(st.lists(made, min_size=1, max_size=8)))
    ]


@given(numbered(), st.sampled_from(Compression))
@settings(deadline=None)
def test_records_read_back_as_they_were_written(
    records: list[Record], compression: Compression
) -> None:
    batch = write_batch(records, base_offset=records[0].offset, compression=compression)

    header = read_header(batch)
    assert header.size == len(batch)
    assert header.crc == crc_of(batch, header)
    assert header.compression == compression
    assert header.max_timestamp == max(record.timestamp for record in records)
    assert list(read_records(batch)) == records
    assert list(read_records(memoryview(batch))) == records


@given(numbered())
@settings(deadline=None)
def test_aiokafka_reads_what_we_write(records: list[Record]) -> None:
    batch = write_batch(records, base_offset=records[0].offset)

    theirs = DefaultRecordBatch(batch)

    assert theirs.validate_crc()
    found = [
        Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in theirs
    ]
    assert found == records


@given(numbered())
@settings(deadline=None)
def test_we_read_what_aiokafka_writes(records: list[Record]) -> None:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for delta, record in enumerate(records):
        builder.append(
            delta, record.timestamp, record.key, record.value, list(record.headers)
        )

    found = list(read_records(bytes(builder.build())))

    assert found == [record._replace(offset=i) for i, record in enumerate(records)]


def test_records_are_numbered_from_the_base_offset_whatever_offset_they_had() -> None:
    batch = write_batch([Record(7, 1), Record(3, 1)], base_offset=40)

    assert [record.offset for record in read_records(batch)] == [40, 41]


def test_the_time_of_the_log_replaces_the_time_of_the_records() -> None:
    batch = write_batch([Record(timestamp=1), Record(timestamp=2)], append_time_ms=99)

    assert read_header(batch).is_append_time
    assert [record.timestamp for record in read_records(batch)] == [99, 99]


def test_an_empty_batch_has_no_records() -> None:
    batch = write_batch([], base_offset=5)

    assert len(batch) == HEADER_SIZE
    assert read_header(batch).last_offset == 4
    assert list(read_records(batch)) == []


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_signed_numbers_read_back(value: int) -> None:
    written = write_zigzag(value)

    assert read_zigzag(written, 0) == (value, len(written))


def test_a_number_without_an_end_is_corrupt() -> None:
    with pytest.raises(CorruptRecords):
        read_zigzag(b"\xff" * 20, 0)


BATCH = write_batch(
    [
        Record(0, 1000, b"key", b"value", (("name", b"x"), ("none", None))),
        Record(1, 1001, None, b"v" * 70),
        Record(2, 1002),
    ]
)


def test_a_batch_cut_anywhere_is_corrupt() -> None:
    for end in range(len(BATCH)):
        with pytest.raises(CorruptRecords):
            list(read_records(BATCH[:end]))


def test_every_bit_flipped_gives_records_or_corrupt_ones_but_no_other_error() -> None:
    """The checksum finds these before anybody reads; here it has been passed by."""
    for at in range(HEADER_SIZE, len(BATCH)):
        for bit in range(8):
            damaged = bytearray(BATCH)
            damaged[at] ^= 1 << bit
            try:
                assert len(list(read_records(bytes(damaged)))) == 3
            except CorruptRecords:
                pass


@pytest.mark.parametrize("count", [-1, 4, 0x7FFFFFFF])
def test_a_wrong_count_of_records_is_corrupt(count: int) -> None:
    damaged = BATCH[:57] + count.to_bytes(4, "big", signed=True) + BATCH[61:]

    with pytest.raises(CorruptRecords):
        list(read_records(damaged))


def test_records_that_unfold_beyond_the_limit_are_corrupt() -> None:
    batch = write_batch([Record(0, 1, None, bytes(5000))], compression=Compression.ZSTD)

    assert len(list(read_records(batch, limit=6000))) == 1
    with pytest.raises(CorruptRecords, match="more than 4999 bytes"):
        next(read_records(batch, limit=4999))


def test_an_unknown_compression_is_corrupt() -> None:
    damaged = bytearray(BATCH)
    damaged[22] |= 5

    with pytest.raises(CorruptRecords):
        list(read_records(bytes(damaged)))


@pytest.mark.parametrize("size", [1, 63, 64, 127, 128, 8191, 8192, 100_000])
def test_long_and_late_records_are_skimmed_as_short_ones_are(size: int) -> None:
    """Their lengths and offsets take one, two and three bytes."""
    keys = [b"%d" % number for number in range(9_000)]
    records = [Record(0, number, key, b"") for number, key in enumerate(keys[:-1])]
    records.append(Record(0, 0, b"k" * size, b"v" * size))
    batch = write_batch(records)
    data = bytes(batch[HEADER_SIZE:])

    skimmed = list(skim_records(data, len(records)))

    assert [delta for _, _, delta, _, _ in skimmed] == list(range(9_000))
    assert [key for _, _, _, key, _ in skimmed] == [*keys[:-1], b"k" * size]
    assert [start for start, *_ in skimmed[1:]] == [end for _, end, *_ in skimmed[:-1]]
    assert skimmed[-1][1] == len(data)


@given(numbered(), st.sampled_from(Compression), st.sets(st.integers(0, 7)), st.booleans())
@settings(deadline=None)
def test_some_records_of_a_batch_stay_what_they_were(
    records: list[Record], compression: Compression, chosen: set[int], dated: bool
) -> None:
    base = records[0].offset
    batch = write_batch(
        records,
        base_offset=base,
        compression=compression,
        producer_id=5,
        producer_epoch=1,
        base_sequence=7,
    )
    header = read_header(batch)
    data = unpacked(batch, header, 1 << 20)
    skimmed = list(skim_records(data, header.record_count))
    assert [(base + delta, key, has_value) for _, _, delta, key, has_value in skimmed] == [
        (record.offset, record.key, record.value is not None) for record in records
    ]

    numbers = sorted({number % len(records) for number in chosen} | {len(records) - 1})
    spans = [skimmed[number][:2] for number in numbers]
    horizon = 1 << 43 if dated else None
    kept = with_some_records(header, data, spans, horizon)
    changed = read_header(kept)
    assert list(read_records(kept)) == [records[number] for number in numbers]
    assert crc_of(kept, changed) == changed.crc
    assert changed.delete_horizon == horizon
    assert changed.max_timestamp == max(records[number].timestamp for number in numbers)
    same = ("base_offset", "last_offset", "compression", "producer_id", "base_sequence")
    for name in (*same, "producer_epoch", "leader_epoch", "last_sequence"):
        assert getattr(changed, name) == getattr(header, name)


def test_an_emptied_batch_keeps_all_but_its_records() -> None:
    records = [Record(9 + number, 50 + number, b"k", b"v") for number in range(3)]
    batch = write_batch(
        records, base_offset=9, producer_id=5, base_sequence=7, transactional=True
    )
    empty = emptied(read_header(batch))
    header = read_header(empty)
    assert len(empty) == header.size == HEADER_SIZE
    assert crc_of(empty, header) == header.crc
    assert (header.base_offset, header.last_offset, header.record_count) == (9, 11, 0)
    assert (header.producer_id, header.base_sequence, header.last_sequence) == (5, 7, 9)
    assert header.is_transactional
    assert header.max_timestamp == 52
    assert list(read_records(empty)) == []


@pytest.mark.parametrize("horizon", [0, 100, 1 << 45])
def test_a_marker_reads_the_same_when_it_has_a_date(horizon: int) -> None:
    marker = Marker(commit=False, coordinator_epoch=3)
    batch = control_batch(marker, producer_id=5, producer_epoch=1, timestamp=100)
    header = read_header(batch)
    data = bytes(batch[HEADER_SIZE:])
    dated = with_some_records(header, data, [(0, len(data))], horizon)
    assert read_marker(dated) == read_marker(batch) == marker
    assert [record.timestamp for record in read_records(dated)] == [100]
