"""A consumer in a group that writes down what it reads and when it is moved."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from reliability.clients.command import SESSION_MS, Command
from support.history.events import Journal, Moved, Partition, Polled, Position, Record

# What the next poll gets over by itself.
PASSING = (
    KafkaError._PARTITION_EOF,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MAX_POLL_EXCEEDED,
)


class Member:
    """Wraps a Consumer; `read` gives records that all belong to one assignment.

    A rebalance inside a read would mix records of two assignments, and positions taken
    from them could be committed for partitions that somebody else has by now. Such a
    batch is given back: not written down, and read again.
    """

    def __init__(self, told: Command, journal: Journal, group: str, topic: str) -> None:
        self.name = f"{told.client}/{group}"
        self.group = group
        self.journal = journal
        self.moves = 0
        # Member and generation as they were when the partitions were assigned: offsets of
        # their records are to be sent as from there, whatever has become of us since.
        self.identity: object = None
        self._consumer = Consumer(
            told.settings
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": 200,
                # Also how long a rebalance waits for a member that hangs.
                "max.poll.interval.ms": 10_000,
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 20,
            }
        )
        self._consumer.subscribe(
            [topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )

    def read(self, count: int, transaction: str | None = None) -> list[Record]:
        before = self.moves
        found = records_of(self._consumer.consume(count, 0.1))
        if self.moves != before:
            self.give_back(found)
            return []
        if found:
            self.journal.write(
                Polled,
                consumer=self.name,
                group=self.group,
                records=found,
                transaction=transaction,
            )
        return found

    def give_back(self, records: Sequence[Record]) -> None:
        """Read on at the first of these, where the partition is still ours."""
        first: dict[Partition, int] = {}
        for record in records:
            first.setdefault(record.partition, record.offset)
        owned = {
            Partition(each.topic, each.partition) for each in self._consumer.assignment()
        }
        again = {place: offset for place, offset in first.items() if place in owned}
        self.journal.write(
            Moved, consumer=self.name, group=self.group, partitions=sorted(again)
        )
        for partition, offset in again.items():
            self._consumer.seek(TopicPartition(*partition, offset))

    def commit(self, positions: Sequence[Position]) -> None:
        """Commit by itself, outside any transaction; raises when it did not work."""
        answer = self._consumer.commit(offsets=as_offsets(positions), asynchronous=False)
        for each in answer or ():
            if each.error is not None:
                raise KafkaException(each.error)

    def close(self) -> None:
        self._consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.moves += 1
        self.identity = consumer.consumer_group_metadata()
        self.journal.write(
            Moved,
            consumer=self.name,
            group=self.group,
            partitions=sorted(Partition(each.topic, each.partition) for each in partitions),
        )

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.moves += 1


def records_of(messages: Sequence[Message]) -> list[Record]:
    found = []
    for message in messages:
        error = message.error()
        if error is not None:
            if error.retriable() or error.code() in PASSING:
                continue
            raise KafkaException(error)
        topic, number = message.topic(), message.partition()
        value, offset = message.value(), message.offset()
        assert topic is not None
        assert number is not None
        assert value is not None
        assert offset is not None
        found.append(Record(Partition(topic, number), offset, value.decode()))
    return found


def next_positions(records: Sequence[Record]) -> list[Position]:
    """Where to read on once all these are done."""
    found: dict[Partition, int] = {}
    for record in records:
        found[record.partition] = record.offset + 1
    return [Position(*each) for each in sorted(found.items())]


def as_offsets(positions: Sequence[Position]) -> list[TopicPartition]:
    return [TopicPartition(*partition, offset) for partition, offset in positions]
