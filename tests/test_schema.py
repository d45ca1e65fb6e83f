"""Descriptions of types: the same in every process, and compared a year later."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict

import pytest

from streamer.record import Record, RecordMeta
from streamer.schema import (
    RecordError,
    classes_within,
    describe,
    fingerprint,
    foreign_classes,
    schema_change,
)


class Leaf(Record):
    n: int


class Tree(Record):
    value: int
    left: Tree | None = None
    leaves: dict[str, list[Leaf]] = {}  # noqa: RUF012  (each Tree gets its own)


class GrownTree(Record):
    value: int
    label: str
    left: GrownTree | None = None
    leaves: dict[str, list[Leaf]] = {}  # noqa: RUF012


class Typed(TypedDict):
    value: int


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    a: int
    b: str


class Lost(Record):
    other: Nowhere  # type: ignore[name-defined]  # noqa: F821


def order(name: str = "Order", tag: str | None = None, **fields: Any) -> Any:
    """A Record; a field is a type, or a type and its default."""
    pairs = {
        field: kind if isinstance(kind, tuple) else (kind,)
        for field, kind in fields.items()
    }
    namespace: dict[str, Any] = {
        field: default for field, (_, *defaults) in pairs.items() for default in defaults
    }
    namespace["__annotations__"] = {field: kind[0] for field, kind in pairs.items()}
    namespace["__module__"] = __name__
    return RecordMeta(name, (Record,), namespace, tag=tag)


def tagged(name: str, **fields: Any) -> Any:
    return order(name, name, **fields)


def change(before: Any, now: Any) -> str | None:
    # Through JSON, as the worker keeps it.
    found = schema_change(json.loads(json.dumps(describe(before))), now)
    return None if found is None else str(found)


def test_a_description_is_plain_data_even_of_a_type_that_holds_itself() -> None:
    found = describe(Tree)

    assert json.loads(json.dumps(found)) == found
    assert found["type"] == ["record", 0]
    assert [record["name"] for record in found["records"]] == ["Tree", "Leaf"]


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from typing import Literal\n"
        "from streamer.schema import fingerprint\n"
        "print(fingerprint(dict[str, Literal['b', 'a'] | int]))"
    )
    command = [sys.executable, "-c", program]
    printed = [subprocess.check_output(command, text=True).strip() for _ in range(2)]

    assert printed == [fingerprint(dict[str, Literal["a", "b"] | int])] * 2


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (order(a=int, b=str), order(b=str, a=int)),
        (order(value=int), Typed),
        (order(x=int, y=(int, 0)), Point),
        (order(x=int, y=(int, 0), z=(int, 1)), order(x=int, z=(int, 2), y=(int, 3))),
        (list[int], set[int]),
        (tuple[int, str], Pair),
        (int | None, None | int),
    ],
)
def test_what_looks_the_same_as_data_has_the_same_fingerprint(one: Any, same: Any) -> None:
    assert fingerprint(one) == fingerprint(same)
    assert change(one, same) is None


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (order(a=int), order(a=int, x=str), "field x is new and has no default"),
        (order(a=int), order(a=str), "field a was int and is now str"),
        (order(a=int | None), order(a=int), "field a was none and is now int"),
        (order(a=list[int]), order(a=list[str]), "field a was int and is now str"),
        (
            order(a=Leaf),
            order(a=order(n=int, m=int)),
            "field a.m is new and has no default",
        ),
        (order(a=Leaf | None), order(a=order(m=int) | None), "field a.m is new and has no"),
        (order(a=Literal["x", "y"]), order(a=Literal["x"]), "field a may not be 'y' any"),
        (order(a=Decimal), order(a=float), "field a was decimal and is now float"),
        (Tree, GrownTree, "GrownTree has changed: field label is new and has no default"),
        (int, str, "The type str has changed: it was int and is now str"),
        (tagged("A", n=int), order(n=int), "Order is tagged otherwise"),
        (
            tagged("A", n=int) | tagged("B", n=int),
            tagged("A", n=int) | tagged("B", m=int),
            "field m is new and has no default",
        ),
        (tagged("A", n=int) | tagged("B", n=int), tagged("A", n=int), "tagged otherwise"),
    ],
)
def test_what_old_data_cannot_be_read_as_is_said(before: Any, now: Any, said: str) -> None:
    found = schema_change(describe(before), now)

    assert found is not None
    assert found.breaking
    assert said in str(found)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (
            order(a=int),
            order(a=int, x=(str, "")),
            "Record Order has changed: field x is new",
        ),
        (order(a=int, b=int), order(a=int), "field b is gone"),
        (order(a=int), order(a=float), "field a was int and is now float"),
        (order(a=(int, 0)), order(a=int), "field a has no default any more"),
    ],
)
def test_a_change_that_old_data_survive_is_said_as_such(
    before: Any, now: Any, said: str
) -> None:
    found = schema_change(describe(before), now)

    assert found is not None
    assert not found.breaking
    assert said in str(found)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (order(a=int), order(a=int | None)),
        (order(a=Literal["x"]), order(a=Literal["x", "y"])),
        (order(a=int), order(a=Any)),
        (tagged("A", n=int), tagged("A", n=int) | tagged("B", n=int)),
    ],
)
def test_a_type_that_takes_more_is_no_news_though_its_fingerprint_differs(
    before: Any, now: Any
) -> None:
    assert fingerprint(before) != fingerprint(now)
    assert change(before, now) is None


def test_the_classes_within_are_found_once_each() -> None:
    assert list(classes_within(list[Tree | None])) == [Tree, Leaf]
    assert foreign_classes(dict[str, Tree]) == []
    assert foreign_classes(dict[str, list[object] | None]) == [object]


def test_a_name_that_is_not_there_is_an_error_with_a_way_out() -> None:
    with pytest.raises(RecordError, match=r"'Nowhere' is not defined.*\n.*top level"):
        describe(Lost)
