"""ListOffsets and OffsetForLeaderEpoch, in all their versions."""

from __future__ import annotations

import pytest
from support.batches import batch
from support.raw import Wire, epoch_end, leader_epoch, offsets, produce

from streamer.wire.error_codes import ErrorCode

LATEST, EARLIEST, NEWEST, EARLIEST_LOCAL = -1, -2, -3, -4


@pytest.fixture
def filled(wire: Wire, log: str) -> str:
    """Offsets 0-2 at time 1,000, 3-4 at 3,000, 5 at 2,000."""
    for count, timestamp in ((3, 1_000), (2, 3_000), (1, 2_000)):
        produce(wire, log, batch([b"x"] * count, timestamp=timestamp))
    return log


@pytest.mark.parametrize("version", range(1, 9))
@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (LATEST, (6, -1)),
        (EARLIEST, (0, -1)),
        (0, (0, 1_000)),
        (1_001, (3, 3_000)),
        (3_001, (-1, -1)),
    ],
)
def test_offsets_are_found(
    wire: Wire, filled: str, version: int, timestamp: int, expected: tuple[int, int]
) -> None:
    found = offsets(wire, filled, timestamp, version=version)

    assert found.error_code == ErrorCode.NONE
    assert (found.offset, found.timestamp) == expected


def test_the_earliest_on_this_disk_is_the_earliest(wire: Wire, filled: str) -> None:
    found = offsets(wire, filled, EARLIEST_LOCAL, version=8)

    assert (found.error_code, found.offset) == (ErrorCode.NONE, 0)


@pytest.mark.parametrize("version", [7, 8])
def test_the_newest_record_is_the_first_with_the_greatest_timestamp(
    wire: Wire, filled: str, version: int
) -> None:
    found = offsets(wire, filled, NEWEST, version=version)

    assert (found.offset, found.timestamp) == (3, 3_000)


@pytest.mark.parametrize("timestamp", [LATEST, EARLIEST, 1_000])
def test_the_epoch_of_the_record_comes_with_it(
    wire: Wire, filled: str, timestamp: int
) -> None:
    found = offsets(wire, filled, timestamp)

    assert found.leader_epoch == leader_epoch(wire, filled)


def test_read_committed_without_transactions_ends_at_the_end(
    wire: Wire, filled: str
) -> None:
    assert offsets(wire, filled, LATEST, isolation=1).offset == 6


def test_what_is_not_there_has_no_offsets(wire: Wire, log: str) -> None:
    for topic, partition in ((log, 3), ("missing-one", 0)):
        found = offsets(wire, topic, LATEST, partition=partition)
        assert found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert found.offset == -1


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_current_epoch_ends_at_the_end(wire: Wire, filled: str, version: int) -> None:
    epoch = leader_epoch(wire, filled)
    found = epoch_end(wire, filled, epoch, version=version)

    assert found.error_code == ErrorCode.NONE
    assert (found.leader_epoch, found.end_offset) == (epoch, 6)


def test_an_epoch_still_to_come_has_no_end(wire: Wire, filled: str) -> None:
    found = epoch_end(wire, filled, leader_epoch(wire, filled) + 7)

    assert found.error_code == ErrorCode.NONE
    assert (found.leader_epoch, found.end_offset) == (-1, -1)


def test_what_is_not_there_has_no_epochs(wire: Wire) -> None:
    found = epoch_end(wire, "missing-one", 0)

    assert found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
