"""A trial: the clients as processes, what is done to them, and the verdict.

    with Trial(directory, bootstrap, seed) as trial:
        ...                       # kill and stop whom you like
        history = trial.settle()  # calm, everything drained, all clients gone
        assert trial.verdict(history) == "no anomaly"

`settle` fails by itself when something does not come to its end: a client that left on
its own, a group that does not catch up, a transaction that stays open.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    OffsetSpec,
)
from reliability.clients.command import TRANSACTION_MS
from reliability.clients.member import records_of
from reliability.plan import (
    COPIER_NAMES,
    COPIERS,
    FEEDER_NAMES,
    INPUT,
    INPUT_PARTITIONS,
    OUTPUT,
    OUTPUT_PARTITIONS,
    READER_GROUPS,
    READER_NAMES,
)
from support.clients import create_topic, result
from support.history.anomalies import STUCK_SECONDS, anomalies, report
from support.history.events import (
    Asked,
    Calm,
    Event,
    Journal,
    Moved,
    Partition,
    Polled,
    Position,
    Record,
    read_history,
)
from support.raw import Wire

from streamer.wire.messages import ListTransactionsRequest

TESTS = Path(__file__).parent.parent
# What a slow machine may take for what is due at once.
SLACK_SECONDS = 10.0

INPUT_PLACES = [Partition(INPUT, n) for n in range(INPUT_PARTITIONS)]
OUTPUT_PLACES = [Partition(OUTPUT, n) for n in range(OUTPUT_PARTITIONS)]


@dataclass(slots=True)
class Client:
    """Who holds a place just now; after a kill the next life takes it."""

    name: str
    life: int
    process: subprocess.Popen[bytes]


class Trial:
    def __init__(self, directory: Path, bootstrap: str, seed: int) -> None:
        self.directory = directory
        self.bootstrap = bootstrap
        self.seed = seed
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self.clients: dict[str, Client] = {}
        self.journal = Journal(directory / "trial.jsonl", "trial")

    def __enter__(self) -> Trial:
        create_topic(self.admin, name=INPUT, partitions=INPUT_PARTITIONS)
        create_topic(self.admin, name=OUTPUT, partitions=OUTPUT_PARTITIONS)
        for name in (*READER_NAMES, *COPIER_NAMES, *FEEDER_NAMES):
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients.values():
            client.process.kill()
            client.process.wait()
        self.journal.close()

    # --- What is done to the clients. -----------------------------------------------------

    def start(self, name: str, life: int = 0) -> None:
        kind = name.partition("-")[0]
        module = kind if kind in ("feeder", "copier") else "reader"
        arguments = {
            "bootstrap": self.bootstrap,
            "name": name,
            "life": str(life),
            "journal": str(self.directory / f"{name}.{life}.jsonl"),
            "seed": f"{self.seed}-{name}-{life}",
        }
        command = [sys.executable, "-m", f"reliability.clients.{module}"]
        for option, value in arguments.items():
            command += [f"--{option}", value]
        with (self.directory / f"{name}.stderr").open("ab") as sink:
            process = subprocess.Popen(
                command, stderr=sink, env=os.environ | {"PYTHONPATH": str(TESTS)}
            )
        self.clients[name] = Client(name, life, process)

    def kill(self, name: str) -> None:
        """kill -9, and another takes its place."""
        client = self.clients[name]
        client.process.kill()
        client.process.wait()
        self.start(name, client.life + 1)

    def stop(self, name: str) -> None:
        self.clients[name].process.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.clients[name].process.send_signal(signal.SIGCONT)

    def end(self, names: Iterable[str]) -> None:
        """SIGTERM, and wait until they have brought to an end what they were doing."""
        ending = [self.clients[name] for name in names]
        for client in ending:
            client.process.terminate()
        for client in ending:
            code = client.process.wait(STUCK_SECONDS)
            assert code == 0, self.farewell(client, code)
            del self.clients[client.name]

    def nobody_left(self) -> None:
        """Nobody leaves before being told."""
        for client in self.clients.values():
            code = client.process.poll()
            assert code is None, self.farewell(client, code)

    def farewell(self, client: Client, code: int) -> str:
        words = (self.directory / f"{client.name}.stderr").read_text()[-2000:]
        return f"{client.name} ended with {code}: {words}"

    def until(
        self,
        condition: Callable[[], bool],
        problem: Callable[[], str],
        seconds: float = STUCK_SECONDS + SLACK_SECONDS,
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, problem()
            self.nobody_left()
            time.sleep(0.05)

    # --- The end. -------------------------------------------------------------------------

    def settle(self) -> list[Event]:
        """Calm; let everything be read to its end; the history of it all."""
        self.journal.write(Calm)
        self.nobody_left()
        self.end(FEEDER_NAMES)
        self.wait_for_group(COPIERS, self.read_all(INPUT_PLACES))
        self.end(COPIER_NAMES)
        self.no_transaction_is_left()
        self.no_record_is_held_back()
        last = self.read_all(OUTPUT_PLACES)
        for group in READER_GROUPS:
            self.wait_for_group(group, last)
        self.end(READER_NAMES)
        return read_history(self.directory.glob("*.jsonl"))

    def wait_for_group(self, group: str, end: dict[Partition, int]) -> None:
        """Until the group has committed that it is at the end: no lag is left."""

        def there() -> bool:
            found = self.positions(group)
            return all(found.get(place, -1) >= offset for place, offset in end.items())

        self.until(there, lambda: f"{group} is at {self.positions(group)} and not at {end}")
        positions = [Position(*each) for each in sorted(self.positions(group).items())]
        self.journal.write(Asked, group=group, positions=positions)

    def positions(self, group: str) -> dict[Partition, int]:
        asked = self.admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)]
        )
        try:
            answer = result(asked[group])
        except KafkaException:
            return {}
        return {
            Partition(each.topic, each.partition): each.offset
            for each in answer.topic_partitions or ()
        }

    def no_transaction_is_left(self) -> None:
        """None is open when the longest has had its time, and the broker time to see it."""

        def ended() -> bool:
            return not self.open_transactions()

        deadline = TRANSACTION_MS / 1000 + SLACK_SECONDS
        self.until(ended, lambda: f"left open: {self.open_transactions()}", deadline)

    def open_transactions(self) -> list[str]:
        with Wire(self.bootstrap) as wire:
            answer = wire.ask(ListTransactionsRequest(), 0)
        return [
            f"{each.transactional_id}: {each.transaction_state}"
            for each in answer.transaction_states
            if each.transaction_state in ("Ongoing", "PrepareCommit", "PrepareAbort")
        ]

    def no_record_is_held_back(self) -> None:
        """The last stable offset is the high watermark."""

        def level() -> bool:
            return self.ends(IsolationLevel.READ_COMMITTED) == self.ends(
                IsolationLevel.READ_UNCOMMITTED
            )

        self.until(level, lambda: "the last stable offset stays below the high watermark")

    def ends(self, isolation: IsolationLevel) -> dict[Partition, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(*place): latest for place in OUTPUT_PLACES}
        answers = self.admin.list_offsets(asked, isolation_level=isolation)
        return {
            Partition(place.topic, place.partition): result(answer).offset
            for place, answer in answers.items()
        }

    def read_all(self, places: Iterable[Partition]) -> dict[Partition, int]:
        """Read these partitions from end to end; what comes after the last record."""
        after = {}
        for place in places:
            records = self.read_one(place)
            if records:
                self.journal.write(Moved, consumer="trial")
                self.journal.write(Polled, consumer="trial", records=records)
                after[place] = records[-1].offset + 1
        return after

    def read_one(self, place: Partition) -> list[Record]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "unused",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING)])
        found: list[Record] = []
        deadline = time.monotonic() + STUCK_SECONDS
        try:
            while time.monotonic() < deadline:
                messages = consumer.consume(1000, 0.2)
                found += records_of(messages)
                errors = [message.error() for message in messages]
                if any(e and e.code() == KafkaError._PARTITION_EOF for e in errors):
                    return found
        finally:
            consumer.close()
        raise AssertionError(f"No end of {place} after {len(found)} records.")


# --- The verdict. -------------------------------------------------------------------------


def verdict(history: Iterable[Event]) -> str:
    """All that is wrong, in words."""
    events = list(history)
    return "\n".join([report(anomalies(events)), *not_once(events)][:30])


def not_once(history: Iterable[Event]) -> list[str]:
    """What of the input is not exactly once in each partition of the output."""
    there: dict[Partition, dict[int, str]] = {}
    for event in history:
        if isinstance(event, Polled):
            for record in event.records:
                there.setdefault(record.partition, {})[record.offset] = record.value
    expected = sorted(value for place in INPUT_PLACES for value in there[place].values())
    found = []
    for place in OUTPUT_PLACES:
        copies = Counter(value.partition("|")[0] for value in there[place].values())
        found += [
            f"{value} is {copies[value]} times in {place}"
            for value in expected
            if copies[value] != 1
        ]
    return found


def mixed(rng: random.Random, names: Iterable[str], count: int) -> list[str]:
    """`count` of these in a random order, each about as often as the others."""
    pool: list[str] = []
    while len(pool) < count:
        some = list(names)
        rng.shuffle(some)
        pool += some
    return pool[:count]
