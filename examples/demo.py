"""The shop at work: its broker, two workers and a stream of orders, with live figures.

    make demo                # or: .venv/bin/python examples/demo.py
    Ctrl-C                   # ends all of it, in order, and leaves nothing running

Started again it goes on where it was: what the shop knows is in `examples/.streamer`, and
`--fresh` forgets it. What runs is `shop.py`, as it stands:

    workers    `python shop.py worker --processes 2`; try what a `kill -9` of one does
    broker     that which the app has of its own, in a process beside them
    orders     sent by `shop.orders.send_soon`, from here

And this program looks on, as any Kafka client may. It reads the orders and adds them up
itself; it reads the changelog of the table `sold`, of which it sees what is committed. So
it knows what should have been sold of each item and what the shop says, and how long the
one took to become the other: that is the latency here, from sending an order until its
count is committed and read. Orders that still wait at the end are counted the next time.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import time
import urllib.request
import uuid
from asyncio.subprocess import Process
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click
import shop
from prometheus_client.parser import text_string_to_metric_families
from rich.columns import Columns
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.consumer import ConfluentConsumer
from streamer.client.embedded import EmbeddedBroker
from streamer.client.file_lock import is_held
from streamer.client.interface import (
    ClientError,
    GroupMember,
    Message,
    NoSuchTopic,
    TopicPartition,
)

FOLDER = Path(__file__).parent
ORDERS, SOLD = "orders", "shop-sold-changelog"
ITEMS = ["tea", "coffee", "cocoa", "honey", "sugar", "milk", "lemons", "ginger", "saffron"]
RATE = 500
TICK_S = 0.02
TOP = 8
LAST_LOOK_S = 0.2
STOP_S = 5.0
PATIENCE_S = 30.0
# For the broker. Orders need not be kept for long: enough to look at them with `streamer
# consume orders`, and little enough for any disk. The table's changelog is compacted.
SETTINGS = {
    "STREAMER_LOG_RETENTION_BYTES": str(64 << 20),
    "STREAMER_LOG_SEGMENT_BYTES": str(8 << 20),
}


# What there is to see.


class Watch:
    """What was ordered, what was sold, and how long the one takes to become the other.

    It notes what it has added up and how far it has read for that, so that it need not read
    the log from its beginning each time, nor the broker keep it for ever.
    """

    def __init__(self, address: str, notes: Path) -> None:
        self.ordered: Counter[str] = Counter()
        self.sold: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.stopping = False
        self.problem: ClientError | None = None
        self._address = address
        self._notes = notes
        self._began_ms = now_ms()
        self._offsets: dict[int, int] = {}
        # By item: how many there are with this order, and when that was sent.
        self._waiting: dict[str, deque[tuple[int, int]]] = defaultdict(deque)
        if notes.exists():
            noted = json.loads(notes.read_text())
            self.ordered.update(noted["ordered"])
            self._offsets = {int(number): at for number, at in noted["offsets"].items()}

    async def run(self) -> None:
        """Until it is stopping, or has a problem."""
        consumer = ConfluentConsumer(self._address, {"auto.offset.reset": "earliest"})
        try:
            consumer.assign(await self._places())
            while not self.stopping:
                for message in await asyncio.to_thread(consumer.consume, 1000, 0.02):
                    self._add(message)
            self.note()
        except ClientError as error:
            self.problem = error
        finally:
            consumer.close()

    async def _places(self) -> dict[TopicPartition, int]:
        """From where to read, once the shop has opened."""
        admin = ConfluentAdmin(self._address)
        while not self.stopping:
            try:
                orders = await asyncio.to_thread(admin.topic, ORDERS)
                sold = await asyncio.to_thread(admin.topic, SOLD)
            except NoSuchTopic:
                await asyncio.sleep(0.1)
                continue
            places = {
                at: self._offsets.get(at.partition, 0) for at in orders.topic_partitions
            }
            return places | dict.fromkeys(sold.topic_partitions, 0)
        return {}

    def _add(self, message: Message) -> None:
        key, value = message.key() or b"", message.value() or b""
        if message.topic() == SOLD:
            item = json.loads(key)
            self.sold[item] = json.loads(value)
        else:
            order, sent_ms = shop.Order.loads(value), message.timestamp()[1]
            item = order.item
            self.ordered[item] += order.quantity
            self._offsets[message.partition()] = message.offset() + 1
            # Older ones have waited for somebody to start the demo.
            if sent_ms >= self._began_ms:
                self._waiting[item].append((self.ordered[item], sent_ms))
        # Equal items are counted in about the order in which they were sent.
        waiting = self._waiting[item]
        while waiting and waiting[0][0] <= self.sold[item]:
            self.latencies_ms.append(now_ms() - waiting.popleft()[1])

    def note(self) -> None:
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps({"ordered": self.ordered, "offsets": self._offsets}))
        new.replace(self._notes)


def now_ms() -> float:
    """As the timestamps of records are."""
    return time.time_ns() / 1e6


@dataclass(frozen=True, slots=True)
class Worker:
    """A process of the shop, and what it has done since it was started."""

    slot: str
    pid: str
    pages: str
    partitions: int
    records: float = 0
    commits: float = 0
    cpu_s: float = 0
    memory: float = 0

    @property
    def answers(self) -> bool:
        return self.memory > 0


class Workers:
    """Who is in the group of the shop, and what each says of itself at /metrics."""

    def __init__(self, address: str, home: Path) -> None:
        self._admin = ConfluentAdmin(address)
        self._slots = home / "state" / "shop"

    def look(self) -> list[Worker]:
        try:
            members = self._admin.group("shop").members
        except ClientError:  # nobody is there yet, or the broker is busy
            return []
        return sorted(map(self._asked, members), key=lambda worker: worker.slot)

    def _asked(self, member: GroupMember) -> Worker:
        # Its client id says where its pages are: shop@host:port/slot.
        pages, _, slot = member.client_id.partition("@")[2].rpartition("/")
        pid = (self._slots / f"slot-{slot}" / ".lock").read_text().strip()
        known = slot, pid, pages, len(member.partitions)
        try:
            with urllib.request.urlopen(f"http://{pages}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:  # it was killed a moment ago
            return Worker(*known)
        found: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] += sample.value
        return Worker(
            *known,
            records=found["streamer_records_total"],
            commits=found["kafka_streams_stream_thread_metrics_commit_total"],
            cpu_s=found["process_cpu_seconds_total"],
            memory=found["process_resident_memory_bytes"],
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """How it stands at one moment, and what has come within the second before."""

    seconds: float
    address: str
    ordered: int
    sold: Counter[str]
    rate: float
    latencies_ms: list[float]
    workers: list[Worker]
    # By process: records, commits and CPU seconds, each in a second.
    rates: dict[str, tuple[float, float, float]]

    @property
    def waiting(self) -> int:
        return self.ordered - self.sold.total()

    @property
    def summary(self) -> dict[str, str]:
        latency = [percentile(self.latencies_ms, share) for share in (50, 99)]
        commits = sum(commits for _, commits, _ in self.rates.values())
        return {
            "orders": f"{self.ordered:,} ({self.rate:,.0f}/s)",
            "counted": f"{self.sold.total():,}",
            "waiting": f"{self.waiting:,}",
            "latency": "p50 {:.0f} ms, p99 {:.0f} ms".format(*latency),
            "commits": f"{commits:.0f}/s",
            "workers": f"{len(self.workers)}",
        }


async def figures(address: str, home: Path, watch: Watch) -> AsyncIterator[Figures]:
    """A look at it each second."""
    crew = Workers(address, home)
    began = then = time.monotonic()
    ordered, before = watch.ordered.total(), dict[str, Worker]()
    while True:
        await asyncio.sleep(1)
        workers = await asyncio.to_thread(crew.look)
        now = time.monotonic()
        latencies, watch.latencies_ms = sorted(watch.latencies_ms), []
        yield Figures(
            seconds=now - began,
            address=address,
            ordered=watch.ordered.total(),
            sold=watch.sold,
            rate=(watch.ordered.total() - ordered) / (now - then),
            latencies_ms=latencies,
            workers=workers,
            rates={
                one.pid: rates(before[one.pid], one, now - then)
                for one in workers
                if one.answers and one.pid in before
            },
        )
        watch.note()
        then, ordered = now, watch.ordered.total()
        before = {one.pid: one for one in workers if one.answers}


def rates(before: Worker, now: Worker, seconds: float) -> tuple[float, float, float]:
    return (
        (now.records - before.records) / seconds,
        (now.commits - before.commits) / seconds,
        (now.cpu_s - before.cpu_s) / seconds,
    )


def percentile(ordered: list[float], share: int) -> float:
    return ordered[len(ordered) * share // 100] if ordered else 0.0


# How it is shown.


def show(now: Figures, screen: Live | None) -> None:
    if screen is not None:
        screen.update(drawn(now), refresh=True)
    else:
        print(
            "   ".join(f"{name} {text}" for name, text in now.summary.items()), flush=True
        )


def drawn(now: Figures) -> Group:
    summary = Table.grid(padding=(0, 3))
    for name, text in now.summary.items():
        summary.add_row(Text(name), Text(text, style="bold"))
    top = Table("item", right("sold"))
    for item, number in now.sold.most_common(TOP):
        top.add_row(item, f"{number:,}")
    columns = ("partitions", "records/s", "commits/s", "CPU", "memory")
    workers = Table("process", "pages", *map(right, columns))
    for one in now.workers:
        records, commits, cpu = now.rates.get(one.pid, (0, 0, 0))
        workers.add_row(
            one.pid,
            f"http://{one.pages}/",
            f"{one.partitions}",
            f"{records:,.0f}",
            f"{commits:.0f}",
            f"{cpu:.0%}",
            f"{one.memory / 1e6:.0f} MB",
        )
    words = "\n".join(
        [
            f"The broker is {now.address}; any Kafka client may look in. Try:",
            f"  .venv/bin/streamer consume alerts -b {now.address}",
            *(f"  curl http://{one.pages}/table/sold/tea" for one in now.workers[:1]),
            *(f"  kill -9 {one.pid}" for one in now.workers[:1]),
            "Ctrl-C ends all; it goes on from there when it is started again.",
        ]
    )
    return Group(summary, Columns([top, workers], padding=(1, 3)), Text(words))


def right(name: str) -> Column:
    return Column(name, justify="right")


# What runs.


async def send_orders(rate: float, random: Random) -> None:
    """Until it is cancelled. Some items sell better than others."""
    weights = [1 / number for number in range(1, len(ITEMS) + 1)]
    began, sent = time.monotonic(), 0
    while True:
        wanted = int((time.monotonic() - began) * rate)
        for item in random.choices(ITEMS, weights, k=wanted - sent):
            shop.orders.send_soon(value=shop.Order(uuid.uuid4().hex, item))
        sent = wanted
        await asyncio.sleep(TICK_S)


@contextmanager
def running_broker(home: Path) -> Iterator[str]:
    """The app's own broker, which is ours as well; it goes a second after the last user."""
    with EmbeddedBroker.join(home) as broker:
        yield broker.address
    until = time.monotonic() + STOP_S  # you may have started another worker on it
    while is_held(home / "broker" / ".lock") and time.monotonic() < until:
        time.sleep(0.05)


@asynccontextmanager
async def watching(address: str, notes: Path) -> AsyncIterator[Watch]:
    watch = Watch(address, notes)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
        await asyncio.sleep(LAST_LOOK_S)
    finally:
        watch.stopping = True
        await task


@asynccontextmanager
async def running_workers(home: Path, processes: int) -> AsyncIterator[Process]:
    # Their words would disturb the figures.
    with (home / "workers.log").open("wb") as output:
        workers = await asyncio.create_subprocess_exec(
            *(sys.executable, str(FOLDER / "shop.py")),
            *("worker", "--processes", str(processes)),
            stdout=output,
            stderr=output,
            # In a session of its own, so that Ctrl-C reaches us alone and we stop in order.
            start_new_session=True,
        )
    try:
        yield workers
    finally:
        if workers.returncode is None:
            workers.terminate()
        await workers.wait()


@asynccontextmanager
async def selling(rate: float) -> AsyncIterator[asyncio.Task[None]]:
    await shop.app.start_client()
    task = asyncio.create_task(send_orders(rate, Random()))
    try:
        yield task
    finally:
        task.cancel()
        # What was sent has arrived when this returns.
        await shop.app.stop()


async def play(home: Path, processes: int, rate: float, seconds: float) -> Watch:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with running_broker(home) as address:
        # It ends from below: no more orders, then the workers stop, then we look once more.
        async with (
            watching(address, home / "demo.json") as watch,
            running_workers(home, processes) as workers,
            selling(rate) as sale,
        ):
            with (
                Live(auto_refresh=False) if sys.stdout.isatty() else nullcontext() as screen
            ):
                async for now in figures(address, home, watch):
                    show(now, screen)
                    check(watch, workers, home)
                    if stop.is_set() or (sale.done() and now.waiting == 0):
                        break
                    if now.seconds >= seconds:
                        sale.cancel()
                    if now.seconds >= seconds + PATIENCE_S:
                        raise click.ClickException(f"{now.waiting:,} are not counted.")
    return watch


def check(watch: Watch, workers: Process, home: Path) -> None:
    """Raise if something has ended that should run."""
    if watch.problem is not None:
        raise watch.problem
    if workers.returncode is not None:
        words = (home / "workers.log").read_text()
        raise click.ClickException(f"The workers have ended:\n{words}")


@click.command()
@click.option("--processes", default=2, show_default=True, help="Workers.")
@click.option("--rate", default=RATE, show_default=True, help="Orders a second.")
@click.option(
    "--seconds",
    default=float("inf"),
    help="Sell for so long, and end when all is counted.  [default: until Ctrl-C]",
)
@click.option("--fresh", is_flag=True, help="Forget what was before.")
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=FOLDER / ".streamer",
    help="Where the shop is.  [default: .streamer beside this file]",
)
def main(processes: int, rate: float, seconds: float, fresh: bool, home: Path) -> None:
    """The shop at work: its broker, its workers and a stream of orders, live."""
    home = home.absolute()
    if fresh and is_held(home / "broker" / ".lock"):
        raise click.ClickException(f"Somebody works in {home}: end that first.")
    if fresh:
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=home / "demo.log")
    os.environ |= SETTINGS | {"STREAMER_HOME": str(home)}
    os.environ.pop("STREAMER_BROKER", None)
    print(f"The shop is in {home}; Ctrl-C ends it.", flush=True)
    try:
        watch = asyncio.run(play(home, processes, rate, seconds))
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    ordered, sold = watch.ordered.total(), watch.sold.total()
    print(f"{ordered:,} orders, {sold:,} of them counted.")
    print("Started again, it goes on from there; with --fresh it begins anew.")


if __name__ == "__main__":
    main()
