from __future__ import annotations

import json

import pytest

from streamer.cli.output import Column, show_rows

COLUMNS = (
    Column("name", "name"),
    Column("in sync", "in_sync"),
    Column("MB", "bytes", scale=1e6),
    Column("secret", "secret", wide=True),
)
ROWS = [
    {"name": "a", "in_sync": (0, 1), "bytes": 1_500_000, "secret": None},
    {"name": "longer", "in_sync": (), "bytes": 25_000_000, "secret": True},
]


def test_a_piped_table_is_aligned_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, "table")

    assert capsys.readouterr().out == (
        "NAME    IN-SYNC     MB\na       0,1       1.50\nlonger           25.00\n"
    )


def test_wide_shows_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, "wide")

    assert "SECRET" in capsys.readouterr().out


def test_json_has_every_field_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, "json")

    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "longer",
        "in_sync": [],
        "bytes": 25_000_000,
        "secret": True,
    }


def test_no_rows_are_a_header_and_in_json_an_empty_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_rows([], COLUMNS, "table")
    show_rows([], COLUMNS, "json")

    assert capsys.readouterr().out == "NAME  IN-SYNC  MB\n[]\n"
