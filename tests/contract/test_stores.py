"""What every store promises: the same suite over memory and RocksDB."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from streamer.state.errors import StoreClosed, StoreHeld
from streamer.state.identity import Identity
from streamer.state.rocksdb import RocksStores
from streamer.state.store import REFRESH_MS, MemoryStores, Place, Store, Stores

NOW = 1_700_000_000_000

KINDS: dict[str, Callable[[Path, Callable[[], int]], Stores]] = {
    "memory": lambda _, clock: MemoryStores(clock),
    "rocksdb": RocksStores,
}

IDENTITY = Identity(
    app="shop",
    table="sold",
    partition=3,
    partitions=4,
    changelog="shop-sold-changelog",
    value_type='"int"',
    in_step_ms=NOW,
)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def stores(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> Iterator[Stores]:
    with closing(KINDS[request.param](tmp_path, clock)) as made:
        yield made


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.open("sold", 3)


def test_a_new_store_is_empty_and_was_never_written_to(store: Store) -> None:
    assert store.position is None
    assert store.identity is None
    assert store.get(b"tea") is None
    assert list(store.items()) == []
    assert store.count() == 0


def test_a_write_holds_its_changes_and_its_position(store: Store) -> None:
    store.write({b"tea": b"1", b"milk": b"2"}, 10)
    store.write({b"tea": None, b"milk": b"3", b"salt": None}, 12)

    assert store.get(b"tea") is None
    assert dict(store.items()) == {b"milk": b"3"}
    assert store.position == 12


def test_a_write_without_changes_moves_the_position(store: Store) -> None:
    store.write({}, 0)
    assert store.position == 0

    store.write({}, 7)
    assert store.position == 7


@pytest.mark.parametrize(
    "key", [b"", b"\0", b"\0position", b"\1", b"\2", b"\xff" * 3, b"k" * 5000]
)
def test_a_key_may_be_any_bytes(store: Store, key: bytes) -> None:
    store.write({key: b"v", b"k": b""}, 1)

    assert store.get(key) == b"v"
    assert dict(store.items()) == {key: b"v", b"k": b""}
    assert list(store.items(key, key + b"\0")) == [(key, b"v")]
    assert store.position == 1


def test_an_empty_value_is_a_value(store: Store) -> None:
    store.write({b"k": b""}, 1)

    assert store.get(b"k") == b""
    assert store.count() == 1


def test_a_value_may_be_of_a_class_made_from_bytes(store: Store) -> None:
    class Encoded(bytes):
        pass

    store.write({b"k": Encoded(b"v")}, 1)

    assert store.get(b"k") == b"v"


def test_a_scan_shows_the_store_as_it_was_when_it_began(store: Store) -> None:
    store.write({b"%04d" % number: b"old" for number in range(2000)}, 1)

    scan = store.items()
    first = next(scan)
    store.write({b"0001": b"new", b"0002": None, b"9999": b"new"}, 2)

    assert [first, *scan] == [(b"%04d" % number, b"old") for number in range(2000)]


@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (b"", None, b"abcd"),
        (b"b", None, b"bcd"),
        (b"b", b"d", b"bc"),
        (b"b", b"b", b""),
        (b"c", b"b", b""),
        (b"", b"", b""),
        (b"aa", b"cc", b"bc"),
        (b"e", None, b""),
    ],
)
def test_a_scan_has_its_start_and_not_its_stop(
    store: Store, start: bytes, stop: bytes | None, found: bytes
) -> None:
    store.write({b"d": b"", b"b": b"", b"a": b"", b"c": b""}, 1)

    assert b"".join(key for key, _ in store.items(start, stop)) == found


def test_a_key_that_was_deleted_and_came_back_is_there_once(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"1"}, 1)
    assert len(list(store.items())) == 2

    store.write({b"a": None}, 2)
    store.write({b"a": b"2"}, 3)

    assert list(store.items()) == [(b"a", b"2"), (b"b", b"1")]


def test_a_scan_of_a_closed_store_is_whole_or_fails(stores: Stores, store: Store) -> None:
    """It must not end as if there were no more; nor keep others from opening the store."""
    everything = [(b"%04d" % number, b"v") for number in range(2000)]
    store.write(dict(everything), 1)
    scan = store.items()
    found = [next(scan)]

    store.close()
    stores.open("sold", 3)

    try:
        found += scan
    except StoreClosed:
        pass
    else:
        assert found == everything


def test_partitions_and_tables_are_apart(stores: Stores) -> None:
    one, two = stores.open("sold", 0), stores.open("sold", 1)
    other, capital = stores.open("sold.0", 0), stores.open("Sold", 0)
    one.write({b"k": b"1"}, 1)

    assert [each.get(b"k") for each in (one, two, other, capital)] == [b"1"] + [None] * 3


@pytest.mark.parametrize("table", ["..", ".hidden", "a/b", "é% ü", "Ünder_score-1.x"])
def test_a_table_may_have_any_name(stores: Stores, tmp_path: Path, table: str) -> None:
    store = stores.open(table, 0)
    store.write({b"k": b"v"}, 1)

    assert store.get(b"k") == b"v"
    assert set(tmp_path.iterdir()) <= {tmp_path / "tables"}
    assert set(stores.kept()) <= {Place(table, 0)}


def test_a_store_is_open_once(stores: Stores, store: Store) -> None:
    with pytest.raises(StoreHeld, match="sold:3 is open already"):
        stores.open("sold", 3)

    store.close()
    stores.open("sold", 3)


def test_what_is_forgotten_is_empty_again(stores: Stores, store: Store) -> None:
    store.claim(IDENTITY)
    store.write({b"k": b"v"}, 1)
    store.close()

    stores.forget("sold", 3)
    stores.forget("sold", 3)

    assert not stores.kept()
    again = stores.open("sold", 3)
    assert again.position is None
    assert again.identity is None
    assert list(again.items()) == []


def test_a_closed_store_says_so(store: Store) -> None:
    store.write({b"k": b"v"}, 1)
    store.close()
    store.close()

    with pytest.raises(StoreClosed):
        store.get(b"k")
    with pytest.raises(StoreClosed):
        store.items()
    with pytest.raises(StoreClosed):
        store.write({b"k": b"w"}, 2)


def test_stores_close_what_they_have_opened(stores: Stores) -> None:
    store = stores.open("sold", 0)

    stores.close()

    with pytest.raises(StoreClosed):
        store.get(b"k")


def test_the_count_is_exact_once_it_was_asked_for(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"1"}, 1)
    assert store.count() == 2

    store.write({b"a": b"2", b"b": None, b"c": b"1", b"d": None}, 2)
    assert store.count() == 2

    store.write({}, 3)
    assert store.count() == 2


def test_the_size_grows_with_what_is_in_it(store: Store) -> None:
    before = store.size_bytes()

    store.write({b"%d" % number: b"v" * 100 for number in range(10_000)}, 1)

    assert 800_000 < store.size_bytes() - before < 4_000_000


def test_writes_in_a_thread_disturb_no_reader(store: Store) -> None:
    stop = threading.Event()
    problems: list[Exception] = []

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                store.write({b"%d" % (number % 50): b"%d" % number, b"k": b"v"}, number)
                store.write({b"%d" % ((number * 7) % 50): None}, number)
        except Exception as problem:
            problems.append(problem)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            keys = [key for key, _ in store.items()]
            assert keys == sorted(set(keys))
            assert store.get(b"k") in (b"v", None)
            assert store.count() >= 0
    finally:
        stop.set()
        writer.join()
    assert not problems
    assert store.count() == len(list(store.items()))


# Whose it is.


def test_a_claim_is_kept_with_the_next_write(store: Store) -> None:
    store.claim(IDENTITY)
    assert store.identity == IDENTITY

    store.write({}, 1)
    assert store.identity == IDENTITY


def test_a_write_in_step_makes_a_store_younger_to_the_minute(
    store: Store, clock: Clock
) -> None:
    store.claim(IDENTITY)

    clock.now = NOW + REFRESH_MS - 1
    store.write({}, 1)
    before = store.identity
    clock.now = NOW + REFRESH_MS
    store.write({}, 2)
    after = store.identity

    assert (before and before.in_step_ms, after and after.in_step_ms) == (NOW, clock.now)


def test_a_write_that_catches_up_makes_no_store_younger(store: Store, clock: Clock) -> None:
    store.claim(IDENTITY)

    clock.now = NOW + 10 * REFRESH_MS
    store.write({b"k": b"v"}, 1, in_step=False)

    assert store.identity == IDENTITY


# Against a dict.

# Few, so that they are met again; those that a layout on disk could trip over.
KEYS = st.sampled_from(
    [b"", b"\0", b"\0\0", b"\0position", b"\1", b"\2", b"a", b"\xff\xff"]
)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=5), max_size=6)


class AStoreIsADict(RuleBasedStateMachine):
    kind = ""
    lasts = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.stores = KINDS[self.kind](Path(self.directory.name), self.clock)
        self.model: dict[bytes, bytes] = {}
        self.position: int | None = None
        self.scans: list[tuple[Iterator[Any], list[Any]]] = []

    @initialize()
    def open(self) -> None:
        self.store = self.stores.open("t", 0)

    @rule(changes=CHANGES)
    def write(self, changes: dict[bytes, bytes | None]) -> None:
        self.position = (self.position or 0) + len(changes)
        self.store.write(changes, self.position)
        for key, value in changes.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.store.get(key) == self.model.get(key)

    @rule(start=KEYS, stop=st.none() | KEYS)
    def scan(self, start: bytes, stop: bytes | None) -> None:
        assert list(self.store.items(start, stop)) == [
            (key, value)
            for key, value in sorted(self.model.items())
            if start <= key and (stop is None or key < stop)
        ]

    @rule()
    def begin_a_scan(self) -> None:
        self.scans.append((self.store.items(), sorted(self.model.items())))

    @rule()
    def end_the_scans(self) -> None:
        for scan, wanted in self.scans:
            assert list(scan) == wanted
        self.scans.clear()

    @rule()
    def count(self) -> None:
        assert self.store.count() == len(self.model)

    @precondition(lambda self: self.lasts)
    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = self.stores.open("t", 0)
        for scan, _ in self.scans:
            with pytest.raises(StoreClosed):
                list(scan)
        self.scans.clear()

    @rule()
    def forget(self) -> None:
        self.store.close()
        self.stores.forget("t", 0)
        self.scans.clear()
        self.store = self.stores.open("t", 0)
        self.model, self.position = {}, None

    @invariant()
    def position_is_that_of_the_last_write(self) -> None:
        if hasattr(self, "store"):
            assert self.store.position == self.position

    def teardown(self) -> None:
        self.stores.close()
        self.directory.cleanup()


QUICK = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class MemoryIsADict(AStoreIsADict):
    kind = "memory"


class RocksDBIsADict(AStoreIsADict):
    kind = "rocksdb"
    lasts = True


test_memory_is_a_dict = MemoryIsADict.TestCase
test_memory_is_a_dict.settings = settings(QUICK, max_examples=100)
test_rocksdb_is_a_dict = RocksDBIsADict.TestCase
test_rocksdb_is_a_dict.settings = QUICK
