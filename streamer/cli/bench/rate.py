"""`streamer bench produce` and `consume`: records a second, through one client."""

import time
from collections.abc import Sequence
from typing import Any

import click

from streamer.cli.access import Access
from streamer.cli.bench.common import (
    CHUNK,
    STALLED_S,
    Progress,
    bench_options,
    bench_topic,
    count_option,
    producer_options,
    random_values,
    show,
    size_option,
)
from streamer.cli.output import Column, Row
from streamer.client.interface import ClientError, Producer, TopicPartition

RATE_COLUMNS = (
    Column("test", "test"),
    Column("records", "records"),
    Column("bytes each", "size"),
    Column("seconds", "seconds"),
    Column("records/s", "records_per_second"),
    Column("MB/s", "mb_per_second"),
    Column("client CPU us/record", "client_cpu_us_per_record"),
)


@click.command("produce")
@count_option
@click.option("--linger-ms", type=click.IntRange(0), default=5, show_default=True)
@producer_options
@size_option
@bench_options
def produce_command(
    access: Access,
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
    from streamer.client.confluent.producer import ConfluentProducer

    with bench_topic(access.admin(), topic, partitions) as where:
        producer = ConfluentProducer(
            access.bootstrap,
            {
                **access.settings,
                "acks": acks,
                "compression.type": compression,
                "linger.ms": linger_ms,
            },
        )
        show([produce(producer, where[0].topic, count, size)], RATE_COLUMNS, form)


@click.command("consume")
@count_option
@size_option
@bench_options
def consume_command(
    access: Access,
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
    from streamer.client.confluent.consumer import ConfluentConsumer
    from streamer.client.confluent.producer import ConfluentProducer

    with bench_topic(access.admin(), topic, partitions) as where:
        if topic is None:
            filler = ConfluentProducer(
                access.bootstrap, {**access.settings, "compression.type": "none"}
            )
            produce(filler, where[0].topic, count, size)
        consumer = ConfluentConsumer(*access)
        consumer.assign(dict.fromkeys(where, 0))
        show([consume(consumer, where, count)], RATE_COLUMNS, form)
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
