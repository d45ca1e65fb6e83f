"""The records of the coordinators: there and back, torn, and as Apache Kafka wrote them."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from wire.strategies import values

from streamer.wire import messages, state_records
from streamer.wire.definition import SchemaError, parse_record
from streamer.wire.state_records import (
    NAMES,
    GroupMetadataKey,
    GroupMetadataValue,
    Malformed,
    OffsetCommitKey,
    OffsetCommitValue,
    TransactionLogKey,
    TransactionLogValue,
    UnsupportedVersion,
    Unwritable,
    read_group_key,
    read_state,
    write_state,
)

TABLES = sorted((Path(messages.__file__).parent / "schema" / "state").iterdir())
EVERY_RECORD = [
    (cls, version)
    for cls in (getattr(state_records, name) for name in sorted(NAMES))
    for version in cls.definition.versions
]

# From the log of Apache Kafka 4.1.1: a static member joined, committed, and left.
EMPTY_GROUP = "00030008636f6e73756d657200000002ffffffff000001a1fb20c6fb00000000"
ONE_MEMBER = (
    "00030008636f6e73756d657200000001000572616e6765002b74696c6c2d312d64633135656330352d"
    "643364382d343562322d386165382d623838353933353535633064000001a1fb20c37700000001002b"
    "74696c6c2d312d64633135656330352d643364382d343562322d386165382d62383835393335353563"
    "3064000674696c6c2d310003726177000a2f3132372e302e302e3100004e2000002710000000050001"
    "737562000000050001617373"
)
MEMBER_ID = "till-1-dc15ec05-d3d8-45b2-8ae8-b88593555c0d"

FROM_KAFKA = [
    ("0001000473686f7000016100000000", OffsetCommitKey(group="shop", topic="a")),
    (
        "00040000000000000000000000000568657265000001a1fb20c39d00",
        OffsetCommitValue(
            leader_epoch=0, metadata="here", commit_timestamp=1_795_214_590_877
        ),
    ),
    (
        "00040000000000000003ffffffff01000001a1fb20c3aa00",
        OffsetCommitValue(offset=3, commit_timestamp=1_795_214_590_890),
    ),
    (
        "000100000000000000030000000001a1fb20c3b2000001a1fb21ae12",
        OffsetCommitValue(
            offset=3,
            commit_timestamp=1_795_214_590_898,
            expire_timestamp=1_795_214_650_898,
        ),
    ),
    ("0002000473686f70", GroupMetadataKey(group="shop")),
    (
        EMPTY_GROUP,
        GroupMetadataValue(
            protocol_type="consumer",
            generation=2,
            current_state_timestamp=1_795_214_591_739,
        ),
    ),
    (
        ONE_MEMBER,
        GroupMetadataValue(
            protocol_type="consumer",
            generation=1,
            protocol="range",
            leader=MEMBER_ID,
            current_state_timestamp=1_795_214_590_839,
            members=[
                GroupMetadataValue.Member(
                    member_id=MEMBER_ID,
                    group_instance_id="till-1",
                    client_id="raw",
                    client_host="/127.0.0.1",
                    rebalance_timeout=20_000,
                    session_timeout=10_000,
                    subscription=b"\0\1sub",
                    assignment=b"\0\1ass",
                )
            ],
        ),
    ),
    ("0000000673686f702d30", TransactionLogKey(transactional_id="shop-0")),
    (
        "0001000000000000000000000000ea600000000001a1fb20c49bffffffffffffffff00",
        TransactionLogValue(
            transaction_timeout_ms=60_000,
            transaction_last_update_timestamp_ms=1_795_214_591_131,
            transaction_start_timestamp_ms=-1,
        ),
    ),
    (
        "0001000000000000000000000000ea600203026103000000000000000100135f5f636f6e73756d6572"
        "5f6f666673657473020000000000000001a1fb20c4e5000001a1fb20c4b400",
        TransactionLogValue(
            transaction_timeout_ms=60_000,
            transaction_status=2,
            transaction_partitions=[
                TransactionLogValue.Topic(name="a", partition_ids=[0, 1]),
                TransactionLogValue.Topic(name="__consumer_offsets", partition_ids=[0]),
            ],
            transaction_last_update_timestamp_ms=1_795_214_591_205,
            transaction_start_timestamp_ms=1_795_214_591_156,
        ),
    ),
]


# What Kafka's own classes write in each version; what a version lacks is left out.
COMMIT = OffsetCommitValue(offset=5, leader_epoch=2, metadata="m", commit_timestamp=9)
GROUP = GroupMetadataValue(
    protocol_type="p",
    generation=3,
    protocol="r",
    leader="l",
    current_state_timestamp=9,
    members=[
        GroupMetadataValue.Member(
            member_id="l",
            group_instance_id="i",
            client_id="c",
            client_host="h",
            rebalance_timeout=2,
            session_timeout=1,
            subscription=b"\1",
            assignment=b"\2\3",
        )
    ],
)
ONGOING = TransactionLogValue(
    producer_id=4000,
    producer_epoch=7,
    transaction_timeout_ms=60_000,
    transaction_status=1,
    transaction_partitions=[TransactionLogValue.Topic(name="a", partition_ids=[0, 3])],
    transaction_last_update_timestamp_ms=12,
    transaction_start_timestamp_ms=11,
)
SECOND_PROTOCOL = TransactionLogValue(
    **{field.name: getattr(ONGOING, field.name) for field in ONGOING.fields}
    | {
        "previous_producer_id": 3999,
        "next_producer_id": 4001,
        "client_transaction_version": 2,
        "next_producer_epoch": 8,
    }
)
BY_KAFKAS_CLASSES = [
    ("0000000000000000000500016d0000000000000009", COMMIT),
    ("0001000000000000000500016d0000000000000009ffffffffffffffff", COMMIT),
    ("0002000000000000000500016d0000000000000009", COMMIT),
    ("000300000000000000050000000200016d0000000000000009", COMMIT),
    (
        "0004000000000000000500000002026d000000000000000901001000000000000000010000000000000"
        "002",
        OffsetCommitValue(
            offset=5,
            leader_epoch=2,
            metadata="m",
            commit_timestamp=9,
            topic_id=UUID(int=(1 << 64) + 2),
        ),
    ),
    (
        "00000001700000000300017200016c0000000100016c000163000168000000010000000101000000020"
        "203",
        GROUP,
    ),
    (
        "00010001700000000300017200016c0000000100016c000163000168000000020000000100000001010"
        "00000020203",
        GROUP,
    ),
    (
        "00020001700000000300017200016c00000000000000090000000100016c00016300016800000002000"
        "000010000000101000000020203",
        GROUP,
    ),
    (
        "00030001700000000300017200016c00000000000000090000000100016c00016900016300016800000"
        "002000000010000000101000000020203",
        GROUP,
    ),
    (
        "00040270000000030272026c000000000000000902026c0269026302680000000200000001020103020"
        "30000",
        GROUP,
    ),
    (
        "00000000000000000fa000000000000000ffffffff00000000000000000000000000000000",
        TransactionLogValue(producer_id=4000),
    ),
    (
        "00000000000000000fa000070000ea6001000000010001610000000200000000000000030000000000"
        "00000c000000000000000b",
        ONGOING,
    ),
    (
        "00010000000000000fa000070000ea600102026103000000000000000300000000000000000c000000"
        "000000000b0400080000000000000f9f01080000000000000fa10202000203020008",
        SECOND_PROTOCOL,
    ),
]


@pytest.mark.parametrize(("data", "record"), BY_KAFKAS_CLASSES)
def test_every_version_is_written_as_kafkas_own_classes_write_it(
    data: str, record: Any
) -> None:
    kafka = bytes.fromhex(data)

    assert write_state(record, kafka[1]) == kafka
    assert write_state(read_state(type(record), kafka), kafka[1]) == kafka


@pytest.mark.parametrize(("data", "record"), FROM_KAFKA)
def test_what_apache_kafka_wrote_is_read_and_written_the_same(
    data: str, record: Any
) -> None:
    kafka = bytes.fromhex(data)

    assert read_state(type(record), kafka) == record
    assert write_state(record, kafka[1]) == kafka


@pytest.mark.parametrize(
    ("cls", "version"), EVERY_RECORD, ids=[f"{c.__name__}-v{v}" for c, v in EVERY_RECORD]
)
def test_what_is_written_reads_back_equal_and_no_part_of_it_reads_at_all(
    cls: Any, version: int
) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(values(cls, version))
    def check(record: Any) -> None:
        data = write_state(record, version)
        assert data[:2] == version.to_bytes(2, "big")
        assert read_state(cls, data) == record
        assert read_state(cls, memoryview(data)) == record
        for end in range(len(data)):
            with pytest.raises(Malformed):
                read_state(cls, data[:end])
        with pytest.raises(Malformed, match="1 bytes too many"):
            read_state(cls, data + b"\0")

    check()


@given(st.binary(max_size=64), st.integers(0, len(EVERY_RECORD) - 1))
@settings(max_examples=1000, deadline=None, database=None)
def test_any_bytes_are_a_record_or_malformed(data: bytes, which: int) -> None:
    cls, version = EVERY_RECORD[which]

    try:
        record = read_state(cls, version.to_bytes(2, "big") + data)
    except Malformed:
        return

    assert read_state(cls, write_state(record, version)) == record


@pytest.mark.parametrize("version", [0, 1])
def test_a_key_in_the_topic_of_the_groups_says_of_what_kind_it_is(version: int) -> None:
    commit = OffsetCommitKey(group="shop", topic="orders", partition=3)
    group = GroupMetadataKey(group="shop")

    assert read_group_key(write_state(commit, version)) == commit
    assert read_group_key(memoryview(write_state(group, 2))) == group
    # KIP-848: the groups of newer brokers.
    with pytest.raises(UnsupportedVersion, match="no key of version 3"):
        read_group_key(b"\0\3\0\4shop")
    with pytest.raises(Malformed, match="1 bytes hold no version"):
        read_group_key(b"\0")


def test_a_version_that_a_record_has_not_is_neither_read_nor_written() -> None:
    with pytest.raises(UnsupportedVersion, match="TransactionLogValue has no version 2"):
        read_state(TransactionLogValue, b"\0\2" + bytes(40))
    with pytest.raises(UnsupportedVersion, match="GroupMetadataKey has no version 1"):
        write_state(GroupMetadataKey(group="shop"), 1)


def test_what_a_version_has_no_place_for_is_left_out_or_refused() -> None:
    commit = OffsetCommitValue(offset=7, leader_epoch=2, topic_id=UUID(int=1))
    fenced = TransactionLogValue(next_producer_epoch=4)

    assert read_state(OffsetCommitValue, write_state(commit, 2)) == OffsetCommitValue(
        offset=7
    )
    assert read_state(OffsetCommitValue, write_state(commit, 4)) == commit
    assert read_state(TransactionLogValue, write_state(fenced, 1)) == fenced
    with pytest.raises(Unwritable, match="has no field next_producer_epoch"):
        write_state(fenced, 0)
    with pytest.raises(Unwritable, match="OffsetCommitValue version 3"):
        write_state(OffsetCommitValue(offset="far"), 3)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_begins_with_what_the_record_is_for_and_has_a_class(path: Path) -> None:
    name = path.stem.title().replace("_", "")

    assert path.read_text().startswith("# ")
    assert getattr(state_records, name).__name__ == name


def test_the_door_opens_only_to_records_that_have_a_table() -> None:
    assert len(TABLES) == len(NAMES)
    assert state_records.OffsetCommitKey is OffsetCommitKey
    with pytest.raises(AttributeError, match="ProduceRequest"):
        _ = state_records.ProduceRequest
    with pytest.raises(SchemaError, match="expected versions, flexible, record, in this"):
        parse_record("versions 0\nflexible none\nrequest\n  a int8\n", "A")
