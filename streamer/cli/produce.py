"""`streamer produce`: each line of the input becomes a record.

Nothing is lost in silence: the command ends when the broker has acknowledged every
record, and where it has not, names those that failed and exits with 1. Records fail
one by one; after a hundred the rest of the input is not read.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import click

from streamer.cli.access import Access, pass_access
from streamer.cli.options import Assignment
from streamer.cli.output import say
from streamer.cli.record_format import Line, LineError, line_reader, shown
from streamer.client.interface import ClientError, Failure, Producer

# How long a record may take to be acknowledged; after that it has failed.
DELIVERY_S = 30
POLL_EACH = 1000
GIVE_UP_AT = 100
NAMED = 20


class NotDelivered(ClientError):
    remedy = "Send these again; `streamer cluster` shows whether the broker answers."


@click.command("produce")
@click.argument("topic")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.File("rb", lazy=True))
@click.option(
    "-f", "--format", "form", metavar="FORMAT", help="How lines are written. [default: %v]"
)
@click.option("-k", "--key", help="The key of every record.")
@click.option(
    "-H",
    "--header",
    "headers",
    type=Assignment(),
    multiple=True,
    help="A header of every record. May be repeated.",
)
@click.option(
    "-p", "--partition", type=click.IntRange(0), help="Write here; default: by the key."
)
@click.option(
    "-T", "--tombstone", is_flag=True, help="Write null values; each line is a key."
)
@click.option(
    "--acks",
    type=click.Choice(["all", "1", "0"]),
    default="all",
    show_default=True,
    help="Who must have a record before it counts as written.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="lz4",
    show_default=True,
)
@pass_access
def produce_command(
    access: Access,
    topic: str,
    files: Sequence[BinaryIO],
    form: str | None,
    key: str | None,
    headers: Sequence[tuple[str, str]],
    partition: int | None,
    tombstone: bool,
    acks: str,
    compression: str,
) -> None:
    """Write each line of the FILEs, or of standard input, to TOPIC.

    \b
    FORMAT says what a line holds:
      %k key   %v or %s value   %p partition   %h headers as name=value,name=value
      and \\t for a tab; any other text stands between the fields
    \b
    Examples:
      echo 'alice 3 apples' | streamer produce orders -f '%k %v'
      streamer produce orders -f '%k\\t%v' orders.tsv --compression zstd
      streamer produce orders -T -k alice       # deletes a key of a compacted topic
    """
    from streamer.client.confluent.producer import ConfluentProducer

    form = form or ("%k" if tombstone and key is None else "%v")
    fixed = Line(
        key=None if key is None else key.encode(),
        partition=partition,
        headers=[(name, value.encode()) for name, value in headers],
    )
    if tombstone and key is not None:
        records: Iterable[Line] = [fixed]
    else:
        inputs = files or [sys.stdin.buffer]
        records = read_records(inputs, form, fixed, tombstone=tombstone)

    # Else a broker that does not let us in would be told by records that time out.
    access.admin().cluster()
    producer = ConfluentProducer(
        access.bootstrap,
        {
            **access.settings,
            "acks": acks,
            "compression.type": compression,
            "message.timeout.ms": DELIVERY_S * 1000,
        },
    )
    write(producer, topic, records)


def read_records(
    inputs: Iterable[BinaryIO], form: str, fixed: Line, *, tombstone: bool
) -> Iterator[Line]:
    """The lines as records, with what the options fix for all of them."""
    read = line_reader(form)
    for source in inputs:
        for number, line in enumerate(source, 1):
            try:
                record = read(line.removesuffix(b"\n"))
            except LineError as error:
                name = getattr(source, "name", "the input")
                raise LineError(f"Line {number} of {name}: {error.problem}") from None
            yield Line(
                record.key if fixed.key is None else fixed.key,
                None if tombstone else record.value,
                record.partition if fixed.partition is None else fixed.partition,
                [*fixed.headers, *record.headers],
            )


def write(producer: Producer, topic: str, records: Iterable[Line]) -> None:
    """Send all records and wait for each; raises NotDelivered naming those that failed."""
    count, waiting = 0, 0
    progress = Progress()
    try:
        for record in records:
            producer.send(
                topic,
                record.value,
                key=record.key,
                partition=-1 if record.partition is None else record.partition,
                headers=record.headers,
            )
            count += 1
            if count % POLL_EACH == 0:
                producer.poll()
                progress.show(count)
            if producer.failed >= GIVE_UP_AT:
                break
    finally:
        # Also after Ctrl-C and after a line that cannot be read: what was taken is sent.
        waiting = producer.flush(DELIVERY_S + 5)
        written = count - producer.failed - waiting
        progress.end(written)
    if producer.failed or waiting:
        raise NotDelivered(
            f"{written:,} of {count:,} records were written to {topic}. Not written:\n"
            + "\n".join(described(producer.failures, producer.failed, waiting))
        )


def described(failures: Sequence[Failure], failed: int, waiting: int) -> Iterator[str]:
    """A line for each record that failed, up to a number that a person still reads."""
    for failure in failures[:NAMED]:
        place = "" if failure.partition < 0 else f"partition {failure.partition}, "
        key = "no key" if failure.key is None else f"key {shown(failure.key)}"
        value = "tombstone" if failure.value is None else f"value {shown(failure.value)}"
        yield f"  {place}{key}, {value}: {failure.problem}"
    if failed > NAMED:
        yield f"  and {failed - NAMED:,} more"
    if waiting:
        yield f"  {waiting:,} records without an answer: they may or may not be there"


class Progress:
    """The count so far, once a second, on stderr and only for a person."""

    def __init__(self) -> None:
        self.seen = sys.stderr.isatty()
        self.next = time.monotonic() + 1

    def show(self, count: int) -> None:
        if self.seen and time.monotonic() >= self.next:
            self.next += 1
            click.echo(f"\r{count:,} records", err=True, nl=False)

    def end(self, count: int) -> None:
        if self.seen:
            say(f"\r{count:,} records written")
