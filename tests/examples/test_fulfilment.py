"""The saga: however it goes, an order is shipped and paid, or cancelled and undone."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import examples
from support.clients import DEADLINE_SECONDS, assigned, take

from streamer.client.embedded import EmbeddedBroker

SCRIPT = "fulfilment.py"
ORDERS = 1000
SEEN = 500


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".streamer"


def test_the_demo_brings_every_order_to_its_end_and_adds_up(home: Path) -> None:
    said = examples.run(home, SCRIPT, "demo", "--count", "100")

    assert "100 of 100 orders have ended" in said
    sums = dict(line.strip().split("  ", 1) for line in said.splitlines()[-5:])
    assert sums["cents_spent"] == sums["cents_shipped"] != "0"
    assert sums["pieces_taken"] == sums["pieces_shipped"] != "0"


def test_each_step_is_taken_once_though_the_worker_is_killed_in_between(home: Path) -> None:
    with EmbeddedBroker.join(home) as broker:
        with examples.running(home, SCRIPT, "worker") as worker:
            worker.wait_for("Working on")
            with examples.running(home, SCRIPT, "place", "--count", str(ORDERS)) as placing:
                see_some_steps(broker.address)
                worker.kill()
                assert placing.end() == 0, placing.said
        under_way = ORDERS - ended(broker.address)
        with examples.running(home, SCRIPT, "worker"):
            wait_for_the_end(broker.address, ORDERS)

        assert under_way > 0, "it was killed when all was done"
        check_that_it_adds_up(broker.address)
        check_the_steps(broker.address)


def see_some_steps(address: str) -> None:
    """Until some changes of orders are committed: some have come further than others."""
    changelog = "fulfilment-states-changelog"
    consumer = assigned(
        address, changelog, partitions=examples.PARTITIONS, enable_partition_eof=False
    )
    take(consumer, SEEN)
    consumer.close()


def wait_for_the_end(address: str, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while ended(address) < count:
        assert time.monotonic() < deadline, f"{ended(address)} of {count}"
        time.sleep(0.2)


def ended(address: str) -> int:
    return sum(each["state"] in ("shipped", "cancelled") for each in states(address))


def states(address: str) -> list[dict[str, Any]]:
    return list(examples.table(address, "fulfilment-states-changelog").values())


def check_that_it_adds_up(address: str) -> None:
    """Each customer has paid for what was shipped, each shelf lacks what was shipped."""
    found = states(address)
    paid, taken = Counter[str](), Counter[str]()
    for each in found:
        order = each["order"]
        shipped = each["state"] == "shipped"
        paid[order["customer"]] += order["cents"] * shipped
        taken[order["item"]] += order["quantity"] * shipped
    accounts = examples.table(address, "fulfilment-accounts-changelog")
    shelves = examples.table(address, "fulfilment-shelves-changelog")

    assert len(found) == ORDERS
    assert {key.decode(): account["spent"] for key, account in accounts.items()} == paid
    assert {key.decode(): shelf["taken"] for key, shelf in shelves.items()} == taken
    assert all(each["spent"] <= each["deposited"] for each in accounts.values())
    assert all(each["taken"] <= each["delivered"] for each in shelves.values())


def check_the_steps(address: str) -> None:
    """Each was asked for once, and undone if the other was refused."""
    steps: dict[str, list[str]] = {}
    for topic in ("fulfilment-orders", "fulfilment-payments", "fulfilment-shipments"):
        for record in examples.values(address, topic):
            steps.setdefault(record["order"], []).append(record["what"])
    del steps[""]  # deposits and deliveries
    ways = Counter(tuple(sorted(each)) for each in steps.values())

    asked = ("placed", "charge", "reserve")
    possible = {
        tuple(sorted(asked + rest)): name
        for name, rest in {
            "shipped": ("paid", "reserved", "ship", "shipped"),
            "refunded": ("paid", "missing", "refund", "refunded"),
            "released": ("refused", "reserved", "release", "released"),
            "neither": ("refused", "missing"),
        }.items()
    }
    assert sum(ways.values()) == ORDERS
    assert {possible.get(way, way) for way in ways} == set(possible.values())
