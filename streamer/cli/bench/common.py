"""What the benches share: options, a topic of their own, values, a line of progress."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

import click

from streamer.cli.access import pass_access
from streamer.cli.output import Column, Row, output_option, show_json, show_rows
from streamer.client.interface import Admin, TopicPartition

F = TypeVar("F", bound=Callable[..., Any])

CHUNK = 1000
STALLED_S = 30.0
VALUES = 1000  # different ones: together they are larger than lz4's window


def bench_options(command: F) -> F:
    for option in (
        pass_access,
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
    ):
        command = option(command)
    return command


def size_option(command: F) -> F:
    return click.option(
        "-s",
        "--size",
        type=click.IntRange(8),
        default=100,
        show_default=True,
        help="Bytes of a value.",
    )(command)


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


def percentile(ordered: Sequence[int], share: float) -> float:
    """In milliseconds, of nanoseconds in order."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6, 2)


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
