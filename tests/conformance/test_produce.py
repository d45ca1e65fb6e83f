"""Producing with confluent-kafka: what was sent is what a reader gets."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
)
from conformance.conftest import MakeTopic
from support.clients import Sent, error_code, now_ms, produce, read


def test_key_value_and_headers_come_back_as_they_were_sent(
    bootstrap: str, topic: str
) -> None:
    headers = [("trace", b"1"), ("trace", b"2"), ("nothing", None), ("empty", b"")]
    produce(bootstrap, topic, [Sent(key=b"k", value=b"v", headers=headers)])

    (message,) = read(bootstrap, topic)
    assert (message.key(), message.value()) == (b"k", b"v")
    assert message.headers() == headers


def test_a_tombstone_is_not_an_empty_value(bootstrap: str, topic: str) -> None:
    produce(
        bootstrap,
        topic,
        [Sent(key=b"gone", value=None), Sent(key=b"empty", value=b""), Sent(key=b"")],
    )

    found = [(message.key(), message.value()) for message in read(bootstrap, topic)]
    assert found == [(b"gone", None), (b"empty", b""), (b"", None)]


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_level_of_acks_keeps_the_records_in_order(
    bootstrap: str, topic: str, acks: str
) -> None:
    values = [b"%d" % number for number in range(500)]
    produce(bootstrap, topic, values, acks=acks)

    assert [message.value() for message in read_all(bootstrap, topic, 500)] == values


def read_all(bootstrap: str, topic: str, count: int) -> list[Message]:
    """Read until `count` records are there: nobody says when acks=0 has arrived."""
    deadline = time.monotonic() + 10
    while len(found := read(bootstrap, topic)) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} arrived"
    return found


def test_acknowledgements_carry_consecutive_offsets(bootstrap: str, topic: str) -> None:
    reports = produce(bootstrap, topic, [b"x"] * 250, acks="all", batch_num_messages=20)

    assert [report.offset() for report in reports] == list(range(250))


def test_an_idempotent_producer_is_served(bootstrap: str, topic: str) -> None:
    values = [b"%d" % number for number in range(2_000)]
    reports = produce(
        bootstrap, topic, values, enable_idempotence=True, batch_num_messages=50
    )

    assert [report.offset() for report in reports] == list(range(2_000))
    assert [message.value() for message in read(bootstrap, topic)] == values


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_taken_and_given_back(
    bootstrap: str, topic: str, codec: str
) -> None:
    values = [b"%06d " % number * 20 for number in range(1_000)]
    produce(bootstrap, topic, values, compression_type=codec)

    assert [message.value() for message in read(bootstrap, topic)] == values


def test_timestamps_of_the_producer_are_kept(bootstrap: str, topic: str) -> None:
    now = now_ms()
    stamps = [now, now - 3_600_000, now - 86_400_000, 1]
    produce(bootstrap, topic, [Sent(value=b"x", timestamp=stamp) for stamp in stamps])

    found = [message.timestamp() for message in read(bootstrap, topic)]
    assert found == [(TIMESTAMP_CREATE_TIME, stamp) for stamp in stamps]


def test_log_append_time_replaces_the_timestamps_of_the_producer(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"message.timestamp.type": "LogAppendTime"})
    before = now_ms()
    (report,) = produce(bootstrap, topic, [Sent(value=b"x", timestamp=1)])

    (message,) = read(bootstrap, topic)
    kind, stamp = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert before <= stamp <= now_ms()
    assert report.timestamp() == (TIMESTAMP_LOG_APPEND_TIME, stamp)


def test_a_large_record_travels_whole(bootstrap: str, topic: str) -> None:
    value = bytes(range(256)) * 3_900  # nearly a mebibyte, the default limit
    produce(bootstrap, topic, [value])

    (message,) = read(bootstrap, topic)
    assert message.value() == value


def test_many_large_batches_arrive_whole(bootstrap: str, topic: str) -> None:
    values = [b"%05d" % number * 200 for number in range(8_000)]
    produce(bootstrap, topic, values)

    assert [message.value() for message in read(bootstrap, topic)] == values


def test_a_record_above_the_limit_of_the_topic_is_refused(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"max.message.bytes": "2000"})
    produce(bootstrap, topic, [b"x" * 1_900])

    with pytest.raises(KafkaException) as refused:
        produce(bootstrap, topic, [b"x" * 2_000])
    assert error_code(refused.value) == KafkaError.MSG_SIZE_TOO_LARGE
    assert len(read(bootstrap, topic)) == 1


def test_a_topic_may_allow_more_than_the_default_limit(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"max.message.bytes": "5000000"})
    produce(bootstrap, topic, [b"x" * 4_000_000], message_max_bytes=5_000_000)

    (message,) = read(bootstrap, topic, fetch_message_max_bytes=1_000)
    assert len(message.value() or b"") == 4_000_000


def test_a_timestamp_too_far_ahead_is_refused(bootstrap: str, topic: str) -> None:
    in_two_hours = now_ms() + 7_200_000

    with pytest.raises(KafkaException) as refused:
        produce(bootstrap, topic, [Sent(value=b"x", timestamp=in_two_hours)])
    assert error_code(refused.value) == KafkaError.INVALID_TIMESTAMP


def test_a_compacted_topic_wants_keys(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(config={"cleanup.policy": "compact"})
    produce(bootstrap, topic, [Sent(key=b"k", value=b"v")])

    with pytest.raises(KafkaException) as refused:
        produce(bootstrap, topic, [Sent(value=b"without a key")])
    assert error_code(refused.value) == KafkaError.INVALID_RECORD


def test_partitions_are_separate_logs(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=3)
    produce(
        bootstrap,
        topic,
        [Sent(value=b"%d" % number, partition=number % 3) for number in range(30)],
    )

    for partition in range(3):
        messages = read(bootstrap, topic, partitions=[partition])
        assert [message.offset() for message in messages] == list(range(10))
        assert [int(message.value() or b"") % 3 for message in messages] == [partition] * 10
