"""The folder of a broker: one holder, a clean stop, partitions coming and going."""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import UUID

import pytest
from support.disk import SimulatedDisk
from support.logs import NOW, TOPIC_ID, TurnedClock, append, batch, flush, values

from streamer.log.checkpoints import (
    CheckpointDamaged,
    read_meta,
    read_offsets,
    read_partition_metadata,
    write_offsets,
)
from streamer.log.config import LogConfig
from streamer.log.directory import LogDirectory
from streamer.log.disk import RealDisk
from streamer.log.errors import LogDirectoryDamaged, LogDirectoryHeld

DATA = Path("/data")


def opened(disk: SimulatedDisk, clock: TurnedClock | None = None) -> LogDirectory:
    return LogDirectory.open(disk, DATA, clock or TurnedClock())


def test_a_second_broker_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    first = LogDirectory.open(RealDisk(), tmp_path, TurnedClock())
    first.publish_address("127.0.0.1:9092")
    with pytest.raises(LogDirectoryHeld, match=r"pid \d+, 127\.0\.0\.1:9092"):
        LogDirectory.open(RealDisk(), tmp_path, TurnedClock())
    first.close(clean=True)
    LogDirectory.open(RealDisk(), tmp_path, TurnedClock()).close(clean=True)


def test_only_an_orderly_stop_is_taken_for_one() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    assert not directory.clean
    directory.close(clean=True)
    directory = opened(disk)
    assert directory.clean
    disk.kill()
    assert not opened(disk).clean


def test_the_identity_of_a_directory_is_given_once() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    directory.close(clean=True)
    again = opened(disk)
    assert again.cluster_id == directory.cluster_id
    assert len(again.cluster_id) == 22
    meta = read_meta(disk.files()[DATA / "meta.properties"])
    assert meta == (directory.cluster_id, 1, directory.directory_id)


def test_a_directory_of_another_node_is_refused() -> None:
    disk = SimulatedDisk()
    opened(disk).close(clean=True)
    with pytest.raises(LogDirectoryDamaged, match="belongs to node 1"):
        LogDirectory.open(disk, DATA, TurnedClock(), node_id=2)
    disk.replace(DATA / "meta.properties", b"rubbish")
    with pytest.raises(LogDirectoryDamaged, match="cannot be read"):
        opened(disk)


def test_a_partition_is_as_it_was_after_a_clean_stop() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    partition = directory.open_partition("a.b-c_d", 12, TOPIC_ID, LogConfig())
    append(partition, batch(b"1"), batch(b"2"))
    flush(partition)
    partition.delete_records(1)
    directory.close(clean=True)
    folder = DATA / "a.b-c_d-12"
    assert read_partition_metadata(disk.files()[folder / "partition.metadata"]) == TOPIC_ID
    assert (folder / "leader-epoch-checkpoint") in disk.files()
    again = opened(disk).open_partition("a.b-c_d", 12, TOPIC_ID, LogConfig())
    assert values(again) == [b"2"]
    assert again.recovered is None


def test_a_stop_writes_nothing_for_a_partition_that_nobody_has_written_to() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    for number in range(2):
        directory.open_partition("t", number, TOPIC_ID, LogConfig())
    partition = directory.open_partition("t", 2, TOPIC_ID, LogConfig())
    append(partition, batch(b"1"))
    flush(partition)
    directory.close(clean=True)

    taken = [path.parent.name for path in disk.files() if path.suffix == ".snapshot"]
    assert taken == ["t-2"]


def test_a_checkpoint_is_found_again_and_moves_with_the_flushes() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    partition = directory.open_partition("t", 0, TOPIC_ID, LogConfig())
    append(partition, batch(b"1"))
    directory.checkpoint()()
    flush(partition)
    append(partition, batch(b"2"))
    directory.checkpoint()()
    directory.checkpoint()()
    found = read_offsets(disk.files()[DATA / "recovery-point-offset-checkpoint"])
    assert found == {("t", 0): 1}, "the second record is not flushed"


def test_a_deleted_partition_is_gone_at_once_and_its_files_later() -> None:
    disk = SimulatedDisk()
    clock = TurnedClock()
    directory = opened(disk, clock)
    partition = directory.open_partition("t", 0, TOPIC_ID, LogConfig())
    append(partition, batch(b"1"))
    job = partition.begin_flush()
    directory.delete_partition(partition)
    assert job is not None
    partition.flushed(job)
    assert partition.high_watermark == 0, "nobody is told that it was flushed"
    assert not disk.exists(DATA / "t-0")
    moved = next(name for name in disk.list(DATA) if name.endswith("-delete"))
    assert moved.startswith("t-0.")

    new = directory.open_partition("t", 0, UUID(int=9), LogConfig())
    assert values(new) == []
    directory.checkpoint()()
    assert moved in disk.list(DATA)
    clock.now += 60_000
    directory.checkpoint()()
    assert moved not in disk.list(DATA)
    assert "t-0" in disk.list(DATA)


def test_what_a_deletion_left_behind_is_removed_by_the_next_start() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    directory.delete_partition(directory.open_partition("t", 0, TOPIC_ID, LogConfig()))
    disk.kill()
    opened(disk).checkpoint()()
    assert not [name for name in disk.list(DATA) if name.endswith("-delete")]


def test_a_deletion_that_was_cut_short_is_finished_and_strangers_are_kept() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    for name, topic_id in (("gone", UUID(int=1)), ("lost", UUID(int=2))):
        directory.open_partition(name, 0, topic_id, LogConfig())
    disk.replace(DATA / "file-0", b"not a folder")
    disk.make_dir(DATA / "nameless-0")
    disk.kill()

    directory = opened(disk)
    directory.delete_leftovers({UUID(int=1)})
    directory.set_strangers_aside()
    directory.checkpoint()()

    folders = [name for name in disk.list(DATA) if "-0" in name]
    assert [name.split(".")[0] for name in folders] == ["file-0", "lost-0", "nameless-0"]
    assert all(name.endswith("-stray") for name in folders)


def test_what_cannot_be_removed_is_told_and_tried_again() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    config = LogConfig(file_delete_delay_ms=0)
    for topic in ("t", "u"):
        directory.delete_partition(directory.open_partition(topic, 0, TOPIC_ID, config))
    kept = directory.open_partition("kept", 0, TOPIC_ID, config)
    append(kept, batch(b"1"))
    flush(kept)

    disk.fail("remove", errno.EACCES, name="t-0")
    directory.checkpoint()()
    ((path, error),) = directory.finish_removals()
    assert path.name.startswith("t-0.")
    assert error.errno == errno.EACCES
    assert [name for name in disk.list(DATA) if name.endswith("-delete")] == [path.name]
    assert any("snapshot" in file.name for file in disk.files()), "the rest was done"

    disk.heal()
    directory.checkpoint()()
    assert directory.finish_removals() == []
    assert not disk.exists(path)


def test_a_folder_that_no_topic_claims_is_set_aside_and_kept() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    append(directory.open_partition("t", 0, TOPIC_ID, LogConfig()), batch(b"1"))
    directory.close(clean=True)
    directory = opened(disk)
    directory.open_partition("u", 0, TOPIC_ID, LogConfig())
    (moved,) = directory.set_strangers_aside()
    assert moved.name.startswith("t-0.")
    assert moved.name.endswith("-stray")
    assert any(path.parent == moved and path.suffix == ".log" for path in disk.files())
    assert directory.set_strangers_aside() == []


def test_retention_goes_over_all_partitions() -> None:
    disk = SimulatedDisk()
    clock = TurnedClock()
    directory = opened(disk, clock)
    config = LogConfig(retention_ms=1000)
    for index in range(3):
        partition = directory.open_partition("t", index, TOPIC_ID, config)
        append(partition, batch(b"v", timestamp=NOW))
        flush(partition)
    clock.now += 2000
    seen = []
    for partition, deleted in directory.apply_retention():
        assert len(deleted) == 1
        seen.append(partition.index)
        directory.delete_partition(partition)
    assert seen == [0, 1, 2]


def test_a_damaged_checkpoint_file_costs_a_scan_and_no_records() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    append(directory.open_partition("t", 0, TOPIC_ID, LogConfig()), batch(b"1"))
    directory.close(clean=True)
    path = DATA / "recovery-point-offset-checkpoint"
    files = disk.files()
    for bit in range(len(files[path]) * 8):
        for each, data in files.items():
            disk.replace(each, data)
        disk.flip(path, bit)
        partition = opened(disk).open_partition("t", 0, TOPIC_ID, LogConfig())
        assert values(partition) == [b"1"]
        disk.kill()


@pytest.mark.parametrize(
    "data", [b"", b"1\n0\n", b"0\n2\nt 0 5\n", b"0\n1\nt 0\n", b"0\n1\nt x 5\n", b"\xff"]
)
def test_a_checkpoint_file_is_as_it_should_be_or_refused(data: bytes) -> None:
    with pytest.raises(CheckpointDamaged):
        read_offsets(data)
    offsets = {("a-b", 3): 5, ("t", 0): 2**62}
    assert read_offsets(write_offsets(offsets)) == offsets
