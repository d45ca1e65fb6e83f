"""Reading assigned partitions with confluent-kafka: from where, how much, how long."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from conformance.conftest import MakeTopic
from support.clients import (
    DEADLINE_SECONDS,
    Sent,
    assigned,
    error_code,
    new_name,
    now_ms,
    produce,
    read,
    read_to_the_end,
    result,
)


def numbers(messages: list[Message]) -> list[int]:
    return [int(message.value() or b"-1") for message in messages]


@pytest.fixture
def hundred(bootstrap: str, topic: str) -> str:
    """A topic that holds the records 0 to 99 in ten batches."""
    produce(
        bootstrap, topic, [b"%d" % number for number in range(100)], batch_num_messages=10
    )
    return topic


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (OFFSET_BEGINNING, list(range(100))),
        (0, list(range(100))),
        (57, list(range(57, 100))),
        (99, [99]),
        (100, []),
        (OFFSET_END, []),
    ],
)
def test_reading_starts_at_the_offset_asked_for(
    bootstrap: str, hundred: str, offset: int, expected: list[int]
) -> None:
    messages = read(bootstrap, hundred, offset=offset)

    assert numbers(messages) == expected
    assert [message.offset() for message in messages] == expected


@pytest.mark.parametrize(
    ("reset", "expected"), [("earliest", list(range(100))), ("latest", [])]
)
def test_an_offset_out_of_range_is_reset_as_the_client_wishes(
    bootstrap: str, hundred: str, reset: str, expected: list[int]
) -> None:
    messages = read(bootstrap, hundred, offset=5_000, auto_offset_reset=reset)

    assert numbers(messages) == expected


def test_an_offset_out_of_range_is_an_error_for_who_wants_one(
    bootstrap: str, hundred: str
) -> None:
    with pytest.raises(KafkaException) as refused:
        read(bootstrap, hundred, offset=5_000, auto_offset_reset="error")
    assert error_code(refused.value) == KafkaError._AUTO_OFFSET_RESET


def test_reading_from_a_moment_starts_at_the_first_record_not_before_it(
    bootstrap: str, topic: str
) -> None:
    start = now_ms() - 1_000_000
    records = [
        Sent(value=b"%d" % number, timestamp=start + number * 1000) for number in range(50)
    ]
    produce(bootstrap, topic, records, batch_num_messages=7)

    consumer = assigned(bootstrap, topic)
    asked = TopicPartition(topic, 0, start + 20_500)
    (found,) = consumer.offsets_for_times([asked], timeout=DEADLINE_SECONDS)
    consumer.close()
    assert numbers(read(bootstrap, topic, offset=found.offset)) == list(range(21, 50))


def test_small_fetches_read_everything_too(bootstrap: str, hundred: str) -> None:
    messages = read(
        bootstrap,
        hundred,
        fetch_message_max_bytes=1,
        fetch_max_bytes=1000,
        message_max_bytes=1000,
    )

    assert numbers(messages) == list(range(100))


def test_many_partitions_are_read_in_one_go(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=8)
    records = [Sent(value=b"%d" % number, partition=number % 8) for number in range(400)]
    produce(bootstrap, topic, records)

    messages = read(bootstrap, topic, partitions=range(8))
    assert sorted(numbers(messages)) == list(range(400))


def test_a_waiting_consumer_gets_a_new_record_at_once(bootstrap: str, topic: str) -> None:
    produce(bootstrap, topic, [b"first"])
    consumer = assigned(bootstrap, topic, fetch_wait_max_ms=10_000)
    wait_for_record(consumer)

    started = time.monotonic()
    produce(bootstrap, topic, [b"second"])
    assert wait_for_record(consumer).value() == b"second"
    assert time.monotonic() - started < 3, "the record waited for the end of the long poll"
    consumer.close()


def test_a_consumer_may_wait_for_more_bytes(bootstrap: str, topic: str) -> None:
    consumer = assigned(
        bootstrap, topic, fetch_min_bytes=100_000, fetch_wait_max_ms=700, offset=0
    )
    read_to_the_end(consumer)

    started = time.monotonic()
    produce(bootstrap, topic, [b"little"])
    assert wait_for_record(consumer).value() == b"little"
    assert time.monotonic() - started < 5
    consumer.close()


def wait_for_record(consumer: Consumer) -> Message:
    while True:
        message = consumer.poll(DEADLINE_SECONDS)
        assert message is not None, "no record came"
        if message.error() is None:
            return message


def test_seeking_reads_again_and_skips(bootstrap: str, hundred: str) -> None:
    consumer = assigned(bootstrap, hundred)
    assert len(read_to_the_end(consumer)) == 100

    consumer.seek(TopicPartition(hundred, 0, 95))
    assert numbers(read_to_the_end(consumer)) == [95, 96, 97, 98, 99]
    consumer.close()


def test_deleted_records_are_gone_and_the_log_starts_later(
    bootstrap: str, admin: AdminClient, hundred: str
) -> None:
    target = TopicPartition(hundred, 0, 33)
    low = result(admin.delete_records([target])[target]).low_watermark

    assert low == 33
    assert numbers(read(bootstrap, hundred)) == list(range(33, 100))
    consumer = assigned(bootstrap, hundred)
    assert consumer.get_watermark_offsets(target, timeout=DEADLINE_SECONDS) == (33, 100)
    consumer.close()


def test_reading_before_the_start_of_the_log_is_out_of_range(
    bootstrap: str, admin: AdminClient, hundred: str
) -> None:
    target = TopicPartition(hundred, 0, 60)
    result(admin.delete_records([target])[target])

    assert numbers(
        read(bootstrap, hundred, offset=10, auto_offset_reset="earliest")
    ) == list(range(60, 100))


def test_a_consumer_learns_that_a_topic_is_missing(bootstrap: str) -> None:
    missing = new_name("missing")
    consumer = assigned(bootstrap, missing)

    for _ in range(2):  # the first question has not created it
        found = consumer.list_topics(missing, timeout=DEADLINE_SECONDS).topics[missing]
        assert found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    consumer.close()
