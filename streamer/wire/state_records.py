"""What the coordinators write down: keys and values in the broker's own topics.

    __consumer_offsets    OffsetCommitKey → OffsetCommitValue
                          GroupMetadataKey → GroupMetadataValue
    __transaction_state   TransactionLogKey → TransactionLogValue

    from streamer.wire.state_records import OffsetCommitValue, read_state, write_state

    data = write_state(OffsetCommitValue(offset=7), 3)
    value = read_state(OffsetCommitValue, data)

The formats are Apache Kafka's, so that its tools read our logs and we read its. An int16
comes first: the version of the value, and for a key the kind of record as well, which is
how the two kinds in `__consumer_offsets` are told apart. Whoever writes chooses the
version; all are read. Their tables are in `schema/state/`; a value of None, a tombstone,
is no business of this module.
"""

from functools import cache
from struct import Struct, error as StructError  # noqa: N812
from typing import Any

from streamer.wire.codec import (
    Buffer,
    Malformed as Malformed,
    UnsupportedVersion as UnsupportedVersion,
    Unwritable as Unwritable,
)
from streamer.wire.definition import load_record
from streamer.wire.messages import BROKEN, UNFIT
from streamer.wire.reader import Reader, compile_reader
from streamer.wire.structs import message_class
from streamer.wire.writer import Writer, compile_writer

NAMES = frozenset(
    {
        "OffsetCommitKey",
        "OffsetCommitValue",
        "GroupMetadataKey",
        "GroupMetadataValue",
        "TransactionLogKey",
        "TransactionLogValue",
    }
)
GROUP_KEYS = ("OffsetCommitKey", "GroupMetadataKey")
VERSION = Struct(">h")


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"{name!r} is no record with a table in wire/schema/state")
    return record_class(name)


@cache
def record_class(name: str) -> Any:
    return message_class(load_record(name))


def write_state(record: Any, version: int) -> bytes:
    cls: Any = type(record)
    try:
        return VERSION.pack(version) + b"".join(writer(cls, version)(record))
    except UNFIT as error:
        raise Unwritable(f"{cls.__name__} version {version}: {error}") from error


def read_state(cls: Any, data: Buffer) -> Any:
    """The record of this class that fills `data`."""
    version = version_of(data)
    try:
        record, end = reader(cls, version)(data, VERSION.size, len(data))
    except Malformed as error:
        problem = str(error)
    except BROKEN:
        problem = "it is cut off, or holds a string that is no text"
    else:
        if end == len(data):
            return record
        problem = f"{len(data) - end} bytes too many"
    raise Malformed(f"{cls.__name__} version {version}: {problem}")


def read_group_key(data: Buffer) -> Any:
    """The key of a record in `__consumer_offsets`: of a commit, or of a group.

    Raises UnsupportedVersion for the kinds that only newer brokers write.
    """
    version = version_of(data)
    for cls in map(record_class, GROUP_KEYS):
        if version in cls.definition.versions:
            return read_state(cls, data)
    raise UnsupportedVersion(f"we know no key of version {version} in __consumer_offsets")


def version_of(data: Buffer) -> int:
    try:
        version: int = VERSION.unpack_from(data)[0]
    except StructError:
        raise Malformed(f"{len(data)} bytes hold no version") from None
    return version


@cache
def reader(cls: Any, version: int) -> Reader:
    known(cls, version)
    # Our own log: nobody sends it to us to fill our memory.
    return compile_reader(cls, version, bounded=False)


@cache
def writer(cls: Any, version: int) -> Writer:
    known(cls, version)
    return compile_writer(cls, version)


def known(cls: Any, version: int) -> None:
    if version not in cls.definition.versions:
        raise UnsupportedVersion(f"{cls.__name__} has no version {version}")
