"""What compaction cleans, when, and what it keeps: tables, and a few small partitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from support.compaction import batches, committed, compact, state
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
)

from streamer.log.compaction import (
    UNHURRIED_SHARE,
    Cleanable,
    Limits,
    cleanable,
    is_worth_it,
    share_of_processor,
)
from streamer.log.compaction_files import READ_BYTES, clean
from streamer.log.compaction_job import Swap
from streamer.log.compaction_rules import KeyMap, remembered
from streamer.log.config import LogConfig
from streamer.log.errors import CorruptLog
from streamer.log.partition import Partition
from streamer.log.segment import INDEX_FILES, LOG
from streamer.wire.batch import Marker, read_header, read_headers
from streamer.wire.compression import Compression
from streamer.wire.record import Record, write_batch

DAY = 86_400_000
CONFIG = LogConfig(
    compact=True,
    delete=False,
    segment_bytes=400,
    index_interval_bytes=100,
    file_delete_delay_ms=0,
    delete_retention_ms=DAY,
    message_timestamp_after_max_ms=2**62,
)

# Which part, and when.


@dataclass
class Stretch:
    base_offset: int
    size: int
    first_timestamp: int = NOW
    newest: int = NOW

    def know_timestamps(self) -> None:
        pass

    def age_from(self) -> int:
        return self.newest


ROW = [Stretch(0, 100), Stretch(10, 200), Stretch(20, 300), Stretch(30, 50)]
ALL = Limits(log_start=0, last_stable=35, recovery_point=35, end=35)


@pytest.mark.parametrize(
    ("cleaned_to", "limits", "expected"),
    [
        (None, ALL, Cleanable(0, 30, 0, 600, overdue=False)),
        (0, ALL, Cleanable(0, 30, 0, 600, overdue=False)),
        (10, ALL, Cleanable(10, 30, 100, 500, overdue=False)),
        # Where memory has not sufficed, the segment is dirty still.
        (15, ALL, Cleanable(15, 30, 100, 500, overdue=False)),
        (30, ALL, Cleanable(30, 30, 600, 0, overdue=False)),
        # Checkpoints that cannot be.
        (99, ALL, Cleanable(0, 30, 0, 600, overdue=False)),
        (5, ALL._replace(log_start=7), Cleanable(7, 30, 0, 600, overdue=False)),
        # An open transaction, or data that is not flushed; whole segments only.
        (0, ALL._replace(last_stable=29), Cleanable(0, 20, 0, 300, overdue=False)),
        (0, ALL._replace(last_stable=20), Cleanable(0, 20, 0, 300, overdue=False)),
        (0, ALL._replace(last_stable=9), Cleanable(0, 0, 0, 0, overdue=False)),
        # What a start after a crash would check for gaps.
        (0, ALL._replace(recovery_point=25), Cleanable(0, 20, 0, 300, overdue=False)),
        (20, ALL._replace(recovery_point=15), Cleanable(20, 10, 100, 0, overdue=False)),
    ],
)
def test_cleaned_is_what_nobody_writes_to_any_more(
    cleaned_to: int | None, limits: Limits, expected: Cleanable
) -> None:
    found = cleanable(ROW, CONFIG, limits, cleaned_to=cleaned_to, now_ms=NOW)
    assert found == expected


def test_the_last_segment_is_never_cleaned() -> None:
    found = cleanable(ROW[:1], CONFIG, ALL, cleaned_to=None, now_ms=NOW)
    assert found == Cleanable(0, 0, 0, 0, overdue=False)
    assert not is_worth_it(found, CONFIG)


@pytest.mark.parametrize(
    ("lag", "end"), [(0, 30), (1_000, 30), (1_001, 10), (5_000, 10), (5_001, 0)]
)
def test_what_is_young_is_left_alone_with_all_that_follows(lag: int, end: int) -> None:
    row = [Stretch(0, 9, newest=NOW - 5_000), *ROW[1:]]
    row[1] = replace(row[1], newest=NOW - 1_000)
    row[2] = replace(row[2], newest=NOW - 9_000)
    config = replace(CONFIG, min_compaction_lag_ms=lag)
    assert cleanable(row, config, ALL, cleaned_to=None, now_ms=NOW).end == end


@pytest.mark.parametrize(
    ("cleaned_to", "age", "overdue"),
    [(0, 1_000, False), (0, 1_001, True), (10, 1_001, False), (5, 1_001, True)],
)
def test_what_is_dirty_for_too_long_is_overdue(
    cleaned_to: int, age: int, overdue: bool
) -> None:
    row = [Stretch(0, 100, first_timestamp=NOW - age), *ROW[1:]]
    config = replace(CONFIG, max_compaction_lag_ms=1_000)
    found = cleanable(row, config, ALL, cleaned_to=cleaned_to, now_ms=NOW)
    assert found.overdue == overdue
    assert not cleanable(row, CONFIG, ALL, cleaned_to=cleaned_to, now_ms=NOW).overdue


def test_a_segment_is_no_older_than_a_record_may_stay_uncompacted() -> None:
    config = replace(CONFIG, segment_ms=1_000, max_compaction_lag_ms=500)
    assert config.segment_age_max_ms == 500
    assert replace(config, compact=False).segment_age_max_ms == 1_000


@pytest.mark.parametrize(
    ("found", "ratio", "worth_it"),
    [
        (Cleanable(0, 9, 50, 50, overdue=False), 0.5, False),
        (Cleanable(0, 9, 49, 51, overdue=False), 0.5, True),
        (Cleanable(0, 9, 99, 1, overdue=False), 0.0, True),
        (Cleanable(0, 9, 99, 1, overdue=True), 1.0, True),
        (Cleanable(9, 9, 99, 0, overdue=True), 0.0, False),
        (Cleanable(9, 9, 99, 0, overdue=False), 0.0, False),
    ],
)
def test_cleaning_is_worth_it_when_enough_is_dirty(
    found: Cleanable, ratio: float, worth_it: bool
) -> None:
    config = replace(CONFIG, min_cleanable_dirty_ratio=ratio)
    assert is_worth_it(found, config) == worth_it


@pytest.mark.parametrize(
    ("waiting", "before", "overdue", "hurries"),
    [
        (1000, None, False, False),  # The first since there was nothing to do.
        (1000, 1000, False, False),
        (999, 1000, False, False),
        (1001, 1000, False, True),
        (10, None, True, True),
        (10, 1000, True, True),
    ],
)
def test_cleaning_takes_its_time_unless_it_falls_behind_or_something_is_overdue(
    waiting: int, before: int | None, *, overdue: bool, hurries: bool
) -> None:
    found = Cleanable(0, 30, 0, 600, overdue=overdue)

    share = share_of_processor(found, waiting, before)

    assert share == (1.0 if hurries else UNHURRIED_SHARE)


# What is kept.


def keyed(*pairs: tuple[str, str | None], timestamp: int = NOW, **header: object) -> bytes:
    return write_batch(
        [
            Record(
                0,
                timestamp + number,
                key.encode(),
                None if value is None else value.encode(),
            )
            for number, (key, value) in enumerate(pairs)
        ],
        **header,  # type: ignore[arg-type]
    )


def sealed(
    *written: bytes, disk: SimulatedDisk | None = None, config: LogConfig = CONFIG
) -> tuple[SimulatedDisk, Partition]:
    """A partition whose last segment begins behind these batches."""
    disk = disk or SimulatedDisk()
    partition = create(disk, config)
    append(partition, *written)
    seal(partition)
    return disk, partition


def seal(partition: Partition) -> None:
    config = partition.config
    partition.config = replace(config, segment_index_bytes=4)
    append(partition, keyed(("the last segment", "is not cleaned")))
    partition.config = config
    flush(partition)


def kept(partition: Partition) -> list[tuple[int, bytes | None, bytes | None]]:
    """But for the last segment's."""
    found = [(each.offset, each.key, each.value) for each in records(partition)]
    return [each for each in found if each[1] != b"the last segment"]


@pytest.mark.parametrize("codec", Compression)
def test_the_newest_record_of_each_key_stays_where_it_was(codec: Compression) -> None:
    disk, partition = sealed(
        keyed(("a", "1"), ("b", "1"), ("c", "1"), compression=codec),
        keyed(("a", "2"), ("a", "3"), compression=codec),
        keyed(("d", "1"), ("b", "2"), ("d", "2"), compression=codec),
    )
    before = {record.offset: record for record in records(partition)}
    assert compact(disk, partition) == 8
    assert kept(partition) == [
        (2, b"c", b"1"),
        (4, b"a", b"3"),
        (6, b"b", b"2"),
        (7, b"d", b"2"),
    ]
    for record in records(partition):
        assert record == before[record.offset]
    spans = [(one.header.base_offset, one.header.last_offset) for one in batches(partition)]
    assert spans == [(0, 2), (3, 4), (5, 7), (8, 8)], "batches keep their offsets"


def test_what_loses_nothing_stays_as_it_is_to_the_byte() -> None:
    disk, partition = sealed(keyed(("a", "1")), keyed(("b", "1"), ("c", "2")))
    before = disk.files()
    compact(disk, partition)
    changed = {path for path, data in disk.files().items() if before.get(path) != data}
    assert {path.name for path in changed if LOG in path.name} == set()


def test_records_without_a_key_go() -> None:
    config = replace(CONFIG, compact=False)
    disk, partition = sealed(batch(b"x", key=None), keyed(("a", "1")), config=config)
    partition.config = CONFIG
    compact(disk, partition)
    assert kept(partition) == [(1, b"a", b"1")]


def test_a_tombstone_stays_for_as_long_as_readers_may_need_to_see_it() -> None:
    disk, partition = sealed(keyed(("a", "1")), keyed(("b", "1"), ("a", None)))
    compact(disk, partition)
    assert kept(partition) == [(1, b"b", b"1"), (2, b"a", None)]
    (first, *_) = batches(partition)
    assert first.header.delete_horizon == NOW + DAY
    assert [record.timestamp for record in first.records] == [NOW, NOW + 1]

    compact(disk, partition, 3, now_ms=NOW + DAY - 1)
    assert kept(partition) == [(1, b"b", b"1"), (2, b"a", None)]
    (first, *_) = batches(partition)
    assert first.header.delete_horizon == NOW + DAY, "the date stays the first one"

    compact(disk, partition, 3, now_ms=NOW + DAY)
    assert kept(partition) == [(1, b"b", b"1")]
    (first, *_) = batches(partition)
    assert [record.timestamp for record in first.records] == [NOW]


def test_a_new_value_ends_a_deletion_that_has_its_date() -> None:
    disk, partition = sealed(keyed(("a", "1")), keyed(("a", None)))
    compact(disk, partition)
    append(partition, keyed(("a", "2")))
    seal(partition)
    compact(disk, partition, 2, now_ms=NOW + 2 * DAY)
    assert kept(partition) == [(3, b"a", b"2")]


def test_tombstones_behind_the_key_map_get_no_date() -> None:
    """Their older values are still there: the day begins when these go."""
    disk, partition = sealed(keyed(("a", "1")), keyed(("b", "1")), keyed(("c", None)))
    assert compact(disk, partition, keys_max=2) == 2
    assert [one.header.delete_horizon for one in batches(partition)][:3] == [None] * 3
    assert compact(disk, partition, 2) == 3
    assert kept(partition)[-1] == (2, b"c", None)
    assert [one.header.delete_horizon for one in batches(partition)][2] == NOW + DAY


def test_long_keys_are_told_apart_by_a_digest() -> None:
    short, long = b"s" * 24, b"l" * 25
    assert remembered(short) == short
    assert len(remembered(long)) == len(remembered(b"m" * 1000)) == 25
    assert remembered(long) != remembered(b"m" * 25)
    disk, partition = sealed(*[keyed(("l" * 30, "1")), keyed(("l" * 31, "1"))] * 2)
    compact(disk, partition)
    assert [offset for offset, _, _ in kept(partition)] == [2, 3]


def test_the_key_map_takes_a_batch_that_is_larger_than_it() -> None:
    keys = KeyMap(0, keys_max=1)
    data = keyed(("a", "1"), ("b", "1"), ("a", "2"))
    header = read_header(data)
    assert keys.has_room_for(header)
    keys.add(header, data)
    keys.passed(header)
    assert not keys.has_room_for(header)
    assert (keys.latest, keys.end) == ({b"a": 2, b"b": 1}, 3)
    assert list(keys.survivors()) == [1, 2]


def test_with_append_time_records_keep_the_time_they_were_appended() -> None:
    config = replace(CONFIG, message_timestamp_type="LogAppendTime")
    disk, partition = sealed(
        keyed(("a", "1"), ("b", None), timestamp=5), keyed(("a", "2")), config=config
    )
    compact(disk, partition)
    assert {record.timestamp for record in records(partition)} == {NOW}
    # The first record of the first batch is gone.
    assert search(partition.search_timestamp(NOW, partition.end)) == (1, NOW, 0)


# Producers and transactions.


def test_a_batch_that_tells_of_a_producer_stays_without_its_records() -> None:
    sent = [batch_of(7, sequence, b"%d" % sequence) for sequence in range(7)]
    disk, partition = sealed(*sent)
    compact(disk, partition)
    found = [(one.header.base_sequence, len(one.records)) for one in batches(partition)]
    assert found == [(2, 0), (3, 0), (4, 0), (5, 0), (6, 1), (-1, 1)]
    # Not even without any snapshot is the producer forgotten.
    partition.close(clean=True)
    for path in disk.files():
        if path.suffix == ".snapshot":
            disk.remove(path)
    again = reopen(disk, CONFIG, recovery_point=partition.end, clean=True)
    for sequence in range(2, 7):
        assert again.append(sent[sequence], now_ms=NOW).base_offset == sequence


def test_a_forgotten_producers_batches_go() -> None:
    disk, partition = sealed(batch_of(7, 0, b"1"), batch_of(7, 1, b"2"))
    partition.expire_producers(NOW + 2 * DAY)
    compact(disk, partition)
    assert [one.header.base_offset for one in batches(partition)] == [1, 2]


def transaction(partition: Partition, commit: bool, *written: bytes) -> None:
    append(partition, *written)
    partition.append_marker(9, 0, Marker(commit, 0), now_ms=NOW)


def data_of(sequence: int, value: bytes) -> bytes:
    return batch_of(9, sequence, value, transactional=True)


def test_aborted_records_go_and_supersede_nothing() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    append(partition, keyed(("k", "before")))
    transaction(partition, False, data_of(0, b"aborted"))
    seal(partition)
    compact(disk, partition)
    assert state(committed(partition))[b"k"] == b"before"
    assert b"aborted" not in [record.value for record in records(partition)]


def test_an_aborted_transaction_of_long_ago_says_nothing_of_its_producers_next() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    transaction(partition, False, data_of(0, b"aborted"))
    seal(partition)
    cleaned_to = compact(disk, partition)
    assert partition.aborted_between(0, partition.end) == [(9, 0)]
    transaction(partition, True, data_of(1, b"committed"))
    seal(partition)
    compact(disk, partition, cleaned_to)
    assert state(committed(partition))[b"k"] == b"committed"


def test_a_marker_stays_until_its_transaction_is_gone_and_its_date_has_passed() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    transaction(partition, False, data_of(0, b"aborted"))
    transaction(partition, True, data_of(1, b"committed"))
    append(partition, keyed(("k", "newer")), keyed(("other", "1")))
    seal(partition)
    partition.expire_producers(NOW + 2 * DAY)

    def markers() -> list[tuple[int, int | None]]:
        return [
            (one.header.base_offset, one.header.delete_horizon)
            for one in batches(partition)
            if one.header.is_control
        ]

    def listed() -> list[tuple[int, int]]:
        return partition.aborted_between(0, partition.end)

    compact(disk, partition)
    assert (markers(), listed()) == ([(1, None), (3, None)], [(9, 0)])
    compact(disk, partition)
    assert (markers(), listed()) == ([(1, NOW + DAY), (3, NOW + DAY)], [])
    compact(disk, partition, now_ms=NOW + DAY - 1)
    assert len(markers()) == 2
    compact(disk, partition, now_ms=NOW + DAY)
    assert markers() == []
    assert state(committed(partition))[b"k"] == b"newer"


def test_a_producers_only_marker_stays_for_its_epoch() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    partition.append_marker(9, 4, Marker(False, 0), now_ms=NOW)
    append(partition, keyed(("a", "1")))
    seal(partition)
    for day in range(4):
        compact(disk, partition, now_ms=NOW + day * DAY)
    (first, *_) = batches(partition)
    assert (first.header.is_control, first.commits) == (True, False)


def test_what_an_open_transaction_may_still_abort_is_left_alone() -> None:
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    append(partition, *[keyed(("k", str(number))) for number in range(9)])
    append(partition, data_of(0, b"open"), *[keyed(("k", "after"))] * 9)
    seal(partition)
    assert compact(disk, partition) <= 9
    kept_values = [record.value for record in records(partition)]
    assert b"open" in kept_values
    assert kept_values.count(b"after") == 9


# Files.


def bases(partition: Partition) -> list[int]:
    return [base for base, _ in partition.begin_cleaning(ALL_OF_IT, NOW).job.segments]


ALL_OF_IT = Cleanable(0, 10**6, 0, 0, overdue=False)


def test_small_segments_merge() -> None:
    disk, partition = sealed(*[keyed(("k", str(number))) for number in range(60)])
    assert len(bases(partition)) > 8
    compact(disk, partition)
    assert len(bases(partition)) == 2
    assert kept(partition) == [(59, b"k", b"59")]
    compact(disk, partition)
    assert len(bases(partition)) == 2


def test_merged_segments_are_no_larger_than_any() -> None:
    disk, partition = sealed(*[keyed((str(number % 35), "x" * 9)) for number in range(60)])
    compact(disk, partition)
    sizes = [size for _, size in partition.begin_cleaning(ALL_OF_IT, NOW).job.segments]
    assert max(sizes) <= CONFIG.segment_bytes
    assert len(sizes) > 4


def too_large_to_merge() -> tuple[SimulatedDisk, Partition]:
    """Segments that end with something small which the next one supersedes."""
    disk = SimulatedDisk()
    partition = create(disk, CONFIG)
    for number in range(3):
        append(partition, keyed((f"once {number}", "x" * 250)), keyed(("k", str(number))))
        seal(partition)
    return disk, partition


def test_a_cleaned_segment_reaches_as_far_as_those_it_replaces() -> None:
    """A start after a crash goes by that; so do those who ask for a removed offset."""
    disk, partition = too_large_to_merge()
    compact(disk, partition)
    spans = {}
    for path, data in disk.files().items():
        if path.suffix == LOG:
            spans[int(path.stem)] = [
                header.last_offset + 1 for _, header in read_headers(data)
            ][-1]
    assert len(spans) > 3, "they should not have merged"
    assert sorted(spans)[1:] == sorted(spans.values())[:-1]
    for offset in range(partition.end):
        assert records(partition, offset, max_bytes=80)[0].offset >= offset


def test_it_may_wait_after_every_few_batches() -> None:
    """So that it never computes for long at once, beside those who are in a hurry."""
    disk = SimulatedDisk()
    partition = create(disk, replace(CONFIG, segment_bytes=1 << 20))
    for number in range(60):
        append(partition, keyed((f"{number % 3}", "x" * 9_000)))
    seal(partition)
    partition.checkpoint()
    cleaning = partition.begin_cleaning(partition.cleanable(None, NOW), NOW)
    counts: list[int] = []

    list(clean(disk, FOLDER, cleaning.job, on_bytes=counts.append))

    read = cleaning.job.segments[0][1]
    assert read > 8 * READ_BYTES
    assert sum(counts) >= 2 * read, "it is read twice"
    assert max(counts) < READ_BYTES + 10_000


def test_a_damaged_batch_ends_a_cleaning() -> None:
    disk, partition = sealed(*[keyed(("k", str(number))) for number in range(9)])
    partition.checkpoint()
    disk.flip(FOLDER / f"{0:020d}.log", 8 * 100)
    cleaning = partition.begin_cleaning(partition.cleanable(None, NOW), NOW)
    with pytest.raises(CorruptLog, match="checksum"):
        list(clean(disk, FOLDER, cleaning.job))


def test_what_has_changed_under_a_cleaning_is_not_replaced() -> None:
    disk, partition = sealed(*[keyed(("k", str(number))) for number in range(60)])
    partition.checkpoint()
    cleaning = partition.begin_cleaning(partition.cleanable(None, NOW), NOW)
    steps = list(clean(disk, FOLDER, cleaning.job))
    done = steps[0]
    assert isinstance(done, Swap)
    partition.config = replace(CONFIG, compact=False)
    assert not partition.swap_in(cleaning, done)
    partition.config = CONFIG
    partition.delete_records(bases(partition)[1])
    before = records(partition)
    assert not partition.swap_in(cleaning, done)
    assert records(partition) == before


def test_a_result_for_segments_that_went_is_not_put_among_others() -> None:
    disk, partition = too_large_to_merge()
    partition.checkpoint()
    cleaning = partition.begin_cleaning(partition.cleanable(None, NOW), NOW)
    done, *others = [
        step for step in clean(disk, FOLDER, cleaning.job) if isinstance(step, Swap)
    ]
    assert others
    partition.delete_records(bases(partition)[len(done.replaced)])
    assert not partition.swap_in(cleaning, done)


def test_a_reader_goes_on_in_the_files_it_has_open() -> None:
    disk, partition = sealed(*[keyed(("k", str(number))) for number in range(30)])
    early = partition.plan_read(3, 200, up_to=partition.end)
    first = partition.plan_read(0, 100, up_to=partition.end).run()
    assert first is not None
    compact(disk, partition)
    # Where it ended is in a file that is no more.
    partition.remember(first)
    result = early.run()
    assert result is not None
    assert read_header(result.data).base_offset == 3
    partition.remember(result)
    assert records(partition, result.next_offset)[0].offset == 29
    assert records(partition, first.next_offset)[0].offset == 29


def test_a_search_by_time_goes_on_while_segments_merge() -> None:
    disk, partition = sealed(
        *[keyed(("k", str(number)), timestamp=NOW + number) for number in range(30)],
        keyed(("k", "newest"), timestamp=NOW + 900),
    )
    append(partition, keyed(("z", "1"), timestamp=NOW + 5))
    flush(partition)
    steps = partition.search_newest(partition.end)
    answer = next(steps).run()
    compact(disk, partition)
    for plan in steps:
        answer = plan.run() or answer
    assert answer == (30, NOW + 900, 0)


def test_a_topic_that_is_no_longer_compacted_reads_as_before() -> None:
    disk, partition = sealed(*[keyed(("k", str(number))) for number in range(60)])
    compact(disk, partition)
    wanted = records(partition)
    partition.config = replace(CONFIG, compact=False, delete=True)
    assert records(partition, max_bytes=80) == wanted
    assert search(partition.search_timestamp(NOW, partition.end)) == (59, NOW, 0)
    partition.close(clean=True)
    config = replace(CONFIG, compact=False, delete=True)
    # Not even when nothing but the batches is left does a start take gaps for damage.
    for clean_stop, point in ((True, partition.end), (False, partition.end), (False, 0)):
        again = reopen(disk, config, recovery_point=point, clean=clean_stop)
        assert again.recovered is None
        assert records(again, max_bytes=80) == wanted


def test_a_compacted_topic_has_its_retention_too() -> None:
    config = replace(CONFIG, delete=True, retention_ms=1000)
    disk, partition = sealed(
        *[keyed((str(number), "x")) for number in range(30)], config=config
    )
    compact(disk, partition)
    assert partition.apply_retention(NOW) == []
    gone = partition.apply_retention(NOW + 2000)
    assert gone
    assert partition.log_start > 25


def test_a_gap_behind_what_was_cleaned_is_damage() -> None:
    disk, partition = sealed(*[keyed(("k", str(number))) for number in range(60)])
    compact(disk, partition)
    append(partition, *[keyed(("k", str(number))) for number in range(3)])
    flush(partition)
    last = max(path for path in disk.files() if path.suffix == LOG)
    data = disk.files()[last]
    sizes = [one.header.size for one in batches(partition)][-4:]
    disk.replace(last, data[: sum(sizes[:2])] + data[sum(sizes[:3]) :])
    again = reopen(disk, CONFIG, recovery_point=60)
    assert again.recovered is not None
    assert "offset" in again.recovered


# Crashes.


class PowerCut(BaseException):
    """No `except` in between can go on."""


class Fuse(SimulatedDisk):
    """Cuts the power before the n-th step that changes something."""

    left: int | None = None

    def step(self, call: str, path: Path) -> None:
        if self.left is not None and call not in ("read", "open"):
            self.left -= 1
            if self.left < 0:
                raise PowerCut
        super().step(call, path)


def history() -> Iterable[bytes]:
    for number in range(40):
        yield keyed((str(number % 7), str(number)), ("t", None if number % 9 else "t"))


def begun(disk: Fuse) -> Partition:
    """With old and new tombstones, aborted records, and a first cleaning behind it."""
    partition = create(disk, CONFIG)
    append(partition, *history())
    transaction(partition, False, data_of(0, b"aborted"))
    seal(partition)
    compact(disk, partition)
    append(partition, *history(), keyed(("t", None)))
    transaction(partition, False, data_of(1, b"aborted"), data_of(2, b"too"))
    transaction(partition, True, data_of(3, b"committed"))
    seal(partition)
    return partition


@pytest.mark.parametrize("crash", ["power", "kill"])
def test_a_crash_at_any_step_leaves_the_old_or_the_new(crash: str) -> None:
    steps = 0
    while True:
        disk = Fuse()
        partition = begun(disk)
        partition.checkpoint()
        wanted = state(committed(partition))
        end, point = partition.end, partition.recovery_point
        disk.left = steps
        try:
            compact(disk, partition, now_ms=NOW + 2 * DAY)
        except PowerCut:
            pass
        finished, disk.left = disk.left >= 0, None
        if crash == "kill":
            disk.kill()
        else:
            disk.crash(Random(steps))
        again = reopen(disk, CONFIG, recovery_point=point)
        assert again.recovered is None
        assert again.end == end
        assert state(committed(again)) == wanted
        left = [path for path in disk.files() if path.suffix in (".cleaned", ".swap")]
        assert left == []
        # And it goes on from there.
        compact(disk, again, now_ms=NOW + 2 * DAY)
        assert state(committed(again)) == wanted
        if finished:
            break
        steps += 1
    assert steps > 60, "there were more steps than that"


def test_a_start_finishes_what_is_committed_from_any_point_on() -> None:
    """Killed amid the renames, and again amid those of the start that finishes them."""
    for first in range(0, 40, 3):
        for second in range(0, 30, 4):
            disk = Fuse()
            partition = begun(disk)
            partition.checkpoint()
            wanted = state(committed(partition))
            cleaning = partition.begin_cleaning(partition.cleanable(None, NOW), NOW)
            done = list(clean(disk, FOLDER, cleaning.job))
            disk.left = first
            try:
                for step in done:
                    if isinstance(step, Swap):
                        partition.swap_in(cleaning, step)
            except PowerCut:
                pass
            disk.kill()
            disk.left = second
            try:
                reopen(disk, CONFIG, recovery_point=partition.recovery_point)
            except PowerCut:
                pass
            disk.left = None
            disk.kill()
            again = reopen(disk, CONFIG, recovery_point=partition.recovery_point)
            assert state(committed(again)) == wanted
            assert again.aborted_between(0, again.end) == partition_aborted(again)


def partition_aborted(partition: Partition) -> list[tuple[int, int]]:
    """As the batches say."""
    open_since: dict[int, int] = {}
    found = []
    for header, _, commits in batches(partition):
        if header.is_control:
            start = open_since.pop(header.producer_id, None)
            if commits is False and start is not None:
                found.append((header.producer_id, start))
        elif header.is_transactional:
            open_since.setdefault(header.producer_id, header.base_offset)
    return found


def test_index_files_match_their_log_after_a_swap() -> None:
    disk, partition = sealed(*history(), *history())
    compact(disk, partition)
    names = {path.name for path in disk.files() if path.parent == FOLDER}
    stems = {name.removesuffix(LOG) for name in names if name.endswith(LOG)}
    for name in names:
        stem, _, suffix = name.partition(".")
        assert "." + suffix not in INDEX_FILES or stem in stems
