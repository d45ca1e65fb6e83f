"""RocksDB: what a kill leaves, damage, and what is on the disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from streamer.state.errors import StateError, StoreDamaged, StoreHeld
from streamer.state.rocksdb import RocksStores
from streamer.state.store import Place

KILLS = 4
SEED = int(os.environ.get("SEED", "7"))

# Write number N has position N, and N under a hundred keys; each says so when it is done.
WRITER = """
import sys
from pathlib import Path
from streamer.state.rocksdb import RocksStores

store = RocksStores(Path(sys.argv[1])).open("t", 0)
number = store.position or 0
while True:
    number += 1
    value = b"%d" % number + b" " * 1000
    changes = {b"%d" % key: value for key in range(100)}
    changes[b"of %d" % number] = value
    changes[b"of %d" % (number - 50)] = None
    store.write(changes, number)
    print(number, flush=True)
"""


def killed_while_writing(directory: Path, seconds: float) -> int:
    """The last write that was said to be done."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE
    )
    assert process.stdout
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    # What comes behind the last end of line was cut off.
    said = (first + process.stdout.read()).split(b"\n")[:-1]
    process.stdout.close()
    process.wait()
    return int(said[-1])


def test_a_kill_loses_no_write_and_leaves_none_half_done(tmp_path: Path) -> None:
    moments = random.Random(SEED)
    for _ in range(KILLS):
        done = killed_while_writing(tmp_path, moments.uniform(0.05, 0.3))

        with closing(RocksStores(tmp_path)) as stores:
            store = stores.open("t", 0)
            position = store.position
            found = dict(store.items())

        assert position is not None
        assert done <= position <= done + 1
        wanted = {b"%d" % key: position for key in range(100)}
        wanted |= {
            b"of %d" % each: each for each in range(max(1, position - 49), position + 1)
        }
        assert {key: int(value) for key, value in found.items()} == wanted


def test_another_process_may_not_open_what_is_open(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    try:
        with pytest.raises(
            StoreHeld, match=r"Opening t:0 in .*: somebody else has it open"
        ):
            RocksStores(tmp_path).open("t", 0)
    finally:
        process.kill()
        process.communicate()


def full(tmp_path: Path) -> Path:
    """A store of many blocks, closed; its one file of records."""
    with closing(RocksStores(tmp_path)) as stores:
        store = stores.open("t", 0)
        randomness = random.Random(SEED)
        store.write({b"%06d" % n: randomness.randbytes(100) for n in range(2000)}, 2000)
    (file,) = (tmp_path / "tables" / "t" / "0").glob("*.sst")
    return file


def test_a_damaged_block_is_told_and_not_read_past(tmp_path: Path) -> None:
    file = full(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with closing(RocksStores(tmp_path)) as stores:
        store = stores.open("t", 0)
        with pytest.raises(StoreDamaged, match="Corruption"):
            list(store.items())
        with pytest.raises(StoreDamaged):
            store.count()
        with pytest.raises(StoreDamaged):
            [store.get(b"%06d" % number) for number in range(2000)]
        store.close()

        # Opening alone would not notice.
        with pytest.raises(StoreDamaged, match="t:0 was found damaged"):
            stores.open("t", 0)
        stores.forget("t", 0)
        assert stores.open("t", 0).position is None


def test_a_database_that_cannot_be_opened_is_damaged(tmp_path: Path) -> None:
    file = full(tmp_path)
    (manifest,) = file.parent.glob("MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[:20])

    with pytest.raises(StoreDamaged, match=r"Opening t:0 in .*: Corruption"):
        RocksStores(tmp_path).open("t", 0)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("in the way")

    with pytest.raises(StateError, match="Cannot make the folder"):
        RocksStores(tmp_path).open("t", 0)


def test_a_store_whose_removal_was_cut_short_does_not_come_back(tmp_path: Path) -> None:
    folder = full(tmp_path).parent
    folder.rename(folder.with_name("0.gone"))

    stores = RocksStores(tmp_path)

    assert stores.kept() == {}
    assert list(folder.parent.iterdir()) == []


def test_what_is_kept_is_listed_with_when_it_was_last_in_use(tmp_path: Path) -> None:
    before_ms = time.time_ns() // 1_000_000 - 10
    full(tmp_path)
    with closing(RocksStores(tmp_path)) as stores:
        stores.open("é/Ü", 12)
        kept = stores.kept()

    assert kept.keys() == {Place("t", 0), Place("é/Ü", 12)}
    assert all(
        before_ms <= used <= time.time_ns() // 1_000_000 + 10 for used in kept.values()
    )


def test_capitals_are_told_apart_where_the_file_system_does_not(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)

    paths = {str(stores.path(table, 0)).lower() for table in ("sold", "Sold", "SOLD")}

    assert len(paths) == 3
