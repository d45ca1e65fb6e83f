"""kio, a codec made from Apache Kafka's own definitions, as a second opinion.

For every message and version: our bytes mean the same to kio, field by field,
and kio writes the same bytes for them.
"""

from dataclasses import fields
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode as KioErrorCode
from kio.schema.index import api_key_map
from kio.serial import entity_reader, entity_writer
from wire.strategies import EVERY_MESSAGE, NAMES, read, values, written

from streamer.wire.api_keys import ApiKey
from streamer.wire.codec import NO_UUID
from streamer.wire.definition import Field
from streamer.wire.error_codes import ErrorCode

EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize(("cls", "version"), EVERY_MESSAGE, ids=NAMES)
def test_kio_reads_and_writes_the_same(cls: Any, version: int) -> None:
    load = load_request_schema if cls.__name__.endswith("Request") else load_response_schema
    theirs = load(cls.definition.api_key, version)
    read_theirs, write_theirs = entity_reader(theirs), entity_writer(theirs)

    @EXAMPLES
    @given(values(cls, version))
    def check(message: Any) -> None:
        data = written(message, version)
        value, size = read_theirs(data, 0)
        assert size == len(data)
        assert same(message, value, version)

        buffer = BytesIO()
        write_theirs(buffer, value)
        assert buffer.getvalue() == data
        assert read(cls, version, buffer.getvalue()) == message

    check()


def same(ours: Any, theirs: Any, version: int) -> bool:
    """Whether two structs hold the same in each field, which stand in the same order."""
    carried = [field for field in ours.fields if version in field.versions]
    pairs = list(zip(carried, fields(theirs), strict=True))
    return all(
        same_value(field, getattr(ours, field.name), getattr(theirs, other.name), version)
        for field, other in pairs
    )


def same_value(field: Field, ours: Any, theirs: Any, version: int) -> bool:
    if field.array and ours is not None:
        return len(ours) == len(theirs) and all(
            same_value(field.element, a, b, version)
            for a, b in zip(ours, theirs, strict=True)
        )
    if field.is_struct and ours is None:
        return bool(theirs == type(theirs)())  # to kio, what is absent is a default
    if field.is_struct:
        return same(ours, theirs, version)
    return bool(ours == plain(field, theirs))


def plain(field: Field, value: Any) -> Any:
    """What kio says with richer types, as the protocol has it."""
    if value is None and field.type in ("uuid", "int64"):
        return NO_UUID if field.type == "uuid" else -1
    if isinstance(value, timedelta):
        return round(value / timedelta(milliseconds=1))
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return value


def test_our_error_codes_are_all_there_are() -> None:
    ours = {(code.name.lower(), code.value, code.retriable) for code in ErrorCode}
    theirs = {(code.name, code.value, code.retriable) for code in KioErrorCode}

    assert ours == theirs


def test_our_names_of_keys_are_those_of_the_protocol() -> None:
    ours = {int(key): key.name.lower() for key in ApiKey}

    assert api_key_map.items() <= ours.items()
    assert ApiKey.OFFSET_FOR_LEADER_EPOCH.title == "OffsetForLeaderEpoch"
