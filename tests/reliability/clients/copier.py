"""A transactional producer that copies each input record to both output partitions.

The output and the positions in the input go in one transaction. Now and then it aborts
one and copies the same records again. Inside each transaction it also reads what others
have put into the output: that is what makes circles of reads visible.

What may go wrong, and what follows from it:

    a call fails and may be repeated           it is repeated
    the transaction can only be aborted        abort, give the records back
    neither: fenced, or the end is not known   a new producer of the same id, a new member
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Sequence

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from reliability.clients.command import (
    TRANSACTION_MS,
    Command,
    Stop,
    again,
    command,
)
from reliability.clients.member import Member, as_offsets, next_positions, records_of
from reliability.plan import COPIERS, INPUT, OUTPUT, OUTPUT_PARTITIONS
from support.history.events import (
    Acknowledged,
    Committing,
    Ended,
    Ending,
    Journal,
    Moved,
    Partition,
    Polled,
    Record,
    Sent,
)

AT_ONCE = 25
CALL_SECONDS = 2
ABORTED_PART = 0.1
# Some take their time before they begin a transaction and before they end it: others
# overtake them, and who is stopped just then wakes up with work that is not his any more.
LINGER_PART, LINGER_SECONDS = 0.5, 0.4


class Copier:
    """One transactional producer and its place in the group, until either is of no use."""

    def __init__(self, told: Command, journal: Journal, rng: random.Random) -> None:
        self.told = told
        self.journal = journal
        self.rng = rng
        self.acknowledged: list[Record] = []
        self.producer = Producer(
            told.settings
            | {
                "transactional.id": told.name,
                "transaction.timeout.ms": TRANSACTION_MS,
                # No longer than the transaction; librdkafka asks for that.
                "message.timeout.ms": TRANSACTION_MS,
                "linger.ms": 1,
                "on_delivery": self.delivered,
            }
        )
        again(lambda: self.producer.init_transactions(CALL_SECONDS))
        self.member = Member(told, journal, COPIERS, INPUT)
        self.onlooker = self.open_onlooker()

    def open_onlooker(self) -> Consumer:
        consumer = Consumer(
            self.told.settings
            | {
                "group.id": "unused",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
            }
        )
        consumer.assign(
            [TopicPartition(OUTPUT, n, OFFSET_END) for n in range(OUTPUT_PARTITIONS)]
        )
        self.journal.write(Moved, consumer=self.onlooker_name)
        return consumer

    @property
    def onlooker_name(self) -> str:
        return f"{self.told.client}/onlooker"

    def copy(self, name: str) -> None:
        """One batch, if there is any, in one transaction."""
        records = self.member.read(AT_ONCE, name)
        if not records:
            return
        self.linger()
        try:
            self.producer.begin_transaction()
            self.send(name, [record.value for record in records])
            self.look_on(name)
            self.send_positions(name, records)
            if self.rng.random() < ABORTED_PART:
                self.abort(name, records)
            else:
                self.commit(name)
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            self.abort(name, records)

    def send(self, name: str, values: Sequence[str]) -> None:
        copies = [f"{value}|{name}" for value in values]
        for number in range(OUTPUT_PARTITIONS):
            partition = Partition(OUTPUT, number)
            self.journal.write(Sent, partition=partition, values=copies, transaction=name)
            for copy in copies:
                self.producer.produce(OUTPUT, copy.encode(), None, number)
        while self.producer.flush(CALL_SECONDS):
            pass
        if self.acknowledged:
            self.journal.write(Acknowledged, records=self.acknowledged)
            self.acknowledged = []
        self.linger()

    def linger(self) -> None:
        if self.rng.random() < LINGER_PART:
            time.sleep(self.rng.uniform(0, LINGER_SECONDS))

    def look_on(self, name: str) -> None:
        records = records_of(self.onlooker.consume(500, 0))
        if records:
            self.journal.write(
                Polled, consumer=self.onlooker_name, records=records, transaction=name
            )

    def send_positions(self, name: str, records: Sequence[Record]) -> None:
        positions = next_positions(records)
        self.journal.write(Committing, group=COPIERS, positions=positions, transaction=name)
        offsets = as_offsets(positions)
        again(
            lambda: self.producer.send_offsets_to_transaction(
                offsets, self.member.identity, CALL_SECONDS
            )
        )

    def commit(self, name: str) -> None:
        self.journal.write(Ending, transaction=name, commit=True)
        again(lambda: self.producer.commit_transaction(CALL_SECONDS))
        self.journal.write(Ended, transaction=name, commit=True)

    def abort(self, name: str, records: Sequence[Record]) -> None:
        self.journal.write(Ending, transaction=name, commit=False)
        again(lambda: self.producer.abort_transaction(CALL_SECONDS))
        self.journal.write(Ended, transaction=name, commit=False)
        self.member.give_back(records)

    def close(self) -> None:
        self.member.close()
        self.onlooker.close()

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += records_of([message])


def run(told: Command, stop: Stop) -> None:
    journal = Journal(told.journal, told.client)
    rng = random.Random(told.seed)
    names = (f"{told.client}-{number}" for number in itertools.count())
    while not stop:
        copier = Copier(told, journal, rng)
        try:
            while not stop:
                copier.copy(next(names))
        except KafkaException as error:
            sys.stderr.write(f"{told.client}: afresh after {error}\n")
        finally:
            copier.close()


if __name__ == "__main__":
    run(command(), Stop())
