"""A trial: broker, workers and input as processes, what is done to them, and what is left.

    with Trial(directory, records=20_000, seed=7) as trial:
        trial.kill_worker()               # or stop, or kill the broker
        evidence = trial.settle()         # all is read, all has come to rest, all have left

No worker may end by itself, but one that was stopped for too long, and one that finds no
broker when it starts: those are started again. `settle` fails by itself when something does
not come to its end: entries that nobody takes, a transaction that stays open, a worker that
does not stop.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition as LibrdkafkasPartition,
)
from crash import app
from crash.checker import Entry, Evidence, Place, Update, View
from support.broker import start_streamer
from support.raw import Wire
from support.server import PROMPT, Server

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.interface import (
    BrokerUnavailable,
    Group,
    NoSuchGroup,
    NotNow,
    TopicPartition,
)
from streamer.state.rocksdb import RocksStores
from streamer.wire.messages import ListTransactionsRequest

TESTS = Path(__file__).parent.parent
PARTITIONS = 4
KEYS = 100
WORKERS = 3
SESSION_MS = 3000
TRANSACTION_MS = 3000
# Longer than session and transaction may be silent.
ASLEEP_S = max(SESSION_MS, TRANSACTION_MS) / 1000 + 1.5
# After the last fault: for what is due soon.
PATIENCE_S = 60.0
STOP_S = 20.0

SETTINGS = {
    "commit_interval_ms": 100,
    "session_timeout_ms": SESSION_MS,
    "transaction_timeout_ms": TRANSACTION_MS,
    "state_cleanup_delay_ms": 24 * 3_600_000,
}


class Trial:
    # Copies of each topic; -1: as the broker likes.
    replication = 1

    def __init__(
        self,
        directory: Path,
        *,
        records: int,
        rate: int,
        seed: int,
        workers: int = WORKERS,
        faulty: bool = False,
        **settings: Any,
    ) -> None:
        """`faulty`: the outcome of commits gets lost now and then."""
        self.directory = directory
        self.rng = random.Random(seed)
        self.faulty = faulty
        self.records = records
        self.rate = rate
        self.server = self._start_broker()
        self.address = self.server.address
        self.admin = ConfluentAdmin(self.address)
        self.settings = SETTINGS | settings
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * workers
        # How much was in the log of each when it was started last.
        self._said_before = [0] * workers
        # Who may end by itself: it was silent for too long.
        self.slept: set[int] = set()
        self._input = threading.Thread(target=self._feed, name="input", daemon=True)
        self._ended = False
        self.sent = 0

    def __enter__(self) -> Self:
        self.admin.create_topic(
            "in", partitions=PARTITIONS, replication=self.replication, configs={}
        )
        for name in range(len(self.workers)):
            self._start_worker(name)
        self._input.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for worker in self.workers:
            if worker is not None and worker.poll() is None:
                worker.kill()
                worker.wait()
        self.server.stop()
        self._input.join(5)

    # The input.

    def _feed(self) -> None:
        """Entries at an even pace, whatever happens to the broker meanwhile."""
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "enable.idempotence": True,
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        rng = random.Random(self.rng.random())
        began = time.monotonic()
        for id in range(self.records):
            key, amount = f"k{rng.randrange(KEYS)}", rng.randrange(100)
            entry = json.dumps({"id": id, "key": key, "amount": amount})
            producer.produce("in", entry.encode(), partition=id % PARTITIONS)
            self.sent = id + 1
            if id % 50 == 0:
                producer.poll(0)
                time.sleep(max(0.0, began + id / self.rate - time.monotonic()))
                if self._ended:
                    return
        while len(producer) and not self._ended:
            producer.flush(0.5)

    # What is done to them.

    def _start_broker(self) -> Server:
        return start_streamer(self.directory / "broker", settings=PROMPT)

    def kill_broker(self, away_s: float = 0.0) -> None:
        self.server.kill()
        time.sleep(away_s)
        self.server = self._start_broker()
        assert self.server.address == self.address, "clients would not find it again"

    def _start_worker(self, name: int) -> None:
        self.slept.discard(name)
        with self._output(name) as sink:
            self._said_before[name] = sink.tell()
            self.workers[name] = subprocess.Popen(
                self.command(),
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
            )

    def command(self) -> list[str]:
        """How a worker is started."""
        settings = {
            "broker": self.address,
            "state_dir": str(self.directory / "state"),
            **self.settings,
        }
        command = [sys.executable, "-m", "crash.app", json.dumps(settings)]
        if self.faulty:
            command.append(str(self.rng.randrange(1_000_000)))
        return command

    def _output(self, name: int) -> IO[bytes]:
        return (self.directory / f"worker-{name}.log").open("ab")

    def kill_worker(self) -> None:
        name = self._choose()
        worker = self._process(name)
        worker.kill()
        worker.wait()
        self._note(name, "was killed")
        self._start_worker(name)

    def end_worker(self) -> None:
        """SIGTERM: it ends in order, under load; then another takes its place."""
        name = self._choose()
        self._end(name)
        self._note(name, "was ended")
        self._start_worker(name)

    def _end(self, name: int) -> None:
        self._tell_to_end(name)
        self._has_ended(name)

    def _tell_to_end(self, name: int) -> None:
        """Once, and not before it listens: a signal that finds Python still, or again,
        without a handler kills it as any other program."""
        until = time.monotonic() + STOP_S
        while not self._has_said(name, app.LISTENS):
            assert time.monotonic() < until, f"worker {name} does not start"
            self._start_if_ended(name)
            time.sleep(0.02)
        self._process(name).terminate()

    def _has_ended(self, name: int) -> None:
        worker = self._process(name)
        try:
            code = worker.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._ask_where_they_are()
            raise AssertionError(f"worker {name} does not stop") from None
        assert code == 0, f"worker {name} ended with {code}"

    def stop_worker(self) -> None:
        """SIGSTOP for longer than the others wait for it; then it goes on."""
        name = self._choose()
        worker = self._process(name)
        worker.send_signal(signal.SIGSTOP)
        self._note(name, "sleeps")
        self.slept.add(name)
        time.sleep(ASLEEP_S)
        worker.send_signal(signal.SIGCONT)
        self._note(name, "wakes up")

    def _choose(self) -> int:
        return self.rng.randrange(len(self.workers))

    def _process(self, name: int) -> subprocess.Popen[bytes]:
        worker = self.workers[name]
        assert worker is not None
        return worker

    def _has_begun(self, name: int) -> bool:
        """Whether it has got as far as having work."""
        return self._has_said(name, "Working on")

    def _has_said(self, name: int, words: str) -> bool:
        """Since it was started last."""
        log = (self.directory / f"worker-{name}.log").read_bytes()
        return words.encode() in log[self._said_before[name] :]

    def _note(self, name: int, what: str) -> None:
        with self._output(name) as sink:
            sink.write(f"--- {time.strftime('%H:%M:%S')} {what} ---\n".encode())

    def supervise(self) -> None:
        """Start again whoever has ended by itself."""
        for name in range(len(self.workers)):
            self._start_if_ended(name)

    def _start_if_ended(self, name: int) -> None:
        code = self._process(name).poll()
        if code is not None:
            may = name in self.slept or not self._has_begun(name)
            assert may, f"worker {name} has ended with {code}"
            self._note(name, f"ended with {code}")
            self._start_worker(name)

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.supervise()
            time.sleep(0.05)

    def wait_for(self, condition: Callable[[], bool], problem: Callable[[], str]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self._holds(condition):
            if time.monotonic() > until:
                self._ask_where_they_are()
                raise AssertionError(problem())
            self.wait(0.2)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except (BrokerUnavailable, NotNow, NoSuchGroup):
            return False

    def _ask_where_they_are(self) -> None:
        for worker in self.workers:
            if worker is not None and worker.poll() is None:
                worker.send_signal(signal.SIGUSR1)
        time.sleep(0.5)

    # The end.

    def settle(self) -> Evidence:
        """Wait until all is done, have everybody leave, and read what is there."""
        while self._input.is_alive():
            self.wait(0.1)
        self.wait_for(self._all_here, lambda: f"the group is {self._group()}")
        self.wait_for(lambda: not self.lag("in"), lambda: f"left: {self.lag('in')}")
        self.wait_for(
            lambda: not self.lag(app.COUNTED), lambda: f"left: {self.lag(app.COUNTED)}"
        )
        owners = self._owners()
        self.have_them_leave()
        self._nothing_is_open()
        return Evidence(
            entries=self._entries("in"),
            regrouped=self._entries(app.COUNTED),
            updates={
                number: [_update(one) for one in row]
                for number, row in self.read("out").items()
            },
            changelogs=self._changelogs(),
            stores=self._stores(owners),
        )

    def _group(self) -> Group:
        return self.admin.group(app.NAME)

    def _all_here(self) -> bool:
        group = self._group()
        return group.state == "Stable" and len(group.members) == len(self.workers)

    def lag(self, topic: str) -> dict[int, tuple[int, int]]:
        """Where the group is not at the end: where it is, and where it should be."""
        committed = self.admin.committed(app.NAME)
        left = {}
        for number, row in self.read(topic).items():
            at = committed.get(TopicPartition(topic, number), 0)
            end = (row[-1].offset() or 0) + 1 if row else 0
            if at < end:
                left[number] = (at, end)
        return left

    def _owners(self) -> dict[int, int]:
        """By partition of the tables: the slot of the worker that has it."""
        owners = {}
        for member in self._group().members:
            for topic, number in member.partitions:
                if topic == app.COUNTED:
                    owners[number] = int((member.instance_id or "").rpartition("-")[2])
        assert len(owners) == PARTITIONS, f"not all have an owner: {owners}"
        return owners

    def have_them_leave(self) -> None:
        for name in range(len(self.workers)):
            self._tell_to_end(name)
        for name in range(len(self.workers)):
            self._has_ended(name)

    def _nothing_is_open(self) -> None:
        self.wait_open(lambda: not self.open_transactions(), "a transaction is open")
        self.wait_open(self._level, "the last stable offset is below the high watermark")

    def wait_open(self, condition: Callable[[], bool], problem: str) -> None:
        until = time.monotonic() + TRANSACTION_MS / 1000 + 10
        while not self._holds(condition):
            assert time.monotonic() < until, f"{problem}: {self.open_transactions()}"
            time.sleep(0.1)

    def open_transactions(self) -> list[str]:
        return self.open_transactions_of(self.address)

    def open_transactions_of(self, address: str) -> list[str]:
        with Wire(address) as wire:
            answer = wire.ask(ListTransactionsRequest(), 0)
        return [
            f"{each.transactional_id}: {each.transaction_state}"
            for each in answer.transaction_states
            if each.transaction_state in ("Ongoing", "PrepareCommit", "PrepareAbort")
        ]

    def _level(self) -> bool:
        all_of_them = [
            at for topic in self.admin.cluster().topics for at in topic.topic_partitions
        ]
        ends = self.admin.end_offsets(all_of_them)
        return self.admin.end_offsets(all_of_them, committed=True) == ends

    # What is there.

    def read(self, topic: str) -> dict[int, list[Message]]:
        """All committed records of a topic, by partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "unused",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        consumer.assign(
            [LibrdkafkasPartition(topic, n, OFFSET_BEGINNING) for n in range(PARTITIONS)]
        )
        found: dict[int, list[Message]] = {n: [] for n in range(PARTITIONS)}
        at_end: set[int] = set()
        until = time.monotonic() + PATIENCE_S
        try:
            while len(at_end) < PARTITIONS:
                assert time.monotonic() < until, f"no end of {topic}"
                for message in consumer.consume(10_000, 0.05):
                    error = message.error()
                    number = message.partition()
                    assert number is not None
                    if error is None:
                        found[number].append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        at_end.add(number)
        finally:
            consumer.close()
        return found

    def _entries(self, topic: str) -> dict[int, list[Entry]]:
        return {
            number: [Entry(**json.loads(one.value() or b"")) for one in row]
            for number, row in self.read(topic).items()
        }

    def _changelogs(self) -> dict[Place, View]:
        views: dict[Place, View] = {}
        for table in app.TABLES:
            for number, row in self.read(f"{app.NAME}-{table}-changelog").items():
                view: dict[str, int] = {}
                for one in row:
                    key, value = _key(one.key()), one.value()
                    if value is None:
                        view.pop(key, None)
                    else:
                        view[key] = json.loads(value)
                views[table, number] = view
        return views

    def _stores(self, owners: Mapping[int, int]) -> dict[Place, View]:
        views: dict[Place, View] = {}
        for number, slot in owners.items():
            stores = RocksStores(self.directory / "state" / app.NAME / f"slot-{slot}")
            for table in app.TABLES:
                store = stores.open(table, number)
                views[table, number] = {
                    _key(key): json.loads(value) for key, value in store.items()
                }
            stores.close()
        return views


def _update(message: Message) -> Update:
    found = json.loads(message.value() or b"")
    return Update(found["id"], _key(message.key()), found["count"], found["total"])


def _key(data: bytes | str | None) -> str:
    text = data.decode() if isinstance(data, bytes) else str(data)
    return text.strip('"')
