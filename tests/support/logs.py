"""What the tests of the log share: batches, a clock to turn, a partition to open."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from streamer.log.config import LogConfig
from streamer.log.disk import Disk
from streamer.log.lookup import TimestampFound, TimestampPlan
from streamer.log.partition import Partition
from streamer.wire.batch import Header, read_headers
from streamer.wire.record import Record, read_records, write_batch

NOW = 1_700_000_000_000
TOPIC_ID = UUID(int=7)
FOLDER = Path("/data/t-0")


class TurnedClock:
    def __init__(self, now_ms: int = NOW) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000


def batch(*values: bytes, timestamp: int = NOW, key: bytes | None = b"k") -> bytes:
    return write_batch([Record(0, timestamp, key, value) for value in values])


def batch_of(
    producer_id: int,
    sequence: int,
    *values: bytes,
    epoch: int = 0,
    timestamp: int = NOW,
    transactional: bool = False,
) -> bytes:
    return write_batch(
        [Record(0, timestamp, b"k", value) for value in values],
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        transactional=transactional,
    )


def create(
    disk: Disk, config: LogConfig | None = None, *, durable: bool = True
) -> Partition:
    return Partition.create(
        disk,
        FOLDER,
        "t",
        0,
        TOPIC_ID,
        config or LogConfig(),
        TurnedClock(),
        durable=durable,
    )


def reopen(
    disk: Disk,
    config: LogConfig | None = None,
    *,
    recovery_point: int = 0,
    log_start: int = 0,
    clean: bool = False,
    durable: bool = True,
) -> Partition:
    return Partition.open(
        disk,
        FOLDER,
        "t",
        0,
        TOPIC_ID,
        config or LogConfig(),
        TurnedClock(),
        durable=durable,
        recovery_point=recovery_point,
        log_start=log_start,
        clean=clean,
    )


def coordinated(header: Header, goes_on: bool) -> None:
    """Says of every transactional batch that its partition was added."""


def append(partition: Partition, *batches: bytes) -> None:
    for each in batches:
        partition.append(each, now_ms=NOW, verify=coordinated)


def search(steps: Iterable[TimestampPlan]) -> TimestampFound | None:
    """What a search by time comes to."""
    answer = None
    for plan in steps:
        answer = plan.run() or answer
    return answer


def flush(partition: Partition) -> None:
    job = partition.begin_flush()
    if job is not None:
        job.run()
        partition.flushed(job)


def records(
    partition: Partition, start: int | None = None, *, max_bytes: int = 1 << 20
) -> list[Record]:
    """All records from `start` to the end, flushed or not, markers included."""
    offset = partition.log_start if start is None else start
    found: list[Record] = []
    while offset < partition.end:
        result = partition.plan_read(offset, max_bytes, up_to=partition.end).run()
        assert result is not None
        assert result.next_offset > offset, "a read brought nothing"
        found.extend(one for one in records_in(result.data) if one.offset >= offset)
        partition.remember(result)
        offset = result.next_offset
    return found


def records_in(data: bytes | bytearray | memoryview) -> Iterable[Record]:
    for position, header in read_headers(data):
        yield from read_records(memoryview(data)[position : position + header.size])


def values(partition: Partition, start: int | None = None) -> list[bytes | None]:
    return [record.value for record in records(partition, start)]
