"""Produce, batch by batch: what is taken, how it is kept, what is refused and why."""

from __future__ import annotations

import pytest
from conformance.conftest import MakeTopic
from support.batches import (
    CONTROL,
    LOG_APPEND_TIME,
    BatchHeader,
    batch,
    headers,
    sealed,
)
from support.clients import now_ms
from support.raw import (
    PRODUCE,
    Wire,
    fetch,
    leader_epoch,
    only_partition,
    produce,
    produce_request,
    request_header,
    until_known,
)

from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import ApiVersionsRequest, ProduceRequest, write_request

ZSTD = 4


@pytest.mark.parametrize("version", range(3, 12))
def test_every_version_takes_a_batch(wire: Wire, log: str, version: int) -> None:
    first = produce(wire, log, batch([b"a", b"b", b"c"]), version=version)
    second = produce(wire, log, batch([b"d"]), version=version)

    assert (first.error_code, first.base_offset) == (ErrorCode.NONE, 0)
    assert (second.error_code, second.base_offset) == (ErrorCode.NONE, 3)
    assert first.log_append_time_ms == -1
    if version >= 5:
        assert first.log_start_offset == 0


def test_the_log_gives_offset_and_epoch_and_changes_nothing_else(
    wire: Wire, log: str
) -> None:
    sent = [batch([b"a", b"b"], leader_epoch=77), batch([b"c"])]
    for each in sent:
        produce(wire, log, each)

    found = bytes(fetch(wire, log, 0).records)
    first, second = headers(found)
    epoch = leader_epoch(wire, log)
    assert (first.base_offset, second.base_offset) == (0, 2)
    assert (first.leader_epoch, second.leader_epoch) == (epoch, epoch)
    size = len(sent[0])
    assert found[16:size] == sent[0][16:]
    assert found[size + 16 :] == sent[1][16:]


def test_acks_0_is_not_answered(wire: Wire, log: str) -> None:
    wire.send_frame(produce_frame(log, batch([b"quiet"]), acks=0))
    hello = ApiVersionsRequest(client_software_name="raw", client_software_version="1")

    assert wire.ask(hello, 3).error_code == ErrorCode.NONE
    produce(wire, log, batch([b"loud"]))
    assert [each.record_count for each in headers(fetch(wire, log, 0).records)] == [1, 1]


def test_acks_0_that_fails_closes_the_connection(wire: Wire, log: str) -> None:
    wire.send_frame(produce_frame(log, batch([b"x"]), acks=0, partition=9))

    assert wire.is_closed()


def produce_frame(topic: str, records: bytes, **wishes: int) -> bytes:
    """A produce request that no answer is expected to."""
    request = produce_request(topic, records, **wishes)
    body = b"".join(bytes(chunk) for chunk in write_request(request, PRODUCE))
    return request_header(ApiKey.PRODUCE, PRODUCE, 0) + body


def test_log_append_time_is_written_into_the_batch(
    wire: Wire, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"message.timestamp.type": "LogAppendTime"})
    until_known(wire, topic)
    before = now_ms()
    answer = produce(wire, topic, batch([b"a", b"b"], timestamp=5))

    stored = bytes(fetch(wire, topic, 0).records)
    (found,) = headers(stored)
    assert before <= answer.log_append_time_ms == found.max_timestamp
    assert found.attributes & LOG_APPEND_TIME
    resealed = sealed(
        BatchHeader(**{**{n: getattr(found, n) for n in found.__slots__}, "crc": -1}),
        stored[61:],
    )
    assert resealed == stored, "the checksum does not fit the new timestamp"


def in_the_future() -> int:
    return now_ms() + 7_200_000


REFUSED = {
    "no records at all": (b"", ErrorCode.INVALID_RECORD),
    "two batches": (batch([b"a"]) + batch([b"b"]), ErrorCode.INVALID_RECORD),
    "magic 1": (batch([b"a"], magic=1), ErrorCode.INVALID_RECORD),
    "base offset": (batch([b"a"], base_offset=7), ErrorCode.INVALID_RECORD),
    "too large": (batch([bytes(1_100_000)]), ErrorCode.MESSAGE_TOO_LARGE),
    "wrong checksum": (batch([b"a"], crc=1), ErrorCode.CORRUPT_MESSAGE),
    "length too short": (batch([b"a"], length=20), ErrorCode.CORRUPT_MESSAGE),
    "no records inside": (
        batch([], last_offset_delta=0, record_count=0),
        ErrorCode.INVALID_RECORD,
    ),
    "fewer records than offsets": (
        batch([b"a", b"b"], last_offset_delta=5),
        ErrorCode.INVALID_RECORD,
    ),
    "control": (batch([b"a"], attributes=CONTROL), ErrorCode.INVALID_RECORD),
    "a producer without a sequence": (
        batch([b"a"], producer_id=5, producer_epoch=0),
        ErrorCode.INVALID_RECORD,
    ),
    "from the future": (
        batch([b"a"], timestamp=in_the_future()),
        ErrorCode.INVALID_TIMESTAMP,
    ),
}


@pytest.mark.parametrize(("records", "code"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_batch_is_refused_and_leaves_no_trace(
    wire: Wire, log: str, records: bytes, code: ErrorCode
) -> None:
    answer = produce(wire, log, records)

    assert ErrorCode(answer.error_code) == code
    assert answer.base_offset == -1
    after = produce(wire, log, batch([b"right"]))
    assert (after.error_code, after.base_offset) == (ErrorCode.NONE, 0)


# Refused by both, except for the last one, but not with the same words. Clients send a
# batch again after CORRUPT_MESSAGE: right when it was cut on its way, and useless for one
# of a format that we do not serve.
DIFFERENT = {
    "cut off": (
        batch([b"a" * 100])[:-30],
        {"streamer": ErrorCode.CORRUPT_MESSAGE, "kafka": ErrorCode.INVALID_RECORD},
    ),
    "half a header": (
        batch([b"a"])[:40],
        {"streamer": ErrorCode.CORRUPT_MESSAGE, "kafka": ErrorCode.INVALID_RECORD},
    ),
    "magic 3": (
        batch([b"a"], magic=3),
        {"streamer": ErrorCode.INVALID_RECORD, "kafka": ErrorCode.CORRUPT_MESSAGE},
    ),
    "the log's kind of timestamp": (
        batch([b"a"], attributes=LOG_APPEND_TIME),
        {"streamer": ErrorCode.INVALID_TIMESTAMP, "kafka": ErrorCode.NONE},
    ),
}


@pytest.mark.parametrize(("records", "codes"), DIFFERENT.values(), ids=DIFFERENT)
def test_these_batches_are_judged_differently_on_purpose(
    wire: Wire, log: str, against: str, records: bytes, codes: dict[str, ErrorCode]
) -> None:
    assert ErrorCode(produce(wire, log, records).error_code) == codes[against]


def test_null_records_are_refused(wire: Wire, log: str, against: str) -> None:
    if against == "kafka":
        pytest.skip("Apache Kafka 4.1 never answers this request")
    answer = produce(wire, log, None)

    assert answer.error_code == ErrorCode.INVALID_RECORD


def test_an_unknown_compression_is_refused(wire: Wire, log: str) -> None:
    answer = produce(wire, log, batch([b"a"], attributes=6))

    assert answer.error_code != ErrorCode.NONE


def test_zstd_came_with_version_7(wire: Wire, log: str) -> None:
    answer = produce(wire, log, batch([b"a"], attributes=ZSTD), version=6)

    assert answer.error_code == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


def test_records_without_a_key_are_named_where_keys_are_needed(
    wire: Wire, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"cleanup.policy": "compact"})
    until_known(wire, topic)
    answer = produce(wire, topic, batch([b"a", b"b"]))

    assert answer.error_code == ErrorCode.INVALID_RECORD
    assert [error.batch_index for error in answer.record_errors] == [0, 1]
    assert produce(wire, topic, batch([b"a"], key=b"k")).error_code == ErrorCode.NONE


def test_a_batch_must_fit_a_segment(wire: Wire, make_topic: MakeTopic) -> None:
    topic = make_topic(config={"segment.bytes": "1048576", "max.message.bytes": "3000000"})
    until_known(wire, topic)

    answer = produce(wire, topic, batch([bytes(2_000_000)]))
    assert answer.error_code == ErrorCode.RECORD_LIST_TOO_LARGE


@pytest.mark.parametrize("acks", [-2, 2, 7])
def test_only_three_kinds_of_acks_are_known(wire: Wire, log: str, acks: int) -> None:
    answer = produce(wire, log, batch([b"a"]), acks=acks)

    assert answer.error_code == ErrorCode.INVALID_REQUIRED_ACKS


@pytest.mark.parametrize(("name", "partition"), [(None, 1), (None, -1), ("missing-one", 0)])
def test_what_is_not_there_takes_nothing(
    wire: Wire, log: str, name: str | None, partition: int
) -> None:
    answer = produce(wire, name or log, batch([b"a"]), partition=partition)

    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_one_partition_fails_and_the_others_go_on(
    wire: Wire, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=3)
    until_known(wire, topic, 3)
    records = [batch([b"a"]), batch([b"b"], crc=1), batch([b"c"])]
    request = ProduceRequest(
        acks=-1,
        timeout_ms=10_000,
        topics=[
            ProduceRequest.Topic(
                name=topic,
                partitions=[
                    ProduceRequest.Partition(index=index, records=each)
                    for index, each in enumerate(records)
                ],
            )
        ],
    )

    (found,) = wire.ask(request, PRODUCE).topics
    codes = {partition.index: partition.error_code for partition in found.partitions}
    assert codes == {0: 0, 1: ErrorCode.CORRUPT_MESSAGE, 2: 0}


def test_requests_in_flight_are_taken_in_their_order(wire: Wire, log: str) -> None:
    for number in range(50):
        wire.send(produce_request(log, batch([b"%d" % number])), PRODUCE)

    offsets = [only_partition(wire.receive()).base_offset for _ in range(50)]
    assert offsets == list(range(50))
