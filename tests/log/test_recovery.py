"""What a start reads, and what it makes of it."""

from __future__ import annotations

from random import Random

import pytest
from support.disk import SimulatedDisk
from support.logs import (
    FOLDER,
    NOW,
    append,
    batch,
    batch_of,
    create,
    flush,
    records,
    reopen,
    search,
    values,
)

from streamer.log.config import LogConfig
from streamer.log.partition import Partition
from streamer.wire.batch import Marker

CONFIG = LogConfig(segment_bytes=20_000, index_interval_bytes=500)


def filled(disk: SimulatedDisk, count: int = 1000) -> Partition:
    partition = create(disk, CONFIG)
    for number in range(count):
        append(partition, batch_of(1, number, b"%d" % number))
    flush(partition)
    return partition


def test_nothing_below_the_recovery_point_is_scanned() -> None:
    disk = SimulatedDisk()
    partition = filled(disk, 3000)
    point = partition.checkpoint()
    assert point == 3000
    for number in range(10):
        append(partition, batch_of(1, 3000 + number, b"x"))
    disk.kill()
    disk.bytes_read = 0

    reopened = reopen(disk, CONFIG, recovery_point=point)
    assert reopened.end == 3010
    assert disk.bytes_read < 60_000 < partition.size / 3

    disk.bytes_read = 0
    assert reopen(disk, CONFIG, recovery_point=0).end == 3010
    assert disk.bytes_read > partition.size


def test_a_clean_start_reads_a_few_headers() -> None:
    disk = SimulatedDisk()
    partition = filled(disk)
    partition.close(clean=True)
    disk.bytes_read = disk.counts["read"] = 0

    reopened = reopen(disk, CONFIG, recovery_point=1000, clean=True)
    assert disk.counts["read"] <= 15
    assert disk.bytes_read < 20_000
    assert reopened.end == 1000
    assert reopened.leader_epoch == 0
    assert reopened.producer_states()[1].last_sequence == 999


@pytest.mark.parametrize("point", [0, 1, 700, 999, 1001, 5000])
def test_a_clean_start_does_not_believe_a_wrong_end(point: int) -> None:
    disk = SimulatedDisk()
    filled(disk).close(clean=True)
    reopened = reopen(disk, CONFIG, recovery_point=point, clean=True)
    assert values(reopened) == [b"%d" % one for one in range(1000)]
    assert reopened.leader_epoch == (1 if point > 1000 else 0)


@pytest.mark.parametrize("cut", [1, 50, 5000])
def test_a_clean_start_notices_that_the_file_has_become_shorter(cut: int) -> None:
    disk = SimulatedDisk()
    filled(disk).close(clean=True)
    path = max(path for path in disk.files() if path.suffix == ".log")
    disk.replace(path, disk.files()[path][:-cut])
    reopened = reopen(disk, CONFIG, recovery_point=1000, clean=True)
    assert reopened.end < 1000
    assert reopened.recovered is not None
    append(reopened, batch(b"next"))
    assert values(reopened)[-2:] == [b"%d" % (reopened.end - 2), b"next"]


def test_a_resend_is_known_after_a_kill_up_to_five_batches_back() -> None:
    disk = SimulatedDisk()
    filled(disk, 20)
    disk.kill()
    reopened = reopen(disk, CONFIG)
    for back in range(1, 6):
        number = 20 - back
        again = reopened.append(batch_of(1, number, b"%d" % number), now_ms=NOW)
        assert again.repeated
        assert again.base_offset == number
    reopened.append(batch_of(1, 20, b"20"), now_ms=NOW)
    assert reopened.end == 21


def test_the_first_checkpoint_after_a_crash_spares_the_next_start_the_same_work() -> None:
    disk = SimulatedDisk()
    filled(disk, 3000)
    disk.kill()
    reopened = reopen(disk, CONFIG)
    point = reopened.checkpoint()
    assert point == 3000
    disk.kill()
    disk.bytes_read = 0
    again = reopen(disk, CONFIG, recovery_point=point)
    assert disk.bytes_read < 60_000
    assert again.producer_states()[1].last_sequence == 2999


def test_a_snapshot_of_a_future_that_did_not_come_is_not_believed() -> None:
    disk = SimulatedDisk()
    partition = filled(disk, 5)
    path, size = FOLDER / f"{0:020d}.log", partition.size
    append(partition, *[batch_of(1, number, b"lost") for number in range(5, 10)])
    partition.checkpoint()
    assert FOLDER / f"{10:020d}.snapshot" in disk.files()
    disk.replace(path, disk.files()[path][:size])

    reopened = reopen(disk, CONFIG)
    append(reopened, *[batch(b"other")] * 5)
    flush(reopened)
    disk.kill()
    again = reopen(disk, CONFIG, recovery_point=10)
    assert again.end == 10
    assert again.producer_states()[1].last_sequence == 4


@pytest.mark.parametrize("seed", range(20))
def test_nor_when_a_power_cut_brings_it_back(seed: int) -> None:
    disk = SimulatedDisk()
    partition = create(disk)
    flush(partition)
    append(partition, batch_of(1, 0, b"lost"))
    snapshot = partition.begin_checkpoint()
    assert snapshot is not None
    snapshot.run()
    disk.replace(FOLDER / f"{0:020d}.log", b"")
    disk.kill()
    reopened = reopen(disk)
    append(reopened, batch_of(9, 0, b"x", transactional=True))
    disk.crash(Random(seed))

    again = reopen(disk)
    assert 1 not in again.producer_states()
    again.checkpoint()
    disk.kill()
    last = reopen(disk, recovery_point=again.checkpoint())
    assert last.producer_states().keys() == again.producer_states().keys()


def test_a_missing_recovery_point_means_that_all_is_checked() -> None:
    disk = SimulatedDisk()
    filled(disk, 50).close(clean=True)
    assert values(reopen(disk, CONFIG, clean=False)) == [b"%d" % one for one in range(50)]


def test_a_damaged_snapshot_is_replaced_by_an_older_one_and_headers() -> None:
    disk = SimulatedDisk()
    partition = filled(disk)
    partition.close(clean=True)
    snapshots = sorted(path for path in disk.files() if path.suffix == ".snapshot")
    assert len(snapshots) > 2
    for path in snapshots[-2:]:
        disk.flip(path, 77)

    reopened = reopen(disk, CONFIG, recovery_point=1000, clean=True)
    state = reopened.producer_states()[1]
    assert [sent.first_sequence for sent in state.batches] == [995, 996, 997, 998, 999]


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("what", ["removed", "emptied", "zeroed"])
def test_an_index_is_made_anew_when_it_is_gone_or_wrong(suffix: str, what: str) -> None:
    disk = SimulatedDisk()
    filled(disk).close(clean=True)
    for path, data in disk.files().items():
        if path.suffix == suffix and what == "removed":
            disk.remove(path)
        elif path.suffix == suffix:
            disk.replace(path, b"" if what == "emptied" else bytes(len(data)))
    for clean in (True, False):
        reopened = reopen(disk, CONFIG, recovery_point=1000, clean=clean)
        assert values(reopened) == [b"%d" % one for one in range(1000)]
        assert records(reopened, 777)[0].value == b"777"
        first = search(reopened.search_timestamp(NOW, 1000))
        assert first is not None
        assert first.offset == 0


def test_what_was_cut_raises_the_leader_epoch_and_tells_where_the_old_one_ended() -> None:
    disk = SimulatedDisk()
    filled(disk, 10)
    path = FOLDER / f"{0:020d}.log"
    disk.replace(path, disk.files()[path][:-1])
    disk.kill()

    reopened = reopen(disk, CONFIG)
    assert reopened.recovered is not None
    assert reopened.end == 9
    assert reopened.leader_epoch == 1
    assert reopened.epoch_end(0) == (0, 9)
    append(reopened, batch(b"new"))
    flush(reopened)
    assert reopened.epoch_at(8) == 0
    assert reopened.epoch_at(9) == 1
    assert reopened.epoch_end(1) == (1, 10)
    assert reopened.epoch_end(2) == (-1, -1)
    disk.kill()
    again = reopen(disk, CONFIG)
    assert again.recovered is None
    assert again.leader_epoch == 1
    assert values(again)[-1] == b"new"


def test_lost_files_are_noticed_and_raise_the_leader_epoch() -> None:
    disk = SimulatedDisk()
    filled(disk, 10)
    for path in disk.files():
        if path.suffix != "":
            disk.remove(path)
    reopened = reopen(disk, CONFIG, recovery_point=10)
    assert reopened.recovered is not None
    assert "up to offset 10" in reopened.recovered
    assert reopened.leader_epoch == 1
    append(reopened, batch(b"new"))
    assert values(reopened) == [b"new"]


def test_without_durable_flushes_every_crash_raises_the_leader_epoch() -> None:
    disk = SimulatedDisk()
    partition = create(disk, durable=False)
    append(partition, batch(b"a"))
    disk.kill()
    assert reopen(disk, durable=False).leader_epoch == 1


def test_a_segment_behind_a_damaged_one_goes_with_it() -> None:
    disk = SimulatedDisk()
    partition = filled(disk)
    bases = [int(path.stem) for path in disk.files() if path.suffix == ".log"]
    second = sorted(bases)[1]
    disk.flip(FOLDER / f"{second:020d}.log", 8 * 1000)
    disk.kill()

    reopened = reopen(disk, CONFIG)
    assert second < reopened.end < second + 20
    assert reopened.size < partition.size / 2
    assert not any(int(p.stem) > second for p in disk.files() if p.suffix == ".log")
    assert reopened.recovered is not None
    assert "checksum" in reopened.recovered


def test_aborts_before_a_torn_tail_are_found_even_if_their_list_is_torn_as_well() -> None:
    disk = SimulatedDisk()
    partition = create(disk)
    append(partition, batch_of(1, 0, b"a", transactional=True))
    partition.append_marker(1, 0, Marker(commit=False, coordinator_epoch=0), now_ms=NOW)
    flush(partition)
    partition.checkpoint()
    append(partition, batch(b"torn"))
    disk.kill()
    log, aborts = FOLDER / f"{0:020d}.log", FOLDER / f"{0:020d}.txnindex"
    size = len(disk.files()[log]) - len(batch(b"torn"))
    disk.replace(log, disk.files()[log][:size] + bytes(len(batch(b"torn"))))
    disk.flip(aborts, 77)

    reopened = reopen(disk, recovery_point=2)
    assert reopened.end == 2
    assert reopened.aborted_between(0, 2) == [(1, 0)]


def test_a_torn_snapshot_is_not_relied_on_when_what_lies_before_is_deleted() -> None:
    disk = SimulatedDisk()
    partition = create(disk, LogConfig(segment_bytes=150))
    append(partition, batch_of(1, 0, b"x" * 50, transactional=True), batch(b"y" * 50))
    flush(partition)
    disk.kill()
    disk.flip(FOLDER / f"{1:020d}.snapshot", 77)

    reopened = reopen(disk)
    assert reopened.delete_records(1) == 1
    assert len([path for path in disk.files() if path.suffix == ".log"]) == 1
    for path in reopened.take_doomed():
        disk.remove(path)
    disk.kill()
    reopened = reopen(disk)
    assert (reopened.log_start, reopened.last_stable) == (1, 1), "it is still open"


@pytest.mark.parametrize("seed", range(20))
def test_what_is_served_after_a_kill_survives_a_power_cut_right_after(seed: int) -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    append(partition, *[batch_of(1, number, b"x" * 90) for number in range(900)])
    assert len([path for path in disk.files() if path.suffix == ".log"]) > 5
    disk.kill()
    served = reopen(disk, CONFIG)
    assert served.high_watermark == 900
    disk.crash(Random(seed))
    again = reopen(disk, CONFIG)
    assert again.end == 900
    assert again.recovered is None
    assert again.producer_states()[1].last_sequence == 899


@pytest.mark.parametrize(
    ("durable", "point", "expected"),
    [
        (True, 0, "40 bytes behind offset 7 were cut off: the file ends within a batch"),
        (True, 0, "nothing need be done"),
        (False, 0, "log.durability=page-cache"),
        (True, 9, "Offsets 7 to 8 are lost: the file ends within a batch header (byte "),
        (True, 9, "Check it (dmesg, SMART)"),
    ],
)
def test_what_was_cut_is_told_in_full(durable: bool, point: int, expected: str) -> None:
    disk = SimulatedDisk()
    partition = filled(disk, 10)
    path = FOLDER / f"{0:020d}.log"
    size = partition.size // 10
    disk.replace(path, disk.files()[path][: 7 * size + 40])
    disk.kill()
    told = reopen(disk, CONFIG, recovery_point=point, durable=durable).recovered
    assert told is not None
    assert expected in told
    assert "  -> " in told


def test_an_open_transaction_is_still_open_after_a_crash() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    append(partition, batch(b"a"), batch_of(1, 0, b"b", transactional=True), batch(b"c"))
    flush(partition)
    assert partition.last_stable == 1
    point = partition.checkpoint()
    disk.kill()
    assert reopen(disk, CONFIG, recovery_point=0).last_stable == 1
    reopened = reopen(disk, CONFIG, recovery_point=point)
    assert reopened.last_stable == 1
    reopened.append_marker(1, 0, Marker(commit=False, coordinator_epoch=0), now_ms=NOW)
    assert reopened.last_stable == 1, "the marker is not flushed yet"
    flush(reopened)
    assert reopened.last_stable == 4
    assert reopened.aborted_between(0, 4) == [(1, 1)]
    disk.kill()
    assert reopen(disk, CONFIG).aborted_between(0, 4) == [(1, 1)]
