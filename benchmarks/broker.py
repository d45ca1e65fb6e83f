"""Our broker beside Apache Kafka, under the same load: one table.

    python benchmarks/broker.py                       everything, about an hour
    python benchmarks/broker.py --quick               whether it works at all
    python benchmarks/broker.py --only produce --only latency --runs 9 --json

Every run measures all brokers in turn, forwards and backwards by turns, so that a
slow minute of the machine meets each of them; ratios are taken within a run. The
broker that is not measured stays up and idle. See `figures.py`, `coordination.py` and
`compaction.py` for what each figure is, and docs/performance.md for what came out.
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

from benchmarks.compaction import COMPACTION  # noqa: E402
from benchmarks.contenders import CONTENDERS, ClientFailed, NotHere  # noqa: E402
from benchmarks.coordination import COORDINATION  # noqa: E402
from benchmarks.figures import BASIC, QUICK, Amounts, Arena, Figure  # noqa: E402
from benchmarks.report import Report, as_json, as_table  # noqa: E402

FIGURES = (*BASIC, *COORDINATION, *COMPACTION)
NAMES = [figure.name for figure in FIGURES]
words = Console(stderr=True, highlight=False, soft_wrap=True)


@click.command(help=__doc__.partition("\n")[0] if __doc__ else "")
@click.option(
    "--only", multiple=True, type=click.Choice(NAMES), help="One figure; repeatable."
)
@click.option("--runs", type=click.IntRange(1), help="How often each is measured [5].")
@click.option("--records", type=click.IntRange(1000), help="Records of 100 B to a run.")
@click.option("--gibibytes", type=float, help="What the cold reader reads [4].")
@click.option("--quick", is_flag=True, help="One run, little data: a smoke test.")
@click.option("--json", "machine_readable", is_flag=True, help="All samples, as JSON.")
@click.option(
    "--directory", type=Path, help="Where the logs go: the disk that is measured."
)
def main(
    only: Sequence[str],
    runs: int | None,
    records: int | None,
    gibibytes: float | None,
    quick: bool,
    machine_readable: bool,
    directory: Path | None,
) -> None:
    figures = [figure for figure in FIGURES if not only or figure.name in only]
    runs = runs or (1 if quick else 5)
    amounts = QUICK if quick else Amounts()
    amounts = replace(
        amounts,
        records=records or amounts.records,
        cold_gibibytes=gibibytes or amounts.cold_gibibytes,
    )

    with tempfile.TemporaryDirectory(prefix="streamer-bench-", dir=directory) as folder:
        arenas = [
            Arena(contender, Path(folder) / contender.name, amounts)
            for contender in CONTENDERS
        ]
        try:
            report = compare(figures, arenas, runs)
        finally:
            for arena in arenas:
                arena.close()

    if machine_readable:
        click.echo(json.dumps(as_json(report, figures), indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(
            as_table(report, figures, runs)
        )


def compare(figures: list[Figure], arenas: list[Arena], runs: int) -> Report:
    """Measure each figure of each contender, in alternation."""
    report = Report()
    for figure in figures:
        if figure.warm_up:
            for arena in arenas:
                take(figure, arena, "warm-up")
        for run in range(runs):
            in_turn = arenas if run % 2 == 0 else arenas[::-1]
            for arena in in_turn:
                found = take(figure, arena, f"{run + 1} of {runs}")
                report.add(figure, arena.contender.name, found)
    return report


def take(figure: Figure, arena: Arena, run: str) -> dict[str, float] | None:
    """One measurement; None, with the reason said, when it cannot be taken."""
    name = arena.contender.name
    if arena.absent:
        return None
    try:
        found = figure.measure(arena)
    except NotHere as reason:
        arena.absent = True
        words.print(f"{name} is left out, {reason}")
        return None
    except ClientFailed as reason:
        words.print(f"{figure.title}, {name}, {run}: {reason}")
        return None
    numbers = "  ".join(f"{key} {value:,.2f}" for key, value in found.items())
    words.print(f"{figure.title}, {name}, {run}: {numbers}")
    return found


if __name__ == "__main__":
    main()
