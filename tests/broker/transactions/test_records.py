"""What is written of a transactional id: Apache Kafka's record, and back again."""

from __future__ import annotations

import pytest

from streamer.broker.names import Place
from streamer.broker.transactions import records
from streamer.broker.transactions.transaction import Phase, Transaction
from streamer.wire.record import Record
from streamer.wire.state_records import (
    Malformed,
    TransactionLogKey,
    TransactionLogValue,
    UnsupportedVersion,
    read_state,
    write_state,
)

NOW = 1_700_000_000_000
PLACES = frozenset({Place("b", 3), Place("a", 1), Place("b", 0)})


def transaction(phase: Phase) -> Transaction:
    begun = phase not in (Phase.EMPTY, Phase.COMPLETE_COMMIT, Phase.COMPLETE_ABORT)
    return Transaction(
        transactional_id="größe",
        producer_id=7,
        epoch=32766,
        timeout_ms=60_000,
        phase=phase,
        partitions=PLACES if begun else frozenset(),
        started_ms=NOW - 5,
        updated_ms=NOW - 1,
        previous_producer_id=6,
    )


@pytest.mark.parametrize("phase", tuple(Phase)[:6])
def test_it_is_read_as_it_was_written(phase: Phase) -> None:
    before = transaction(phase)

    record = records.write(before, NOW)

    assert record.timestamp == NOW
    assert records.read(record) == ("größe", before)


def test_partitions_are_listed_by_topic_and_an_empty_id_has_no_list() -> None:
    def written(phase: Phase) -> object:
        value = records.write(transaction(phase), NOW).value or b""
        found = read_state(TransactionLogValue, value).transaction_partitions
        return found and [(topic.name, topic.partition_ids) for topic in found]

    assert written(Phase.ONGOING) == [("a", [1]), ("b", [0, 3])]
    assert written(Phase.COMPLETE_ABORT) == []
    assert written(Phase.EMPTY) is None


def test_what_kafka_wrote_before_there_were_tags_is_read() -> None:
    value = TransactionLogValue(
        producer_id=7,
        producer_epoch=1,
        transaction_timeout_ms=1000,
        transaction_status=1,
        transaction_partitions=[TransactionLogValue.Topic(name="a", partition_ids=[1])],
        transaction_last_update_timestamp_ms=NOW,
        transaction_start_timestamp_ms=NOW,
    )
    key = write_state(TransactionLogKey(transactional_id="till"), 0)

    _, found = records.read(Record(key=key, value=write_state(value, 0)))

    assert found is not None
    assert found.partitions == {Place("a", 1)}
    assert found.previous_producer_id == -1


def test_a_tombstone_says_that_the_id_is_forgotten() -> None:
    assert records.read(records.tombstone("till", NOW)) == ("till", None)


@pytest.mark.parametrize("cut", [0, 1, 10])
def test_what_is_no_such_record_is_refused(cut: int) -> None:
    record = records.write(transaction(Phase.ONGOING), NOW)
    value = (record.value or b"")[:cut]

    with pytest.raises((Malformed, UnsupportedVersion)):
        records.read(record._replace(value=value))
