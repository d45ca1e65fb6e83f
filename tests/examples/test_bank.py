"""The bank: what its events come to, and that kill -9 costs it nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.clients import wait_until
from support.examples import Example, first_number, loaded

KILLS, COMMANDS = 3, 800


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    example = Example("bank", tmp_path)
    yield example
    example.close()


@pytest.fixture
def bank(example: Example) -> Iterator[Any]:
    with loaded("bank", example.environment) as module:
        yield module


# The rules, without any broker.


def test_an_event_of_the_first_release_is_read_as_one_of_today(bank: Any) -> None:
    data = b'{"account": "old", "version": 2, "what": {"type": "Deposited", "amount": 7}}'

    event = bank.upcast(bank.Fact.loads(data).what)

    assert event == bank.Deposited(cents=700, reference="(before references)")
    assert bank.apply(bank.Account(100, 1), event) == bank.Account(800, 2)


def test_a_command_that_has_seen_another_version_is_refused(bank: Any) -> None:
    account = bank.Account(balance=500, version=3)

    with pytest.raises(bank.Refused, match="at version 3, not 2"):
        bank.decide(account, bank.Command("ann", bank.Withdraw(100), expected=2))
    assert bank.decide(account, bank.Command("ann", bank.Withdraw(100), expected=3))


def test_money_that_has_left_and_not_arrived_is_under_way(bank: Any) -> None:
    facts = [
        bank.Fact("ann", 1, bank.Opened()),
        bank.Fact("ann", 2, bank.Deposited(500, "")),
        bank.Fact("ann", 3, bank.Sent("ann:3", "bob", 200)),
    ]
    kept = bank.Books()

    for fact in facts:
        kept.add(fact)

    assert (kept.balances, kept.under_way) == (300, {"ann:3": 200})
    assert kept.audited() == []


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (("ann", 4, ("Received", "ann:3", "bob", 200)), "came from nowhere"),
        (("bob", 3, ("Received", "bob:9", "bob", 1)), "came from nowhere"),
        (("ann", 5, ("Withdrawn", 1)), "event 5 follows 3"),
        (("ann", 4, ("Withdrawn", 301)), "ann owes us 0.01"),
    ],
)
def test_an_audit_finds_what_must_not_be(bank: Any, last: Any, problem: str) -> None:
    kept = bank.Books()
    for fact in [
        bank.Fact("ann", 1, bank.Opened()),
        bank.Fact("ann", 2, bank.Deposited(500, "")),
        bank.Fact("ann", 3, bank.Sent("ann:3", "bob", 200)),
        bank.Fact("bob", 1, bank.Opened()),
        bank.Fact("bob", 2, bank.Received("ann:3", "ann", 200)),
    ]:
        kept.add(fact)
    assert kept.audited() == []

    account, version, (kind, *values) = last
    kept.add(bank.Fact(account, version, getattr(bank, kind)(*values)))

    assert any(problem in found for found in kept.audited())


def test_a_snapshot_takes_no_account_back_to_what_it_was(bank: Any) -> None:
    late = bank.Restore(balance=100, version=2)

    answer = bank.restored(bank.Command("ann", late), late, bank.Account(500, 3))

    assert (answer.accepted, answer.version, answer.balance) == (False, 3, 500)


# The bank, as a person runs it.


def test_the_demo_ends_with_all_the_money_there(example: Example) -> None:
    assert example.run("demo").endswith("All of it is there.\n")


def test_what_has_happened_is_told_up_to_any_moment(
    example: Example, bank: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    example.start_worker()

    assert "done; version 1" in example.run("open", "ann")
    assert "version 2, balance 50.00" in example.run("deposit", "ann", "50")
    stale = example.run("withdraw", "ann", "20", "--expected", "1", fails=True)
    assert "it is at version 2, not 1" in stale
    example.run("transfer", "ann", "nobody", "15", "--expected", "2")

    # There is nobody: it has come back.
    wait_until(lambda: at(example, "ann")["version"] == 4, "the money is away")
    told = example.run("replay", "ann")
    assert [line.split()[4].partition("(")[0] for line in told.splitlines()[:-1]] == [
        *("Opened", "Deposited", "Sent", "Received")
    ]
    assert "ann: version 4, balance 50.00" in told
    assert "ann: version 3, balance 35.00" in example.run("replay", "ann", "--version", "3")
    assert "ann: version 0, balance 0.00" in example.run(
        "replay", "ann", "--at", "2001-01-01"
    )
    assert "ann: version 4" in example.run("replay", "ann", "--at", "2999-01-01T12:00")


def test_old_events_come_into_the_table_when_it_is_made_again(
    example: Example, bank: Any
) -> None:
    example.start_worker()
    example.page("/readyz")
    opened = '{"account": "old", "version": 1, "what": {"type": "Opened"}}'
    deposited = (
        '{"account": "old", "version": 2, "what": {"type": "Deposited", "amount": 7}}'
    )
    example.run("send", "bank-events", "-k", "old", opened)
    example.run("send", "bank-events", "-k", "old", deposited)

    assert "1 snapshots made" in example.run("rebuild")

    assert at(example, "old") == {"balance": 700, "version": 2}
    assert "version 3, balance 6.50" in example.run("withdraw", "old", "0.5")


def test_money_is_neither_made_nor_lost_when_all_workers_are_killed_again_and_again(
    example: Example, bank: Any
) -> None:
    rng = random.Random(5)
    example.start_worker()
    example.start_worker()
    accepted = first_number(example.run("traffic", "20"))
    for number in range(KILLS):
        before = at(example, "account-0")["version"]
        traffic = example.start("traffic", str(COMMANDS), "--seed", str(number))
        wait_until(partial(has_gone_on, example, before), "nothing has begun")
        time.sleep(rng.random() * 0.1)

        example.kill_workers()
        assert traffic.poll() is None, "it was over before the workers were killed"

        # Nobody works on it: what was under way, if anything, is just that.
        assert books(bank).audited() == []
        example.start_worker()
        example.start_worker()
        accepted += first_number(example.printed(traffic))

    wait_until(lambda: not books(bank).under_way, "money does not arrive")
    assert "All of it is there." in example.run("audit")
    kept = books(bank)
    assert kept.deposited - kept.withdrawn == kept.balances > 0
    # What was accepted has happened, once; all else that happened is money that arrived.
    facts = [event.value.what for event in bank.app.read(bank.events)]
    asked = [what for what in facts if not isinstance(what, bank.Received)]
    assert len(asked) == accepted + len(kept.accounts)
    # The snapshots are what the events come to.
    for name, account in kept.accounts.items():
        assert at(example, name) == account.asdict()


def has_gone_on(example: Example, before: int) -> bool:
    return bool(at(example, "account-0")["version"] > before)


def books(bank: Any) -> Any:
    """What all events come to that are committed."""
    return bank.books(bank.app.read(bank.events))


def at(example: Example, account: str) -> Any:
    """The snapshot of an account, from the worker that has it."""
    return example.page(f"/table/accounts/{account}?local=1")["value"]
