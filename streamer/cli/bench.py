"""`streamer bench`: how fast a broker is, seen from one client on this machine.

    produce   records a second until all are acknowledged
    consume   records a second from the first batch to the last
    latency   from `produce` to the consumer's hands, at a steady rate

The values are random, so that compression finds nothing to save. CPU is user plus
system time of all threads of this process, librdkafka's among them: what a record
costs the client, not the broker. Without --topic a topic is made and deleted.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from struct import Struct
from typing import Any, TypeVar

import click

from streamer.cli.options import bootstrap_option
from streamer.cli.output import Column, Row, output_option, show_json, show_rows
from streamer.client.interface import Admin, ClientError, Producer, TopicPartition

F = TypeVar("F", bound=Callable[..., Any])

CHUNK = 1000
STALLED_S = 30.0
VALUES = 1000  # different ones: together they are larger than lz4's window
STAMP = Struct(">q")
WARM_UP_S = 0.5

RATE_COLUMNS = (
    Column("test", "test"),
    Column("records", "records"),
    Column("bytes each", "size"),
    Column("seconds", "seconds"),
    Column("records/s", "records_per_second"),
    Column("MB/s", "mb_per_second"),
    Column("client CPU us/record", "client_cpu_us_per_record"),
)
LATENCY_COLUMNS = (
    Column("test", "test"),
    Column("records", "records"),
    Column("records/s", "records_per_second"),
    Column("p50 ms", "p50_ms"),
    Column("p99 ms", "p99_ms"),
    Column("max ms", "max_ms"),
    Column("client CPU us/record", "client_cpu_us_per_record"),
)


@click.group("bench")
def bench_group() -> None:
    """Measure a broker, ours or any other Kafka.

    \b
    Example: the same load on two brokers
      streamer bench produce -b 127.0.0.1:9092
      streamer bench produce -b 127.0.0.1:19092
    """


def bench_options(command: F) -> F:
    for option in (
        bootstrap_option,
        output_option,
        click.option("--topic", help="Use this topic and keep it."),
        click.option(
            "-p",
            "--partitions",
            type=click.IntRange(1),
            default=4,
            show_default=True,
            help="Of the topic that is made.",
        ),
        click.option(
            "-s",
            "--size",
            type=click.IntRange(8),
            default=100,
            show_default=True,
            help="Bytes of a value.",
        ),
    ):
        command = option(command)
    return command


def producer_options(command: F) -> F:
    for option in (
        click.option("--acks", type=click.Choice(["all", "1", "0"]), default="all"),
        click.option(
            "--compression",
            type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
            default="none",
            show_default=True,
        ),
    ):
        command = option(command)
    return command


def count_option(command: F) -> F:
    return click.option(
        "-n",
        "--count",
        type=click.IntRange(1),
        default=1_000_000,
        show_default=True,
        help="Records.",
    )(command)


@bench_group.command("produce")
@count_option
@click.option("--linger-ms", type=click.IntRange(0), default=5, show_default=True)
@producer_options
@bench_options
def produce_command(
    bootstrap: str,
    form: str,
    topic: str | None,
    partitions: int,
    size: int,
    count: int,
    linger_ms: int,
    acks: str,
    compression: str,
) -> None:
    """Write records and wait until all are acknowledged.

    \b
    Example: a million records of 1 KB, compressed
      streamer bench produce -s 1024 --compression lz4
    """
    from streamer.client.confluent import ConfluentAdmin, ConfluentProducer

    with bench_topic(ConfluentAdmin(bootstrap), topic, partitions) as where:
        producer = ConfluentProducer(
            bootstrap,
            {"acks": acks, "compression.type": compression, "linger.ms": linger_ms},
        )
        show([produce(producer, where[0].topic, count, size)], RATE_COLUMNS, form)


@bench_group.command("consume")
@count_option
@bench_options
def consume_command(
    bootstrap: str,
    form: str,
    topic: str | None,
    partitions: int,
    size: int,
    count: int,
) -> None:
    """Read records from the beginning; without --topic they are written first.

    \b
    Example:
      streamer bench consume -n 2000000
    """
    from streamer.client.confluent import (
        ConfluentAdmin,
        ConfluentConsumer,
        ConfluentProducer,
    )

    with bench_topic(ConfluentAdmin(bootstrap), topic, partitions) as where:
        if topic is None:
            filler = ConfluentProducer(bootstrap, {"compression.type": "none"})
            produce(filler, where[0].topic, count, size)
        consumer = ConfluentConsumer(bootstrap)
        consumer.assign(dict.fromkeys(where, 0))
        show([consume(consumer, where, count)], RATE_COLUMNS, form)
        consumer.close()


@bench_group.command("latency")
@click.option(
    "--rate",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Records a second.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=5.0,
    show_default=True,
    help="How long.",
)
@producer_options
@bench_options
def latency_command(
    bootstrap: str,
    form: str,
    topic: str | None,
    partitions: int,
    size: int,
    rate: int,
    seconds: float,
    acks: str,
    compression: str,
) -> None:
    """Write records one at a time, without linger, and time them to the consumer.

    \b
    Example: 200 records a second for ten seconds
      streamer bench latency --rate 200 --seconds 10
    """
    from streamer.client.confluent import (
        ConfluentAdmin,
        ConfluentConsumer,
        ConfluentProducer,
    )

    admin = ConfluentAdmin(bootstrap)
    with bench_topic(admin, topic, partitions) as where:
        producer = ConfluentProducer(
            bootstrap, {"acks": acks, "compression.type": compression, "linger.ms": 0}
        )
        consumer = ConfluentConsumer(bootstrap)
        consumer.assign(admin.end_offsets(where))
        show(
            [latency(producer, consumer, where[0].topic, rate, seconds, size)],
            LATENCY_COLUMNS,
            form,
        )
        consumer.close()


def produce(producer: Producer, topic: str, count: int, size: int) -> Row:
    """Time from the first `produce` to the last acknowledgement."""
    values = random_values(size)
    progress = Progress("produce", count)
    producer.send(topic, values[0])
    producer.flush(STALLED_S)  # connected, and with a producer id

    send = producer.produce
    started, cpu = time.perf_counter(), time.process_time()
    for done in range(0, count, CHUNK):
        for value in values[: count - done]:
            try:
                send(topic, value, None, -1)
            except BufferError:
                producer.poll(0.05)
                producer.send(topic, value)
        producer.poll()
        progress.show(done)
    waiting = producer.flush(STALLED_S)
    row = rate_row("produce", count, count * size, started, cpu)
    progress.end()
    if waiting or producer.failed:
        why = producer.failures[0].problem if producer.failures else "no answer"
        raise ClientError(f"{waiting + producer.failed:,} records did not arrive: {why}.")
    return row


def consume(consumer: Any, where: Sequence[TopicPartition], count: int) -> Row:
    """Time from the first batch to the last, or to the end of the topic."""
    progress = Progress("consume", count)
    first = consumer.consume(CHUNK, STALLED_S)
    records, size = 0, 0
    started, cpu = time.perf_counter(), time.process_time()
    while records < count and len(consumer.ended()) < len(where):
        messages = consumer.consume(CHUNK, 1.0)
        records += len(messages)
        size += sum(map(len, messages))
        progress.show(len(first) + records)
    progress.end()
    return rate_row("consume", records, size, started, cpu)


def latency(
    producer: Producer, consumer: Any, topic: str, rate: int, seconds: float, size: int
) -> Row:
    """Each value begins with the time at which it was produced."""
    times: list[int] = []
    finished = threading.Event()
    reader = threading.Thread(target=read_stamps, args=(consumer, times, finished))
    padding = random_values(size)[0][STAMP.size :]
    warm_up = int(rate * WARM_UP_S)
    count = warm_up + max(1, int(rate * seconds))
    progress = Progress("latency", count)

    reader.start()
    started, cpu = time.perf_counter(), time.process_time()
    try:
        for number in range(count):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            stamp = STAMP.pack(time.perf_counter_ns())
            producer.produce(topic, stamp + padding, None, -1)
            producer.poll()
            progress.show(number)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        producer.flush(STALLED_S)
        until = time.perf_counter() + STALLED_S
        while len(times) < count and time.perf_counter() < until:
            time.sleep(0.01)
    finally:
        finished.set()
        reader.join()
        progress.end()
    if len(times) < count:
        raise ClientError(f"{count - len(times):,} of {count:,} records did not come back.")
    # The first ones wait for connections and for the producer's id.
    measured = sorted(times[warm_up:])
    return {
        "test": "latency",
        "records": len(measured),
        "records_per_second": round(count / took),
        "p50_ms": percentile(measured, 0.5),
        "p99_ms": percentile(measured, 0.99),
        "max_ms": percentile(measured, 1.0),
        "client_cpu_us_per_record": round(cpu * 1e6 / count, 2),
    }


def read_stamps(consumer: Any, times: list[int], finished: threading.Event) -> None:
    while not finished.is_set():
        messages = consumer.consume(CHUNK, 0.1)
        now = time.perf_counter_ns()
        times += [now - STAMP.unpack_from(message.value())[0] for message in messages]


def percentile(ordered: Sequence[int], share: float) -> float:
    """In milliseconds, of nanoseconds in order."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6, 2)


def rate_row(test: str, records: int, size: int, started: float, cpu: float) -> Row:
    seconds = max(time.perf_counter() - started, 1e-9)
    cpu = time.process_time() - cpu
    return {
        "test": test,
        "records": records,
        "size": size // max(records, 1),
        "seconds": round(seconds, 3),
        "records_per_second": round(records / seconds),
        "mb_per_second": round(size / seconds / 1e6, 2),
        "client_cpu_us_per_record": round(cpu * 1e6 / max(records, 1), 2),
    }


def random_values(size: int) -> list[bytes]:
    random = Random(0)
    return [random.randbytes(size) for _ in range(VALUES)]


def show(rows: Sequence[Row], columns: Sequence[Column], form: str) -> None:
    if form == "json":
        show_json(rows[0])
    else:
        show_rows(rows, columns, form)


@contextmanager
def bench_topic(
    admin: Admin, name: str | None, partitions: int
) -> Iterator[list[TopicPartition]]:
    """The partitions of the topic named, or of one that is deleted again."""
    if name is not None:
        yield admin.topic(name).topic_partitions
        return
    name = f"streamer-bench-{os.getpid()}"
    admin.create_topic(name, partitions=partitions, replication=-1, configs={})
    try:
        while True:
            topics = {topic.name: topic for topic in admin.cluster().topics}
            if name in topics and all(each.leader >= 0 for each in topics[name].partitions):
                break
            time.sleep(0.05)
        yield topics[name].topic_partitions
    finally:
        admin.delete_topics([name])


class Progress:
    """A line on stderr twice a second, for a person only."""

    def __init__(self, test: str, count: int) -> None:
        self.test, self.count = test, count
        self.seen = sys.stderr.isatty()
        self.next = 0.0

    def show(self, done: int) -> None:
        if self.seen and time.monotonic() >= self.next:
            self.next = time.monotonic() + 0.5
            click.echo(f"\r{self.test}: {done:,} of {self.count:,}", err=True, nl=False)

    def end(self) -> None:
        if self.seen:
            click.echo("\r\033[K", err=True, nl=False)
