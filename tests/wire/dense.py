"""Requests with as many elements as one likes, and what may stand in each of them."""

from typing import Any
from uuid import UUID

from streamer.wire.api_keys import ApiKey
from streamer.wire.definition import SCALARS, Field
from streamer.wire.headers import write_request_header
from streamer.wire.messages import classes, versions, write_request

EVERY_REQUEST = [
    (found[0], version)
    for key in ApiKey
    if (found := classes(key))
    for version in versions(key)
]

EMPTY = dict(SCALARS)
LETTERS = {**EMPTY, "string": "xy", "bytes": b"xy", "records": b"xy"}
LARGE = {
    **LETTERS,
    "bool": True,
    "int8": -(1 << 7),
    "int16": -(1 << 15),
    "uint16": (1 << 16) - 1,
    "int32": (1 << 31) - 1,
    "uint32": (1 << 32) - 1,
    "int64": (1 << 63) - 1,
    "float64": 0.1,
    "uuid": UUID(int=(1 << 128) - 1),
}
# One letter of four bytes makes all others as wide.
WIDE = {**LARGE, "string": "\N{CRAB}" + "x" * 20}


def dense(cls: Any, version: int, values: dict[str, Any], *counts: int) -> Any:
    """A request whose outer arrays hold `counts[0]` elements, those inside `counts[1]`."""
    return struct(cls, cls, cls.definition.fields, version, values, counts)


def struct(
    message: Any,
    cls: Any,
    fields: tuple[Field, ...],
    version: int,
    values: dict[str, Any],
    counts: tuple[int, ...],
) -> Any:
    def value(field: Field) -> Any:
        if field.array:
            count = counts[0] if counts else 1
            return [one(field, counts[1:])] * count
        return one(field, counts)

    def one(field: Field, inside: tuple[int, ...]) -> Any:
        if field.is_struct:
            inner = getattr(message, field.type)
            return struct(message, inner, field.fields, version, values, inside)
        return values[field.type]

    return cls(**{f.name: value(f) for f in fields if version in f.versions})


def framed(request: Any, version: int) -> bytes:
    header = write_request_header(request.definition.api_key, version, 7, None)
    return header + b"".join(write_request(request, version))
