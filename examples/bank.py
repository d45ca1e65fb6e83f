"""A bank whose accounts are rebuilt from their events.

    python bank.py demo                      # five hundred commands, and an audit

Event sourcing: what is stored is not how things are but what has happened, and that is
never changed. How things are follows from it: an account is what its events come to, and
can be computed again at any time, up to any moment of its past. A command is decided by
what has happened so far, and if it leads to something, that is one more event.

    ask ──> commands ──> bank ──> events      what has happened, kept for ever
               ^          │
               │          ├─────> accounts    what it comes to: a snapshot, to be replaced
               └──────────┘                   at will
             money on its way
             to another account

All arrows of one command are one transaction: the answer, the event, the snapshot and the
money sent on are there together or not at all, whatever is killed and when. Commands have
the account as their key, so they reach it one after the other: no account needs a lock.

A transfer concerns two accounts, which may live in two processes. Money leaves the one
(`Sent`), is a command to the other while it is under way (`Arrive`), and arrives there
(`Received`), or comes back if nobody is there. It is always in one place:

    all balances + what is under way = all deposits - all withdrawals

Or run it by itself,

    python bank.py worker

and try, in another terminal, in the same folder:

    python bank.py open ann
    python bank.py deposit ann 50 --reference salary
    python bank.py withdraw ann 20 --expected 1    # refused: ann has gone on to version 2
    python bank.py transfer ann bob 15             # there is no bob: the money comes back
    python bank.py replay ann                      # what has happened; also --version 2, or
    python bank.py replay ann --at 2026-01-31T12:00
    python bank.py traffic 1000                    # at random; kill -9 the worker meanwhile
                                                   # and start it again
    python bank.py audit                           # is all the money there?

Events of the first release are as good as new ones, once the snapshot is made again:

    python bank.py send bank-events -k old \
        '{"account": "old", "version": 1, "what": {"type": "Opened"}}'
    python bank.py send bank-events -k old \
        '{"account": "old", "version": 2, "what": {"type": "Deposited", "amount": 7}}'
    python bank.py replay old
    python bank.py rebuild
    python bank.py table get accounts old

(`reset` is not for this app: it has the commands read again, and what is done once more
happens once more.)
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click

import streamer

app = streamer.App("bank")


# What can be asked of the bank. `tag` tells the kinds apart in JSON: {"type": "Open"}.


class Open(streamer.Record, tag=True):
    pass


class Deposit(streamer.Record, tag=True):
    cents: int
    reference: str = ""


class Withdraw(streamer.Record, tag=True):
    cents: int


class Transfer(streamer.Record, tag=True):
    to: str
    cents: int


class Arrive(streamer.Record, tag=True):
    """Money that another account has sent: the bank asks this of itself."""

    transfer: str
    sender: str
    cents: int


class Restore(streamer.Record, tag=True):
    """Replace the snapshot by one that was made of the events."""

    balance: int
    version: int


class Command(streamer.Record):
    account: str
    what: Open | Deposit | Withdraw | Transfer | Arrive | Restore
    expected: int | None = None
    """The version of the account that whoever asks has seen. If it has another by then, the
    command is refused. So nobody decides by what is out of date, and a command that is
    repeated, for want of an answer, is not done twice."""


class Answer(streamer.Record):
    accepted: bool
    version: int
    balance: int
    why: str = ""


# What can have happened. These classes describe data that is kept for ever.


class Opened(streamer.Record, tag=True):
    pass


class Deposited(streamer.Record, tag="Deposited.2"):
    cents: int
    reference: str


class Withdrawn(streamer.Record, tag=True):
    cents: int


class Sent(streamer.Record, tag=True):
    transfer: str
    to: str
    cents: int


class Received(streamer.Record, tag=True):
    transfer: str
    sender: str
    cents: int


class DepositedV1(streamer.Record, tag="Deposited"):
    """As the first release wrote it, which knew neither cents nor references."""

    amount: int


Event = Opened | Deposited | Withdrawn | Sent | Received


class Fact(streamer.Record):
    """An event, whose it is, and which of his: 1, 2, 3 without a gap."""

    account: str
    version: int
    what: Event | DepositedV1


def upcast(what: Event | DepositedV1) -> Event:
    """An old event, as it would be written today. All that follows knows today's only."""
    if isinstance(what, DepositedV1):
        return Deposited(cents=100 * what.amount, reference="(before references)")
    return what


# The rules of the bank: plain functions, which know of no topic and no table.


class Account(streamer.Record):
    balance: int = 0
    version: int = 0
    """How many events it is made of; 0: it does not exist."""


class Refused(Exception):
    """The bank does not do that."""


def decide(account: Account, command: Command) -> Event:
    """What comes of a command, for an account that is like this."""
    what = command.what
    if command.expected not in (None, account.version):
        raise Refused(f"it is at version {account.version}, not {command.expected}")
    if isinstance(what, Open):
        if account.version:
            raise Refused("it is open already")
        return Opened()
    if not account.version:
        raise Refused("there is no such account")
    if not isinstance(what, Restore) and what.cents <= 0:
        raise Refused("an amount is more than nothing")
    if isinstance(what, Withdraw | Transfer) and what.cents > account.balance:
        raise Refused(f"it has {money(account.balance)} only")
    match what:
        case Deposit():
            return Deposited(cents=what.cents, reference=what.reference)
        case Withdraw():
            return Withdrawn(cents=what.cents)
        case Transfer():
            # Named after the event that it begins with: there is no other of that name.
            transfer = f"{command.account}:{account.version + 1}"
            return Sent(transfer=transfer, to=what.to, cents=what.cents)
        case Arrive():
            return Received(what.transfer, what.sender, what.cents)
        case Restore():
            raise Refused("a snapshot is no event")


def apply(account: Account, event: Event) -> Account:
    """The account after an event. It has happened: nothing is refused here."""
    balance = account.balance
    match event:
        case Deposited() | Received():
            balance += event.cents
        case Withdrawn() | Sent():
            balance -= event.cents
        case Opened():
            balance = 0
    return Account(balance, account.version + 1)


# The bank.

commands = app.topic("bank-commands", key_type=str, value_type=Command, partitions=4)
events = app.topic(
    "bank-events",
    key_type=str,
    value_type=Fact,
    partitions=4,
    config={"retention.ms": -1},  # the source of all truth never ends
)
accounts = app.Table("accounts", default=Account, key_type=str, value_type=Account)


@app.agent(commands)
async def bank(stream: streamer.Stream[Command]) -> AsyncIterator[Answer]:
    async for command in stream:
        name, account = command.account, accounts[command.account]
        if isinstance(command.what, Restore):
            yield restored(command, command.what, account)
            continue
        try:
            event = decide(account, command)
        except Refused as refused:
            if isinstance(command.what, Arrive):
                await send_back(command, command.what)
            yield Answer(False, account.version, account.balance, f"{name}: {refused}")
            continue
        account = apply(account, event)
        await events.send(key=name, value=Fact(name, account.version, event))
        accounts[name] = account
        if isinstance(event, Sent):
            arrive = Arrive(event.transfer, sender=name, cents=event.cents)
            await commands.send(key=event.to, value=Command(event.to, arrive))
        yield Answer(True, account.version, account.balance)


async def send_back(command: Command, arrive: Arrive) -> None:
    """Nobody is there: the sender gets it back, and he is there, for no account closes."""
    back = Arrive(arrive.transfer, sender=command.account, cents=arrive.cents)
    await commands.send(key=arrive.sender, value=Command(arrive.sender, back))


def restored(command: Command, what: Restore, account: Account) -> Answer:
    """Puts the snapshot in place, unless the account has gone on since it was made."""
    if account.version > what.version:
        why = f"{command.account}: it has gone on to version {account.version}"
        return Answer(False, account.version, account.balance, why)
    accounts[command.account] = Account(what.balance, what.version)
    return Answer(True, what.version, what.balance)


# Looking back: the events alone, read from their beginning. No worker is needed.


@dataclass
class Books:
    """What all events come to."""

    accounts: dict[str, Account] = field(default_factory=dict)
    deposited: int = 0
    withdrawn: int = 0
    under_way: Counter[str] = field(default_factory=Counter)
    """Cents by transfer: those that have left one account and not come to another."""
    problems: list[str] = field(default_factory=list)

    def add(self, fact: Fact) -> None:
        account = self.accounts.get(fact.account, Account())
        event = upcast(fact.what)
        if fact.version != account.version + 1:
            self.problems.append(
                f"{fact.account}: event {fact.version} follows {account.version}"
            )
        self.accounts[fact.account] = apply(account, event)
        match event:
            case Deposited():
                self.deposited += event.cents
            case Withdrawn():
                self.withdrawn += event.cents
            case Sent():
                self._moved(event.transfer, event.cents)
            case Received():
                self._moved(event.transfer, -event.cents)
            case Opened():
                pass

    def _moved(self, transfer: str, cents: int) -> None:
        # Of two partitions, either may be read first: the arrival may come before.
        self.under_way[transfer] += cents
        if not self.under_way[transfer]:
            del self.under_way[transfer]

    @property
    def balances(self) -> int:
        return sum(account.balance for account in self.accounts.values())

    def audited(self) -> list[str]:
        """What is wrong with them."""
        found = list(self.problems)
        for transfer, cents in self.under_way.items():
            if cents < 0:
                found.append(f"transfer {transfer}: {money(-cents)} came from nowhere")
        for name, account in self.accounts.items():
            if account.balance < 0:
                found.append(f"{name} owes us {money(-account.balance)}")
        if self.balances + self.under_way.total() != self.deposited - self.withdrawn:
            found.append("money was made or lost")
        return found


def books(facts: Iterable[streamer.Event[Fact]]) -> Books:
    kept = Books()
    for fact in facts:
        kept.add(fact.value)
    return kept


@app.command(
    click.argument("account"),
    click.option("--version", type=click.IntRange(0), help="Up to this event."),
    click.option(
        "--at",
        type=click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"]),
        help="Up to this moment.",
    ),
)
def replay(account: str, version: int | None, at: datetime | None) -> None:
    """Tell what has happened to ACCOUNT, and what it came to at a moment."""
    now = Account()
    for event in app.read(events):
        if event.value.account != account:
            continue
        if version is not None and event.value.version > version:
            continue
        if at is not None and event.timestamp > at.timestamp():
            continue
        what = upcast(event.value.what)
        now = apply(now, what)
        moment = f"{datetime.fromtimestamp(event.timestamp, UTC).astimezone():%F %T}"
        print(f"{now.version:>4}  {moment}  {money(now.balance):>10}  {what}")
    print(f"{account}: version {now.version}, balance {money(now.balance)}")


@app.command()
def audit() -> None:
    """See whether all the money is there; best while nothing goes on."""
    kept = books(app.read(events))
    print(f"{len(kept.accounts)} accounts have  {money(kept.balances):>12}")
    print(f"{len(kept.under_way)} under way  {money(kept.under_way.total()):>12}")
    print(f"deposited  {money(kept.deposited)}, withdrawn {money(kept.withdrawn)}")
    if found := kept.audited():
        sys.exit("\n".join(found))
    print("All of it is there.")


@app.command()
async def rebuild() -> None:
    """Make every snapshot anew, from the events, while the bank goes on."""
    left: set[str] | None = None
    while left is None or left:
        kept = await asyncio.to_thread(lambda: books(app.read(events)))
        names = sorted(kept.accounts if left is None else left)
        left = set()
        for name in names:
            account = kept.accounts[name]
            what = Restore(account.balance, account.version)
            if not (await ask(Command(name, what))).accepted:
                left.add(name)  # it has gone on meanwhile: its events are read again
        print(f"{len(names) - len(left)} snapshots made.")


# Asking.


async def ask(command: Command) -> Answer:
    """The bank's answer; it comes when what it says is there for good."""
    return Answer.from_data(await bank.ask(command, key=command.account))


async def told(command: Command) -> None:
    answer = await ask(command)
    words = "done" if answer.accepted else f"refused, {answer.why}"
    print(f"{words}; version {answer.version}, balance {money(answer.balance)}")
    if not answer.accepted:
        sys.exit(1)


def money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


AMOUNT = click.argument("amount", type=click.FloatRange(0.01))
EXPECTED = click.option("--expected", type=int, help="Only if it is at this version.")


@app.command(click.argument("account"), name="open")
async def open_account(account: str) -> None:
    """Open ACCOUNT."""
    await told(Command(account, Open()))


@app.command(
    click.argument("account"), AMOUNT, click.option("--reference", default=""), EXPECTED
)
async def deposit(
    account: str, amount: float, reference: str, expected: int | None
) -> None:
    """Put AMOUNT into ACCOUNT."""
    await told(Command(account, Deposit(round(100 * amount), reference), expected))


@app.command(click.argument("account"), AMOUNT, EXPECTED)
async def withdraw(account: str, amount: float, expected: int | None) -> None:
    """Take AMOUNT from ACCOUNT."""
    await told(Command(account, Withdraw(round(100 * amount)), expected))


@app.command(click.argument("account"), click.argument("to"), AMOUNT, EXPECTED)
async def transfer(account: str, to: str, amount: float, expected: int | None) -> None:
    """Send AMOUNT from ACCOUNT to another."""
    await told(Command(account, Transfer(to, round(100 * amount)), expected))


@app.command(
    click.argument("count", type=click.IntRange(1)),
    click.option("--seed", default=0, show_default=True),
)
async def traffic(count: int, seed: int) -> None:
    """Ask COUNT things of the bank, at random, twenty at once."""
    chance = random.Random(seed)
    names = [f"account-{number}" for number in range(10)]
    await asyncio.gather(*(ask(Command(name, Open())) for name in names))
    asked = [at_random(chance, names) for _ in range(count)]
    accepted = 0

    async def customer() -> None:
        nonlocal accepted
        while asked:
            answer = await ask(asked.pop())
            accepted += answer.accepted

    await asyncio.gather(*(customer() for _ in range(20)))
    print(f"{accepted} of {count} accepted")


@app.command()
def demo() -> None:
    """Run a worker, ask five hundred things of it, and see whether the money is there."""
    asyncio.run(play())
    audit()


async def play() -> None:
    async with app:
        await traffic(500, seed=random.randrange(1_000_000))


def at_random(chance: random.Random, names: list[str]) -> Command:
    cents = chance.randrange(1, 10_000)
    wishes: list[Deposit | Withdraw | Transfer] = [
        Deposit(cents),
        Withdraw(cents),
        # Some of it to one who has no account.
        Transfer(chance.choice([*names, "nobody"]), cents),
    ]
    return Command(chance.choice(names), chance.choice(wishes))


if __name__ == "__main__":
    app.main()
