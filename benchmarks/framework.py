"""The framework beside a loop by hand and Kafka Streams, over the same input: one table.

    python benchmarks/framework.py                    everything, about an hour
    python benchmarks/framework.py --quick            whether it works at all
    python benchmarks/framework.py --only W1 --only W2 --runs 9 --json
    python benchmarks/framework.py --only W1 --who event --profile

Each run goes through all workloads and contenders, forwards and backwards by turns, so
that a slow minute of the machine meets each of them; ratios are taken within a run. What
came of it is checked after each measurement: a wrong result is a failed benchmark, and
the exit code says so. See `workloads/` for what is run, and docs/performance.md for what
came out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.contenders import (  # noqa: E402
    FSYNC,
    KAFKA,
    PAGE_CACHE,
    ClientFailed,
    NotHere,
)
from benchmarks.workloads.measures import (  # noqa: E402
    QUICK,
    WORKLOADS,
    Amounts,
    Arena,
    Found,
    Workload,
)
from benchmarks.workloads.table import TITLES, Report, as_json, as_table  # noqa: E402

BROKERS = {"ours": FSYNC, "page-cache": PAGE_CACHE, "kafka": KAFKA}
NAMES = list(dict.fromkeys(workload.name for workload in WORKLOADS))
words = Console(stderr=True, highlight=False, soft_wrap=True)


@click.command(help=__doc__.partition("\n")[0] if __doc__ else "")
@click.option(
    "--only", multiple=True, type=click.Choice(NAMES), help="One workload; repeatable."
)
@click.option(
    "--who", multiple=True, type=click.Choice(list(TITLES)), help="Only these contenders."
)
@click.option("--runs", type=click.IntRange(1), help="How often each is measured [5].")
@click.option("--records", type=click.IntRange(1000), help="Records to a run [2000000].")
@click.option(
    "--broker",
    type=click.Choice(list(BROKERS)),
    default="ours",
    help="What they run on: ours (with fsync, or not), or Apache Kafka [ours].",
)
@click.option("--quick", is_flag=True, help="One run, little data: a smoke test.")
@click.option("--json", "machine_readable", is_flag=True, help="All samples, as JSON.")
@click.option("--profile", is_flag=True, help="Say which lines the time goes to; slower.")
@click.option("--directory", type=Path, help="Where the log and the state go.")
def main(
    only: Sequence[str],
    who: Sequence[str],
    runs: int | None,
    records: int | None,
    broker: str,
    quick: bool,
    machine_readable: bool,
    profile: bool,
    directory: Path | None,
) -> None:
    workloads = [workload for workload in WORKLOADS if not only or workload.name in only]
    if who:
        workloads = [replace(each, who=chosen(each, who)) for each in workloads]
    runs = runs or (1 if quick else 5)
    amounts = QUICK if quick else Amounts()
    amounts = replace(amounts, records=records or amounts.records)

    report = Report()
    with tempfile.TemporaryDirectory(prefix="streamer-bench-", dir=directory) as name:
        folder = Path(name)
        try:
            server = BROKERS[broker].start(folder / "broker")
        except NotHere as reason:
            raise click.ClickException(str(reason)) from None
        with server:
            arena = Arena(server.address, folder / "state", amounts, profile, words.print)
            right = compare(workloads, arena, runs, report)

    if machine_readable:
        click.echo(json.dumps(as_json(report, workloads), indent=2))
    else:
        width = None if sys.stdout.isatty() else 200
        Console(width=width).print(as_table(report, workloads, runs))
    sys.exit(0 if right else 1)


def chosen(workload: Workload, who: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in workload.who if one in who)


def compare(workloads: Sequence[Workload], arena: Arena, runs: int, report: Report) -> bool:
    """Measure each workload by each contender, in alternation; whether all went well."""
    right = True
    for run in range(runs):
        for workload in workloads:
            for who in workload.who if run % 2 == 0 else workload.who[::-1]:
                found: Found | None = None
                try:
                    if (workload.key, who) not in report.missing:
                        found = workload.measure(arena, who)
                except NotHere as reason:
                    report.missing[workload.key, who] = str(reason)
                    words.print(f"{workload.key} {who}: left out, {reason}")
                except ClientFailed as reason:
                    right = False
                    words.print(f"{workload.key} {who}, {run + 1} of {runs}: {reason}")
                else:
                    words.print(f"{workload.key} {who}, {run + 1} of {runs}: {line(found)}")
                report.add(workload, who, found)
    return right


def line(found: Found | None) -> str:
    return "  ".join(f"{name} {value:,.2f}" for name, value in (found or {}).items())


if __name__ == "__main__":
    main()
