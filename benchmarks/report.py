"""From samples to a table: medians, and ratios pair by pair.

On a shared machine rates wander by a third within minutes. So a ratio is taken
between two neighbours of the same run, and the median is that of the ratios; a ratio
of two medians would compare one minute with another.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.contenders import CONTENDERS, KAFKA
from benchmarks.figures import Figure, Row

# By figure, row and contender: one number for each run, in order; None where it failed.
Samples = dict[tuple[str, str, str], list[float | None]]


@dataclass(slots=True)
class Report:
    """All that was measured so far."""

    samples: Samples = field(default_factory=lambda: defaultdict(list))

    def add(self, figure: Figure, contender: str, found: dict[str, float] | None) -> None:
        for row in figure.rows:
            sample = None if found is None else found[row.name]
            self.samples[figure.name, row.name, contender].append(sample)

    def median(self, figure: Figure, row: Row, contender: str) -> float | None:
        found = [
            sample
            for sample in self.samples[figure.name, row.name, contender]
            if sample is not None
        ]
        return median(found) if found else None

    def ratio(self, figure: Figure, row: Row, contender: str) -> float | None:
        """Ours over Kafka's."""
        pairs = zip(
            self.samples[figure.name, row.name, contender],
            self.samples[figure.name, row.name, KAFKA.name],
            strict=False,
        )
        ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
        return median(ratios) if ratios else None


OURS = [contender.name for contender in CONTENDERS if contender is not KAFKA]


def as_table(report: Report, figures: list[Figure], runs: int) -> Table:
    table = Table(title=f"streamer beside Apache Kafka, medians of {runs}")
    table.add_column("")
    table.add_column("")
    for contender in CONTENDERS:
        table.add_column(contender.name, justify="right")
    for name in OURS:
        table.add_column(f"{name} / Kafka", justify="right")
    table.add_column("goal")
    for figure in figures:
        for number, row in enumerate(figure.rows):
            table.add_row(
                figure.title if number == 0 else "",
                row.unit,
                *(
                    shown(report.median(figure, row, c.name), row.digits)
                    for c in CONTENDERS
                ),
                *(shown(report.ratio(figure, row, name), 2) for name in OURS),
                row.goal,
            )
        table.add_section()
    return table


def shown(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:,.{digits}f}"


def as_json(report: Report, figures: list[Figure]) -> list[dict[str, Any]]:
    """Every sample, and what the table makes of it."""
    return [
        {
            "figure": figure.name,
            "row": row.name,
            "unit": row.unit,
            "goal": row.goal,
            "samples": {
                contender.name: report.samples[figure.name, row.name, contender.name]
                for contender in CONTENDERS
            },
            "median": {c.name: report.median(figure, row, c.name) for c in CONTENDERS},
            "ratio": {name: report.ratio(figure, row, name) for name in OURS},
        }
        for figure in figures
        for row in figure.rows
    ]
