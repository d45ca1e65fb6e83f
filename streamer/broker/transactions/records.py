"""A transactional id as it is written in `__transaction_state`: Kafka's own records.

One record for each step, the latest of an id counts. One without a value: the id is
forgotten. Values are of version 1, which can say which producer id came before.
"""

from __future__ import annotations

from itertools import groupby

from streamer.broker.names import Place
from streamer.broker.transactions.transaction import Phase, Transaction
from streamer.wire.record import Record
from streamer.wire.state_records import (
    TransactionLogKey,
    TransactionLogValue,
    read_state,
    write_state,
)

KEY_VERSION = 0
VALUE_VERSION = 1


def write(transaction: Transaction, now_ms: int) -> Record:
    topics = [
        TransactionLogValue.Topic(
            name=name, partition_ids=[place.partition for place in group]
        )
        for name, group in groupby(sorted(transaction.partitions), key=lambda p: p.topic)
    ]
    value = TransactionLogValue(
        producer_id=transaction.producer_id,
        producer_epoch=transaction.epoch,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_status=transaction.phase,
        # Kafka takes an id without a transaction for broken if it has a list.
        transaction_partitions=None if transaction.phase == Phase.EMPTY else topics,
        transaction_last_update_timestamp_ms=transaction.updated_ms,
        transaction_start_timestamp_ms=transaction.started_ms,
        previous_producer_id=transaction.previous_producer_id,
    )
    return Record(
        timestamp=now_ms,
        key=_key(transaction.transactional_id),
        value=write_state(value, VALUE_VERSION),
    )


def tombstone(transactional_id: str, now_ms: int) -> Record:
    return Record(timestamp=now_ms, key=_key(transactional_id), value=None)


def _key(transactional_id: str) -> bytes:
    return write_state(TransactionLogKey(transactional_id=transactional_id), KEY_VERSION)


def read(record: Record) -> tuple[str, Transaction | None]:
    """The id, and how it stands. Raises Malformed or UnsupportedVersion."""
    name: str = read_state(TransactionLogKey, record.key or b"").transactional_id
    if record.value is None:
        return name, None
    value = read_state(TransactionLogValue, record.value)
    return name, Transaction(
        transactional_id=name,
        producer_id=value.producer_id,
        epoch=value.producer_epoch,
        timeout_ms=value.transaction_timeout_ms,
        phase=Phase(value.transaction_status),
        partitions=frozenset(
            Place(topic.name, partition)
            for topic in value.transaction_partitions or ()
            for partition in topic.partition_ids
        ),
        started_ms=value.transaction_start_timestamp_ms,
        updated_ms=value.transaction_last_update_timestamp_ms,
        previous_producer_id=value.previous_producer_id,
    )
