"""A broker with producers, a consumer and a consumer group, with live figures.

    make demo            # or: .venv/bin/python examples/demo.py
    Ctrl-C               # ends all of it, and leaves nothing behind

The broker is a process of its own, started as you would start it: `streamer broker`.
Its log lies in a temporary folder. The clients are threads of this one:

    clicks     a thousand records every ten milliseconds, each with the time in it; a
               consumer reads them and so knows how long each was on its way
    payments   written in transactions, of which every fifth is aborted; read by a group of
               two members, to which a third comes after some seconds. What was aborted,
               none of them ever sees

Nothing here is special to our broker: the clients speak the Kafka protocol, and would do
the same with any other.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

import click
from rich.live import Live
from rich.table import Table

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.consumer import ConfluentConsumer
from streamer.client.confluent.producer import (
    ConfluentProducer,
    ConfluentTransactionalProducer,
)
from streamer.client.interface import (
    ClientError,
    NoSuchGroup,
    NotAMember,
    TopicPartition,
)

TOPIC, PAYMENTS, PARTITIONS = "clicks", "payments", 4
RATE = 100_000  # records a second
TRANSACTION_EACH_S, TRANSACTION_RECORDS, ABORT_EACH = 0.05, 20, 5
GROUP, MEMBERS, THIRD_AFTER_S = "auditors", 2, 4.0
PAID, REFUSED = b"paid", b"refused"
TICK_S = 0.01
KEYS = [f"customer-{number}".encode() for number in range(1000)]
STAMP = Struct(">q")
VALUE = b"x" * 92  # behind the stamp: 100 bytes in all
# Enough to look at with `streamer consume`, and little enough for any disk.
CONFIGS = {"retention.bytes": str(256 << 20), "segment.bytes": str(64 << 20)}


@dataclass
class Counters:
    """What the threads have done so far; each number is counted by one of them."""

    sent: int = 0
    received: int = 0
    latencies_ns: list[int] = field(default_factory=list)
    committed: int = 0
    aborted: int = 0
    members: list["Audited"] = field(default_factory=list)
    problem: ClientError | None = None


@dataclass
class Audited:
    """What a member of the group has read."""

    paid: int = 0
    refused: int = 0  # these were aborted


Work = Callable[[str, Counters, threading.Event], None]


@contextmanager
def running_broker() -> Iterator[str]:
    """`streamer broker` on a free port and a temporary folder; gives its address."""
    with tempfile.TemporaryDirectory(prefix="streamer-demo-") as folder:
        address_file = Path(folder) / "address"
        command = [str(Path(sys.executable).with_name("streamer")), "broker", "--port", "0"]
        command += ["--data-dir", f"{folder}/data", "--address-file", str(address_file)]
        # Its words would disturb the figures.
        log = Path(folder) / "log"
        with (
            log.open("wb") as words,
            # In a session of its own, so that Ctrl-C reaches us alone and we stop in order.
            subprocess.Popen(command, start_new_session=True, stderr=words) as broker,
        ):
            try:
                while not address_file.exists():
                    if broker.poll() is not None:
                        sys.exit(f"The broker did not start:\n{log.read_text()}")
                    time.sleep(0.02)
                yield address_file.read_text().strip()
            finally:
                broker.terminate()


def produce(address: str, counters: Counters, stop: threading.Event) -> None:
    producer = ConfluentProducer(address)
    next_tick = time.monotonic()
    while not stop.is_set():
        value = STAMP.pack(time.perf_counter_ns()) + VALUE
        for number in range(int(RATE * TICK_S)):
            try:
                producer.produce(TOPIC, value, KEYS[number % len(KEYS)], -1)
                counters.sent += 1
            except BufferError:  # the broker is slower than we are
                producer.poll(TICK_S)
        producer.poll()
        next_tick += TICK_S
        time.sleep(max(0.0, next_tick - time.monotonic()))
    producer.flush(10)


def consume(address: str, counters: Counters, stop: threading.Event) -> None:
    consumer = ConfluentConsumer(address)
    consumer.assign({TopicPartition(TOPIC, number): 0 for number in range(PARTITIONS)})
    while not stop.is_set():
        messages = consumer.consume(1000, 0.1)
        counters.received += len(messages)
        now = time.perf_counter_ns()
        # One in a hundred tells as much as all of them.
        for message in messages[::100]:
            (stamp,) = STAMP.unpack_from(message.value() or b"")
            counters.latencies_ns.append(now - stamp)
    consumer.close()


def pay(address: str, counters: Counters, stop: threading.Event) -> None:
    """Transactions; those that are aborted were written all the same."""
    producer = ConfluentTransactionalProducer(address, "payments")
    while not stop.wait(TRANSACTION_EACH_S):
        refused = (counters.committed + counters.aborted) % ABORT_EACH == ABORT_EACH - 1
        producer.begin()
        for number in range(TRANSACTION_RECORDS):
            value = REFUSED if refused else PAID
            producer.produce(PAYMENTS, value, KEYS[number], -1)
        producer.flush(10)
        if refused:
            producer.abort()
            counters.aborted += 1
        else:
            producer.commit()
            counters.committed += 1


def audit(address: str, counters: Counters, stop: threading.Event) -> None:
    """A member of the group: reads its share, and commits how far it has come."""
    audited = Audited()
    counters.members.append(audited)
    consumer = ConfluentConsumer(address, {"group.id": GROUP})
    consumer.subscribe([PAYMENTS])
    while not stop.is_set():
        messages = consumer.consume(1000, 0.1)
        refused = sum(message.value() == REFUSED for message in messages)
        audited.refused += refused
        audited.paid += len(messages) - refused
        try:
            consumer.commit(
                {
                    TopicPartition(each.topic(), each.partition()): each.offset() + 1
                    for each in messages
                }
            )
        except NotAMember:
            pass  # somebody has come or gone: who gets the partition reads these again
    consumer.close()


def audit_later(address: str, counters: Counters, stop: threading.Event) -> None:
    if not stop.wait(THIRD_AFTER_S):
        audit(address, counters, stop)


WORK = (produce, consume, pay, *[audit] * MEMBERS, audit_later)


def run(work: Work, address: str, counters: Counters, stop: threading.Event) -> None:
    try:
        work(address, counters, stop)
    except ClientError as error:
        counters.problem = error


def group_figures(admin: ConfluentAdmin, counters: Counters) -> dict[str, str]:
    """Who is in the group, what it has read, and what it has still to read."""
    try:
        group = admin.group(GROUP)
    except NoSuchGroup:  # nobody has come yet
        return {}
    committed = admin.committed(GROUP)
    ends = admin.end_offsets(committed)
    lag = sum(ends[at] - offset for at, offset in committed.items())
    shares = " + ".join(str(len(member.partitions)) for member in group.members)
    return {
        "transactions": f"{counters.committed:,} committed  {counters.aborted:,} aborted",
        "group": f"{len(group.members)} members  {group.state}  partitions {shares}",
        "read": f"{sum(each.paid for each in counters.members):,} records committed  "
        f"{sum(each.refused for each in counters.members):,} aborted",
        "lag": f"{lag:,}",
    }


def figures(admin: ConfluentAdmin, counters: Counters) -> Iterator[dict[str, str]]:
    """A row each second: what has happened in it, and how it all stands."""
    where = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    began = then = time.monotonic()
    sent = received = 0
    while True:
        time.sleep(1)
        if counters.problem:
            raise counters.problem
        now = time.monotonic()
        seconds = now - then
        rate_in = (counters.sent - sent) / seconds
        rate_out = (counters.received - received) / seconds
        then, sent, received = now, counters.sent, counters.received
        latencies, counters.latencies_ns = sorted(counters.latencies_ns) or [0], []
        size = STAMP.size + len(VALUE)
        ends = admin.end_offsets(where)
        yield {
            "seconds": f"{now - began:.0f}",
            "in": f"{rate_in:,.0f} records/s  {rate_in * size / 1e6:.1f} MB/s",
            "out": f"{rate_out:,.0f} records/s  {rate_out * size / 1e6:.1f} MB/s",
            "latency": f"p50 {latencies[len(latencies) // 2] / 1e6:.1f} ms  "
            f"p99 {latencies[len(latencies) * 99 // 100] / 1e6:.1f} ms",
            "end offsets": "  ".join(f"{ends[each]:,}" for each in where),
        } | group_figures(admin, counters)


def drawn(address: str, row: dict[str, str]) -> Table:
    title, caption = f"streamer at {address}", "Ctrl-C ends all"
    table = Table(title=title, caption=caption, min_width=60, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in row.items():
        table.add_row(name, text)
    return table


def show(address: str, counters: Counters, seconds: float | None) -> None:
    """A table that changes in place; without a terminal, a line a second."""
    until = None if seconds is None else time.monotonic() + seconds
    admin = ConfluentAdmin(address)
    with Live(auto_refresh=False) if sys.stdout.isatty() else nullcontext() as live:
        for row in figures(admin, counters):
            if live:
                live.update(drawn(address, row), refresh=True)
            else:
                print(
                    "   ".join(f"{name} {text}" for name, text in row.items()), flush=True
                )
            if until and time.monotonic() >= until:
                return


@click.command()
@click.option("--seconds", type=float, help="Stop after so long; default: at Ctrl-C.")
def main(seconds: float | None) -> None:
    """A broker with producers, a consumer and a consumer group, with live figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    counters, stop = Counters(), threading.Event()
    try:
        with running_broker() as address:
            for topic in (TOPIC, PAYMENTS):
                ConfluentAdmin(address).create_topic(
                    topic, partitions=PARTITIONS, replication=1, configs=CONFIGS
                )
            threads = [
                threading.Thread(target=run, args=(work, address, counters, stop))
                for work in WORK
            ]
            try:
                for thread in threads:
                    thread.start()
                show(address, counters, seconds)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
    except KeyboardInterrupt:
        pass  # the usual way to end it
    except ClientError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
