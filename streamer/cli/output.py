"""How lists are printed: a table for people, JSON for programs.

    -o table    the columns that matter; drawn with rich on a terminal, plain and
                aligned when piped, so that awk and grep find what they expect
    -o wide     all columns
    -o json     every field, under names that stay; numbers are numbers

What a command has to say besides its data goes to stderr: `say`.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import click

Row = Mapping[str, object]
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; `field` is its name in a row, and in JSON."""

    title: str
    field: str
    # Shown with `-o wide` only.
    wide: bool = False
    # What one in the table stands for in the row, as 1e6 does for bytes shown in MB.
    scale: float | None = None


def output_option(command: F) -> F:
    """-o table|wide|json, for commands that list things."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "wide", "json"]),
        default="table",
        show_default=True,
        help="How to print.",
    )(command)


def say(words: str) -> None:
    """Words for the person at the terminal; never data."""
    click.echo(words, err=True)


def show_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Row], columns: Sequence[Column], form: str) -> None:
    """Print rows in the form asked for."""
    if form == "json":
        show_json(rows)
        return
    shown = [column for column in columns if form == "wide" or not column.wide]
    titles = [column.title for column in shown]
    cells = [[_text(row[column.field], column.scale) for column in shown] for row in rows]
    numeric = [
        bool(rows) and all(_is_number(row[column.field]) for row in rows)
        for column in shown
    ]
    if sys.stdout.isatty():
        _draw(titles, cells, numeric)
    else:
        _align(titles, cells, numeric)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object, scale: float | None = None) -> str:
    if scale and isinstance(value, int | float):
        value = value / scale
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(_text, value))
    return str(value)


def _align(
    titles: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    lines = [[title.upper().replace(" ", "-") for title in titles], *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(titles))]
    for line in lines:
        parts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def _draw(
    titles: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title, right in zip(titles, numeric, strict=True):
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console(no_color=bool(os.environ.get("NO_COLOR"))).print(table)
