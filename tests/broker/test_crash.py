"""kill -9 at any moment: what was acknowledged is there, once and in order.

Four idempotent producers write without a pause, each to a partition of its own, while the
broker is killed and started anew on the same folder. They notice nothing but a delay.
"""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from support.broker import STREAMER, start_streamer
from support.server import Server

KILLS = 20
# Another one tries other moments: `SEED=21 pytest tests/broker/test_crash.py`.
SEED = int(os.environ.get("SEED", "7"))
TOPIC = "crash"
PRODUCERS = 4
# A producer waits when it has this many records in hand.
IN_HAND_MAX = 2000


class Writer:
    """One idempotent producer; it writes 0, 1, 2, ... and keeps what was acknowledged."""

    def __init__(self, bootstrap: str, partition: int) -> None:
        self.partition = partition
        self.sent = 0
        self.acknowledged: dict[int, int] = {}
        self.failed: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 1,
                "batch.num.messages": 50,
                "message.timeout.ms": 120_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 50,
                "retry.backoff.ms": 10,
                "log_level": 0,
                "on_delivery": self._delivered,
            }
        )

    def write(self) -> None:
        if len(self._producer) < IN_HAND_MAX:
            for _ in range(50):
                self._producer.produce(TOPIC, str(self.sent).encode(), None, self.partition)
                self.sent += 1
        self._producer.poll(0)

    def finish(self) -> None:
        assert self._producer.flush(60) == 0

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed.append(error)
            return
        value, offset = message.value(), message.offset()
        assert value is not None
        assert offset is not None
        self.acknowledged[int(value)] = offset


def write_for(writers: list[Writer], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for writer in writers:
            writer.write()


def read_all(bootstrap: str, partition: int) -> list[tuple[int, int]]:
    """Offset and value of each record in the partition, in order."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(TOPIC, partition, 0)])
    found: list[tuple[int, int]] = []
    try:
        while True:
            for message in consumer.consume(1000, 5):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    return found
                value, offset = message.value(), message.offset()
                assert value is not None
                assert offset is not None
                found.append((offset, int(value)))
    finally:
        consumer.close()


@pytest.mark.timeout(180)
def test_killed_twenty_times_under_four_idempotent_producers_nothing_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    rng = random.Random(SEED)
    server = start_streamer(tmp_path, settings={"num.partitions": str(PRODUCERS)})
    address = server.address
    try:
        writers = [Writer(address, partition) for partition in range(PRODUCERS)]
        for _ in range(KILLS):
            write_for(writers, rng.uniform(0.05, 0.6))
            server.kill()
            server = start_streamer(tmp_path)
            assert server.address == address, "clients would not find it again"
        write_for(writers, 0.2)
        for writer in writers:
            writer.finish()
        found = [read_all(address, writer.partition) for writer in writers]
    finally:
        server.stop()

    for writer, records in zip(writers, found, strict=True):
        assert writer.failed == []
        assert len(writer.acknowledged) == writer.sent
        # Every value once, in the order it was written, at the offset that was promised.
        assert [value for _, value in records] == list(range(writer.sent))
        assert {value: offset for offset, value in records} == writer.acknowledged


def start_beside(running: Server) -> subprocess.CompletedProcess[str]:
    """Try to start another broker on the same folder."""
    command = [str(STREAMER), "broker", "--port", "0", "--data-dir", str(running.logs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_second_broker_on_a_folder_says_who_holds_it(tmp_path: Path) -> None:
    with start_streamer(tmp_path) as first:
        second = start_beside(first)

    assert second.returncode == 1
    assert str(first.process.pid) in second.stderr
    assert first.address in second.stderr
    assert "->" in second.stderr


def test_a_clean_stop_is_quiet_and_leaves_a_clean_folder(tmp_path: Path) -> None:
    server = start_streamer(tmp_path)
    writer = Writer(server.address, 0)
    write_for([writer], 0.3)
    writer.finish()

    server.stop()

    assert server.process.returncode == 0
    assert "Traceback" not in server.output.read_text()
    assert (server.logs / ".kafka_cleanshutdown").exists()
    with start_streamer(tmp_path) as again:
        assert len(read_all(again.address, 0)) == writer.sent
