"""The demo as a person starts it, for a few seconds."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from support import examples
from support.clients import wait_until

from streamer.client.embedded import EmbeddedBroker

SCRIPT = "demo.py"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".streamer"


def test_what_it_sells_is_counted_once_though_it_is_interrupted_and_a_worker_killed(
    home: Path,
) -> None:
    with demo(home) as first:
        wait_for_counts(first)
        first.process.send_signal(signal.SIGINT)
        assert first.end() == 0, first.said
    assert "Traceback" not in first.said
    assert not examples.processes_of(home)
    so_far = orders_and_counted(first.said)

    with demo(home, "--seconds", "3") as second:
        wait_for_counts(second)
        worker = home / "state" / "shop" / "slot-0" / ".lock"
        os.kill(int(worker.read_text()), signal.SIGKILL)
        assert second.end() == 0, second.said
    assert not examples.processes_of(home)
    at_last = orders_and_counted(second.said)

    assert at_last[0] == at_last[1]
    assert at_last[0] > so_far[0] >= so_far[1] > 0
    assert sold_by_the_log(home) == ordered_by_the_log(home)


def demo(home: Path, *arguments: str) -> examples.Started:
    return examples.running(home, SCRIPT, "--home", str(home), "--rate", "200", *arguments)


def wait_for_counts(program: examples.Program) -> None:
    """Until both workers are there and something is counted."""
    wait_until(
        lambda: re.search(r"counted [1-9].* p50 [1-9].*workers 2", program.said),
        f"nothing is counted: {program.said}",
    )


def orders_and_counted(said: str) -> tuple[int, int]:
    found = re.search(r"^([\d,]+) orders, ([\d,]+) of them counted", said, re.MULTILINE)
    assert found is not None, said
    orders, counted = (int(number.replace(",", "")) for number in found.groups())
    return orders, counted


def ordered_by_the_log(home: Path) -> dict[str, int]:
    """Each order once, by its id: whoever sells does not sell twice either."""
    with EmbeddedBroker.join(home) as broker:
        orders = examples.values(broker.address, "orders")
    assert len({order["id"] for order in orders}) == len(orders)
    found: dict[str, int] = {}
    for order in orders:
        found[order["item"]] = found.get(order["item"], 0) + order["quantity"]
    return found


def sold_by_the_log(home: Path) -> dict[str, int]:
    with EmbeddedBroker.join(home) as broker:
        found = examples.table(broker.address, "shop-sold-changelog")
    return {json.loads(key): number for key, number in found.items()}
