"""`streamer log`: look into the files of a log, ours or Apache Kafka's, without a broker.

Nothing is changed: `streamer.log.inspect` only reads. What a running broker is just
writing may look torn at its end; once it has stopped it must not.
"""

import sys
from pathlib import Path

import click

from streamer.cli.output import Column, output_option, say, show_rows
from streamer.errors import StreamerError
from streamer.log import inspect
from streamer.log.disk import RealDisk

COLUMNS = (
    Column("file", "file"),
    Column("problem", "problem"),
    Column("detail", "detail"),
    Column("position", "position", wide=True),
)


class NothingToVerify(StreamerError):
    remedy = "Name a partition's folder, or the data directory that holds them."


class LogDamaged(StreamerError):
    remedy = (
        "Indexes and snapshots are rebuilt at the next start of the broker. A .log that "
        "is damaged before its end: keep a copy, and read on behind it with `consume -o`."
    )


@click.group("log")
def log_group() -> None:
    """Look into log files, ours or Apache Kafka's, without a broker.

    \b
    Example:
      streamer log verify .streamer/broker
    """


@log_group.command("dump")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--deep", is_flag=True, help="Also each record of a .log, decompressed.")
def dump_command(file: Path, deep: bool) -> None:
    """Print what is in FILE: .log, .index, .timeindex, .txnindex or .snapshot.

    \b
    Example:
      streamer log dump .streamer/broker/orders-0/00000000000000000000.log --deep
    """
    for line in inspect.dump(RealDisk(), file, deep=deep):
        sys.stdout.write(line + "\n")


@log_group.command("verify")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@output_option
def verify_command(directory: Path, form: str) -> None:
    """Check every file of every partition in DIRECTORY; exit with 1 if one is damaged.

    Checksums, lengths and offsets of all batches, and each index against them.

    \b
    Example: only what is wrong
      streamer log verify .streamer/broker -o json | jq '.[] | select(.problem)'
    """
    findings = list(inspect.verify(RealDisk(), directory))
    if not findings:
        raise NothingToVerify(f"{directory} holds no log.")
    rows = [
        {
            "file": str(finding.path.relative_to(directory)),
            "problem": finding.problem,
            "detail": finding.detail,
            "position": finding.position,
        }
        for finding in findings
    ]
    show_rows(rows, COLUMNS, form)
    damaged = sum(finding.problem is not None for finding in findings)
    if damaged:
        raise LogDamaged(f"{damaged} of {len(findings)} files are damaged.")
    say(f"{len(findings)} files, all sound")
