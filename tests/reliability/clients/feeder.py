"""An idempotent producer that writes values which are never repeated to the input topic."""

from __future__ import annotations

import time
from collections import defaultdict

from confluent_kafka import KafkaError, Message, Producer
from reliability.clients.command import Command, Stop, command
from reliability.plan import INPUT, INPUT_PARTITIONS
from support.history.events import Acknowledged, Journal, Partition, Record, Sent

# Few and often: what matters is how many requests a kill can cut off.
AT_ONCE = 4
PAUSE_SECONDS = 0.03
IN_HAND_MAX = 500


class Feeder:
    def __init__(self, told: Command) -> None:
        self.journal = Journal(told.journal, told.client)
        self.client = told.client
        self.sent = 0
        self.acknowledged: list[Record] = []
        self.producer = Producer(
            told.settings
            | {
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 120_000,
                "on_delivery": self.delivered,
            }
        )

    def run(self, stop: Stop) -> None:
        while not stop:
            if len(self.producer) < IN_HAND_MAX:
                self.send()
            self.producer.poll(0)
            self.write_down()
            time.sleep(PAUSE_SECONDS)
        self.producer.flush()
        self.write_down()

    def send(self) -> None:
        values = defaultdict(list)
        for number in range(self.sent, self.sent + AT_ONCE):
            values[number % INPUT_PARTITIONS].append(f"{self.client}-{number}")
        self.sent += AT_ONCE
        for number, sent in values.items():
            self.journal.write(Sent, partition=Partition(INPUT, number), values=sent)
            for value in sent:
                self.producer.produce(INPUT, value.encode(), None, number)

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise SystemExit(f"{self.client}: {error}")
        topic, number = message.topic(), message.partition()
        value, offset = message.value(), message.offset()
        assert topic is not None
        assert number is not None
        assert value is not None
        assert offset is not None
        self.acknowledged.append(Record(Partition(topic, number), offset, value.decode()))

    def write_down(self) -> None:
        if self.acknowledged:
            self.journal.write(Acknowledged, records=self.acknowledged)
            self.acknowledged = []


if __name__ == "__main__":
    Feeder(command()).run(Stop())
