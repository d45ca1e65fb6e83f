"""What readers get: whole batches, in order, whatever happens meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.disk import SimulatedDisk
from support.logs import (
    FOLDER,
    NOW,
    TOPIC_ID,
    TurnedClock,
    append,
    batch,
    create,
    flush,
    records,
    records_in,
    reopen,
    search,
    values,
)

from streamer.log.config import LogConfig
from streamer.log.disk import RealDisk
from streamer.log.errors import CorruptLog, NotInMemory, OffsetOutOfRange, Refused
from streamer.log.partition import Partition
from streamer.log.reading import ReadPlan
from streamer.log.swap import note_gaps
from streamer.wire.batch import read_header, read_headers
from streamer.wire.error_codes import ErrorCode
from streamer.wire.record import Record, write_batch

TINY = LogConfig(segment_bytes=600, index_interval_bytes=100)


def offsets(partition: Partition, offset: int, max_bytes: int, **more: int) -> list[int]:
    up_to = more.get("up_to", partition.end)
    result = partition.plan_read(offset, max_bytes, up_to=up_to).run()
    assert result is not None
    return [record.offset for record in records_in(result.data)]


def test_a_read_brings_the_whole_batch_that_holds_the_offset() -> None:
    partition = create(SimulatedDisk())
    append(partition, batch(b"0", b"1", b"2"), batch(b"3", b"4"))
    assert offsets(partition, 1, 1 << 20) == [0, 1, 2, 3, 4]
    assert offsets(partition, 4, 1 << 20) == [3, 4]


def test_a_read_stays_below_its_limit_but_for_the_first_batch() -> None:
    partition = create(SimulatedDisk())
    append(partition, *[batch(b"%d" % each * 50) for each in range(5)])
    size = len(batch(b"0" * 50))
    assert offsets(partition, 0, 2 * size) == [0, 1]
    assert offsets(partition, 0, 2 * size + 30) == [0, 1]
    assert offsets(partition, 0, 3) == [0]
    plan = partition.plan_read(0, size - 1, up_to=5, minimum_one=False)
    result = plan.run()
    assert result is not None
    assert bytes(result.data) == b""
    assert result.next_offset == 0


def test_a_read_stops_at_the_given_offset() -> None:
    partition = create(SimulatedDisk())
    append(partition, *[batch(b"v")] * 5)
    assert offsets(partition, 0, 1 << 20, up_to=3) == [0, 1, 2]
    assert offsets(partition, 3, 1 << 20, up_to=3) == []
    assert offsets(partition, 5, 1 << 20) == []


def test_outside_the_log_there_is_nothing_to_read() -> None:
    partition = create(SimulatedDisk())
    append(partition, *[batch(b"v")] * 5)
    flush(partition)
    partition.delete_records(2)
    for offset in (-1, 0, 1, 6):
        with pytest.raises(OffsetOutOfRange):
            partition.plan_read(offset, 100, up_to=5)


def test_every_offset_is_found_in_every_segment_with_and_without_a_memo() -> None:
    disk = SimulatedDisk()
    partition = create(disk, TINY)
    for number in range(60):
        append(partition, batch(*[b"%d" % number] * (number % 4 + 1)))
    flush(partition)
    for each in (partition, reopen(disk, TINY)):
        for offset in range(each.end):
            first = records(each, offset, max_bytes=200)[0]
            assert first.offset == offset


def test_a_reader_that_goes_on_needs_no_index() -> None:
    disk = SimulatedDisk()
    partition = create(disk, LogConfig(index_interval_bytes=100))
    append(partition, *[batch(b"v" * 30)] * 200)
    partition.checkpoint()
    result = partition.plan_read(0, 1000, up_to=200).run()
    assert result is not None
    partition.remember(result)
    before = disk.counts["read"]
    assert offsets(partition, result.next_offset, 1000)[0] == result.next_offset
    assert disk.counts["read"] - before == 1


def test_cold_data_is_left_to_those_who_may_wait() -> None:
    disk = SimulatedDisk()
    partition = create(disk)
    append(partition, batch(b"v"))
    disk.cold = True
    plan = partition.plan_read(0, 1000, up_to=1)
    assert plan.run(wait=False) is None
    result = plan.run(wait=True)
    assert result is not None
    assert result.next_offset == 1


def test_what_comes_before_a_damaged_batch_is_served_and_it_is_not() -> None:
    disk = SimulatedDisk()
    partition = create(disk)
    append(partition, batch(b"a"), batch(b"b"), batch(b"c"))
    size = len(batch(b"a"))
    path = next(path for path in disk.files() if path.suffix == ".log")
    disk.flip(path, (size + 65) * 8)
    assert offsets(partition, 0, 1 << 20) == [0]
    with pytest.raises(CorruptLog, match=r"at byte \d+: the batch does not match"):
        offsets(partition, 1, 1 << 20)
    assert offsets(partition, 2, 1 << 20) == [2]


def test_a_planned_read_is_not_disturbed_by_a_roll_or_a_deletion(tmp_path: Path) -> None:
    disk = RealDisk(open_files=8)
    config = LogConfig(segment_bytes=2000, index_interval_bytes=100, file_delete_delay_ms=0)
    partition = Partition.create(
        disk, tmp_path / "t-0", "t", 0, TOPIC_ID, config, TurnedClock()
    )
    append(partition, *[batch(b"%d" % each) for each in range(10)])
    flush(partition)
    plan = partition.plan_read(3, 1 << 20, up_to=10)
    append(partition, *[batch(b"x" * 100)] * 100)
    flush(partition)
    partition.delete_records(-1)
    for path in partition.take_doomed():
        disk.remove(path)
    result = plan.run()
    assert result is not None
    assert next(iter(records_in(result.data))).value == b"3"
    assert result.next_offset == 10
    partition.remember(result)
    with pytest.raises(OffsetOutOfRange):
        partition.plan_read(10, 100, up_to=partition.end)


def test_a_reader_in_a_thread_sees_only_whole_batches_while_the_loop_writes(
    tmp_path: Path,
) -> None:
    config = LogConfig(segment_bytes=20_000, index_interval_bytes=200)
    partition = Partition.create(
        RealDisk(open_files=8), tmp_path / "t-0", "t", 0, TOPIC_ID, config, TurnedClock()
    )
    append(partition, batch(b"0"))
    plans: list[tuple[int, int, ReadPlan]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read_on() -> None:
        while not done.is_set() or plans:
            if plans:
                start, up_to, plan = plans.pop()
                try:
                    result = plan.run()
                    assert result is not None
                    read = [record.offset for record in records_in(result.data)]
                    assert read[0] == start
                    assert read == list(range(start, read[-1] + 1))
                    assert read[-1] < up_to
                except BaseException as error:
                    failures.append(error)

    thread = threading.Thread(target=read_on)
    thread.start()
    for number in range(1, 3000):
        append(partition, batch(b"%d" % number))
        start = number * 7919 % number
        plans.append((start, partition.end, partition.plan_read(start, 3000, up_to=number)))
        if number % 500 == 0:
            flush(partition)
    done.set()
    thread.join()
    assert failures == []


def test_a_timestamp_leads_to_the_first_record_of_that_time_or_later() -> None:
    disk = SimulatedDisk()
    partition = create(disk, TINY)
    times = [10, 20, 15, 40, 30, 30, 70, 60, 90, 80] * 4
    for number, time in enumerate(times):
        two = [
            Record(0, NOW + 1000 * (number // 10) + t, None, b"v") for t in (time, time + 5)
        ]
        append(partition, write_batch(two))
    flush(partition)
    model = [(record.timestamp, record.offset) for record in records(partition)]
    for each in (partition, reopen(disk, TINY), reopen(disk, TINY, recovery_point=40)):
        for time in range(NOW - 5, NOW + 3100, 7):
            first = search(each.search_timestamp(time, each.end))
            expected = next(((o, t) for t, o in model if t >= time), None)
            assert (first and first[:2]) == expected
        for up_to in range(0, each.end + 1, 2):
            newest = search(each.search_newest(up_to))
            latest = max([t for t, o in model if o < up_to], default=None)
            expected = next(((o, t) for t, o in model if t == latest), None)
            assert (newest and newest[:2]) == expected
        assert search(each.search_timestamp(NOW + 3000, 10)) is None
    flush(partition)
    partition.delete_records(13)
    first = search(partition.search_timestamp(0, partition.end))
    assert first is not None
    assert first.offset == 13


def test_a_search_by_time_leaves_cold_data_to_those_who_may_wait() -> None:
    disk = SimulatedDisk()
    partition = create(disk, TINY)
    for number in range(20):
        append(partition, batch(b"v" * 50, timestamp=NOW + number))
    flush(partition)
    partition.close(clean=True)
    reopened = reopen(disk, TINY, recovery_point=20, clean=True)
    disk.cold = True
    for steps in (reopened.search_timestamp(NOW + 13, 20), reopened.search_newest(20)):
        plan = next(steps)
        with pytest.raises(NotInMemory):
            plan.run(wait=False)
        plan.run(wait=True)
    assert search(reopened.search_timestamp(NOW + 13, 20)) == (13, NOW + 13, 0)
    assert search(reopened.search_newest(20)) == (19, NOW + 19, 0)


def test_a_search_by_time_goes_on_where_segments_are_deleted_meanwhile() -> None:
    disk = SimulatedDisk()
    partition = create(disk, TINY)
    for number in range(20):
        append(partition, batch(b"v" * 50, timestamp=NOW + number))
    flush(partition)
    partition.close(clean=True)
    reopened = reopen(disk, TINY, recovery_point=20, clean=True)
    forward, back = reopened.search_timestamp(NOW + 13, 20), reopened.search_newest(20)
    plans = [next(forward), next(back)]
    reopened.delete_records(17)
    for path in reopened.take_doomed():
        disk.remove(path)
    for plan in plans:
        plan.run()
    later = search(forward)
    assert later is not None
    assert later.offset >= 13
    assert search(back) is None, "the last segment had it"


def test_with_append_time_a_batch_is_as_old_as_the_broker_says() -> None:
    disk = SimulatedDisk()
    partition = create(disk, LogConfig(message_timestamp_type="LogAppendTime"))
    data = batch(b"a", b"b", timestamp=5)
    appended = partition.append(data, now_ms=NOW + 1)
    assert appended.log_append_time == NOW + 1
    assert {record.timestamp for record in records(partition)} == {NOW + 1}
    assert search(partition.search_timestamp(NOW + 1, 2)) == (0, NOW + 1, 0)
    assert values(partition) == [b"a", b"b"]


def test_a_compacted_log_has_gaps_and_is_read_all_the_same() -> None:
    disk = SimulatedDisk()
    config = LogConfig(compact=True, delete=False, segment_bytes=400)
    partition = create(disk, config)
    append(partition, *[batch(b"%d" % each) for each in range(20)])
    partition.close(clean=True)
    # What compaction leaves: batches taken out, the others where they were.
    for path, data in disk.files().items():
        if path.suffix == ".log":
            kept = [at for at, header in read_headers(data) if header.base_offset % 3 == 0]
            size = read_header(data).size
            disk.replace(path, b"".join(data[at : at + size] for at in kept))
        elif path.suffix in (".index", ".timeindex"):
            disk.remove(path)
    note_gaps(disk, FOLDER, 20)
    for clean in (True, False):
        reopened = reopen(disk, config, recovery_point=20, clean=clean)
        assert [one.offset for one in records(reopened)] == list(range(0, 20, 3))
        assert records(reopened, 4, max_bytes=90)[0].offset == 6


def test_a_compacted_topic_refuses_records_without_a_key_and_names_them() -> None:
    partition = create(SimulatedDisk(), LogConfig(compact=True))
    data = write_batch([Record(0, NOW, b"k", b"v"), Record(0, NOW, None, b"v")])
    with pytest.raises(Refused) as caught:
        partition.append(data, now_ms=NOW)
    assert caught.value.code == ErrorCode.INVALID_RECORD
    assert [number for number, _ in caught.value.record_errors] == [1]
    assert partition.end == 0
