"""`streamer bench latency`: from `produce` to the consumer's hands, at a steady rate."""

import threading
import time
from struct import Struct
from typing import Any

import click

from streamer.cli.access import Access
from streamer.cli.bench.common import (
    CHUNK,
    STALLED_S,
    Progress,
    bench_options,
    bench_topic,
    percentile,
    producer_options,
    random_values,
    show,
    size_option,
)
from streamer.cli.output import Column, Row
from streamer.client.interface import ClientError, Producer

STAMP = Struct(">q")
WARM_UP_S = 0.5

LATENCY_COLUMNS = (
    Column("test", "test"),
    Column("records", "records"),
    Column("records/s", "records_per_second"),
    Column("p50 ms", "p50_ms"),
    Column("p99 ms", "p99_ms"),
    Column("max ms", "max_ms"),
    Column("client CPU us/record", "client_cpu_us_per_record"),
)


@click.command("latency")
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
@size_option
@bench_options
def latency_command(
    access: Access,
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
    from streamer.client.confluent.consumer import ConfluentConsumer
    from streamer.client.confluent.producer import ConfluentProducer

    admin = access.admin()
    with bench_topic(admin, topic, partitions) as where:
        producer = ConfluentProducer(
            access.bootstrap,
            {
                **access.settings,
                "acks": acks,
                "compression.type": compression,
                "linger.ms": 0,
            },
        )
        consumer = ConfluentConsumer(*access)
        consumer.assign(admin.end_offsets(where))
        show(
            [latency(producer, consumer, where[0].topic, rate, seconds, size)],
            LATENCY_COLUMNS,
            form,
        )
        consumer.close()


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
