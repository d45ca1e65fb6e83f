"""The message tables of `schema/`, parsed.

Each file describes one kind of request and its response; or, in `schema/state/`, one
record that the broker keeps, with `record` instead of `request` and `response`:

    # What it is for.

    versions 3-11                     those we read and write
    flexible 9+                       from here on: compact lengths and tagged fields;
                                      or `none`: never

    request
      acks        int16               a field: its name, its type, and if need be
      rack        string?   8+        the versions that carry it (3, 3+ or 1-4),
      timeout_ms  int32     = 1000    its default, and after that `tag N`
      topics      [Topic]   ignorable  and `ignorable`
        name      string              a struct's fields stand two spaces further in

A type is one of `SCALARS`, a struct with a name of ours, or `[type]` for an array
of either. `?` makes it nullable, with null for its default; `?10+` makes it
nullable from version 10 only.

A message with a field set that a version lacks may not be written in that
version, unless the field is `ignorable`. A tagged struct is None while it is
absent. `structs.py` makes classes of the tables, `reader.py` and `writer.py`
compile them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pkgutil import get_data
from uuid import UUID

from streamer.wire.api_keys import ApiKey

SCALARS = {
    "bool": False,
    "int8": 0,
    "int16": 0,
    "uint16": 0,
    "int32": 0,
    "uint32": 0,
    "int64": 0,
    "float64": 0.0,
    "uuid": UUID(int=0),
    "string": "",
    "bytes": b"",
    "records": b"",
}

NEVER = 1 << 15  # a version is an int16

FIELD = re.compile(
    r"""(?P<indent>\ +)(?P<name>[a-z][a-z0-9_]*)
        \ +(?P<open>\[)?(?P<type>[A-Za-z][A-Za-z0-9]*)(?(open)\])(?P<null>\?(?:\d\S*)?)?
        (?:\ +(?P<versions>\d\S*))?
        (?:\ +=\ (?P<default>\S+))?
        (?:\ +tag\ (?P<tag>\d+))?
        (?:\ +(?P<ignorable>ignorable))?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str
    type: str  # a scalar, or the name of a struct
    versions: range
    nullable: range  # the versions in which it may be null
    default: object  # () stands for a new list
    array: bool = False
    fields: tuple["Field", ...] = ()  # of a struct
    tag: int | None = None
    ignorable: bool = False

    @property
    def is_struct(self) -> bool:
        return bool(self.fields)

    @property
    def element(self) -> "Field":
        """What an array of this type is an array of."""
        return replace(self, array=False, nullable=range(0), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    name: str  # ProduceRequest, OffsetCommitValue
    api_key: int | None  # None: a record of the broker's own
    versions: range
    flexible: range
    fields: tuple[Field, ...]


class SchemaError(Exception):
    """A table of `schema/` cannot be understood."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())

    def error(self, problem: str) -> SchemaError:
        return SchemaError(f"line {self.number}: {problem}: {self.text.strip()!r}")


def load(api_key: ApiKey) -> tuple[Message, Message] | None:
    """The request and the response of a key; None if it has no table."""
    try:
        text = get_data("streamer.wire", f"schema/{api_key:02}_{api_key.name.lower()}.txt")
    except FileNotFoundError:
        return None
    return parse((text or b"").decode(), api_key)


def load_record(name: str) -> Message:
    """The table of a state record, by the name of its class."""
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    text = get_data("streamer.wire", f"schema/state/{file}.txt")
    return parse_record((text or b"").decode(), name)


def parse(text: str, api_key: ApiKey) -> tuple[Message, Message]:
    versions, flexible, bodies = parse_sections(text, "request", "response")
    request, response = (
        Message(
            name=api_key.title + part,
            api_key=api_key,
            versions=versions,
            flexible=flexible,
            fields=parse_fields(body, indent=2, within=versions),
        )
        for part, body in zip(("Request", "Response"), bodies, strict=True)
    )
    return request, response


def parse_record(text: str, name: str) -> Message:
    versions, flexible, (body,) = parse_sections(text, "record")
    return Message(
        name=name,
        api_key=None,
        versions=versions,
        flexible=flexible,
        fields=parse_fields(body, indent=2, within=versions),
    )


def parse_sections(text: str, *names: str) -> tuple[range, range, list[list[Line]]]:
    """All versions, the flexible ones, and the lines below each of `names`."""
    lines = list(significant(text))
    head = {line.text.split()[0]: line for line in lines if not line.indent}
    if list(head) != ["versions", "flexible", *names]:
        raise SchemaError(
            f"expected versions, flexible, {' and '.join(names)}, in this order"
        )

    versions = version_range(head["versions"].text.split()[1], range(NEVER))
    flexible = flexible_range(head["flexible"].text.split()[1], versions)
    starts = [lines.index(head[name]) for name in names]
    bodies = [lines[start + 1 : end] for start, end in pairwise([*starts, len(lines)])]
    return versions, flexible, bodies


def significant(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("#")[0].rstrip()
        if code:
            yield Line(number, code)


def parse_fields(lines: list[Line], *, indent: int, within: range) -> tuple[Field, ...]:
    """The fields that begin at `indent`, each with those further in as its own."""
    if lines and lines[0].indent != indent:
        raise lines[0].error(f"a field indented by {indent} is expected")
    starts = [i for i, line in enumerate(lines) if line.indent <= indent]
    return tuple(
        parse_field(lines[start], lines[start + 1 : end], indent=indent, within=within)
        for start, end in pairwise([*starts, len(lines)])
    )


def parse_field(line: Line, inner: list[Line], *, indent: int, within: range) -> Field:
    found = FIELD.fullmatch(line.text)
    if found is None:
        raise line.error("not a field")
    type_, array, null = found["type"], found["open"] is not None, found["null"]
    if (type_ in SCALARS) == bool(inner):
        raise line.error("a struct has fields below it, and nothing else has")

    versions = version_range(found["versions"], within)
    tag = None if found["tag"] is None else int(found["tag"])
    return Field(
        name=found["name"],
        type=type_,
        array=array,
        versions=versions,
        nullable=version_range(null[1:], versions) if null else range(0),
        default=default_of(type_, found["default"], array=array, null=null),
        fields=parse_fields(inner, indent=indent + 2, within=versions),
        tag=tag,
        ignorable=found["ignorable"] is not None,
    )


def version_range(text: str | None, within: range) -> range:
    """`3`, `3+`, `1-4` or nothing (all), as far as it lies in `within`."""
    if not text:
        return within
    first, dash, last = text.rstrip("+").partition("-")
    until = int(last) if dash else within[-1] if text.endswith("+") else int(first)
    return range(max(int(first), within[0]), min(until, within[-1]) + 1)


def flexible_range(text: str, within: range) -> range:
    return range(NEVER, NEVER) if text == "none" else version_range(text, within)


def default_of(type_: str, given: str | None, *, array: bool, null: str | None) -> object:
    if given is not None:
        return given == "true" if type_ == "bool" else int(given, 0)
    if null == "?":
        return None
    if array:
        return ()
    return SCALARS.get(type_)
