"""A partition against a list: any order of steps, the power cut or the process killed at
any moment, and always a prefix of what was appended, never less than was promised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.disk import SimulatedDisk
from support.logs import (
    NOW,
    TOPIC_ID,
    TurnedClock,
    batch,
    batch_of,
    coordinated,
    flush,
    records,
)

from streamer.log.config import LogConfig
from streamer.log.directory import LogDirectory
from streamer.log.flushing import Flush
from streamer.log.partition import Partition
from streamer.wire.batch import Marker, advance_sequence, read_headers
from streamer.wire.record import Record

CONFIG = LogConfig(
    segment_bytes=700,
    index_interval_bytes=100,
    retention_bytes=-1,
    file_delete_delay_ms=0,
    message_timestamp_after_max_ms=2**62,
)
TRANSACTIONAL = 9
PRODUCERS = (1, 2, TRANSACTIONAL)
SEQUENCE_START = 2**31 - 12
"""So that sequences wrap soon."""


class Entry(NamedTuple):
    """What the list holds for each offset."""

    value: bytes | None
    producer: int = -1
    batch: int = -1
    """Number of the batch; a transaction's records are those since the last marker."""
    marker: bool | None = None
    """For a marker: whether it commits."""


class Sent(NamedTuple):
    data: bytes
    number: int
    base_offset: int
    next_sequence: int


class PartitionIsAList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.clock = TurnedClock()
        self.model: list[Entry] = []
        self.promised = 0
        self.start = 0
        self.safe_start = 0
        self.batches = 0
        self.sent: dict[int, list[Sent]] = {producer: [] for producer in PRODUCERS}
        self.begun: Flush | None = None
        self.open()

    def open(self) -> None:
        self.directory = LogDirectory.open(self.disk, Path("/data"), self.clock)
        self.partition: Partition = self.directory.open_partition("t", 0, TOPIC_ID, CONFIG)
        assert self.partition.offline is None, self.partition.offline
        self.begun = None

    # Appending.

    def _appended(self, data: bytes, values: list[bytes], producer: int) -> int:
        appended = self.partition.append(data, now_ms=self.clock.now, verify=coordinated)
        assert appended.base_offset == len(self.model)
        assert appended.last_offset == len(self.model) + len(values) - 1
        assert not appended.repeated
        self.model.extend(Entry(value, producer, self.batches) for value in values)
        self.batches += 1
        return appended.base_offset

    @rule(values=st.lists(st.binary(max_size=60), min_size=1, max_size=3))
    def append(self, values: list[bytes]) -> None:
        self._appended(batch(*values, timestamp=self.clock.now), values, -1)

    @rule(
        producer=st.sampled_from(PRODUCERS),
        values=st.lists(st.binary(max_size=30), min_size=1, max_size=3),
    )
    def append_in_sequence(self, producer: int, values: list[bytes]) -> None:
        known = self.sent[producer]
        sequence = known[-1].next_sequence if known else SEQUENCE_START
        data = batch_of(
            producer,
            sequence,
            *values,
            transactional=producer == TRANSACTIONAL,
            timestamp=self.clock.now,
        )
        number = self.batches
        base_offset = self._appended(data, values, producer)
        following = advance_sequence(sequence, len(values))
        known.append(Sent(data, number, base_offset, following))

    @rule(producer=st.sampled_from(PRODUCERS), back=st.integers(1, 5))
    def send_again(self, producer: int, back: int) -> None:
        known = self.sent[producer]
        if len(known) >= back:
            sent = known[-back]
            appended = self.partition.append(sent.data, now_ms=self.clock.now)
            assert appended.repeated
            assert appended.base_offset == sent.base_offset
            assert self.partition.end == len(self.model)

    @precondition(lambda self: self.transaction_start() is not None)
    @rule(commit=st.booleans())
    def end_transaction(self, commit: bool) -> None:
        appended = self.partition.append_marker(
            TRANSACTIONAL, 0, Marker(commit, 0), now_ms=self.clock.now
        )
        assert appended.base_offset == len(self.model)
        self.model.append(Entry(None, TRANSACTIONAL, self.batches, marker=commit))
        self.batches += 1

    # Flushing.

    @rule()
    def flush(self) -> None:
        if self.begun is None:
            flush(self.partition)
            self.promised = len(self.model)

    @rule()
    def begin_to_flush(self) -> None:
        if self.begun is None:
            self.begun = self.partition.begin_flush()

    @precondition(lambda self: self.begun is not None)
    @rule()
    def end_the_flush(self) -> None:
        assert self.begun is not None
        self.begun.run()
        self.partition.flushed(self.begun)
        self.promised = max(self.promised, self.begun.end)
        self.begun = None

    @rule()
    def checkpoint(self) -> None:
        self.directory.checkpoint()()
        self.safe_start = self.start

    # Deleting.

    @rule(share=st.floats(0, 1))
    def delete_records(self, share: float) -> None:
        offset = int(self.partition.high_watermark * share)
        self.start = max(self.start, offset)
        assert self.partition.delete_records(offset) == self.start

    @rule()
    def retain_little(self) -> None:
        self.partition.config = replace(CONFIG, retention_bytes=1500)
        flushed = self.partition.high_watermark
        self.partition.apply_retention(self.clock.now)
        self.partition.config = CONFIG
        assert self.start <= self.partition.log_start <= flushed
        self.start = self.partition.log_start

    @rule(hours=st.integers(-1000, 1000))
    def turn_the_clock(self, hours: int) -> None:
        self.clock.now = NOW + hours * 3_600_000

    # Ending.

    @rule(seed=st.integers(0, 2**32))
    def cut_the_power(self, seed: int) -> None:
        self.disk.crash(Random(seed))
        self.open()
        kept = self.partition.end
        assert kept >= self.promised, "a flushed record was lost"
        assert kept <= len(self.model), "something was made up"
        self.believe(kept)

    @rule()
    def kill(self) -> None:
        self.disk.kill()
        self.open()
        assert self.partition.end == len(self.model)
        assert self.partition.recovered is None
        self.believe(len(self.model))

    @rule()
    def restart(self) -> None:
        self.directory.close(clean=True)
        before = self.disk.counts["read"]
        self.open()
        assert self.partition.end == len(self.model)
        assert self.partition.log_start == self.start
        assert self.disk.counts["read"] - before < 20, "a clean start scans nothing"
        self.believe(len(self.model))

    def believe(self, kept: int) -> None:
        """What the restart found is what is there."""
        del self.model[kept:]
        self.promised = kept
        assert self.safe_start <= self.partition.log_start <= self.start
        self.start = self.partition.log_start
        for known in self.sent.values():
            while known and known[-1].base_offset >= kept:
                known.pop()

    # What must hold.

    def transaction_start(self) -> int | None:
        start = None
        for offset, entry in enumerate(self.model):
            if entry.producer == TRANSACTIONAL:
                began = offset if start is None else start
                start = None if entry.marker is not None else began
        return start

    def aborted(self) -> set[int]:
        """Offsets of the records of aborted transactions."""
        pending: list[int] = []
        found: set[int] = set()
        for offset, entry in enumerate(self.model):
            if entry.producer == TRANSACTIONAL:
                if entry.marker is None:
                    pending.append(offset)
                    continue
                found.update([] if entry.marker else pending)
                pending = []
        return found

    @invariant()
    def watermarks(self) -> None:
        partition = self.partition
        assert partition.high_watermark == self.promised
        assert partition.end == len(self.model)
        assert self.start <= partition.last_stable <= partition.high_watermark

    @invariant()
    def all_is_there_in_order(self) -> None:
        found = records(self.partition, max_bytes=300)
        assert [record.offset for record in found] == list(
            range(self.start, len(self.model))
        )
        for record in found:
            if self.model[record.offset].marker is None:
                assert record.value == self.model[record.offset].value

    @invariant()
    def readers_of_committed_records_see_no_others(self) -> None:
        partition = self.partition
        stable = partition.last_stable
        start = self.transaction_start()
        if start is not None:
            assert stable <= max(start, self.start)
        wanted = set(range(self.start, stable)) - self.aborted()
        found = {record.offset for record in committed(partition, stable)}
        assert found == {o for o in wanted if self.model[o].marker is None}


def committed(partition: Partition, up_to: int) -> list[Record]:
    """As a client reads: drop the records of a listed producer until its marker comes."""
    found = records(partition)
    listed = sorted(
        partition.aborted_between(partition.log_start, up_to), key=lambda x: x[1]
    )
    dropping: set[int] = set()
    kept = []
    owner = owners(partition)
    for record in found:
        if record.offset >= up_to:
            break
        while listed and listed[0][1] <= record.offset:
            dropping.add(listed.pop(0)[0])
        producer, is_marker = owner[record.offset]
        if is_marker:
            dropping.discard(producer)
        elif producer not in dropping:
            kept.append(record)
    return kept


def owners(partition: Partition) -> dict[int, tuple[int, bool]]:
    found = {}
    offset = partition.log_start
    while offset < partition.end:
        result = partition.plan_read(offset, 1 << 20, up_to=partition.end).run()
        assert result is not None
        for _, header in read_headers(result.data):
            for each in range(header.base_offset, header.last_offset + 1):
                found[each] = (header.producer_id, header.is_control)
        offset = result.next_offset
    return found


PartitionIsAList.TestCase.settings = settings(
    max_examples=250,
    report_multiple_bugs=False,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPartitionIsAList = pytest.mark.timeout(300)(PartitionIsAList.TestCase)
