"""Idempotent producers: a batch sent twice is kept once, a lost one is noticed."""

from __future__ import annotations

import time

import pytest
from conformance.conftest import MakeTopic
from support.batches import batch
from support.raw import (
    PRODUCE,
    Wire,
    fetch,
    only_partition,
    produce,
    produce_request,
    until_known,
)

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import InitProducerIdRequest

LAST_SEQUENCE = 2**31 - 1


def new_producer_id(wire: Wire, version: int = 4) -> tuple[int, int]:
    """A producer id and its epoch."""
    asked = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    deadline = time.monotonic() + 10
    while True:
        answer = wire.ask(asked, version)
        # Kafka says so for a moment after its start, and clients ask again.
        if answer.error_code != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            assert answer.error_code == ErrorCode.NONE
            return answer.producer_id, answer.producer_epoch
        assert time.monotonic() < deadline, "no producer ids in ten seconds"
        time.sleep(0.02)


class IdempotentProducer:
    """A producer id on one connection; sequences are given by the test."""

    def __init__(self, wire: Wire, log: str) -> None:
        self.wire, self.log = wire, log
        self.id, self.epoch = new_producer_id(wire)

    def records(self, sequence: int, count: int, *, epoch: int | None = None) -> bytes:
        return batch(
            [b"%d" % number for number in range(count)],
            producer_id=self.id,
            producer_epoch=self.epoch if epoch is None else epoch,
            base_sequence=sequence,
        )

    def send(
        self, sequence: int, count: int = 2, *, epoch: int | None = None
    ) -> tuple[int, int]:
        """Error code and base offset."""
        answer = produce(self.wire, self.log, self.records(sequence, count, epoch=epoch))
        return answer.error_code, answer.base_offset


@pytest.fixture
def producer(wire: Wire, log: str) -> IdempotentProducer:
    return IdempotentProducer(wire, log)


def end_of(wire: Wire, log: str) -> int:
    end: int = fetch(wire, log, 0).high_watermark
    return end


@pytest.mark.parametrize("version", range(6))
def test_every_producer_gets_an_id_of_its_own(wire: Wire, version: int) -> None:
    found = [new_producer_id(wire, version) for _ in range(3)]

    assert len({producer_id for producer_id, _ in found}) == 3
    assert {epoch for _, epoch in found} == {0}


def test_batches_in_sequence_are_appended(producer: IdempotentProducer) -> None:
    assert [producer.send(sequence) for sequence in (0, 2, 4)] == [(0, 0), (0, 2), (0, 4)]


def test_any_of_the_last_five_batches_may_come_again(
    wire: Wire, log: str, producer: IdempotentProducer
) -> None:
    sequences = range(0, 14, 2)
    for sequence in sequences:
        producer.send(sequence)

    for sequence in sequences[-5:]:
        assert producer.send(sequence) == (ErrorCode.NONE, sequence), "not the first answer"
    assert end_of(wire, log) == 14


def test_an_older_batch_is_not_taken_again(
    wire: Wire, log: str, producer: IdempotentProducer
) -> None:
    for sequence in range(0, 14, 2):
        producer.send(sequence)

    code, offset = producer.send(0)
    assert (code, offset) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert end_of(wire, log) == 14


def test_a_repeat_must_be_the_same_batch(producer: IdempotentProducer) -> None:
    producer.send(0, 4)

    assert producer.send(0, 3) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert producer.send(0, 4) == (ErrorCode.NONE, 0)


def test_a_gap_is_refused_and_may_be_filled(producer: IdempotentProducer) -> None:
    producer.send(0)

    assert producer.send(4) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert [producer.send(2), producer.send(4)] == [(0, 2), (0, 4)]


def test_an_older_epoch_is_fenced(producer: IdempotentProducer) -> None:
    producer.send(0, epoch=1)

    assert producer.send(2, epoch=0) == (ErrorCode.INVALID_PRODUCER_EPOCH, -1)
    assert producer.send(2, epoch=1) == (ErrorCode.NONE, 2)


def test_a_new_epoch_starts_again_at_zero(producer: IdempotentProducer) -> None:
    producer.send(0)
    producer.send(2)

    assert producer.send(4, epoch=1) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert producer.send(0, epoch=1) == (ErrorCode.NONE, 4)


def test_a_producer_nobody_remembers_may_start_anywhere(
    producer: IdempotentProducer,
) -> None:
    assert producer.send(1_000) == (ErrorCode.NONE, 0)
    assert producer.send(1_002) == (ErrorCode.NONE, 2)


def test_sequences_begin_again_after_the_greatest(producer: IdempotentProducer) -> None:
    assert producer.send(LAST_SEQUENCE - 1, 4) == (ErrorCode.NONE, 0)
    assert producer.send(1) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)

    assert producer.send(2) == (ErrorCode.NONE, 4)
    assert producer.send(LAST_SEQUENCE - 1, 4) == (ErrorCode.NONE, 0)


def test_producers_do_not_disturb_each_other(wire: Wire, log: str) -> None:
    one, other = IdempotentProducer(wire, log), IdempotentProducer(wire, log)

    assert [one.send(0), other.send(0), one.send(2), other.send(2)] == [
        (0, 0),
        (0, 2),
        (0, 4),
        (0, 6),
    ]


def test_five_batches_in_flight_and_then_again(
    wire: Wire, log: str, producer: IdempotentProducer
) -> None:
    requests = [
        produce_request(log, producer.records(sequence, 2)) for sequence in range(0, 10, 2)
    ]
    for request in requests * 2:
        wire.send(request, PRODUCE)

    answers = [only_partition(wire.receive()) for _ in range(10)]
    assert [answer.error_code for answer in answers] == [0] * 10
    assert [answer.base_offset for answer in answers] == [0, 2, 4, 6, 8] * 2
    assert end_of(wire, log) == 10


def test_a_repeat_is_known_after_the_first_arrived_on_another_connection(
    bootstrap: str, log: str, producer: IdempotentProducer
) -> None:
    producer.send(0)

    with Wire(bootstrap) as second:
        answer = produce(second, log, producer.records(0, 2))
        assert (answer.error_code, answer.base_offset) == (ErrorCode.NONE, 0)


def test_a_repeat_gets_the_append_time_of_the_first(
    wire: Wire, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"message.timestamp.type": "LogAppendTime"})
    until_known(wire, topic)
    records = IdempotentProducer(wire, topic).records(0, 2)

    first = produce(wire, topic, records)
    time.sleep(0.005)  # so that the clock of a second append would differ
    again = produce(wire, topic, records)
    assert (again.error_code, again.base_offset) == (ErrorCode.NONE, 0)
    assert again.log_append_time_ms == first.log_append_time_ms > 0
