"""What a type looks like as data, so that two versions of it can be compared.

A table outlives the code that filled it. The worker keeps the description of each
type beside the state, and says at the next start what has changed since:

    describe(Order)                JSON-able: its fields, their types, which are required
    fingerprint(Order)             sixteen digits, the same while the data look the same
    schema_change(before, Order)   what changed, and whether old data can still be read

Names of classes and the order of fields do not count: neither is in the data.
A type is described as a list, its kind first: ["list", ["int"]], ["record", 0].
Records are numbered in the order in which they are met, so that one may hold itself.

How values become bytes: `codecs.py`. What a user writes: `record.py`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import inspect

from streamer.errors import StreamerError

Shape = list[Any]
Description = dict[str, Any]

_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
_LISTS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.CollectionType,
)


class RecordError(StreamerError):
    """A type, a Record or its options that cannot be as they are."""

    remedy = (
        "A value may be a streamer.Record, a dataclass, a TypedDict, a simple type, "
        "or a list, set, tuple, dict or union of them. Records in a union need a tag "
        "each: `class Created(Record, tag=True)`."
    )


def describe(value_type: Any) -> Description:
    """The type as data: {"type": shape, "records": [{"name": ..., "fields": ...}]}."""
    records: list[dict[str, Any]] = []
    shape = _shape(_type_info(value_type), records, {})
    return {"type": shape, "records": records}


def fingerprint(value_type: Any) -> str:
    """A short hash of the type's description, the same in every process."""
    return _digest(describe(value_type))


def classes_within(value_type: Any) -> Iterator[type]:
    """Each class that values of this type may be made of, each once."""
    return _classes(_type_info(value_type), set())


def foreign_classes(value_type: Any) -> list[type]:
    """The classes within, of which only a codec of the user's own knows what to do."""
    seen: set[int] = set()
    found = [
        node.cls
        for node in _walk(_type_info(value_type), seen)
        if isinstance(node, inspect.CustomType)
    ]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """How a type differs from its description of an earlier day."""

    name: str
    # Data of that day cannot be read any more (or not all of it).
    breaking: tuple[str, ...]
    # It can; what was in a field that is gone is dropped when the value is next written.
    harmless: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} has changed: {'; '.join(self.breaking + self.harmless)}"


def schema_change(before: Mapping[str, Any], value_type: Any) -> SchemaChange | None:
    """What has changed since `before` was described, or None."""
    now = describe(value_type)
    if _digest(before) == _digest(now):
        return None
    comparison = _Comparison(before["records"], now["records"], set(), [])
    breaking = comparison.problems(before["type"], now["type"], "")
    if not breaking and not comparison.harmless:
        return None  # A wider union, say: nobody needs to know.
    shape = now["type"]
    name = _text(shape, now["records"])
    return SchemaChange(
        name=f"Record {name}" if shape[0] == "record" else f"The type {name}",
        breaking=tuple(breaking),
        harmless=tuple(comparison.harmless),
    )


def _digest(description: Mapping[str, Any]) -> str:
    nameless = [
        {"fields": record["fields"], "tag": record["tag"]}
        for record in description["records"]
    ]
    text = json.dumps([description["type"], nameless], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- from a type to its shape


def _type_info(value_type: Any) -> inspect.Type:
    try:
        return inspect.type_info(value_type)
    except NameError as error:
        raise RecordError(
            f"{value_type!r} mentions a type that cannot be found: {error}.",
            remedy="Define the types that a field's annotation names at the top level of "
            "the module, before the worker starts.",
        ) from error
    except TypeError as error:
        raise RecordError(
            f"{value_type!r} cannot be the type of a value: {error}."
        ) from error


def _children(node: inspect.Type) -> list[inspect.Type]:
    if isinstance(node, (*_RECORDS, inspect.NamedTupleType)):
        return [field.type for field in node.fields]
    if isinstance(node, inspect.UnionType):
        return list(node.types)
    if isinstance(node, inspect.TupleType):
        return list(node.item_types)
    if isinstance(node, _LISTS):
        return [node.item_type]
    if isinstance(node, inspect.DictType):
        return [node.key_type, node.value_type]
    if isinstance(node, inspect.Metadata):
        return [node.type]
    return []


def _walk(node: inspect.Type, seen: set[int]) -> Iterator[inspect.Type]:
    # A record that holds itself is one node that holds itself.
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for child in _children(node):
        yield from _walk(child, seen)


def _classes(node: inspect.Type, seen: set[int]) -> Iterator[type]:
    for each in _walk(node, seen):
        if isinstance(each, inspect.StructType | inspect.DataclassType):
            yield each.cls


def _shape(
    node: inspect.Type, records: list[dict[str, Any]], numbers: dict[Any, int]
) -> Shape:
    children = _children(node)
    if isinstance(node, _RECORDS):
        if node.cls not in numbers:
            # Numbered before its fields are looked at: one of them may be itself.
            numbers[node.cls] = len(records)
            tag = node.tag if isinstance(node, inspect.StructType) else None
            record: dict[str, Any] = {"name": node.cls.__name__, "tag": tag}
            records.append(record)
            fields = sorted(node.fields, key=lambda field: field.encode_name)
            record["fields"] = [
                [field.encode_name, _shape(field.type, records, numbers), field.required]
                for field in fields
            ]
        return ["record", numbers[node.cls]]
    if isinstance(node, inspect.Metadata):
        return _shape(node.type, records, numbers)
    if isinstance(node, inspect.EnumType):
        return ["one of", *sorted((member.value for member in node.cls), key=repr)]
    if isinstance(node, inspect.LiteralType):
        return ["one of", *sorted(node.values, key=repr)]
    if isinstance(node, inspect.CustomType):
        return ["class", f"{node.cls.__module__}.{node.cls.__qualname__}"]
    if isinstance(node, inspect.UnionType):
        members = [_shape(child, records, numbers) for child in children]
        return ["union", *sorted(members, key=repr)]
    shapes = [_shape(child, records, numbers) for child in children]
    if isinstance(node, inspect.TupleType | inspect.NamedTupleType):
        return ["tuple", *shapes]
    if isinstance(node, _LISTS):
        # A list, a set and a tuple of any length look the same as data.
        return ["list", *shapes]
    if isinstance(node, inspect.DictType):
        return ["dict", *shapes]
    return [type(node).__name__.removesuffix("Type").lower()]


# --- from two shapes to what lies between them


@dataclass(slots=True)
class _Comparison:
    before: list[dict[str, Any]]
    now: list[dict[str, Any]]
    compared: set[tuple[int, int]]
    harmless: list[str]

    def problems(self, old: Shape, new: Shape, where: str) -> list[str]:
        """Why data of the old shape cannot be read as the new one: nothing, if it can."""
        if new[0] == "any":
            return []
        if old[0] == "union":
            return [text for each in old[1:] for text in self.problems(each, new, where)]
        if new[0] == "union":
            return self._as_member(old, new, where)
        if old[0] == new[0] == "record":
            return self._records(old[1], new[1], where)
        if old[0] == new[0] == "one of":
            lost = [repr(value) for value in old[1:] if value not in new[1:]]
            return (
                [f"{where or 'it'} may not be {' or '.join(lost)} any more"] if lost else []
            )
        if (
            old[0] == new[0]
            and old[0] in ("list", "dict", "tuple")
            and len(old) == len(new)
        ):
            return [
                text
                for was, is_now in zip(old[1:], new[1:], strict=True)
                for text in self.problems(was, is_now, where)
            ]
        if old == new:
            return []
        if (old[0], new[0]) == ("int", "float"):
            self.harmless.append(self._differs(old, new, where))
            return []
        return [self._differs(old, new, where)]

    def _as_member(self, old: Shape, union: Shape, where: str) -> list[str]:
        """The same where the new shape is a union: one fitting member is enough."""
        if old[0] == "record":
            # A reader finds the record by its tag, whether or not it then fits.
            for member in union[1:]:
                if member[0] == "record" and self._same_tag(old, member):
                    return self._records(old[1], member[1], where)
        for member in union[1:]:
            trial = _Comparison(self.before, self.now, set(self.compared), [])
            if not trial.problems(old, member, where):
                self.harmless.extend(trial.harmless)
                return []
        return [self._differs(old, union, where)]

    def _same_tag(self, old: Shape, new: Shape) -> bool:
        return bool(self.before[old[1]]["tag"] == self.now[new[1]]["tag"])

    def _records(self, old: int, new: int, where: str) -> list[str]:
        if (old, new) in self.compared:
            return []
        self.compared.add((old, new))
        was, is_now = self.before[old], self.now[new]
        if was["tag"] != is_now["tag"]:
            return [f"{where or is_now['name']} is tagged otherwise"]
        fields = {name: (shape, required) for name, shape, required in was["fields"]}
        found: list[str] = []
        for name, shape, required in is_now["fields"]:
            path = f"{where}.{name}" if where else f"field {name}"
            if name in fields:
                found += self.problems(fields[name][0], shape, path)
                if required and not fields[name][1]:
                    # Written with its default, so there; not by every other producer.
                    self.harmless.append(f"{path} has no default any more")
            elif required:
                found.append(f"{path} is new and has no default")
            else:
                self.harmless.append(f"{path} is new")
        for name in fields.keys() - {name for name, _, _ in is_now["fields"]}:
            path = f"{where}.{name}" if where else f"field {name}"
            self.harmless.append(f"{path} is gone, and with it what it held")
        return found

    def _differs(self, old: Shape, new: Shape, where: str) -> str:
        was, is_now = _text(old, self.before), _text(new, self.now)
        return f"{where or 'it'} was {was} and is now {is_now}"


def _text(shape: Shape, records: list[dict[str, Any]]) -> str:
    """A shape as a user would write it."""
    kind, *rest = shape
    if kind == "record":
        return str(records[rest[0]]["name"])
    if kind == "class":
        return str(rest[0])
    if kind == "one of":
        return f"one of {', '.join(repr(value) for value in rest)}"
    parts = [_text(each, records) for each in rest]
    if kind == "union":
        return " | ".join(parts)
    return f"{kind}[{', '.join(parts)}]" if parts else str(kind)
