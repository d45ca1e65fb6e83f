"""`streamer log` on files that are sound, and on files that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamer.cli.main import main
from streamer.wire.compression import Compression
from streamer.wire.record import Record, write_batch

SEGMENT = "00000000000000000000.log"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, words)])


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    """A folder with a segment of two batches, five records in all."""
    folder = tmp_path / "orders-0"
    folder.mkdir()
    records = [
        Record(offset, 1_700_000_000_000 + offset, b"key", b"value-%d" % offset, ())
        for offset in range(5)
    ]
    batches = [
        write_batch(records[:2]),
        write_batch(records[2:], base_offset=2, compression=Compression.LZ4),
    ]
    (folder / SEGMENT).write_bytes(b"".join(batches))
    return folder


def test_dump_tells_each_batch(partition: Path) -> None:
    result = run("dump", partition / SEGMENT)

    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("offset 0..1 ")
    assert second.startswith("offset 2..4 ")
    assert "lz4" in second


def test_dump_deep_tells_each_record(partition: Path) -> None:
    result = run("dump", partition / SEGMENT, "--deep")

    assert len(result.stdout.splitlines()) == 7
    assert "value-4" in result.stdout


def test_verify_finds_nothing_wrong_with_a_sound_folder(partition: Path) -> None:
    for directory in (partition, partition.parent):
        result = run("verify", directory)

        assert result.exit_code == 0
        assert SEGMENT in result.stdout
        assert "all sound" in result.stderr


def test_verify_names_the_file_that_is_damaged(partition: Path) -> None:
    sound = partition.parent / "sound-0"
    shutil.copytree(partition, sound)
    damaged = bytearray((partition / SEGMENT).read_bytes())
    damaged[70] ^= 1
    (partition / SEGMENT).write_bytes(damaged)

    result = run("verify", partition.parent, "-o", "json")

    assert result.exit_code == 1
    problems = {row["file"]: row["problem"] for row in json.loads(result.stdout)}
    assert problems[f"orders-0/{SEGMENT}"]
    assert problems[f"sound-0/{SEGMENT}"] is None
    assert "1 of 2 files are damaged" in result.stderr
    assert "-> " in result.stderr


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")

    result = run("dump", tmp_path / "notes.txt")

    assert result.exit_code == 1
    assert "notes.txt" in result.stderr


def test_a_folder_without_logs_is_an_error(tmp_path: Path) -> None:
    result = run("verify", tmp_path)

    assert result.exit_code == 1
    assert "holds no log" in result.stderr


def test_what_does_not_exist_is_a_usage_error() -> None:
    assert run("dump", "/no/such.log").exit_code == 2
    assert run("verify", "/no/such").exit_code == 2
