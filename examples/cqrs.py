"""A box office where those who sell and those who ask do not meet.

    python cqrs.py demo                            # five hundred commands, and both views

CQRS keeps what decides apart from what is asked. Commands go to a write side, which keeps
no more than it needs to decide: is this seat free? Questions go to read sides, which are
made of its events, each in the form that its questions like, and each can be thrown away
and made again. The price is that they are a moment behind.

    ask ──> commands ──> desk ──> events ──┬──> tally ────> table    what a show has sold
                          │ ^              │
                        seats              └──> project ──> SQLite   whatever SQL can ask
                   the write side's own                       ^
                                               rebuild ───────┘

Two ways to be exact. The table is part of the transaction in which the event is read, as
everything of streamer is. SQLite has transactions of its own: there, rows and the position
behind them are written in one, and what is before the position is not written again. So a
booking is counted once in both, though the worker may be killed at any moment.

Or run it by itself,

    python cqrs.py worker

and try, in another terminal, in the same folder:

    python cqrs.py book hamlet A1 ann 25
    python cqrs.py book hamlet A1 bob 25           # refused: it is taken
    python cqrs.py traffic 1000                    # at random; kill -9 the worker meanwhile
                                                   # and start it again
    python cqrs.py table get totals hamlet         # the table, from whichever worker has it
    curl http://127.0.0.1:6066/customers/ann       # a page, from SQLite
    python cqrs.py sql "SELECT * FROM customers ORDER BY spent DESC LIMIT 3"

SQLite is in the folder `tickets`: `view-1.db`, and in `current` the name of the file that
is asked. Whenever you like, and also when the folder was lost,

    python cqrs.py rebuild

makes `view-2.db` of all events since the first, beside the one in use, which is asked until
the new one takes its place. To have another column, change SCHEMA, `_add` and VERSION, then
rebuild: a worker that runs the old program goes on until then, and ends. Start it again.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import click

import streamer

app = streamer.App("tickets")
FOLDER = Path(os.environ.get("TICKETS", "tickets"))


class Book(streamer.Record, tag=True):
    seat: str
    customer: str
    cents: int


class Cancel(streamer.Record, tag=True):
    seat: str
    customer: str


class Command(streamer.Record):
    show: str
    what: Book | Cancel


class Answer(streamer.Record):
    accepted: bool
    why: str = ""


class Booked(streamer.Record, tag=True):
    seat: str
    customer: str
    cents: int


class Cancelled(streamer.Record, tag=True):
    seat: str
    customer: str
    cents: int


class Fact(streamer.Record):
    show: str
    what: Booked | Cancelled


# The write side: a show is the key, so its commands come one after the other.

commands = app.topic("ticket-commands", key_type=str, value_type=Command, partitions=4)
events = app.topic(
    "ticket-events",
    key_type=str,
    value_type=Fact,
    partitions=4,
    config={"retention.ms": -1},  # all read sides are made of it, also those to come
)
seats = app.Table("seats", key_type=str, value_type=Booked)


@app.agent(commands)
async def desk(stream: streamer.Stream[Command]) -> AsyncIterator[Answer]:
    async for command in stream:
        what, place = command.what, f"{command.show}/{command.what.seat}"
        taken = seats.get(place)
        if isinstance(what, Book):
            if taken is not None:
                yield Answer(False, f"{place} is taken")
                continue
            seats[place] = booked = Booked(what.seat, what.customer, what.cents)
            await events.send(key=command.show, value=Fact(command.show, booked))
        else:
            if taken is None or taken.customer != what.customer:
                yield Answer(False, f"{place} is not booked for {what.customer}")
                continue
            del seats[place]
            freed = Cancelled(taken.seat, taken.customer, taken.cents)
            await events.send(key=command.show, value=Fact(command.show, freed))
        yield Answer(True)


# A read side in a table: by show, at /table/totals/hamlet.


class Total(streamer.Record):
    seats: int = 0
    cents: int = 0


totals = app.Table("totals", default=Total, key_type=str, value_type=Total)


@app.agent(events)
async def tally(stream: streamer.Stream[Fact]) -> None:
    async for fact in stream:
        total, sign = totals[fact.show], 1 if isinstance(fact.what, Booked) else -1
        totals[fact.show] = Total(total.seats + sign, total.cents + sign * fact.what.cents)


# A read side in SQLite.

VERSION = 1
SCHEMA = f"""
PRAGMA user_version = {VERSION};
CREATE TABLE IF NOT EXISTS tickets (
    show TEXT, seat TEXT, customer TEXT, cents INTEGER, PRIMARY KEY (show, seat)
);
CREATE TABLE IF NOT EXISTS customers (
    customer TEXT PRIMARY KEY, bookings INTEGER, cancellations INTEGER, spent INTEGER
);
CREATE TABLE IF NOT EXISTS positions (
    partition INTEGER PRIMARY KEY, next INTEGER -- the first offset that is not in here
);
"""


class OtherVersion(streamer.StreamerError):
    """The view was made by another program than this."""


class View:
    """A file of SQLite that shows the events, up to its positions."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        # None: transactions begin where we say so.
        self._db = sqlite3.connect(file, timeout=30, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        # Those who ask need not wait for those who write.
        self._db.execute("PRAGMA journal_mode = WAL")
        if not self.version:
            self._db.executescript(SCHEMA)

    @property
    def version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing; whoever else wants to write waits."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def positions(self) -> dict[streamer.TopicPartition, int]:
        rows = self._db.execute("SELECT partition, next FROM positions")
        return {streamer.TopicPartition(events.name, row[0]): row[1] for row in rows}

    def add(self, found: Iterable[streamer.Event[Fact]]) -> None:
        """Within a transaction: the rows that events lead to, and the position behind them.

        A worker that was killed after this and before its own commit reads them again:
        they are known by their offset.
        """
        positions = self.positions()
        for event in found:
            if event.offset >= positions.get(event.tp, 0):
                self._add(event.value)
                positions[event.tp] = event.offset + 1
        self._db.executemany(
            "REPLACE INTO positions VALUES (?, ?)",
            [(at.partition, following) for at, following in positions.items()],
        )

    def _add(self, fact: Fact) -> None:
        show, what, is_new = fact.show, fact.what, isinstance(fact.what, Booked)
        if is_new:
            row = (show, what.seat, what.customer, what.cents)
            self._db.execute("INSERT INTO tickets VALUES (?, ?, ?, ?)", row)
        else:
            place = (show, what.seat)
            self._db.execute("DELETE FROM tickets WHERE show = ? AND seat = ?", place)
        self._db.execute(
            """
            INSERT INTO customers VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
                bookings = bookings + excluded.bookings,
                cancellations = cancellations + excluded.cancellations,
                spent = spent + excluded.spent
            """,
            (what.customer, is_new, not is_new, what.cents if is_new else -what.cents),
        )

    def ask(self, question: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._db.execute(question, values)]


def current() -> Path:
    """The file that is asked, and kept up to date by the worker."""
    try:
        return FOLDER / (FOLDER / "current").read_text()
    except FileNotFoundError:
        return FOLDER / "view-1.db"


def switch_to(file: Path) -> None:
    written = FOLDER / "current.new"
    written.write_text(file.name)
    written.replace(FOLDER / "current")


@contextmanager
def view_in_use() -> Iterator[View]:
    with View(current()) as view:
        if view.version != VERSION:
            raise OtherVersion(
                f"{view.file} is of version {view.version}, this program of {VERSION}.",
                remedy="Start this again if it is the older; else: python cqrs.py rebuild",
            )
        yield view


@app.agent(events)
async def project(stream: streamer.Stream[Fact]) -> None:
    async for found in stream.take_events(1000, within=0.02):
        # In a thread: it waits for the disk, and for others who write.
        await asyncio.to_thread(show, found)


def show(found: list[streamer.Event[Fact]]) -> None:
    """Bring the view that is in use up to date with these events."""
    while True:
        with view_in_use() as view, view.transaction():
            # While we waited for our turn, it may have been replaced by another.
            if view.file == current():
                view.add(found)
                return


@app.command()
def rebuild() -> None:
    """Make the SQLite view anew, from the first event, beside the one in use."""
    old = current()
    number = int(old.stem.removeprefix("view-"))
    new = old.with_stem(f"view-{number + 1}")
    if new.exists():
        sys.exit(f"{new} is being made; or it was left behind, then delete it.")
    with View(old) as using, View(new) as making:
        count = catch_up(making)
        # From here on nobody writes to the old one: both come to the same.
        with using.transaction():
            count += catch_up(making)
            switch_to(new)
    print(f"{count} events make {new}, which is asked from now on; {old} can be deleted.")


def catch_up(view: View) -> int:
    """Read all events that the view does not have; how many they were."""
    found = list(app.read(events, view.positions()))
    with view.transaction():
        view.add(found)
    return len(found)


# Asking.


@app.page("/customers/{name}")
async def customer(name: str) -> Mapping[str, Any]:
    with view_in_use() as view:
        known = view.ask("SELECT * FROM customers WHERE customer = ?", name)
        tickets = view.ask("SELECT show, seat FROM tickets WHERE customer = ?", name)
    return {"customer": name, "tickets": tickets, **(known[0] if known else {})}


@app.command(click.argument("question"))
def sql(question: str) -> None:
    """Ask the SQLite view."""
    with view_in_use() as view:
        for row in view.ask(question):
            print(*row.values(), sep="\t")


async def ask(command: Command) -> Answer:
    return Answer.from_data(await desk.ask(command, key=command.show))


async def told(command: Command) -> None:
    answer = await ask(command)
    print("done" if answer.accepted else f"refused: {answer.why}")
    if not answer.accepted:
        sys.exit(1)


SHOW, SEAT, CUSTOMER = (click.argument(name) for name in ("show", "seat", "customer"))


@app.command(SHOW, SEAT, CUSTOMER, click.argument("price", type=click.FloatRange(0)))
async def book(show: str, seat: str, customer: str, price: float) -> None:
    """Book a SEAT of a SHOW for a CUSTOMER."""
    await told(Command(show, Book(seat, customer, round(100 * price))))


@app.command(SHOW, SEAT, CUSTOMER)
async def cancel(show: str, seat: str, customer: str) -> None:
    """Give a SEAT back."""
    await told(Command(show, Cancel(seat, customer)))


@app.command(
    click.argument("count", type=click.IntRange(1)),
    click.option("--seed", default=0, show_default=True),
)
async def traffic(count: int, seed: int) -> None:
    """Ask COUNT things of the desk, at random, twenty at once."""
    chance = random.Random(seed)
    asked = [at_random(chance) for _ in range(count)]
    accepted = 0

    async def visitor() -> None:
        nonlocal accepted
        while asked:
            answer = await ask(asked.pop())
            accepted += answer.accepted

    await asyncio.gather(*(visitor() for _ in range(20)))
    print(f"{accepted} of {count} accepted")


@app.command()
def demo() -> None:
    """Run a worker, ask five hundred things of it, and show what the read sides show."""
    asyncio.run(play())


async def play() -> None:
    async with app:
        await traffic(500, seed=random.randrange(1_000_000))
        await asyncio.sleep(0.5)  # read sides are a moment behind
        print(totals.as_ansitable(title="totals", key="show", sort=True))
    with view_in_use() as view:
        for row in view.ask("SELECT * FROM customers ORDER BY spent DESC"):
            print(row)


def at_random(chance: random.Random) -> Command:
    show = chance.choice(["hamlet", "faust", "medea", "tartuffe", "godot"])
    seat = f"{chance.choice('ABCD')}{chance.randrange(1, 11)}"
    customer = chance.choice(["ann", "bob", "cleo"])
    cents = chance.randrange(1000, 5000)
    if chance.random() < 0.5:
        return Command(show, Book(seat, customer, cents))
    return Command(show, Cancel(seat, customer))


if __name__ == "__main__":
    app.main()
