"""Transactions that partitions have open and nobody will end: found at start.

That takes a disk that has lied, a folder put together from two backups, or a broker that
was not ours. Without an end, readers of committed records would wait before it for ever.

    what the coordinator knows of the producer        how it is ended
    its transaction with this partition goes on       not at all
    an outcome, of this very epoch                    with that outcome
    the epoch, but nothing of this partition          aborted
    another epoch, or nothing                         aborted, and its epoch fenced
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from streamer.broker.names import Place, Producer
from streamer.broker.transactions.transaction import Phase, Transaction
from streamer.log.partition import Partition

EPOCH_MAX = (1 << 15) - 1


class Hanging(NamedTuple):
    place: Place
    producer: Producer
    """Whom its end speaks for."""
    commit: bool
    why: str


def find_hanging(
    partitions: Iterable[Partition], transactions: Iterable[Transaction]
) -> list[Hanging]:
    """What has to be ended, once all that was prepared is completed."""
    known = {transaction.producer_id: transaction for transaction in transactions}
    found = []
    for partition in partitions:
        place = Place(partition.topic, partition.index)
        for producer_id, state in partition.producer_states().items():
            if state.transaction_start >= 0:
                producer = Producer(producer_id, state.epoch)
                found.append(_judge(place, producer, known.get(producer_id)))
    return [hanging for hanging in found if hanging is not None]


def _judge(
    place: Place, producer: Producer, transaction: Transaction | None
) -> Hanging | None:
    if transaction is None or transaction.epoch != producer.epoch:
        fencing = producer._replace(epoch=min(producer.epoch + 1, EPOCH_MAX))
        return Hanging(place, fencing, False, "no transactional id has this producer")
    if place in transaction.partitions:
        return None
    commit = transaction.phase == Phase.COMPLETE_COMMIT
    why = f"{transaction.transactional_id!r} knows nothing of it"
    return Hanging(place, producer, commit, why)
