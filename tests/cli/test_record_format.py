"""The words of -f, in both directions."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from streamer.cli.record_format import (
    FormatError,
    Line,
    LineError,
    line_reader,
    print_json,
    printer,
)


@dataclass
class Read:
    """A record as a consumer hands it out."""

    at_key: bytes | None = b"k"
    at_value: bytes | None = b"v"
    at_headers: list[tuple[str, bytes | None]] | None = None

    def topic(self) -> str:
        return "orders"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def key(self) -> bytes | None:
        return self.at_key

    def value(self) -> bytes | None:
        return self.at_value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.at_headers


def test_each_letter_prints_its_part() -> None:
    message = Read(at_headers=[("a", b"1"), ("b", None)])

    text = printer(r"%t %p %o %T %k %v %s %h 100%%\n\t\x41")(message)

    assert text == b"orders 3 42 1700000000000 k v v a=1,b= 100%\n\tA"


def test_what_is_null_prints_nothing() -> None:
    assert printer("[%k][%v][%h]")(Read(None, None)) == b"[][][]"


def test_values_are_printed_as_the_bytes_they_are() -> None:
    assert printer("%v")(Read(at_value=b"\xff\x00\n")) == b"\xff\x00\n"


def test_json_is_one_line_with_every_field() -> None:
    line = print_json(Read(at_headers=[("a", b"1"), ("a", None)]))

    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "topic": "orders",
        "partition": 3,
        "offset": 42,
        "timestamp": 1_700_000_000_000,
        "headers": [{"key": "a", "value": "1"}, {"key": "a", "value": None}],
        "key": "k",
        "value": "v",
    }


def test_json_tells_null_from_empty_and_keeps_what_is_no_text() -> None:
    record = json.loads(print_json(Read(None, b"\xff")))

    assert record["key"] is None
    assert record["value"] == {"base64": "/w=="}
    assert json.loads(print_json(Read(b"", None)))["key"] == ""


@pytest.mark.parametrize(
    ("form", "line", "record"),
    [
        ("%v", b"a b", Line(value=b"a b")),
        ("%s", b"", Line(value=b"")),
        ("%k %v", b"alice 3 apples", Line(key=b"alice", value=b"3 apples")),
        (r"%k\t%v\n", b"a b\tc", Line(key=b"a b", value=b"c")),
        ("%v|%k", b"x|y|z", Line(key=b"y|z", value=b"x")),
        ("%k:%v", b":", Line(key=b"", value=b"")),
        ("%k", b"k", Line(key=b"k")),
        ("%p/%v", b"7/x", Line(value=b"x", partition=7)),
        (
            "%h %v",
            b"a=1,b=,c x",
            Line(value=b"x", headers=[("a", b"1"), ("b", b""), ("c", None)]),
        ),
        ("<%v>", b"<<x>>", Line(value=b"<x>")),
    ],
)
def test_a_line_is_read_as_the_format_says(form: str, line: bytes, record: Line) -> None:
    read = line_reader(form)(line)

    assert read._replace(headers=list(read.headers)) == record._replace(
        headers=list(record.headers)
    )


@pytest.mark.parametrize(
    ("form", "line"), [("%k %v", b"alone"), ("<%v>", b"x"), ("%p %v", b"-1 x")]
)
def test_a_line_that_does_not_fit_is_quoted(form: str, line: bytes) -> None:
    with pytest.raises(LineError, match=line.split()[0].decode()):
        line_reader(form)(line)


@pytest.mark.parametrize("form", ["%z", "%o", "%k%v", "%k %k", "%v %s", r"\q"])
def test_a_format_that_cannot_be_read_by_is_refused(form: str) -> None:
    with pytest.raises(FormatError):
        line_reader(form)


def test_a_key_read_is_the_key_printed() -> None:
    read = line_reader(r"%k\t%v")(b"a%b\\\tc")

    assert printer(r"%k\t%v")(Read(read.key, read.value)) == b"a%b\\\tc"
