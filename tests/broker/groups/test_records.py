"""The records of `__consumer_offsets`: written, read again, and read by Apache Kafka."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.core import running_broker
from support.kafka import run_tool

from streamer.broker.groups.offsets import Commit
from streamer.broker.groups.records import (
    GroupEntry,
    OffsetEntry,
    group_record,
    offset_record,
    read,
)
from streamer.broker.names import Place, Producer
from streamer.wire.record import Record
from streamer.wire.state_records import GroupMetadataValue, Malformed, UnsupportedVersion

PLACE = Place("orders", 3)
NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    "commit",
    [
        Commit(offset=42, leader_epoch=5, metadata="größe", time_ms=NOW, at=9),
        Commit(offset=0, time_ms=0, at=9),
        Commit(offset=42, time_ms=NOW, expires_ms=NOW + 1, at=9),
    ],
)
def test_an_offset_comes_back_as_it_was_written(commit: Commit) -> None:
    record = offset_record("shop", PLACE, commit, NOW)

    assert record.timestamp == NOW
    assert read(record._replace(offset=9)) == OffsetEntry("shop", PLACE, commit, 9)


def test_the_bytes_are_those_of_apache_kafka() -> None:
    record = offset_record(
        "g", Place("t", 1), Commit(offset=2, leader_epoch=3, time_ms=4), NOW
    )

    assert record.key == b"\0\1" + b"\0\1g" + b"\0\1t" + b"\0\0\0\1"
    assert record.value == (
        b"\0\3" + (2).to_bytes(8) + (3).to_bytes(4) + b"\0\0" + (4).to_bytes(8)
    )


def test_a_group_comes_back_as_it_was_written() -> None:
    value = GroupMetadataValue(
        protocol_type="consumer",
        generation=3,
        protocol="range",
        leader="a",
        current_state_timestamp=NOW,
        members=[
            GroupMetadataValue.Member(
                member_id="a", client_id="c", session_timeout=6000, subscription=b"s"
            )
        ],
    )

    assert read(group_record("shop", value, NOW)) == GroupEntry("shop", value)


def test_a_tombstone_has_no_value() -> None:
    offset = offset_record("shop", PLACE, None, NOW)
    group = group_record("shop", None, NOW)

    assert offset.value is group.value is None
    assert read(offset._replace(offset=9)) == OffsetEntry("shop", PLACE, None, 9)
    assert read(group) == GroupEntry("shop", None)


def test_kinds_of_later_brokers_are_passed_over_but_no_damage_is() -> None:
    assert read(Record(key=b"\0\3\0\1g", value=b"?")) is None
    written = offset_record("shop", PLACE, Commit(offset=1, time_ms=NOW), NOW)
    with pytest.raises(Malformed):
        read(written._replace(key=b"\0"))
    with pytest.raises(Malformed):
        read(written._replace(value=b"\0\3\0"))
    with pytest.raises(UnsupportedVersion):
        read(written._replace(value=b"\0\x63\0"))


def decoded(dumped: str) -> list[tuple[Any, Any]]:
    """The keys and values that Kafka's tool has printed, each with its version."""
    found = re.findall(r" key: (\{.*?\}) payload: (.*)$", dumped, re.MULTILINE)
    return [
        (json.loads(key), None if value == "<DELETE>" else json.loads(value))
        for key, value in found
    ]


@pytest.mark.kafka
async def test_kafkas_decoder_reads_them(tmp_path: Path) -> None:
    ordinary = Commit(offset=42, leader_epoch=5, metadata="here", time_ms=NOW)
    expiring = Commit(offset=43, time_ms=NOW, expires_ms=NOW + 1)
    group = GroupMetadataValue(protocol_type="consumer", generation=3, protocol="range")
    async with running_broker(tmp_path) as broker:
        ledger, log = broker.groups.ledger, broker.groups.log
        await ledger.commit("shop", {PLACE: ordinary})
        await ledger.commit("shop", {PLACE: expiring}, producer=Producer(7, 0))
        await log.append("shop", [group_record("shop", group, NOW)])
        await ledger.delete("shop", [PLACE])
    [segment] = (tmp_path / "__consumer_offsets-0").glob("*.log")

    printed = run_tool(
        "kafka.tools.DumpLogSegments", "--offsets-decoder", "--files", str(segment)
    ).stdout

    assert set(re.findall(r"isvalid: (\w+)", printed)) == {"true"}
    [first, second, third, last] = decoded(printed)
    place = {"group": "shop", "topic": "orders", "partition": 3}
    assert first[0] == second[0] == last[0] == {"type": "1", "data": place}
    assert first[1]["version"] == "3"
    assert first[1]["data"] == {
        "offset": 42,
        "leaderEpoch": 5,
        "metadata": "here",
        "commitTimestamp": NOW,
    }
    assert second[1]["version"] == "1"
    assert second[1]["data"]["expireTimestamp"] == NOW + 1
    assert third[0] == {"type": "2", "data": {"group": "shop"}}
    assert (third[1]["version"], third[1]["data"]["generation"]) == ("3", 3)
    assert last[1] is None
