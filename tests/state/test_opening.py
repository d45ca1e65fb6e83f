"""Opening: a store of ours as it was left, any other made anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.state.identity import Identity, Verdict
from streamer.state.opening import opened
from streamer.state.rocksdb import RocksStores
from streamer.state.store import REFRESH_MS, Store

NOW = 1_700_000_000_000
HOUR = 3_600_000

WANTED = Identity(
    app="shop", table="sold", partition=0, partitions=4, changelog="shop-sold-changelog"
)


class Worker:
    """One start of a worker after another, on one folder."""

    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.path = path
        self.start()

    def start(self) -> None:
        self.stores = RocksStores(self.path, lambda: self.now)

    def restart(self) -> None:
        self.stores.close()
        self.start()

    def open(self, wanted: Identity = WANTED, end: int = 100) -> tuple[Store, Verdict]:
        return opened(
            self.stores,
            wanted,
            now_ms=self.now,
            changelog_begin=0,
            changelog_end=end,
            delete_retention_ms=24 * HOUR,
        )


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.stores.close()


def left_with_a_key(worker: Worker) -> None:
    store, verdict = worker.open()
    assert verdict == Verdict(keep=True)
    store.write({b"k": b"v"}, 50)
    worker.restart()


def test_what_is_ours_is_kept(worker: Worker) -> None:
    left_with_a_key(worker)

    store, verdict = worker.open()

    assert verdict == Verdict(keep=True)
    assert (store.get(b"k"), store.position) == (b"v", 50)


def test_what_is_not_is_made_anew_and_ours(worker: Worker) -> None:
    left_with_a_key(worker)
    other = replace(WANTED, app="other")

    store, verdict = worker.open(other)

    assert "belongs to app 'shop', not to app 'other'" in verdict.because
    assert (store.get(b"k"), store.position) == (None, None)
    store.write({}, 1)
    worker.restart()
    assert worker.open(other)[1] == Verdict(keep=True)


def test_what_is_damaged_is_made_anew(worker: Worker) -> None:
    left_with_a_key(worker)
    worker.stores.close()
    for manifest in worker.stores.path("sold", 0).glob("MANIFEST-*"):
        manifest.write_bytes(b"")
    worker.start()

    store, verdict = worker.open()

    assert (
        "'sold', partition 0 is rebuilt: it is damaged. Opening sold:0" in verdict.because
    )
    assert store.position is None


def test_a_store_that_is_brought_up_to_date_again_and_again_ages(worker: Worker) -> None:
    """A deletion may be behind it all the time, and be forgotten at last."""
    left_with_a_key(worker)
    for _ in range(2):
        worker.now += 6 * HOUR
        store, verdict = worker.open()
        assert verdict.keep
        assert store.position
        store.write({}, store.position + 1, in_step=False)
        worker.restart()

    worker.now += 6 * HOUR
    store, verdict = worker.open()

    assert "it was up to date 18.0 hours ago" in verdict.because


def test_a_store_that_keeps_in_step_does_not_age(worker: Worker) -> None:
    left_with_a_key(worker)
    for _ in range(3):
        worker.now += 11 * HOUR
        store, verdict = worker.open()
        assert verdict == Verdict(keep=True)
        store.write({}, 50)
        worker.restart()


def test_another_type_of_values_is_said_once(worker: Worker) -> None:
    left_with_a_key(worker)
    changed = replace(WANTED, value_type='"str"')

    store, first = worker.open(changed)
    store.write({}, 51)
    worker.restart()
    worker.now += REFRESH_MS
    _, second = worker.open(changed)

    assert "are read as" in first.because
    assert second == Verdict(keep=True)
