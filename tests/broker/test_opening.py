"""A start that takes long says how far it has come."""

import logging
from pathlib import Path

import pytest
from support.core import running_broker
from support.disk import SimulatedDisk
from support.logs import TurnedClock


class SlowClock(TurnedClock):
    """Every look at it takes half a second."""

    def monotonic(self) -> float:
        self.now += 500
        return super().monotonic()


async def test_every_two_seconds_of_opening_there_is_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk, data = SimulatedDisk(), Path("/data")
    async with running_broker(data, disk=disk, clock=TurnedClock()) as broker:
        await broker.catalog.create("t", 11, {})
    with caplog.at_level(logging.INFO, "streamer.broker.catalog"):
        async with running_broker(data, disk=disk, clock=SlowClock()):
            pass
    lines = [line for line in caplog.messages if line.startswith("Opened ")]
    assert len(lines) == 2
    assert lines[0].startswith("Opened 4 of 11 partitions, 0.0 GiB")
