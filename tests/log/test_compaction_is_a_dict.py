"""A compacted partition against a list of all that was ever written: whatever is cleaned,
cut off or deleted in between, a reader of committed records ends up with the same dict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.compaction import batches, committed, compact, state
from support.disk import SimulatedDisk
from support.logs import TOPIC_ID, TurnedClock, coordinated, flush

from streamer.log.config import LogConfig
from streamer.log.directory import LogDirectory
from streamer.log.partition import Partition
from streamer.wire.batch import Marker
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
IDEMPOTENT = 1
TRANSACTIONAL = (8, 9)
PRODUCERS = (IDEMPOTENT, *TRANSACTIONAL)
KEYS = (b"a", b"b", b"c", b"a rather long key, longer than a digest of it")


class Entry(NamedTuple):
    """What the list holds for each offset."""

    record: Record | None
    """None for a marker."""
    producer: int
    commits: bool | None = None


class Sent(NamedTuple):
    data: bytes
    base_offset: int
    next_sequence: int


drawn_records = st.lists(
    st.tuples(st.sampled_from(KEYS), st.none() | st.binary(max_size=40)),
    min_size=1,
    max_size=5,
)


class CompactedPartitionIsADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.clock = TurnedClock()
        self.model: list[Entry] = []
        self.promised = 0
        self.sent: dict[int, list[Sent]] = {producer: [] for producer in PRODUCERS}
        self.open()

    def open(self) -> None:
        self.directory = LogDirectory.open(self.disk, Path("/data"), self.clock)
        self.partition: Partition = self.directory.open_partition("t", 0, TOPIC_ID, CONFIG)
        assert self.partition.offline is None, self.partition.offline

    # Writing.

    def write(
        self,
        drawn: list[tuple[bytes, bytes | None]],
        codec: Compression,
        producer: int = -1,
    ) -> None:
        known = self.sent.get(producer, [])
        sequence = known[-1].next_sequence if known else 0
        records = [
            Record(0, self.clock.now + number, key, value)
            for number, (key, value) in enumerate(drawn)
        ]
        data = write_batch(
            records,
            producer_id=producer,
            producer_epoch=0 if producer >= 0 else -1,
            base_sequence=sequence if producer >= 0 else -1,
            transactional=producer in TRANSACTIONAL,
            compression=codec,
        )
        appended = self.partition.append(data, now_ms=self.clock.now, verify=coordinated)
        assert appended.base_offset == len(self.model)
        known.append(Sent(data, len(self.model), sequence + len(records)))
        for record in records:
            self.model.append(Entry(record._replace(offset=len(self.model)), producer))

    @rule(
        many=st.lists(drawn_records, min_size=1, max_size=8),
        codec=st.sampled_from(Compression),
    )
    def append(
        self, many: list[list[tuple[bytes, bytes | None]]], codec: Compression
    ) -> None:
        for drawn in many:
            self.write(drawn, codec)

    @rule(
        many=st.lists(drawn_records, min_size=1, max_size=4),
        codec=st.sampled_from(Compression),
        producer=st.sampled_from(PRODUCERS),
    )
    def append_in_sequence(
        self,
        many: list[list[tuple[bytes, bytes | None]]],
        codec: Compression,
        producer: int,
    ) -> None:
        for drawn in many:
            self.write(drawn, codec, producer)

    @rule(producer=st.sampled_from(TRANSACTIONAL), commit=st.booleans())
    def end_transaction(self, producer: int, commit: bool) -> None:
        self.partition.append_marker(producer, 0, Marker(commit, 0), now_ms=self.clock.now)
        self.model.append(Entry(None, producer, commit))

    @rule(producer=st.sampled_from(PRODUCERS), back=st.integers(1, 5))
    def send_again(self, producer: int, back: int) -> None:
        known = self.sent[producer]
        if len(known) >= back:
            sent = known[-back]
            appended = self.partition.append(sent.data, now_ms=self.clock.now)
            assert appended.repeated, "a producer was forgotten"
            assert appended.base_offset == sent.base_offset

    @rule()
    def flush(self) -> None:
        flush(self.partition)
        self.promised = len(self.model)

    @rule()
    def checkpoint(self) -> None:
        self.directory.checkpoint()()

    # Cleaning.

    @precondition(lambda self: self.partition.config.compact)
    @rule(keys_max=st.sampled_from([1, 3, 1000]), known=st.booleans())
    def clean(self, keys_max: int, known: bool) -> None:
        """`known`: where the last one ended was not forgotten."""
        flush(self.partition)
        self.promised = len(self.model)
        cleaned_to = self.directory.cleaned_to(self.partition) if known else None
        end = compact(
            self.disk,
            self.partition,
            cleaned_to,
            now_ms=self.clock.now,
            keys_max=keys_max,
        )
        self.directory.note_cleaned(self.partition, end)()

    @rule(days=st.sampled_from([0.4, 1.1]))
    def wait(self, days: float) -> None:
        self.clock.now += int(days * DAY)

    @rule(share=st.floats(0, 1))
    def delete_records(self, share: float) -> None:
        self.partition.delete_records(int(self.partition.high_watermark * share))
        self.directory.checkpoint()()

    @rule()
    def no_longer_compacted(self) -> None:
        """For as long as the broker runs."""
        self.partition.config = replace(CONFIG, compact=False)

    @rule()
    def compacted_again(self) -> None:
        self.partition.config = CONFIG

    # Ending.

    @rule(seed=st.integers(0, 2**32))
    def cut_the_power(self, seed: int) -> None:
        self.disk.crash(Random(seed))
        self.open()
        assert self.promised <= self.partition.end <= len(self.model)
        self.believe(self.partition.end)

    @rule()
    def kill(self) -> None:
        self.disk.kill()
        self.open()
        assert self.partition.end == len(self.model)
        assert self.partition.recovered is None

    @rule()
    def restart(self) -> None:
        self.directory.close(clean=True)
        self.open()
        assert self.partition.end == len(self.model)

    def believe(self, kept: int) -> None:
        del self.model[kept:]
        self.promised = kept
        for known in self.sent.values():
            while known and known[-1].base_offset >= kept:
                known.pop()

    # What must hold.

    def committed_in_model(self) -> list[Record]:
        pending: dict[int, list[Record]] = {producer: [] for producer in TRANSACTIONAL}
        found: list[Record] = []
        for record, producer, commits in self.model:
            if record is None:
                found += pending[producer] if commits else []
                pending[producer] = []
            elif producer in TRANSACTIONAL:
                pending[producer].append(record)
            else:
                found.append(record)
        stable, start = self.partition.last_stable, self.partition.log_start
        return sorted(record for record in found if start <= record.offset < stable)

    @invariant()
    def a_reader_ends_up_with_the_same(self) -> None:
        found, wanted = committed(self.partition), self.committed_in_model()
        assert state(found) == state(wanted)
        offsets = [record.offset for record in found]
        assert offsets == sorted(set(offsets))
        # Nothing is made up: each record is what it was.
        by_offset = {record.offset: record for record in wanted}
        assert all(by_offset[record.offset] == record for record in found)

    @invariant()
    def small_reads_find_the_same(self) -> None:
        ends = [batch.header.last_offset for batch in batches(self.partition, max_bytes=80)]
        assert ends == sorted(set(ends))


CompactedPartitionIsADict.TestCase.settings = settings(
    max_examples=120,
    report_multiple_bugs=False,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCompactedPartitionIsADict = pytest.mark.timeout(300)(CompactedPartitionIsADict.TestCase)
