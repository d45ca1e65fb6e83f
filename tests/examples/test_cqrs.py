"""The box office: its read sides are what its events come to, whatever was killed."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.clients import wait_until
from support.examples import Example, first_number, loaded

KILLS, COMMANDS = 3, 600


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    example = Example("cqrs", tmp_path, TICKETS=str(tmp_path / "tickets"))
    yield example
    example.close()


@pytest.fixture
def office(example: Example) -> Iterator[Any]:
    with loaded("cqrs", example.environment) as module:
        yield module


@dataclass(frozen=True)
class Read:
    """An event, as far as a view looks at it."""

    value: Any
    offset: int
    tp: tuple[str, int]


def test_what_comes_again_is_not_shown_again(office: Any) -> None:
    booked = office.Fact("hamlet", office.Booked("A1", "ann", 2500))
    freed = office.Fact("hamlet", office.Cancelled("A1", "ann", 2500))
    at = office.streamer.TopicPartition(office.events.name, 2)
    found = [Read(booked, 7, at), Read(freed, 8, at), Read(booked, 11, at)]

    office.show(found[:2])
    office.show(found)
    office.show(found[1:])

    with office.view_in_use() as view:
        assert [dict(row) for row in view.ask("SELECT * FROM customers")] == [
            {"customer": "ann", "bookings": 2, "cancellations": 1, "spent": 2500}
        ]
        assert view.positions() == {at: 12}


def test_rows_and_position_are_written_together_or_not_at_all(office: Any) -> None:
    booked = office.Fact("hamlet", office.Booked("A1", "ann", 2500))
    at = office.streamer.TopicPartition(office.events.name, 0)

    with pytest.raises(sqlite3.IntegrityError):
        # A seat that is sold twice is nothing that the write side lets happen.
        office.show([Read(booked, 0, at), Read(booked, 1, at)])

    with office.view_in_use() as view:
        assert view.ask("SELECT * FROM tickets") == []
        assert view.positions() == {}


def test_a_program_of_another_version_leaves_the_view_alone(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.show([])
    monkeypatch.setattr(office, "VERSION", 2)

    with pytest.raises(office.OtherVersion, match="of version 1, this program of 2"):
        office.show([])


def test_what_waited_for_a_view_that_was_replaced_goes_into_the_new_one(
    office: Any,
) -> None:
    booked = office.Fact("hamlet", office.Booked("A1", "ann", 2500))
    at = office.streamer.TopicPartition(office.events.name, 0)
    office.show([])

    with (
        ThreadPoolExecutor() as threads,
        office.View(office.current()) as old,
        old.transaction(),
    ):
        showing = threads.submit(office.show, [Read(booked, 0, at)])
        assert not wait([showing], timeout=0.2).done, "it does not wait"
        office.switch_to(old.file.with_name("view-2.db"))
    showing.result()

    assert office.current().name == "view-2.db"
    assert rows(office) == expected(office, [booked])


def test_nobody_writes_while_the_last_events_come_into_a_new_view(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.show([])
    locked: list[bool] = []

    def catch_up(view: Any) -> int:
        locked.append(is_locked(office.current()))
        return 0

    monkeypatch.setattr(office, "catch_up", catch_up)

    office.rebuild()

    assert locked == [False, True]
    assert not is_locked(office.current())
    assert office.current().name == "view-2.db"


def test_the_demo_shows_both_read_sides(example: Example, office: Any) -> None:
    shown_twice = example.run("demo")

    facts = [event.value for event in office.app.read(office.events)]
    for show, total in totals(facts).items():
        row = rf"\| {show} +\| Total\(seats={total['seats']}, cents={total['cents']}\)"
        assert re.search(row, shown_twice), shown_twice
    for name, _, _, spent in expected(office, facts)[1]:
        assert re.search(rf"'{name}'.*'spent': {spent}}}", shown_twice), shown_twice


def test_read_sides_are_what_the_events_come_to_when_the_worker_is_killed_in_between(
    example: Example, office: Any
) -> None:
    rng = random.Random(3)
    example.start_worker()
    assert "done" in example.run("book", "hamlet", "Z1", "zoe", "25")
    taken = example.run("book", "hamlet", "Z1", "bob", "25", fails=True)
    assert "hamlet/Z1 is taken" in taken
    accepted = 1
    for number in range(KILLS):
        before = shown(office)
        traffic = example.start("traffic", str(COMMANDS), "--seed", str(number))
        wait_until(partial(has_gone_on, office, before), "nothing has begun")
        time.sleep(rng.random() * 0.1)

        example.kill_workers()
        assert traffic.poll() is None, "it was over before the worker was killed"

        example.start_worker()
        accepted += first_number(example.printed(traffic))

    facts = [event.value for event in office.app.read(office.events)]
    assert len(facts) == accepted
    wait_until(lambda: shown(office) == accepted, "the view stays behind")
    assert rows(office) == expected(office, facts)
    for show, total in totals(facts).items():
        wait_until(partial(has_total, example, show, total), f"{show} is not {total}")
    page = example.page("/customers/zoe")
    assert page["tickets"] == [{"show": "hamlet", "seat": "Z1"}]
    assert (page["bookings"], page["spent"]) == (1, 2500)


def test_a_view_is_made_anew_beside_the_one_in_use(example: Example, office: Any) -> None:
    example.start_worker()
    example.run("traffic", "100")
    wait_until(lambda: shown(office), "nothing is shown")
    traffic = example.start("traffic", "600", "--seed", "1")
    before = shown(office)
    wait_until(partial(has_gone_on, office, before), "nothing has begun")

    told = example.run("rebuild")

    assert "view-2.db, which is asked from now on" in told
    example.printed(traffic)
    example.run("traffic", "40", "--seed", "2")
    facts = [event.value for event in office.app.read(office.events)]
    wait_until(lambda: shown(office) == len(facts), "the view stays behind")
    assert office.current().name == "view-2.db"
    assert rows(office) == expected(office, facts)
    with office.View(office.FOLDER / "view-1.db") as old:
        left = old.ask("SELECT sum(bookings + cancellations) AS n FROM customers")[0]["n"]
        assert left < len(facts), "the old one is written no more"
    spent = {row[0]: row[3] for row in rows(office)[1]}
    assert example.page("/customers/ann")["spent"] == spent["ann"]


def is_locked(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def shown(office: Any) -> int:
    """How many events the view in use shows."""
    with office.view_in_use() as view:
        question = "SELECT sum(bookings + cancellations) AS n FROM customers"
        return int(view.ask(question)[0]["n"] or 0)


def has_gone_on(office: Any, before: int) -> bool:
    return shown(office) > before


def rows(office: Any) -> tuple[list[Any], list[Any]]:
    """Tickets and customers, as the view in use has them."""
    with office.view_in_use() as view:
        return (
            sorted(tuple(row.values()) for row in view.ask("SELECT * FROM tickets")),
            sorted(tuple(row.values()) for row in view.ask("SELECT * FROM customers")),
        )


def expected(office: Any, facts: list[Any]) -> tuple[list[Any], list[Any]]:
    """The same, computed from the events."""
    tickets: dict[tuple[str, str], tuple[str, int]] = {}
    customers: dict[str, tuple[int, int, int]] = {}
    for fact in facts:
        what, place = fact.what, (fact.show, fact.what.seat)
        booked, freed, spent = customers.get(what.customer, (0, 0, 0))
        if isinstance(what, office.Booked):
            assert place not in tickets, "a seat was sold twice"
            tickets[place] = (what.customer, what.cents)
            customers[what.customer] = (booked + 1, freed, spent + what.cents)
        else:
            assert tickets.pop(place) == (what.customer, what.cents)
            customers[what.customer] = (booked, freed + 1, spent - what.cents)
    return (
        sorted((*place, *ticket) for place, ticket in tickets.items()),
        sorted((name, *numbers) for name, numbers in customers.items()),
    )


def totals(facts: list[Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for fact in facts:
        total = found.setdefault(fact.show, {"seats": 0, "cents": 0})
        sign = 1 if type(fact.what).__name__ == "Booked" else -1
        total["seats"] += sign
        total["cents"] += sign * fact.what.cents
    return found


def has_total(example: Example, show: str, total: dict[str, int]) -> bool:
    return bool(example.page(f"/table/totals/{show}")["value"] == total)
