"""`streamer bench txn`: transactions one after another, from their begin to their commit.

Each does what a stream processor does: it writes records, commits the offsets of what it
has read, and ends. Nothing is read: the offsets are those of a group that nobody is in.
"""

import os
import time

import click

from streamer.cli.access import Access
from streamer.cli.bench.common import (
    Progress,
    bench_options,
    bench_topic,
    percentile,
    random_values,
    show,
    size_option,
)
from streamer.cli.output import Column, Row
from streamer.client.interface import (
    Consumer,
    Position,
    TopicPartition,
    TransactionalProducer,
)

# The first ones wait for connections, for the group's and the transaction's coordinator.
WARM_UP = 20

COLUMNS = (
    Column("test", "test"),
    Column("transactions", "transactions"),
    Column("records each", "records_each"),
    Column("partitions", "partitions"),
    Column("txn/s", "transactions_per_second"),
    Column("p50 ms", "p50_ms"),
    Column("p99 ms", "p99_ms"),
    Column("max ms", "max_ms"),
    Column("client CPU us/txn", "client_cpu_us_per_transaction"),
)


@click.command("txn")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Transactions.",
)
@click.option(
    "-r",
    "--records",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Records of each, spread over the partitions.",
)
@size_option
@bench_options
def txn_command(
    access: Access,
    form: str,
    topic: str | None,
    partitions: int,
    size: int,
    count: int,
    records: int,
) -> None:
    """Commit transactions of records and offsets, one after another.

    \b
    Example: what does a transaction over sixteen partitions cost?
      streamer bench txn -p 16 -r 16
    """
    from streamer.client.confluent.consumer import ConfluentConsumer
    from streamer.client.confluent.producer import ConfluentTransactionalProducer

    admin = access.admin()
    name = f"streamer-bench-{os.getpid()}"
    with bench_topic(admin, topic, partitions) as where:
        consumer = ConfluentConsumer(
            access.bootstrap, {**access.settings, "group.id": name}
        )
        producer = ConfluentTransactionalProducer(access.bootstrap, name, access.settings)
        try:
            row = transactions(producer, consumer, where, count, records, size)
        finally:
            consumer.close()
        admin.delete_group(name)
    show([row], COLUMNS, form)


def transactions(
    producer: TransactionalProducer,
    consumer: Consumer,
    where: list[TopicPartition],
    count: int,
    records: int,
    size: int,
) -> Row:
    values = random_values(size)
    membership = consumer.membership()
    progress = Progress("txn", count)
    took: list[int] = []
    begun = cpu = 0.0
    for number in range(-WARM_UP, count):
        if number == 0:
            begun, cpu = time.perf_counter(), time.process_time()
        started = time.perf_counter_ns()
        producer.begin()
        for record in range(records):
            topic, partition = where[record % len(where)]
            producer.produce(topic, values[record % len(values)], None, partition)
        producer.send_offsets(dict.fromkeys(where, Position(number + WARM_UP)), membership)
        producer.commit()
        took.append(time.perf_counter_ns() - started)
        progress.show(max(0, number))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    progress.end()
    measured = sorted(took[WARM_UP:])
    return {
        "test": "txn",
        "transactions": count,
        "records_each": records,
        "partitions": min(records, len(where)),
        "transactions_per_second": round(count / seconds, 1),
        "p50_ms": percentile(measured, 0.5),
        "p99_ms": percentile(measured, 0.99),
        "max_ms": percentile(measured, 1.0),
        "client_cpu_us_per_transaction": round(cpu * 1e6 / count, 1),
    }
