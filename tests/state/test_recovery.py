"""Stores brought up to date from changelogs on a real broker."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from support.broker import start_streamer
from support.clients import new_name, read, wait_until

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.consumer import ConfluentConsumer
from streamer.client.confluent.producer import (
    ConfluentProducer,
    ConfluentTransactionalProducer,
)
from streamer.client.interface import Consumer, Message, TopicPartition
from streamer.state import recovery as module
from streamer.state.identity import Identity
from streamer.state.recovery import Progress, Recovery
from streamer.state.rocksdb import RocksStores
from streamer.state.store import REFRESH_MS, MemoryStores, Store

# Another one takes other steps: `SEED=21 pytest tests/state/test_recovery.py`.
SEED = int(os.environ.get("SEED", "7"))

Changes = Mapping[bytes, bytes | None]


class Changelog:
    """A topic of four partitions, and stores to be filled from it."""

    def __init__(self, bootstrap: str, admin: ConfluentAdmin, topic: str) -> None:
        self.bootstrap = bootstrap
        self.admin = admin
        self.topic = topic
        self.now = 1_700_000_000_000
        self.stores = MemoryStores(lambda: self.now)
        self.plain = ConfluentProducer(bootstrap, {"linger.ms": 0})
        self.consumer = ConfluentConsumer(bootstrap, {"fetch.wait.max.ms": 50})

    def at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    def write(self, changes: Changes, partition: int = 0) -> None:
        for key, value in changes.items():
            self.plain.send(self.topic, value, key=key, partition=partition)
        assert self.plain.flush(10) == 0

    def open_transaction(
        self, changes: Changes, partition: int = 0
    ) -> ConfluentTransactionalProducer:
        producer = ConfluentTransactionalProducer(self.bootstrap, new_name("txn"))
        producer.begin()
        for key, value in changes.items():
            producer.send(self.topic, value, key=key, partition=partition)
        assert producer.flush(10) == 0
        return producer

    def commit(self, changes: Changes, partition: int = 0) -> None:
        self.open_transaction(changes, partition).commit()

    def abort(self, changes: Changes, partition: int = 0) -> None:
        self.open_transaction(changes, partition).abort()

    def wait_for_end(self, end: int, partition: int = 0) -> None:
        """Until all markers are written."""
        at = self.at(partition)
        wait_until(
            lambda: self.admin.end_offsets([at], committed=True) == {at: end}, "no markers"
        )

    def store(self, partition: int = 0) -> Store:
        return self.stores.open("t", partition)

    def recovery(
        self,
        wanted: Mapping[int, Store],
        restored: Callable[[TopicPartition], None] = lambda _: None,
    ) -> Recovery:
        by_partition = {self.at(partition): store for partition, store in wanted.items()}
        return Recovery(self.consumer, self.admin, by_partition, restored=restored)

    def restore(self, store: Store, partition: int = 0) -> Progress:
        recovery = self.recovery({partition: store})
        assert recovery.run()
        return recovery.progress


@pytest.fixture(scope="module")
def admin(bootstrap: str) -> ConfluentAdmin:
    return ConfluentAdmin(bootstrap)


@pytest.fixture
def changelog(bootstrap: str, admin: ConfluentAdmin) -> Iterator[Changelog]:
    name = new_name("changelog")
    configs = {"cleanup.policy": "compact"}
    admin.create_topic(name, partitions=4, replication=-1, configs=configs)
    made = Changelog(bootstrap, admin, name)
    yield made
    made.consumer.close()
    admin.delete_topics([name])


def test_a_store_gets_the_last_value_of_each_key(changelog: Changelog) -> None:
    changelog.write({b"tea": b"1", b"milk": b"1", b"": b"1"})
    changelog.write({b"tea": b"2", b"milk": None, b"salt": b""})
    store = changelog.store()

    progress = changelog.restore(store)

    assert dict(store.items()) == {b"": b"1", b"salt": b"", b"tea": b"2"}
    assert store.position == 6
    assert (progress.done, progress.total, progress.records) == (6, 6, 6)
    assert progress.eta_seconds == 0
    assert progress.left == {}


def test_an_empty_changelog_ends_at_once(changelog: Changelog) -> None:
    store = changelog.store()

    progress = changelog.restore(store)

    assert store.position == 0
    assert progress.total == 0


def test_what_was_aborted_is_not_there(changelog: Changelog) -> None:
    changelog.commit({b"k": b"1"})
    changelog.abort({b"k": b"2", b"l": b"2"})
    store = changelog.store()

    changelog.restore(store)

    assert dict(store.items()) == {b"k": b"1"}


@pytest.mark.parametrize("last", ["commit", "abort"])
def test_it_ends_behind_the_markers_at_the_end(changelog: Changelog, last: str) -> None:
    changelog.commit({b"k": b"1"})
    getattr(changelog, last)({b"k": b"2"})
    changelog.wait_for_end(4)  # a record and a marker, twice
    store = changelog.store()

    changelog.restore(store)

    assert store.get(b"k") == (b"2" if last == "commit" else b"1")
    assert store.position == 4


def test_what_was_committed_just_now_is_there(changelog: Changelog) -> None:
    """A commit returns before its markers are written, and until they are, nobody who
    reads committed records sees it."""
    store = changelog.store()
    for number in range(20):
        changelog.commit({b"k": b"%d" % number})
        changelog.restore(store)
        assert store.get(b"k") == b"%d" % number


def test_a_changelog_of_nothing_but_aborted_records_ends(changelog: Changelog) -> None:
    changelog.abort({b"k": b"1"})
    changelog.abort({b"k": b"2"})
    changelog.wait_for_end(4)
    store = changelog.store()

    changelog.restore(store)

    assert list(store.items()) == []
    assert store.position == 4


def test_partitions_of_every_kind_are_restored_at_once(changelog: Changelog) -> None:
    many = {b"%d" % number: b"%d" % number for number in range(500)}
    changelog.write(many, 0)
    changelog.commit({b"k": b"v"}, 1)
    changelog.abort({b"k": b"v"}, 2)
    changelog.wait_for_end(2, 1)
    changelog.wait_for_end(2, 2)
    stores = {partition: changelog.store(partition) for partition in range(4)}
    done: list[TopicPartition] = []

    assert changelog.recovery(stores, done.append).run()

    assert [dict(store.items()) for store in stores.values()] == [
        many,
        {b"k": b"v"},
        {},
        {},
    ]
    assert [store.position for store in stores.values()] == [500, 2, 2, 0]
    assert sorted(done) == [changelog.at(partition) for partition in range(4)]


def test_changelogs_of_several_tables_are_kept_apart(
    changelog: Changelog, bootstrap: str, admin: ConfluentAdmin
) -> None:
    other_name = new_name("changelog")
    admin.create_topic(other_name, partitions=1, replication=-1, configs={})
    other = Changelog(bootstrap, admin, other_name)
    changelog.write({b"k": b"one"})
    other.write({b"k": b"other"})
    one_store, other_store = changelog.store(), other.store()
    wanted = {changelog.at(0): one_store, other.at(0): other_store}

    assert Recovery(changelog.consumer, admin, wanted).run()

    assert (one_store.get(b"k"), other_store.get(b"k")) == (b"one", b"other")
    other.consumer.close()
    admin.delete_topics([other_name])


def test_records_without_a_key_are_skipped_and_counted(changelog: Changelog) -> None:
    # Compacted topics refuse them; this one was not compacted once.
    changelog.admin.alter_topic_configs(
        changelog.topic, changed={"cleanup.policy": "delete"}, deleted=[]
    )
    changelog.write({b"k": b"1"})
    changelog.plain.send(changelog.topic, b"foreign", key=None, partition=0)
    changelog.plain.send(changelog.topic, b"foreign", key=None, partition=0)
    changelog.write({b"l": b"1"})
    store = changelog.store()

    progress = changelog.restore(store)

    assert dict(store.items()) == {b"k": b"1", b"l": b"1"}
    assert store.position == 4
    assert (progress.records, progress.skipped) == (4, 2)


def test_only_what_is_missing_is_read(changelog: Changelog) -> None:
    changelog.write({b"k": b"1", b"l": b"1"})
    store = changelog.store()
    changelog.restore(store)

    changelog.write({b"l": b"2"})
    progress = changelog.restore(store)

    assert dict(store.items()) == {b"k": b"1", b"l": b"2"}
    assert (progress.records, progress.total) == (1, 1)


def test_a_store_that_has_all_is_left_as_it_is(changelog: Changelog) -> None:
    changelog.write({b"k": b"1"})
    store = changelog.store()
    changelog.restore(store)

    progress = changelog.restore(store)

    assert (progress.records, progress.total, store.position) == (0, 0, 1)


def test_what_is_undecided_is_waited_for(changelog: Changelog) -> None:
    """The former owner's last transaction may be committed, and its marker on the way."""
    changelog.write({b"k": b"1"})
    producer = changelog.open_transaction({b"k": b"2"})
    changelog.write({b"l": b"1"})
    store = changelog.store()
    recovery = changelog.recovery({0: store})
    running = threading.Thread(target=recovery.run)
    running.start()

    wait_until(lambda: recovery.progress.trouble, "it did not say what it waits for")
    waiting = recovery.progress
    producer.commit()
    running.join(10)

    assert f"open since offset 1 of {changelog.at(0)}" in waiting.trouble
    assert (waiting.done, waiting.total) == (1, 3)
    assert dict(store.items()) == {b"k": b"2", b"l": b"1"}
    assert not recovery.progress.trouble


def test_it_goes_on_when_a_broker_that_was_away_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.2)
    broker = start_streamer(tmp_path)
    port = str(broker.host_and_port[1])
    admin = ConfluentAdmin(broker.address)
    admin.create_topic("t", partitions=4, replication=-1, configs={})
    changelog = Changelog(broker.address, admin, "t")
    changelog.write({b"k": b"v"})
    store = changelog.store()
    consumer = AfterAnEvent(changelog.consumer, broker.kill)
    recovery = Recovery(cast("Consumer", consumer), admin, {changelog.at(0): store})
    running = threading.Thread(target=recovery.run)
    running.start()

    wait_until(lambda: recovery.progress.trouble, "it did not notice")
    with start_streamer(tmp_path, options=("--port", port)):
        running.join(15)
        changelog.consumer.close()

    assert store.get(b"k") == b"v"
    assert not recovery.progress.trouble


class AfterAnEvent:
    """A consumer; before it is first asked for records, something happens."""

    def __init__(self, consumer: Consumer, event: Callable[[], None]) -> None:
        self._consumer = consumer
        self._event: Callable[[], None] | None = event
        self.assign = consumer.assign
        self.ended = consumer.ended

    def consume(self, limit: int, wait_s: float) -> Sequence[Message]:
        if self._event:
            self._event()
            self._event = None
        return self._consumer.consume(limit, wait_s)


def test_it_can_be_stopped_while_it_waits(changelog: Changelog) -> None:
    producer = changelog.open_transaction({b"k": b"2"})
    recovery = changelog.recovery({0: changelog.store()})
    results: list[bool] = []
    running = threading.Thread(target=lambda: results.append(recovery.run()))
    running.start()
    wait_until(lambda: recovery.progress.total, "it did not begin")

    stopped = time.monotonic()
    recovery.stop()
    running.join(10)

    assert results == [False]
    assert time.monotonic() - stopped < 1
    producer.abort()


def test_it_goes_on_where_it_was_stopped(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(module, "KEYS_MAX", 10)  # so that each chunk is written
    for start in range(0, 1000, 100):
        changelog.write(
            {b"%d" % n: b"%d" % start for n in range(start // 2, start // 2 + 100)}
        )
    stores = RocksStores(tmp_path)
    store = StopsAfterWrites(stores.open("t", 0), 3)

    first = changelog.recovery({0: cast("Store", store)})
    store.stop = first.stop
    assert not first.run()
    position = store.position
    stores.close()

    with closing(RocksStores(tmp_path)) as stores:
        again = stores.open("t", 0)
        assert again.position == position == first.progress.records
        progress = changelog.restore(again)
        found = dict(again.items())

    assert 0 < first.progress.records < 1000
    assert progress.records == 1000 - first.progress.records
    assert found == {b"%d" % n: b"%d" % min(900, n // 50 * 100) for n in range(550)}


class StopsAfterWrites:
    """A store that has its recovery stopped."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store = store
        self._writes = writes
        self.stop: Callable[[], None] = lambda: None

    @property
    def position(self) -> int | None:
        return self._store.position

    def write(self, changes: Changes, position: int, *, in_step: bool = True) -> None:
        self._store.write(changes, position, in_step=in_step)
        self._writes -= 1
        if not self._writes:
            self.stop()


def test_stores_hold_what_a_reader_of_committed_records_sees(
    changelog: Changelog, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions side by side, committed and aborted, restored in many small steps."""
    monkeypatch.setattr(module, "CHUNK", 7)
    monkeypatch.setattr(module, "KEYS_MAX", 5)
    steps = random.Random(SEED)
    producers = [ConfluentTransactionalProducer(bootstrap, new_name("txn")) for _ in "ab"]
    opened: set[ConfluentTransactionalProducer] = set()
    stores = {partition: changelog.store(partition) for partition in range(4)}
    for number in range(120):
        producer = steps.choice(producers)
        if producer not in opened:
            producer.begin()
            opened.add(producer)
        for _ in range(steps.randrange(4)):
            key, value = b"%d" % steps.randrange(12), b"%d" % number
            written = None if steps.random() < 0.2 else value
            producer.send(changelog.topic, written, key=key, partition=steps.randrange(4))
        if steps.random() < 0.3:
            steps.choice([producer.commit, producer.abort])()
            opened.remove(producer)
            if len(opened) == 0 and steps.random() < 0.3:
                assert changelog.recovery(stores).run()  # on the way, too
    for producer in opened:
        producer.commit()

    assert changelog.recovery(stores).run()

    for partition, store in stores.items():
        wanted: dict[bytes | None, bytes | None] = {
            message.key(): message.value()
            for message in read(bootstrap, changelog.topic, partitions=[partition])
        }
        assert dict(store.items()) == {k: v for k, v in wanted.items() if v is not None}


def test_a_store_that_is_restored_is_left_to_its_owner(changelog: Changelog) -> None:
    """Its owner may write to it, and to the changelog, while others are restored."""
    changelog.write({b"k": b"1"}, 0)
    producer = changelog.open_transaction({b"k": b"1"}, 1)
    stores = {0: changelog.store(0), 1: changelog.store(1)}
    first_is_restored = threading.Event()
    recovery = changelog.recovery(stores, lambda _: first_is_restored.set())
    running = threading.Thread(target=recovery.run)
    running.start()
    assert first_is_restored.wait(10)

    changelog.write({b"k": b"2"}, 0)
    stores[0].write({b"k": b"mine"}, 2)
    wait_until(lambda: recovery.progress.trouble, "it does not wait for the other")
    producer.commit()
    running.join(10)

    assert stores[0].get(b"k") == b"mine"
    assert stores[0].position == 2
    assert stores[1].get(b"k") == b"1"


def test_a_store_is_younger_only_when_it_is_up_to_date(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 0)
    changelog.write({b"k": b"1"})
    producer = changelog.open_transaction({b"k": b"2"})
    store = changelog.store()
    before = changelog.now
    store.claim(
        Identity(
            app="a", table="t", partition=0, partitions=4, changelog="c", in_step_ms=before
        )
    )
    changelog.now += 10 * REFRESH_MS
    recovery = changelog.recovery({0: store})
    running = threading.Thread(target=recovery.run)
    running.start()

    wait_until(lambda: store.position == 1, "nothing was written on the way")
    on_the_way = store.identity
    producer.commit()
    running.join(10)

    assert on_the_way
    assert on_the_way.in_step_ms == before
    assert store.identity
    assert store.identity.in_step_ms == changelog.now


def test_progress_tells_how_long_it_will_take() -> None:
    assert Progress(done=100, total=300, seconds=2).rate == 50
    assert Progress(done=100, total=300, seconds=2).eta_seconds == 4
    assert Progress(done=0, total=300, seconds=2).eta_seconds is None
    assert Progress().eta_seconds == 0
