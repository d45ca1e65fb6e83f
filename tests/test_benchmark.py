"""The comparison with a loop by hand: it runs, and it notices what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from support.server import Server

from benchmarks.workloads import checks, records
from benchmarks.workloads.checks import Wrong
from benchmarks.workloads.measures import Mark, at, per_record, rate
from benchmarks.workloads.meter import digest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "framework.py"


def compared(*options: str, seconds: float = 50) -> list[dict[str, Any]]:
    result = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json", *options],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_a_count_is_compared_with_the_loop_by_hand() -> None:
    found = compared("--only", "W2", "--who", "loop", "--who", "event")

    cpu = next(row for row in found if row["row"] == "whole_cpu")
    assert set(cpu["median"]) == {"loop", "event"}
    assert cpu["ratio"]["event/loop"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_everybody_does_every_workload() -> None:
    who = [word for name in ("loop", "event", "batch") for word in ("--who", name)]

    found = compared(*who, seconds=280)

    missing = [
        (row["workload"], row["row"], name)
        for row in found
        for name, median in row["median"].items()
        if median is None
    ]
    assert missing == []


def test_steady_lies_between_two_shares_of_the_records() -> None:
    marks: list[Mark] = [
        (100, 1.0, 10.0),
        (200, 1.1, 10.1),
        (1000, 2.7, 10.9),
        (1000, 3.0, 15.0),
    ]

    early, late = at(marks, 0.20), at(marks, 0.95)

    assert list(early) == [200, 1.1, 10.1]
    assert per_record(early, late) == pytest.approx(2000)
    assert rate(early, late) == pytest.approx(1000)


def write(server: Server, topic: str, numbers: list[int], added: int) -> None:
    records.make_topic(server.address, topic)
    producer = Producer(records.PRODUCER | {"bootstrap.servers": server.address})
    for number in numbers:
        user = records.user_name(records.user_of(number))
        value = json.loads(records.value(number, user))
        value["amount"] += added
        records.produce(
            producer, topic, json.dumps(value).encode(), user.encode(), partition=number % 4
        )
    records.flush(producer)


@pytest.mark.parametrize(
    ("numbers", "added", "problem"),
    [
        ([0, 1, 2, 3, 4, 5], 1, None),
        ([0, 1, 2, 3, 5], 1, "1 of 6 records are not in"),
        ([0, 1, 2, 3, 4, 4, 5], 1, "record 4 is in .* twice"),
        ([4, 0, 1, 2, 3, 5], 1, "record 0 in .* comes after 4"),
        ([0, 1, 2, 3, 4, 5], 0, "has the amount"),
    ],
)
def test_an_output_that_is_not_the_input_is_wrong(
    server: Server, numbers: list[int], added: int, problem: str | None
) -> None:
    topic = f"output-{abs(hash((*numbers, added)))}"
    write(server, topic, numbers, added)
    source = records.Input("clicks", 6)

    def check() -> None:
        checks.output_is_the_input(server.address, topic, source, added=1, in_order=True)

    if problem is None:
        check()
    else:
        with pytest.raises(Wrong, match=problem):
            check()


def test_a_count_that_is_off_by_one_is_wrong(server: Server) -> None:
    counts = records.fill_changelog(server.address, "off-by-one", 10, 30, json_keys=True)
    checks.changelog_is(server.address, "off-by-one", counts)

    other = counts | Counter({"u00003": 4})
    with pytest.raises(Wrong, match="u00003 is 3 instead of 4"):
        checks.changelog_is(server.address, "off-by-one", other)


def test_a_table_that_is_off_by_one_is_wrong() -> None:
    with pytest.raises(Wrong, match="'sum': 3"):
        checks.table_is(digest([("u00003", 3)]), Counter({"u00003": 4}))


def test_keys_are_put_where_the_client_puts_them(server: Server) -> None:
    source = records.fill(server.address, "placed", 500)

    placed = {
        (message.key() or b"", message.partition())
        for message in checks.whole(server.address, "placed")
    }

    users = [name.encode() for name in source.by_user]
    assert placed == {(user, records.partition_of(user)) for user in users}


def test_a_record_has_a_hundred_bytes() -> None:
    for number in (0, 9_999, 1_234_567):
        value = records.value(number, records.user_name(records.user_of(number)))
        assert len(value) == records.BYTES
        assert json.loads(value)["n"] == number
