"""Transactions as librdkafka makes them: whole, or not there at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from conformance.conftest import MakeTopic
from support.clients import (
    DEADLINE_SECONDS,
    committed,
    member,
    new_name,
    owned,
    poll_until,
    produce,
    read,
    take,
    transactional,
    values,
    wait_until,
)


def whole(bootstrap: str, topic: str) -> list[bytes | None]:
    """What somebody reads who waits for commits."""
    return values(read(bootstrap, topic, isolation_level="read_committed"))


def written(bootstrap: str, topic: str) -> list[bytes | None]:
    """What somebody reads who does not care."""
    return values(read(bootstrap, topic, isolation_level="read_uncommitted"))


def send(producer: Producer, topic: str, *records: bytes, partition: int = 0) -> None:
    """Produce, and make sure that the broker has it."""
    for record in records:
        producer.produce(topic, record, partition=partition)
    assert producer.flush(DEADLINE_SECONDS) == 0


def refusal(act: Callable[[], object]) -> KafkaError:
    with pytest.raises(KafkaException) as refused:
        act()
    error = refused.value.args[0]
    assert isinstance(error, KafkaError)
    return error


def test_what_is_committed_is_read_and_what_is_aborted_is_not(
    bootstrap: str, topic: str
) -> None:
    producer = transactional(bootstrap)
    for number in range(6):
        producer.begin_transaction()
        send(producer, topic, b"%d-a" % number, b"%d-b" % number)
        if number % 2:
            producer.abort_transaction(DEADLINE_SECONDS)
        else:
            producer.commit_transaction(DEADLINE_SECONDS)

    everything = [b"%d-%s" % (number, part) for number in range(6) for part in (b"a", b"b")]
    kept = [each for each in everything if int(each[:1]) % 2 == 0]
    assert whole(bootstrap, topic) == kept
    assert written(bootstrap, topic) == everything


def test_markers_take_offsets_that_nobody_reads(bootstrap: str, topic: str) -> None:
    producer = transactional(bootstrap)
    for number in range(3):
        producer.begin_transaction()
        send(producer, topic, b"%d" % number)
        producer.commit_transaction(DEADLINE_SECONDS)

    found = read(bootstrap, topic, isolation_level="read_committed")
    assert [each.offset() for each in found] == [0, 2, 4]


def test_what_is_open_is_read_by_those_alone_who_want_it(
    bootstrap: str, topic: str
) -> None:
    produce(bootstrap, topic, [b"before"])
    producer = transactional(bootstrap)
    producer.begin_transaction()
    send(producer, topic, b"open")
    produce(bootstrap, topic, [b"after"])

    assert whole(bootstrap, topic) == [b"before"]
    assert written(bootstrap, topic) == [b"before", b"open", b"after"]
    producer.commit_transaction(DEADLINE_SECONDS)
    wait_until(
        lambda: whole(bootstrap, topic) == [b"before", b"open", b"after"],
        "the commit never showed",
    )


def test_a_transaction_spans_partitions_and_topics(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    one, other = make_topic(partitions=8), make_topic()
    producer = transactional(bootstrap)
    for commit in (True, False):
        producer.begin_transaction()
        for partition in range(8):
            send(producer, one, b"%d" % commit, partition=partition)
        send(producer, other, b"%d" % commit)
        if commit:
            producer.commit_transaction(DEADLINE_SECONDS)
        else:
            producer.abort_transaction(DEADLINE_SECONDS)

    everywhere = read(bootstrap, one, partitions=range(8), isolation_level="read_committed")
    assert sorted((each.partition(), each.value()) for each in everywhere) == [
        (partition, b"1") for partition in range(8)
    ]
    assert whole(bootstrap, other) == [b"1"]


def test_large_transactions_are_whole(bootstrap: str, topic: str) -> None:
    producer = transactional(bootstrap)
    records = [b"%d " % number * 20 for number in range(5_000)]
    for commit in (False, True):
        producer.begin_transaction()
        send(producer, topic, *records)
        if commit:
            producer.commit_transaction(DEADLINE_SECONDS)
        else:
            producer.abort_transaction(DEADLINE_SECONDS)

    assert whole(bootstrap, topic) == records


def test_who_starts_again_under_the_same_name_ends_what_the_first_left(
    bootstrap: str, topic: str
) -> None:
    name = new_name("txn")
    zombie = transactional(bootstrap, name)
    zombie.begin_transaction()
    send(zombie, topic, b"left open")

    successor = transactional(bootstrap, name)
    successor.begin_transaction()
    send(successor, topic, b"of the second")
    successor.commit_transaction(DEADLINE_SECONDS)

    error = refusal(lambda: zombie.commit_transaction(DEADLINE_SECONDS))
    assert error.fatal()
    assert error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
    assert whole(bootstrap, topic) == [b"of the second"]


def test_a_zombie_writes_nothing(bootstrap: str, topic: str) -> None:
    name = new_name("txn")
    zombie = transactional(bootstrap, name)
    zombie.begin_transaction()
    send(zombie, topic, b"left open")
    transactional(bootstrap, name)

    zombie.produce(topic, b"late")
    error = refusal(lambda: zombie.flush(DEADLINE_SECONDS))
    assert error.code() == KafkaError._FENCED
    assert written(bootstrap, topic) == [b"left open"]


def test_a_transaction_that_takes_too_long_is_aborted(bootstrap: str, topic: str) -> None:
    producer = transactional(bootstrap, timeout_ms=1_000)
    producer.begin_transaction()
    send(producer, topic, b"too slow")
    produce(bootstrap, topic, [b"after"])

    wait_until(
        lambda: whole(bootstrap, topic) == [b"after"],
        "the end is still held",
    )
    error = refusal(lambda: producer.commit_transaction(DEADLINE_SECONDS))
    assert error.fatal() or error.txn_requires_abort()
    assert whole(bootstrap, topic) == [b"after"]


# Offsets in transactions


@pytest.mark.parametrize("commit", [True, False])
def test_offsets_count_with_the_records_or_not_at_all(
    bootstrap: str, topic: str, make_topic: MakeTopic, group: str, commit: bool
) -> None:
    output = make_topic()
    produce(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = member(bootstrap, group, topic)
    messages = take(consumer, 2)
    producer = transactional(bootstrap)

    producer.begin_transaction()
    send(producer, output, *[bytes(each.value() or b"").upper() for each in messages])
    producer.send_offsets_to_transaction(
        [TopicPartition(topic, 0, 2)], consumer.consumer_group_metadata(), DEADLINE_SECONDS
    )
    if commit:
        producer.commit_transaction(DEADLINE_SECONDS)
    else:
        producer.abort_transaction(DEADLINE_SECONDS)
    consumer.close()

    wanted = 2 if commit else OFFSET_INVALID
    wait_until(lambda: committed(bootstrap, group, topic).offset == wanted, "no offset")
    assert whole(bootstrap, output) == ([b"A", b"B"] if commit else [])


def test_every_record_is_processed_once_though_half_the_transactions_abort(
    bootstrap: str, topic: str, make_topic: MakeTopic, group: str
) -> None:
    output, wanted = make_topic(), [b"%d" % number for number in range(40)]
    produce(bootstrap, topic, wanted)
    name, attempt = new_name("txn"), 0
    while committed(bootstrap, group, topic).offset != len(wanted):
        consumer = member(bootstrap, group, topic, isolation_level="read_committed")
        producer = transactional(bootstrap, name)
        for commit in (True, False):
            if commit and attempt and committed(bootstrap, group, topic).offset == 40:
                break
            messages = take(consumer, 10)
            producer.begin_transaction()
            send(producer, output, *[bytes(each.value() or b"") for each in messages])
            producer.send_offsets_to_transaction(
                consumer.position(consumer.assignment()),
                consumer.consumer_group_metadata(),
                DEADLINE_SECONDS,
            )
            if not commit:
                producer.abort_transaction(DEADLINE_SECONDS)
                break
            producer.commit_transaction(DEADLINE_SECONDS)
            if messages[-1].value() == wanted[-1]:
                break
        attempt += 1
        consumer.close()
        assert attempt < 10

    assert whole(bootstrap, output) == wanted
    assert attempt == 4


def test_a_member_of_an_older_generation_commits_nothing(
    bootstrap: str, make_topic: MakeTopic, group: str
) -> None:
    topic = make_topic(partitions=2)
    first = member(bootstrap, group, topic)
    poll_until(lambda: owned(first) == {0, 1}, first)
    outdated = first.consumer_group_metadata()
    second = member(bootstrap, group, topic)
    poll_until(lambda: len(owned(first)) == len(owned(second)) == 1, first, second)

    producer = transactional(bootstrap)
    producer.begin_transaction()
    error = refusal(
        lambda: producer.send_offsets_to_transaction(
            [TopicPartition(topic, 0, 2)], outdated, DEADLINE_SECONDS
        )
    )
    assert error.code() == KafkaError.ILLEGAL_GENERATION
    assert error.txn_requires_abort()
    producer.abort_transaction(DEADLINE_SECONDS)

    producer.begin_transaction()
    current = first.consumer_group_metadata()
    producer.send_offsets_to_transaction(
        [TopicPartition(topic, 0, 3)], current, DEADLINE_SECONDS
    )
    producer.commit_transaction(DEADLINE_SECONDS)
    wait_until(lambda: committed(bootstrap, group, topic).offset == 3, "no offset")
    first.close()
    second.close()


def test_a_consumer_waits_for_offsets_that_are_being_committed(
    bootstrap: str, topic: str, group: str
) -> None:
    produce(bootstrap, topic, [b"a", b"b", b"c"])
    first = member(bootstrap, group, topic)
    take(first, 2)
    producer = transactional(bootstrap)
    producer.begin_transaction()
    producer.send_offsets_to_transaction(
        [TopicPartition(topic, 0, 2)], first.consumer_group_metadata(), DEADLINE_SECONDS
    )
    first.close()

    second = member(bootstrap, group, topic, isolation_level="read_committed")
    poll_until(lambda: owned(second) == {0}, second)
    assert second.poll(0.3) is None, "it does not know yet where to start"
    producer.commit_transaction(DEADLINE_SECONDS)
    assert values(take(second, 1)) == [b"c"]
    second.close()
