"""Whatever the disk makes of a log: what is served is what was written."""

from __future__ import annotations

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
    records_in,
    reopen,
    search,
)

from streamer.log.config import LogConfig
from streamer.log.errors import CorruptLog
from streamer.log.partition import Partition
from streamer.wire.batch import Marker, read_headers

CONFIG = LogConfig(index_interval_bytes=200)
LOG = FOLDER / f"{0:020d}.log"
Content = dict[int, tuple[int, bytes | None, bytes | None]]


def small_log(disk: SimulatedDisk, size: int = 4096) -> Partition:
    """About that many bytes: plain and idempotent batches, transactions of either end."""
    partition = create(disk, CONFIG)
    sequence = number = 0
    while partition.size < size - 250:
        values = [b"%d-%d" % (number, each) * 20 for each in range(number % 3 + 1)]
        if number % 4 == 3:
            append(partition, batch_of(1, sequence, *values, transactional=True))
            sequence += len(values)
            marker = Marker(commit=number % 8 == 3, coordinator_epoch=0)
            partition.append_marker(1, 0, marker, now_ms=NOW)
        else:
            append(partition, batch(*values, timestamp=NOW + number))
        number += 1
    flush(partition)
    partition.close(clean=True)
    return partition


def content(partition: Partition) -> Content:
    return {
        record.offset: (record.timestamp, record.key, record.value)
        for record in records(partition)
    }


def served(partition: Partition) -> Content:
    """All that can be read, from every offset on that can be."""
    found: Content = {}
    offset = partition.log_start
    while offset < partition.end:
        try:
            result = partition.plan_read(offset, 1 << 20, up_to=partition.end).run()
        except CorruptLog:
            offset += 1
            continue
        assert result is not None
        partition.remember(result)
        for record in records_in(result.data):
            found[record.offset] = (record.timestamp, record.key, record.value)
        offset = max(result.next_offset, offset + 1)
    return found


@pytest.fixture(scope="module")
def written() -> tuple[SimulatedDisk, Content, int]:
    disk = SimulatedDisk()
    partition = small_log(disk)
    reopened = reopen(disk, CONFIG, recovery_point=partition.end, clean=True)
    return disk, content(reopened), partition.end


def test_a_log_cut_anywhere_in_its_last_two_batches_opens_to_the_valid_prefix() -> None:
    disk = SimulatedDisk()
    partition = small_log(disk, 2500)
    whole = disk.files()[LOG]
    everything = content(reopen(disk, CONFIG, recovery_point=partition.end, clean=True))
    headers = list(read_headers(whole))
    ends = {position + header.size: header.last_offset + 1 for position, header in headers}

    for size in range(headers[-2][0], len(whole) + 1):
        disk.replace(LOG, whole[:size])
        cut = reopen(disk, CONFIG)
        valid, end = max((at, end) for at, end in ends.items() if at <= size)
        assert cut.end == end
        assert content(cut) == {o: v for o, v in everything.items() if o < end}
        assert disk.size(LOG) == valid
        assert (cut.recovered is None) == (size in ends)
        assert cut.leader_epoch == (0 if size in ends else 1)
        append(cut, batch(b"next"))
        assert content(cut)[end] == (NOW, b"k", b"next")
        restore(disk, partition, whole)


def restore(disk: SimulatedDisk, partition: Partition, log: bytes) -> None:
    """Everything else goes too: epochs and snapshots of the other future."""
    for path in disk.files():
        if path != LOG:
            disk.remove(path)
    disk.replace(LOG, log)


@pytest.mark.parametrize("clean", [True, False], ids=["serving", "recovering"])
def test_no_flipped_bit_of_a_segment_makes_a_wrong_record(
    written: tuple[SimulatedDisk, Content, int], clean: bool
) -> None:
    disk, everything, end = written
    files = disk.files()
    point = end if clean else 0
    lost = 0
    for bit in range(len(files[LOG]) * 8):
        disk.flip(LOG, bit)
        partition = reopen(disk, CONFIG, recovery_point=point, clean=clean)
        found = served(partition)
        assert found.items() <= everything.items(), f"bit {bit}"
        lost += len(found) < len(everything)
        put_back(disk, files)
    # The leader epoch is compared as well, so no bit is without consequence.
    assert lost == len(files[LOG]) * 8


def put_back(disk: SimulatedDisk, files: dict) -> None:  # type: ignore[type-arg]
    for path in disk.files():
        if path not in files:
            disk.remove(path)
    for path, data in files.items():
        disk.replace(path, data)


@pytest.mark.parametrize("clean", [True, False], ids=["serving", "recovering"])
def test_no_flipped_bit_beside_the_segment_makes_a_wrong_or_a_lost_record(
    written: tuple[SimulatedDisk, Content, int], clean: bool
) -> None:
    disk, everything, end = written
    files = disk.files()
    aborted = reopen(disk, CONFIG, recovery_point=end, clean=True).aborted_between(0, end)
    assert len(aborted) > 1
    point = end if clean else 5
    for path, data in files.items():
        if path == LOG:
            continue
        for bit in range(len(data) * 8):
            disk.flip(path, bit)
            partition = reopen(disk, CONFIG, recovery_point=point, clean=clean)
            assert content(partition) == everything, f"{path} bit {bit}"
            assert partition.aborted_between(0, end) == aborted, f"{path} bit {bit}"
            assert partition.producer_states()[1].last_sequence > 0
            late = search(partition.search_timestamp(NOW + 9, end))
            assert late is not None
            assert late.timestamp >= NOW + 9
            assert search(partition.search_newest(end)) is not None
            put_back(disk, files)
