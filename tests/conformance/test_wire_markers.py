"""What transactions leave in a log, and what readers of either kind are shown."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from conformance.conftest import MakeTopic
from support.batches import (
    CONTROL,
    HEADER,
    TRANSACTIONAL,
    batch,
    headers,
    record,
)
from support.clients import new_name, now_ms
from support.raw import (
    FETCH,
    Wire,
    fetch,
    fetch_request,
    offsets,
    only_partition,
    produce,
    until_known,
)
from support.raw_producer import (
    RawProducer,
    describe,
    patiently,
    producers,
    until,
)

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    ListTransactionsRequest,
    WriteTxnMarkersRequest,
)

COMMITTED = 1  # the isolation level

ABORT, COMMIT = 0, 1  # as a marker's key says it


@pytest.fixture
def producer(wire: Wire) -> RawProducer:
    return RawProducer(wire).started()


def base_offsets(answer: Any) -> list[int]:
    return [each.base_offset for each in headers(answer.records)]


def aborted(answer: Any) -> list[tuple[int, int]]:
    found = answer.aborted_transactions or []
    return sorted((each.producer_id, each.first_offset) for each in found)


# The markers


@pytest.mark.parametrize(("commit", "kind"), [(True, COMMIT), (False, ABORT)])
def test_a_marker_is_a_control_batch_of_one_record(
    wire: Wire, log: str, producer: RawProducer, commit: bool, kind: int
) -> None:
    producer.write(log, b"a", b"b")
    producer.finish(commit=commit)

    data = bytes(fetch(wire, log, 0).records)
    written, marker = headers(data)
    assert (written.base_offset, marker.base_offset) == (0, 2)
    assert marker.attributes == CONTROL | TRANSACTIONAL
    assert (marker.producer_id, marker.producer_epoch) == (producer.id, producer.epoch)
    assert (marker.base_sequence, marker.record_count) == (-1, 1)
    assert marker.last_offset_delta == 0
    assert abs(marker.max_timestamp - now_ms()) < 60_000

    (state,) = producers(wire, log).active_producers
    key = struct.pack(">hh", 0, kind)
    value = struct.pack(">hi", 0, state.coordinator_epoch)
    assert data[-len(record(0, key, value)) :] == record(0, key, value)
    assert marker.length + 12 == HEADER.size + len(record(0, key, value))


def test_each_partition_gets_its_marker(
    wire: Wire, make_topic: MakeTopic, producer: RawProducer
) -> None:
    topic = make_topic(partitions=4)
    until_known(wire, topic, 4)
    for partition in (0, 1, 3):
        producer.write(topic, b"x", partition=partition)
    producer.finish(commit=True)

    ends = [fetch(wire, topic, 0, partition=each).high_watermark for each in range(4)]
    assert ends == [2, 2, 0, 2]


def test_a_client_may_not_write_markers_by_producing(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    producer.add(log)
    answer = producer.send(log, attributes=TRANSACTIONAL | CONTROL)

    assert answer.error_code == ErrorCode.INVALID_RECORD
    producer.finish(commit=False)


# The last stable offset


def test_the_stable_end_waits_for_the_oldest_open_transaction(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    produce(wire, log, batch([b"before"], timestamp=now_ms()))
    producer.write(log, b"a", b"b")
    produce(wire, log, batch([b"after"], timestamp=now_ms()))

    found = fetch(wire, log, 0, isolation=COMMITTED)
    assert (found.last_stable_offset, found.high_watermark) == (1, 4)
    assert base_offsets(found) == [0]
    assert base_offsets(fetch(wire, log, 0)) == [0, 1, 3]
    assert offsets(wire, log, -1, isolation=COMMITTED).offset == 1
    assert offsets(wire, log, -1).offset == 4

    producer.finish(commit=True)
    found = fetch(wire, log, 0, isolation=COMMITTED)
    assert (found.last_stable_offset, found.high_watermark) == (5, 5)
    assert base_offsets(found) == [0, 1, 3, 4]
    assert offsets(wire, log, -1, isolation=COMMITTED).offset == 5


def test_of_two_open_transactions_the_older_one_holds_the_end(wire: Wire, log: str) -> None:
    first, second = RawProducer(wire).started(), RawProducer(wire).started()
    first.write(log, b"a")
    second.write(log, b"b")

    def end() -> int:
        found: int = fetch(wire, log, 0, isolation=COMMITTED).last_stable_offset
        return found

    second.finish(commit=True)
    assert end() == 0
    first.finish(commit=False)
    assert end() == 4


def test_a_reader_of_committed_records_waits_for_the_commit(
    bootstrap: str, wire: Wire, log: str, producer: RawProducer
) -> None:
    producer.write(log, b"a")

    with Wire(bootstrap) as reader:
        asked = fetch_request(log, 0, max_wait_ms=8_000, isolation=COMMITTED)
        reader.send(asked, FETCH)
        assert reader.is_silent(0.2)
        began = time.monotonic()
        producer.finish(commit=True)
        assert base_offsets(only_partition(reader.receive())) == [0, 1]
        assert time.monotonic() - began < 3


def test_beyond_the_stable_end_there_is_nothing_to_read_yet(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    producer.write(log, b"a", b"b")

    found = fetch(wire, log, 1, isolation=COMMITTED)
    assert (found.error_code, found.records) == (ErrorCode.NONE, b"")
    producer.finish(commit=True)


# What was aborted


def test_readers_are_told_what_was_aborted_in_what_they_read(wire: Wire, log: str) -> None:
    one, two = RawProducer(wire).started(), RawProducer(wire).started()
    one.write(log, b"0")
    two.write(log, b"1")
    one.finish(commit=False)  # 2
    two.finish(commit=True)  # 3
    one.write(log, b"4")
    two.write(log, b"5")
    two.finish(commit=False)  # 6
    one.finish(commit=False)  # 7

    def told(start: int, **wishes: int) -> list[tuple[int, int]]:
        return aborted(fetch(wire, log, start, isolation=COMMITTED, **wishes))

    assert told(0) == sorted([(one.id, 0), (one.id, 4), (two.id, 5)])
    assert told(3) == sorted([(one.id, 4), (two.id, 5)])
    assert told(7) == [(one.id, 4)]
    assert told(8) == []
    assert fetch(wire, log, 0).aborted_transactions in (None, [])
    small = fetch(wire, log, 0, isolation=COMMITTED, partition_max_bytes=1)
    assert base_offsets(small) == [0]
    assert (one.id, 0) in aborted(small)


def test_a_commit_leaves_nothing_to_be_told(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    producer.write(log, b"a")
    producer.finish(commit=True)

    assert aborted(fetch(wire, log, 0, isolation=COMMITTED)) == []


# What administrators see


def test_the_producers_of_a_partition_are_described(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    assert producers(wire, log).active_producers == []
    produce(wire, log, batch([b"before"], timestamp=now_ms()))
    producer.write(log, b"a", b"b")

    (open_one,) = producers(wire, log).active_producers
    assert (open_one.producer_id, open_one.producer_epoch) == (producer.id, 0)
    assert (open_one.last_sequence, open_one.current_txn_start_offset) == (1, 1)
    assert open_one.coordinator_epoch == -1
    assert abs(open_one.last_timestamp - now_ms()) < 60_000

    producer.finish(commit=True)
    (ended,) = producers(wire, log).active_producers
    assert ended.current_txn_start_offset == -1
    assert ended.coordinator_epoch >= 0


def test_producers_of_no_partition_are_not_described(wire: Wire, log: str) -> None:
    for topic, partition in ((log, 7), ("no-such-topic", 0)):
        found = producers(wire, topic, partition)
        assert found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_transaction_is_described(wire: Wire, log: str) -> None:
    producer = RawProducer(wire).started(timeout_ms=54_321)
    empty = producer.described()
    assert (empty.error_code, empty.transaction_state) == (ErrorCode.NONE, "Empty")
    assert (empty.transaction_timeout_ms, empty.topics) == (54_321, [])
    assert (empty.producer_id, empty.producer_epoch) == (producer.id, 0)
    assert empty.transaction_start_time_ms == -1

    producer.write(log, b"a")
    ongoing = producer.described()
    assert ongoing.transaction_state == "Ongoing"
    assert [(each.name, each.partitions) for each in ongoing.topics] == [(log, [0])]
    assert abs(ongoing.transaction_start_time_ms - now_ms()) < 60_000

    producer.finish(commit=True)
    complete = producer.described()
    assert (complete.transaction_state, complete.topics) == ("CompleteCommit", [])


def test_a_name_nobody_used_is_not_found(wire: Wire) -> None:
    RawProducer(wire).started()  # so that somebody looks after names
    found = describe(wire, new_name("txn"))

    assert found.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND


def listed(wire: Wire, version: int = 1, **filters: Any) -> dict[str, tuple[int, str]]:
    asked = ListTransactionsRequest(**filters)
    answer = patiently(lambda: wire.ask(asked, version))
    assert answer.error_code == ErrorCode.NONE
    return {
        each.transactional_id: (each.producer_id, each.transaction_state)
        for each in answer.transaction_states
    }


@pytest.mark.parametrize("version", range(2))
def test_transactions_are_listed(wire: Wire, log: str, version: int) -> None:
    empty, ongoing = RawProducer(wire).started(), RawProducer(wire).started()
    ongoing.write(log, b"a")

    found = listed(wire, version)
    assert found[empty.name] == (empty.id, "Empty")
    assert found[ongoing.name] == (ongoing.id, "Ongoing")

    found = listed(wire, version, state_filters=["Ongoing"])
    assert ongoing.name in found
    assert empty.name not in found
    found = listed(wire, version, producer_id_filters=[empty.id])
    assert found == {empty.name: (empty.id, "Empty")}
    both = {"producer_id_filters": [empty.id], "state_filters": ["Ongoing"]}
    assert listed(wire, version, **both) == {}
    ongoing.finish(commit=False)


def test_transactions_are_listed_by_their_age(wire: Wire, log: str) -> None:
    ongoing = RawProducer(wire).started()
    ongoing.write(log, b"a")
    time.sleep(0.05)

    assert ongoing.name in listed(wire, duration_filter=20)
    assert ongoing.name not in listed(wire, duration_filter=3_600_000)
    ongoing.finish(commit=False)


def test_transactions_are_listed_by_a_pattern(wire: Wire) -> None:
    name = new_name("pattern")
    RawProducer(wire, f"{name}-a").started()
    RawProducer(wire, f"{name}-b").started()

    def found(pattern: str) -> set[str]:
        return set(listed(wire, 2, transactional_id_pattern=pattern))

    assert found(f"{name}-.*") == {f"{name}-a", f"{name}-b"}
    assert found(f"{name}-a") == {f"{name}-a"}
    assert found(f"{name}") == set(), "the whole name must match"
    assert found(f"({name}-a|nobody)") == {f"{name}-a"}
    assert found("") >= {f"{name}-a", f"{name}-b"}


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?=a)", r"(a)\1"])
def test_a_pattern_that_is_none_is_refused(wire: Wire, pattern: str) -> None:
    RawProducer(wire).started()
    asked = ListTransactionsRequest(transactional_id_pattern=pattern)

    answer = wire.ask(asked, 2)
    assert answer.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
    assert answer.transaction_states == []


def test_a_state_that_does_not_exist_is_named(wire: Wire) -> None:
    RawProducer(wire).started()
    asked = ListTransactionsRequest(state_filters=["Ongoing", "Sleeping"])

    answer = wire.ask(asked, 1)
    assert answer.unknown_state_filters == ["Sleeping"]
    assert answer.error_code == ErrorCode.NONE


# WriteTxnMarkers


def write_marker(
    wire: Wire, producer: RawProducer, topic: str, partition: int = 0, **wishes: Any
) -> int:
    marker: dict[str, Any] = {
        "producer_id": producer.id,
        "producer_epoch": producer.epoch,
        "transaction_result": False,
        "coordinator_epoch": 0,
        "topics": [WriteTxnMarkersRequest.Topic(name=topic, partition_indexes=[partition])],
    }
    asked = WriteTxnMarkersRequest(
        markers=[WriteTxnMarkersRequest.Marker(**(marker | wishes))]
    )
    (answer,) = wire.ask(asked, 1).markers
    ((found,),) = [each.partitions for each in answer.topics]
    code: int = found.error_code
    return code


def test_an_administrator_ends_a_transaction_that_hangs(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    producer.write(log, b"a")

    assert write_marker(wire, producer, log) == ErrorCode.NONE
    until(
        lambda: fetch(wire, log, 0, isolation=COMMITTED).last_stable_offset == 2,
        "the transaction still holds the end",
    )
    assert aborted(fetch(wire, log, 0, isolation=COMMITTED)) == [(producer.id, 0)]
    producer.finish(commit=False)


def test_markers_that_come_too_late_are_refused(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    producer.write(log, b"a")
    producer.finish(commit=True)
    successor = RawProducer(wire, producer.name).started()
    successor.write(log, b"b")

    code = write_marker(wire, producer, log)
    assert code == ErrorCode.INVALID_PRODUCER_EPOCH
    code = write_marker(wire, successor, log, coordinator_epoch=-1)
    assert code == ErrorCode.TRANSACTION_COORDINATOR_FENCED
    found = fetch(wire, log, 0, isolation=COMMITTED)
    assert found.last_stable_offset == 2
    successor.finish(commit=True)


def test_markers_for_no_partition_are_refused(
    wire: Wire, log: str, producer: RawProducer
) -> None:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert write_marker(wire, producer, log, 7) == unknown
    assert write_marker(wire, producer, "no-such-topic") == unknown
