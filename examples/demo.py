"""A broker, a producer and a consumer, with live figures on the terminal.

    make demo            # or: .venv/bin/python examples/demo.py
    Ctrl-C               # ends all three, and leaves nothing behind

The broker is a process of its own, started as you would start it: `streamer broker`.
Its log lies in a temporary folder. A producer thread writes a thousand records every
ten milliseconds, each with the time in it; a consumer thread reads them and so knows how
long each was on its way. Nothing here is special to our broker: the clients speak the
Kafka protocol, and would do the same with any other.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

import click
from rich.live import Live
from rich.table import Table

from streamer.client.confluent import ConfluentAdmin, ConfluentConsumer, ConfluentProducer
from streamer.client.interface import ClientError, TopicPartition

TOPIC, PARTITIONS = "demo", 4
RATE = 100_000  # records a second
TICK_S = 0.01
KEYS = [f"customer-{number}".encode() for number in range(1000)]
STAMP = Struct(">q")
VALUE = b"x" * 92  # behind the stamp: 100 bytes in all
# Enough to look at with `streamer consume`, and little enough for any disk.
CONFIGS = {"retention.bytes": str(256 << 20), "segment.bytes": str(64 << 20)}


@dataclass
class Counters:
    """What the two threads have done so far."""

    sent: int = 0
    received: int = 0
    latencies_ns: list[int] = field(default_factory=list)


@contextmanager
def running_broker() -> Iterator[str]:
    """`streamer broker` on a free port and a temporary folder; gives its address."""
    with tempfile.TemporaryDirectory(prefix="streamer-demo-") as folder:
        address_file = Path(folder) / "address"
        command = [str(Path(sys.executable).with_name("streamer")), "broker", "--port", "0"]
        command += ["--data-dir", f"{folder}/data", "--address-file", str(address_file)]
        # In a session of its own, so that Ctrl-C reaches us alone and we stop in order.
        with subprocess.Popen(command, start_new_session=True) as broker:
            try:
                while not address_file.exists():
                    if broker.poll() is not None:
                        sys.exit("The broker did not start; it says why above.")
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


def figures(admin: ConfluentAdmin, counters: Counters) -> Iterator[dict[str, str]]:
    """What has happened in each second."""
    where = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    began = then = time.monotonic()
    sent = received = 0
    while True:
        time.sleep(1)
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
        }


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
    """A broker, a producer and a consumer, with live figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    counters, stop = Counters(), threading.Event()
    try:
        with running_broker() as address:
            ConfluentAdmin(address).create_topic(
                TOPIC, partitions=PARTITIONS, replication=1, configs=CONFIGS
            )
            threads = [
                threading.Thread(target=work, args=(address, counters, stop))
                for work in (produce, consume)
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
