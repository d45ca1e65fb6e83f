"""The real disk: few open files, whoever uses one keeps it, short writes go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.log.disk import NOWAIT, RealDisk


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_no_more_files_are_open_than_allowed_and_all_can_be_used(tmp_path: Path) -> None:
    before = open_descriptors()
    disk = RealDisk(open_files=10)
    files = [disk.open(tmp_path / f"{number}", create=True) for number in range(100)]
    for number, file in enumerate(files):
        file.pin().write(0, [b"%d" % number])
    assert open_descriptors() - before <= 12
    for number, file in enumerate(files):
        assert file.pin().read(0, 10) == b"%d" % number
    assert open_descriptors() - before <= 12


def test_a_pinned_file_outlives_its_name_and_its_place_among_the_open(
    tmp_path: Path,
) -> None:
    disk = RealDisk(open_files=2)
    pinned = disk.open(tmp_path / "a", create=True).pin()
    pinned.write(0, [b"kept"])
    others = [disk.open(tmp_path / f"{number}", create=True) for number in range(10)]
    disk.remove(tmp_path / "a")
    assert pinned.read(0, 10) == b"kept"
    before = open_descriptors()
    del pinned, others
    assert open_descriptors() < before


def test_a_file_used_lately_stays_open(tmp_path: Path) -> None:
    disk = RealDisk(open_files=4)
    hot = disk.open(tmp_path / "hot", create=True)
    first = hot.pin()
    for number in range(50):
        disk.open(tmp_path / f"{number}", create=True)
        assert hot.pin() is first


def test_reads_and_writes_anywhere_in_the_file(tmp_path: Path) -> None:
    file = RealDisk().open(tmp_path / "a", create=True).pin()
    file.write(0, [b"abc", memoryview(b"def"), bytearray(b"ghi")])
    assert file.read(2, 5) == b"cdefg"
    assert file.read(7, 100) == b"hi"
    assert file.read(100, 5) == b""
    found = file.read(1, 4, wait=False)
    assert found is not None
    assert bytes(found) == b"bcde"
    past_the_end = file.read(7, 100, wait=False)
    assert past_the_end is not None
    assert bytes(past_the_end) == b"hi"
    file.truncate(4)
    assert file.size() == 4
    file.sync()


def test_a_short_write_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RealDisk().open(tmp_path / "a", create=True).pin()
    real = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: real(fd, data[0][:2], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    file.write(0, [b"abcdef", b"ghijkl"])
    assert file.read(0, 100) == b"abcdefghijkl"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.write_file(tmp_path / "a", b"one")
    disk.write_file(tmp_path / "a", b"two", durable=False)
    assert disk.read_file(tmp_path / "a") == b"two"
    assert disk.list(tmp_path) == ["a"]


@pytest.mark.skipif(not NOWAIT, reason="only Linux can say that a read would wait")
def test_a_file_system_without_that_ability_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RealDisk().open(tmp_path / "a", create=True).pin()
    file.write(0, [b"abc"])

    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", refuse)
    assert file.read(0, 3, wait=False) == b"abc"


def test_space_is_told(tmp_path: Path) -> None:
    space = RealDisk().space(tmp_path)
    assert 0 < space.free <= space.total
