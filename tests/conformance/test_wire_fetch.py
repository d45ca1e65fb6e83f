"""Fetch: whole batches, long polls, limits and sessions."""

from __future__ import annotations

import time
from typing import Any

import pytest
from conformance.conftest import MakeTopic
from support.batches import batch, headers
from support.raw import (
    FETCH,
    Wire,
    fetch,
    fetch_request,
    only_partition,
    produce,
    until_known,
)

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import FetchRequest


@pytest.fixture
def three_batches(wire: Wire, log: str) -> str:
    """Batches of ten, of one and of five records: offsets 0-9, 10, 11-15."""
    for size in (10, 1, 5):
        produce(wire, log, batch([b"x" * 100] * size))
    return log


def spans(partition: Any) -> list[tuple[int, int]]:
    """First and last offset of each batch."""
    return [
        (each.base_offset, each.base_offset + each.last_offset_delta)
        for each in headers(partition.records)
    ]


@pytest.mark.parametrize("version", range(4, 13))
def test_every_version_reads(wire: Wire, three_batches: str, version: int) -> None:
    found = fetch(wire, three_batches, 0, version=version)

    assert found.error_code == ErrorCode.NONE
    assert spans(found) == [(0, 9), (10, 10), (11, 15)]
    assert (found.high_watermark, found.last_stable_offset) == (16, 16)
    assert found.aborted_transactions is None
    if version >= 5:
        assert found.log_start_offset == 0


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (5, [(0, 9), (10, 10), (11, 15)]),
        (9, [(0, 9), (10, 10), (11, 15)]),
        (10, [(10, 10), (11, 15)]),
        (15, [(11, 15)]),
        (16, []),
    ],
)
def test_the_batch_around_the_offset_is_given_whole(
    wire: Wire, three_batches: str, offset: int, expected: list[tuple[int, int]]
) -> None:
    assert spans(fetch(wire, three_batches, offset)) == expected


def test_what_is_empty_is_empty_and_not_null(wire: Wire, log: str) -> None:
    found = fetch(wire, log, 0)

    assert found.records is not None
    assert len(found.records) == 0


@pytest.mark.parametrize("offset", [17, 1_000_000, -1])
def test_an_offset_outside_the_log_is_refused_at_once(
    wire: Wire, three_batches: str, offset: int
) -> None:
    started = time.monotonic()
    found = fetch(wire, three_batches, offset, max_wait_ms=5_000)

    assert found.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("name", "partition"), [(None, 1), ("missing-one", 0)])
def test_what_is_not_there_is_refused_at_once(
    wire: Wire, log: str, name: str | None, partition: int
) -> None:
    started = time.monotonic()
    found = fetch(wire, name or log, 0, partition=partition, max_wait_ms=5_000)

    assert found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert time.monotonic() - started < 2


def test_an_error_in_one_partition_ends_the_wait_for_all(
    wire: Wire, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=2)
    until_known(wire, topic, 2)
    request = fetch_request(topic, 0, max_wait_ms=5_000)
    request.topics[0].partitions.append(
        FetchRequest.Partition(index=1, fetch_offset=99, max_bytes=1_000)
    )
    started = time.monotonic()
    (found,) = wire.ask(request, FETCH).topics

    codes = {partition.index: partition.error_code for partition in found.partitions}
    assert codes == {0: ErrorCode.NONE, 1: ErrorCode.OFFSET_OUT_OF_RANGE}
    assert time.monotonic() - started < 2


def test_a_fetch_with_nothing_to_tell_waits_its_time(wire: Wire, log: str) -> None:
    started = time.monotonic()
    found = fetch(wire, log, 0, max_wait_ms=300)

    assert len(found.records) == 0
    assert 0.29 <= time.monotonic() - started < 2


def test_no_bytes_asked_for_is_no_wait(wire: Wire, log: str) -> None:
    started = time.monotonic()
    fetch(wire, log, 0, max_wait_ms=5_000, min_bytes=0)

    assert time.monotonic() - started < 2


def test_an_append_ends_the_wait(bootstrap: str, wire: Wire, log: str) -> None:
    wire.send(fetch_request(log, 0, max_wait_ms=9_000), FETCH)
    assert wire.is_silent(0.1)

    with Wire(bootstrap) as other:
        produce(other, log, batch([b"news"]))
    started = time.monotonic()
    assert spans(only_partition(wire.receive())) == [(0, 0)]
    assert time.monotonic() - started < 2


def test_an_append_of_too_few_bytes_does_not_end_the_wait(
    bootstrap: str, wire: Wire, log: str
) -> None:
    wire.send(fetch_request(log, 0, max_wait_ms=9_000, min_bytes=2_000), FETCH)

    with Wire(bootstrap) as other:
        produce(other, log, batch([b"little"]))
        assert wire.is_silent(0.2)
        produce(other, log, batch([b"x" * 2_500]))
    assert spans(only_partition(wire.receive())) == [(0, 0), (1, 1)]


def test_after_its_time_a_fetch_gives_what_there_is(wire: Wire, three_batches: str) -> None:
    started = time.monotonic()
    found = fetch(wire, three_batches, 11, max_wait_ms=300, min_bytes=1_000_000)

    assert spans(found) == [(11, 15)]
    assert time.monotonic() - started >= 0.29


@pytest.mark.parametrize("limit", ["max_bytes", "partition_max_bytes"])
def test_the_first_batch_is_given_even_above_the_limit(
    wire: Wire, three_batches: str, limit: str
) -> None:
    found = fetch(wire, three_batches, 0, **{limit: 1})

    assert spans(found) == [(0, 9)]


def test_limits_hold_after_the_first_batch(wire: Wire, three_batches: str) -> None:
    whole = len(fetch(wire, three_batches, 0).records)
    found = fetch(wire, three_batches, 0, partition_max_bytes=whole - 1)

    assert len(found.records) < whole


def test_only_the_first_partition_may_pass_the_limit(
    wire: Wire, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=2)
    until_known(wire, topic, 2)
    for partition in (0, 1):
        produce(wire, topic, batch([b"x" * 500]), partition=partition)
    request = fetch_request(topic, 0, max_bytes=10)
    request.topics[0].partitions.append(
        FetchRequest.Partition(index=1, fetch_offset=0, max_bytes=1_000_000)
    )

    (found,) = wire.ask(request, FETCH).topics
    assert sorted(len(each.records) > 0 for each in found.partitions) == [False, True]


def test_read_committed_without_transactions_reads_all(
    wire: Wire, three_batches: str
) -> None:
    request = fetch_request(three_batches, 0)
    request.isolation_level = 1
    found = only_partition(wire.ask(request, FETCH))

    assert spans(found) == [(0, 9), (10, 10), (11, 15)]
    assert not found.aborted_transactions


def test_a_session_is_declined(wire: Wire, three_batches: str, against: str) -> None:
    """A difference on purpose: Kafka keeps a session, we answer each fetch in full."""
    answer = wire.ask(fetch_request(three_batches, 0, session_epoch=0), FETCH)

    assert answer.error_code == ErrorCode.NONE
    assert (answer.session_id == 0) == (against == "streamer")
    assert len(only_partition(answer).records) > 0


@pytest.mark.parametrize(("session", "epoch"), [(4711, 1), (4711, 9), (0, 3)])
def test_a_session_nobody_opened_is_not_found(
    wire: Wire, log: str, session: int, epoch: int
) -> None:
    request = fetch_request(log, 0, session_id=session, session_epoch=epoch)

    assert wire.ask(request, FETCH).error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_fetch_without_a_session_gets_none(wire: Wire, three_batches: str) -> None:
    answer = wire.ask(fetch_request(three_batches, 0), FETCH)

    assert (answer.error_code, answer.session_id) == (ErrorCode.NONE, 0)
