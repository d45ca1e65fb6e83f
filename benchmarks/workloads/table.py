"""From samples to a table: medians, and ratios within one run.

On a shared machine rates wander by a third within minutes. So a ratio is taken between
neighbours of the same run, and the median is that of the ratios.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.workloads.measures import (
    BATCH,
    EVENT,
    LOOP,
    STREAMS,
    Found,
    Row,
    Workload,
)

TITLES = {
    LOOP: "loop",
    EVENT: "per event",
    BATCH: "by batch",
    STREAMS: "Kafka Streams",
}
RATIOS = ((EVENT, LOOP), (BATCH, LOOP), (STREAMS, LOOP), (EVENT, STREAMS))


@dataclass(slots=True)
class Report:
    """All that was measured so far; why the rest was not."""

    # By workload, row and contender: one number for each run; None where it failed.
    samples: dict[tuple[str, str, str], list[float | None]] = field(
        default_factory=lambda: defaultdict(list)
    )
    missing: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, workload: Workload, who: str, found: Found | None) -> None:
        for name in {row.name for row in workload.rows}:
            sample = None if found is None else found[name]
            self.samples[workload.key, name, who].append(sample)

    def series(self, workload: Workload, row: Row, who: str) -> list[float | None]:
        own = self.samples[workload.key, row.name, who]
        if row.of is None:
            return own
        return quotients(own, self.samples[row.of, row.name, who])

    def median(self, workload: Workload, row: Row, who: str) -> float | None:
        return middle(self.series(workload, row, who))

    def ratio(self, workload: Workload, row: Row, one: str, other: str) -> float | None:
        if row.alone:
            return None
        return middle(
            quotients(self.series(workload, row, one), self.series(workload, row, other))
        )


def quotients(
    ones: Sequence[float | None], others: Sequence[float | None]
) -> list[float | None]:
    return [
        one / other if one is not None and other else None
        for one, other in zip(ones, others, strict=False)
    ]


def middle(samples: Sequence[float | None]) -> float | None:
    found = [sample for sample in samples if sample is not None]
    return median(found) if found else None


def as_table(report: Report, workloads: Sequence[Workload], runs: int) -> Table:
    table = Table(title=f"streamer beside a loop by hand, medians of {runs}")
    table.add_column("")
    table.add_column("")
    for title in TITLES.values():
        table.add_column(title, justify="right")
    for one, other in RATIOS:
        table.add_column(f"{TITLES[one]} / {TITLES[other]}", justify="right")
    table.add_column("at most, or at least")
    for workload in workloads:
        for number, row in enumerate(workload.rows):
            table.add_row(
                f"{workload.name} {workload.title}" if number == 0 else "",
                row.unit,
                *(cell(report, workload, row, who) for who in TITLES),
                *(
                    shown(report.ratio(workload, row, one, other), 2)
                    for one, other in RATIOS
                ),
                row.reach,
            )
        table.add_section()
    return table


def cell(report: Report, workload: Workload, row: Row, who: str) -> str:
    found = report.median(workload, row, who)
    if found is None and (workload.key, who) in report.missing:
        return "not yet"
    return shown(found, row.digits)


def shown(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:,.{digits}f}"


def as_json(report: Report, workloads: Sequence[Workload]) -> list[dict[str, Any]]:
    """Every sample, and what the table makes of it."""
    return [
        {
            "workload": workload.key,
            "row": row.name,
            "unit": row.unit,
            "reach": row.reach,
            "samples": {who: report.series(workload, row, who) for who in workload.who},
            "median": {who: report.median(workload, row, who) for who in workload.who},
            "ratio": {
                f"{one}/{other}": report.ratio(workload, row, one, other)
                for one, other in RATIOS
                if one in workload.who and other in workload.who
            },
        }
        for workload in workloads
        for row in workload.rows
    ]
