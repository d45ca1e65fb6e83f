"""Any message, in any version: made from the tables of `wire/schema`."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.codec import Buffer
from streamer.wire.definition import Field
from streamer.wire.error_codes import ErrorCode

INTEGERS = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
# What the second opinion, kio, knows as a date and as a time span.
TIMES = {
    "log_append_time_ms": (-1, 1 << 42),
    "transaction_start_time_ms": (0, 1 << 42),
    "retention_time_ms": (-(1 << 42), 1 << 42),
}
# Around the places where a length takes another byte, and short otherwise.
TEXT = st.text(max_size=8) | st.integers(120, 135).map(lambda n: "x" * n)
DATA = st.binary(max_size=8) | st.integers(120, 135).map(bytes)


def every_message() -> Iterator[tuple[Any, int]]:
    """Each class of message with each of its versions."""
    for key in ApiKey:
        for version in messages.versions(key):
            for cls in messages.classes(key) or ():
                yield cls, version


EVERY_MESSAGE = [(cls, version) for cls, version in every_message()]
NAMES = [f"{cls.__name__}-v{version}" for cls, version in EVERY_MESSAGE]


def values(cls: Any, version: int) -> st.SearchStrategy[Any]:
    """Messages of this class which this version can carry."""
    return struct(cls, cls, cls.definition.fields, version)


def struct(
    message: Any, cls: Any, fields: tuple[Field, ...], version: int
) -> st.SearchStrategy[Any]:
    carried = [field for field in fields if version in field.versions]
    return st.builds(
        cls, **{field.name: field_of(message, field, version) for field in carried}
    )


def field_of(message: Any, field: Field, version: int) -> st.SearchStrategy[Any]:
    if field.array:
        made = st.lists(one(message, field, version), max_size=3)
    else:
        made = one(message, field, version)
    # A tagged struct is left out rather than null.
    left_out = field.is_struct and field.tag is not None and not field.array
    return st.none() | made if left_out or version in field.nullable else made


def one(message: Any, field: Field, version: int) -> st.SearchStrategy[Any]:
    if field.is_struct:
        return struct(message, getattr(message, field.type), field.fields, version)
    if field.name.endswith("error_code"):  # kio knows it as an enumeration
        return st.sampled_from(ErrorCode).map(int)
    if field.name in TIMES:
        return st.integers(*TIMES[field.name])
    if field.type in INTEGERS:
        return st.integers(*INTEGERS[field.type])
    return {
        "bool": st.booleans(),
        "float64": st.floats(allow_nan=False),
        "uuid": st.uuids(),
        "string": TEXT,
        "bytes": DATA,
        "records": DATA,
    }[field.type]


def written(message: Any, version: int) -> bytes:
    return b"".join(messages.write_request(message, version))


def read(cls: Any, version: int, data: Buffer) -> Any:
    key = cls.definition.api_key
    if cls.__name__.endswith("Request"):
        return messages.read_request(key, version, data)
    return messages.read_response(key, version, data)
