"""State that has gone elsewhere is removed, when it has been gone for long enough."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from streamer.state.rocksdb import RocksStores
from streamer.state.store import Place
from streamer.state.unowned import clean_up, unowned

NOW = 1_000_000
SOLD, SEEN = Place("sold", 0), Place("seen", 1)


@pytest.mark.parametrize(
    ("owned", "age_ms", "going"),
    [
        ([], 501, [SOLD]),
        ([], 500, []),
        ([SOLD], 501, []),
        ([SEEN], 501, [SOLD]),
        # A clock that was set back makes nothing old.
        ([], -501, []),
    ],
)
def test_what_is_not_ours_goes_after_the_delay(
    owned: list[Place], age_ms: int, going: list[Place]
) -> None:
    kept = {SOLD: NOW - age_ms}

    assert unowned(kept, owned, now_ms=NOW, delay_ms=500) == going


def test_only_the_unowned_is_removed_from_the_disk(tmp_path: Path) -> None:
    with closing(RocksStores(tmp_path)) as stores:
        ours = stores.open("sold", 0)
        ours.write({b"k": b"v"}, 1)
        stores.open("sold", 1).close()
        stores.open("sold", 2).close()
        later = time.time_ns() // 1_000_000 + 10_000
        recent = stores.path("sold", 2) / "IDENTITY"
        os.utime(recent, (later / 1000, later / 1000))

        gone = clean_up(stores, {Place("sold", 0)}, now_ms=later, delay_ms=5_000)

        assert gone == [Place("sold", 1)]
        assert stores.kept().keys() == {Place("sold", 0), Place("sold", 2)}
        assert ours.get(b"k") == b"v"
