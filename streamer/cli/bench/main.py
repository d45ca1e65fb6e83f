"""`streamer bench`: which benches there are, and what they have in common.

    produce   records a second until all are acknowledged
    consume   records a second from the first batch to the last
    latency   from `produce` to the consumer's hands, at a steady rate
    txn       transactions of records and offsets, from their begin to their commit
    group     until the members of a group have their partitions, and again one more

The values are random, so that compression finds nothing to save. CPU is user plus
system time of all threads of this process, librdkafka's among them: what a record
costs the client, not the broker. Without --topic a topic is made and deleted.
"""

import click

from streamer.cli.bench.group import group_command
from streamer.cli.bench.latency import latency_command
from streamer.cli.bench.rate import consume_command, produce_command
from streamer.cli.bench.txn import txn_command


@click.group("bench")
def bench_group() -> None:
    """Measure a broker, ours or any other Kafka.

    \b
    Example: the same load on two brokers
      streamer bench produce -b 127.0.0.1:9092
      streamer bench produce -b 127.0.0.1:19092
    """


for command in (
    produce_command,
    consume_command,
    latency_command,
    txn_command,
    group_command,
):
    bench_group.add_command(command)
