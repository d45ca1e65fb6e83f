"""`streamer consume`: print the records of a topic.

A partition is read from a place (`place.py`) up to a stop; `make_plan` finds both. As a
member of a group the command reads what the group gives it. The loops of both are in
`reader.py`.

Partitions are printed as they arrive: the order within each is kept, the order
between them is nobody's promise. What was aborted, or is not decided yet, is left out,
unless `--uncommitted` asks for it: then the end is the end of all records, too.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from streamer.cli.access import Access, pass_access
from streamer.cli.place import BEGINNING, END, Place, at_time, parse_place
from streamer.cli.reader import CtrlC, Plan, member_batches, planned_batches
from streamer.cli.record_format import print_json, printer
from streamer.client.interface import (
    Admin,
    BrokerUnavailable,
    NoSuchTopic,
    TopicPartition,
)

# An end is told when a wait for more is over.
ENDS_SOON = {"fetch.wait.max.ms": "10"}


@dataclass(frozen=True, slots=True)
class Range:
    """Where `-o` says to begin and, perhaps, to stop."""

    text: str
    begin: Place
    stop: Place | None = None


def parse_range(text: str) -> Range:
    """`-o` as places; ValueError if it is none."""
    since, colon, until = text.partition(":@")
    if colon and since.startswith("@"):
        return Range(text, at_time(since[1:]), at_time(until))
    return Range(text, parse_place(text))


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
@click.option(
    "-g",
    "--group",
    help="Read as a member of this group, from where it has come to; commit what was "
    "printed. -o beginning|end is for where it has no offset yet.",
)
@click.option(
    "--uncommitted",
    is_flag=True,
    help="Also records of transactions that go on or were aborted.",
)
@pass_access
def consume_command(
    access: Access,
    topic: str,
    where: Range,
    count: int | None,
    at_end: bool,
    only: Sequence[int],
    form: str,
    as_json: bool,
    group: str | None,
    uncommitted: bool,
) -> None:
    """Print the records of TOPIC, and wait for more until Ctrl-C.

    With -g the members of a group share the partitions. What was printed is committed
    once it is written out: after a crash the last lines may come again, none is left out.

    \b
    FORMAT is text with these in it:
      %t topic   %p partition   %o offset   %k key   %v or %s value
      %h headers   %T timestamp in milliseconds   \\n newline   \\t tab
    \b
    Examples:
      streamer consume orders -o -10 -e -f '%p %o %k %v\\n'
      streamer consume orders -o @2026-11-20T10:00:@2026-11-20T11:00 -J | jq .value
      streamer consume orders -g billing       # in two terminals: each reads a share
    """
    from streamer.client.confluent.consumer import ConfluentConsumer

    settings = {"isolation.level": "read_uncommitted"} if uncommitted else {}
    if at_end:
        settings |= ENDS_SOON
    if group is not None:
        settings |= group_settings(group, where, only)

    render = print_json if as_json else printer(form)
    admin = access.admin()

    def look() -> None:
        still_there(admin, topic)

    if group is None:
        plan = make_plan(
            admin, topic, only, where, at_end=at_end, committed=not uncommitted
        )
    else:
        plan = None
        admin.topic(topic)
    consumer = ConfluentConsumer(access.bootstrap, {**access.settings, **settings})
    with CtrlC() as ctrl_c:
        if plan:
            read = planned_batches(consumer, plan, count, look, ctrl_c)
        else:
            read = member_batches(consumer, topic, count, look, ctrl_c, at_end=at_end)
        try:
            for messages in read:
                sys.stdout.buffer.write(b"".join(map(render, messages)))
                sys.stdout.buffer.flush()
        finally:
            consumer.close()


def group_settings(group: str, where: Range, only: Sequence[int]) -> dict[str, str]:
    """The consumer's settings for a member; UsageError if -o or -p cannot be had."""
    if only:
        raise click.UsageError("With -g the group decides on partitions; leave out -p.")
    if where.text not in BEGINNING + END:
        raise click.UsageError(
            "With -g the group's own offsets decide; -o beginning|end is for where it has "
            f"none.\n  -> `streamer group seek {group} --to {where.text}` moves them."
        )
    reset = "earliest" if where.text in BEGINNING else "latest"
    return {"group.id": group, "auto.offset.reset": reset}


def make_plan(
    admin: Admin,
    topic: str,
    only: Iterable[int],
    where: Range,
    *,
    at_end: bool,
    committed: bool = True,
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
    begin = where.begin(admin, partitions, committed=committed)
    stop = {}
    if where.stop:
        stop = where.stop(admin, partitions, committed=committed)
    elif at_end:
        stop = admin.end_offsets(partitions, committed=committed)
    return Plan(begin, stop)


def still_there(admin: Admin, topic: str) -> None:
    """Raise NoSuchTopic if the topic is gone. A broker that is away may come back."""
    try:
        admin.topic(topic)
    except BrokerUnavailable:
        pass
