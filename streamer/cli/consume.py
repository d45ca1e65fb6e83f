"""`streamer consume`: print the records of a topic.

A partition is read from an offset up to a stop; `plan` finds both from `-o`:

    beginning, end        from the first record; from the next one to come
    42, -10               from an offset; the last ten of each partition
    @TIME, @TIME:@TIME    from a moment on; up to a moment

Partitions are printed as they arrive: the order within each is kept, the order
between them is nobody's promise.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from streamer.cli.options import bootstrap_option
from streamer.cli.record_format import print_json, printer
from streamer.client.interface import (
    Admin,
    BrokerUnavailable,
    Consumer,
    Message,
    NoSuchTopic,
    TopicPartition,
)

BATCH = 1000
# Wake up that often to see Ctrl-C; records do not wait for it.
WAIT_S = 0.5
# When nothing has come for so long, see whether the topic is still there:
# librdkafka goes on waiting for one that was deleted.
IDLE_S = 3.0

Find = Callable[[Admin, Sequence[TopicPartition]], dict[TopicPartition, int]]


@dataclass(frozen=True, slots=True)
class Range:
    """Where `-o` says to begin and, perhaps, to stop."""

    begin: Find
    stop: Find | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    begin: dict[TopicPartition, int]
    # Partitions with a stop end before it; the others never end.
    stop: dict[TopicPartition, int]


def parse_range(text: str) -> Range:
    """`-o` as functions that ask the broker for offsets; ValueError if it is none."""
    if text in ("beginning", "start", "earliest"):
        return Range(lambda admin, at: admin.first_offsets(at))
    if text in ("end", "latest"):
        return Range(lambda admin, at: admin.end_offsets(at))
    if text.startswith("@"):
        since, colon, until = text.partition(":@")
        return Range(at_time(since[1:]), at_time(until) if colon else None)
    offset = int(text)
    return Range(last(-offset) if text.startswith("-") else exactly(offset))


def at_time(text: str) -> Find:
    """The first record of that time or later. Without a zone it is local time."""
    if text.isdigit():
        timestamp_ms = int(text)
    else:
        timestamp_ms = int(datetime.fromisoformat(text).timestamp() * 1000)
    return lambda admin, at: admin.offsets_at(at, timestamp_ms)


def last(count: int) -> Find:
    def find(
        admin: Admin, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        first = admin.first_offsets(partitions)
        return {
            at: max(first[at], end - count)
            for at, end in admin.end_offsets(partitions).items()
        }

    return find


def exactly(offset: int) -> Find:
    return lambda admin, partitions: dict.fromkeys(partitions, offset)


class RangeType(click.ParamType[Range]):
    name = "offset"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Range:
        if isinstance(value, Range):
            return value
        try:
            return parse_range(value)
        except ValueError:
            self.fail(
                f"{value!r} is no place in a topic.\n"
                "  -> Write beginning, end, 42, -10, @2026-11-20T10:00 or @TIME:@TIME.",
                parameter,
                context,
            )


@click.command("consume")
@click.argument("topic")
@click.option(
    "-o",
    "--offset",
    "where",
    type=RangeType(),
    default="beginning",
    show_default=True,
    help="beginning, end, an offset, -N for the last N of each partition, @TIME, "
    "or @TIME:@TIME; TIME as 2026-11-20T10:00 or in milliseconds.",
)
@click.option("-n", "--count", type=click.IntRange(0), help="Stop after so many records.")
@click.option("-e", "--exit", "at_end", is_flag=True, help="Stop at the end.")
@click.option(
    "-p", "--partition", "only", type=click.IntRange(0), multiple=True, help="Only these."
)
@click.option(
    "-f", "--format", "form", metavar="FORMAT", default=r"%v\n", help=r"[default: %v\n]"
)
@click.option("-J", "--json", "as_json", is_flag=True, help="One JSON object per line.")
@bootstrap_option
def consume_command(
    bootstrap: str,
    topic: str,
    where: Range,
    count: int | None,
    at_end: bool,
    only: Sequence[int],
    form: str,
    as_json: bool,
) -> None:
    """Print the records of TOPIC, and wait for more until Ctrl-C.

    \b
    FORMAT is text with these in it:
      %t topic   %p partition   %o offset   %k key   %v or %s value
      %h headers   %T timestamp in milliseconds   \\n newline   \\t tab
    \b
    Examples:
      streamer consume orders -o -10 -e -f '%p %o %k %v\\n'
      streamer consume orders -o @2026-11-20T10:00:@2026-11-20T11:00 -J | jq .value
    """
    from streamer.client.confluent import ConfluentAdmin, ConfluentConsumer

    render = print_json if as_json else printer(form)
    admin = ConfluentAdmin(bootstrap)
    plan = make_plan(admin, topic, only, where, at_end=at_end)
    consumer = ConfluentConsumer(bootstrap)
    try:
        for messages in batches(consumer, plan, count, lambda: still_there(admin, topic)):
            sys.stdout.buffer.write(b"".join(map(render, messages)))
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        consumer.close()


def make_plan(
    admin: Admin, topic: str, only: Iterable[int], where: Range, *, at_end: bool
) -> Plan:
    """Ask the broker where to begin and where to stop in each partition."""
    partitions = admin.topic(topic).topic_partitions
    for index in only:
        if TopicPartition(topic, index) not in partitions:
            raise NoSuchTopic(
                f"{topic} has no partition {index}.",
                remedy=f"It has 0 to {len(partitions) - 1}.",
            )
    if only:
        partitions = [TopicPartition(topic, index) for index in only]
    begin = where.begin(admin, partitions)
    stop = {}
    if where.stop:
        stop = where.stop(admin, partitions)
    elif at_end:
        stop = admin.end_offsets(partitions)
    return Plan(begin, stop)


def still_there(admin: Admin, topic: str) -> None:
    """Raise NoSuchTopic if the topic is gone. A broker that is away may come back."""
    try:
        admin.topic(topic)
    except BrokerUnavailable:
        pass


def batches(
    consumer: Consumer, plan: Plan, count: int | None, idle: Callable[[], None]
) -> Iterator[Sequence[Message]]:
    """Records until every partition has reached its stop, or there were `count`."""
    left = sys.maxsize if count is None else count
    reading = {
        at: offset
        for at, offset in plan.begin.items()
        if at not in plan.stop or offset < plan.stop[at]
    }
    consumer.assign(reading)
    unfinished = set(reading)
    idle_since = time.monotonic()
    while unfinished and left:
        messages = consumer.consume(min(BATCH, left), WAIT_S)
        if plan.stop:
            messages = [
                message for message in messages if before_stop(plan, message, unfinished)
            ]
            # What lies before a stop may be no record: a marker, or compacted away.
            unfinished -= consumer.ended() & plan.stop.keys()
        if messages:
            left -= len(messages)
            yield messages
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > IDLE_S:
            idle()
            idle_since = time.monotonic()


def before_stop(plan: Plan, message: Message, unfinished: set[TopicPartition]) -> bool:
    """Whether the record is to be printed; marks its partition finished at the stop."""
    at = TopicPartition(message.topic(), message.partition())
    if message.offset() + 1 >= plan.stop[at]:
        unfinished.discard(at)
    return message.offset() < plan.stop[at]
