"""A broker in this process, with a topic `t` of one partition, and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.core import Client, running_broker

from streamer.broker.core import Broker


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running_broker(tmp_path / "data") as running:
        await running.catalog.create("t", 1, {})
        yield running


@pytest.fixture
def client(broker: Broker) -> Client:
    return Client(broker)
