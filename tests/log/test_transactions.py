"""A transaction is opened by its coordinator only; nobody else could ever end it."""

from pathlib import Path

import pytest
from support.disk import SimulatedDisk
from support.logs import NOW, batch, batch_of, coordinated, create, flush, reopen, values

from streamer.log.errors import Refused
from streamer.log.partition import Partition
from streamer.wire.batch import Marker
from streamer.wire.error_codes import ErrorCode


def transactional(sequence: int, value: bytes = b"v") -> bytes:
    return batch_of(1, sequence, value, transactional=True)


def refusal(partition: Partition, data: bytes) -> ErrorCode:
    with pytest.raises(Refused) as caught:
        partition.append(data, now_ms=NOW)
    return caught.value.code


def test_a_batch_of_a_transaction_that_nobody_began_is_refused() -> None:
    partition = create(SimulatedDisk())

    assert refusal(partition, transactional(0)) == ErrorCode.INVALID_TXN_STATE

    partition.append(batch(b"plain"), now_ms=NOW)
    flush(partition)
    assert values(partition) == [b"plain"]
    assert partition.last_stable == 1
    assert partition.producer_states() == {}


def test_the_last_stable_offset_is_never_below_the_start() -> None:
    partition = create(SimulatedDisk())
    partition.append(transactional(0), now_ms=NOW, verify=coordinated)
    partition.append(batch(b"plain"), now_ms=NOW)
    partition.append(batch(b"plain"), now_ms=NOW)
    flush(partition)
    assert partition.last_stable == 0

    partition.delete_records(2)

    assert partition.last_stable == 2


def test_once_it_is_open_here_the_coordinator_need_not_be_asked_until_its_end() -> None:
    disk = SimulatedDisk()
    partition = create(disk)
    partition.append(transactional(0, b"0"), now_ms=NOW, verify=coordinated)
    partition.append(transactional(1, b"1"), now_ms=NOW)
    flush(partition)
    disk.kill()
    reopened = reopen(disk)
    reopened.append(transactional(2, b"2"), now_ms=NOW)
    assert reopened.append(transactional(1, b"1"), now_ms=NOW).repeated

    reopened.append_marker(1, 0, Marker(commit=True, coordinator_epoch=0), now_ms=NOW)

    assert reopened.append(transactional(2, b"2"), now_ms=NOW).repeated
    assert refusal(reopened, transactional(3)) == ErrorCode.INVALID_TXN_STATE
    assert reopened.end == 4


class UnreadableDisk(SimulatedDisk):
    """For a while it does not give back what it was told of aborted transactions."""

    unreadable = False

    def exists(self, path: Path) -> bool:
        if self.unreadable and path.suffix == ".txnindex":
            raise OSError(5, "Input/output error")
        return super().exists(path)


def test_an_abort_that_cannot_be_listed_is_refused_before_it_is_written() -> None:
    disk = UnreadableDisk()
    create(disk).close(clean=True)
    partition = reopen(disk, clean=True)
    partition.append(transactional(0), now_ms=NOW, verify=coordinated)
    abort = Marker(commit=False, coordinator_epoch=0)

    disk.unreadable = True
    with pytest.raises(Refused, match="Input/output"):
        partition.append_marker(1, 0, abort, now_ms=NOW)
    assert partition.end == 1

    disk.unreadable = False
    partition.append_marker(1, 0, abort, now_ms=NOW)
    assert partition.aborted_between(0, 2) == [(1, 0)]
