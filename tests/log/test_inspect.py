"""`streamer log dump` and `log verify`: what is in the files, and what is wrong there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.disk import SimulatedDisk
from support.logs import FOLDER, NOW, append, batch, batch_of, create

from streamer.log.config import LogConfig
from streamer.log.inspect import CannotDump, dump, verify
from streamer.wire.batch import Marker


def stored() -> SimulatedDisk:
    disk = SimulatedDisk()
    partition = create(disk, LogConfig(index_interval_bytes=50))
    append(partition, batch(b"one", b"two"), batch_of(5, 0, b"three", transactional=True))
    partition.append_marker(5, 0, Marker(commit=False, coordinator_epoch=2), now_ms=NOW)
    append(partition, batch_of(6, 0, b"four", transactional=True))
    partition.close(clean=True)
    return disk


def path(suffix: str, offset: int = 0) -> Path:
    return FOLDER / f"{offset:020d}{suffix}"


def test_a_log_is_told_batch_by_batch() -> None:
    lines = list(dump(stored(), path(".log")))
    assert len(lines) == 4
    assert lines[0].startswith("offset 0..1  position 0  size ")
    assert "records 2  none  epoch 0  created 2023-11-14T22:13:20.000Z" in lines[0]
    assert "producer 5 epoch 0 sequence 0..0  transactional" in lines[1]
    assert "abort by coordinator epoch 2" in lines[2]


def test_a_deep_dump_tells_the_records_too() -> None:
    lines = list(dump(stored(), path(".log"), deep=True))
    assert lines[1] == "  offset 0  2023-11-14T22:13:20.000Z  key 'k'  value 'one'"
    assert len(lines) == 4 + 4


def test_the_files_beside_the_log_are_told() -> None:
    disk = stored()
    assert next(dump(disk, path(".index"))).startswith("offset 2  position ")
    assert list(dump(disk, path(".timeindex"))) == ["2023-11-14T22:13:20.000Z  offset 1"]
    assert list(dump(disk, path(".txnindex"))) == [
        "aborted  producer 5  offset 2..3  last stable offset then 4"
    ]
    first, second = dump(disk, path(".snapshot", 5))
    assert first.startswith("producer 5  epoch 0  sequence 0..0  offset 2..2  coordinator")
    assert "transaction open since offset 4" in second


def test_zeros_at_the_end_of_an_index_are_no_entries() -> None:
    disk = stored()
    entries = list(dump(disk, path(".index")))
    disk.replace(path(".index"), disk.files()[path(".index")] + bytes(800))
    assert list(dump(disk, path(".index"))) == entries


def test_damage_is_told_and_ends_the_dump() -> None:
    disk = stored()
    disk.flip(path(".log"), 8 * 70)
    assert next(dump(disk, path(".log"))).endswith("WRONG")
    disk.flip(path(".log"), 8 * 16)
    assert list(dump(disk, path(".log"))) == ["! byte 0: message format 3, not 2"]
    disk.flip(path(".snapshot", 5), 99)
    assert list(dump(disk, path(".snapshot", 5))) == ["! it does not match its checksum"]


def test_another_file_is_refused_with_what_could_be_read() -> None:
    with pytest.raises(CannotDump, match=r"\.timeindex"):
        dump(SimulatedDisk(), Path("/data/notes.txt"))


@pytest.mark.parametrize("where", [FOLDER, FOLDER.parent])
def test_a_sound_directory_has_no_findings(where: Path) -> None:
    findings = list(verify(stored(), where))
    assert [one.problem for one in findings] == [None] * 6
    assert "4 batches, 5 records" in next(
        f.detail for f in findings if f.path == path(".log")
    )


@pytest.mark.parametrize(
    "name",
    [".log", ".index", ".timeindex", ".txnindex", ".snapshot"],
)
def test_what_is_damaged_is_found(name: str) -> None:
    disk = stored()
    damaged = path(name, 5 if name == ".snapshot" else 0)
    disk.flip(damaged, 8 * 66 if name == ".log" else 8 * 7 + 1)
    wrong = [one.path for one in verify(disk, FOLDER) if one.problem is not None]
    assert damaged in wrong


def test_an_unreadable_folder_beside_is_passed_over() -> None:
    disk = stored()
    disk.replace(Path("/data/meta.properties"), b"x")
    assert all(one.problem is None for one in verify(disk, Path("/data")))
