"""The door to all messages: their classes, and bytes into messages and back.

    from streamer.wire.messages import MetadataRequest, read_request, write_response

    request = read_request(ApiKey.METADATA, 9, frame, header.body)
    chunks = write_response(MetadataResponse(brokers=[...]), 9)

A class exists once somebody asks for it, and a reader or writer is compiled when
a version is met for the first time: that takes a few tenths of a millisecond, and
a client uses a handful. The tables are in `schema/`; `definition.py` reads them,
`structs.py` makes the classes, `reader.py` and `writer.py` the functions.
"""

from struct import error as StructError  # noqa: N812
from typing import Any

from streamer.wire.api_keys import ApiKey
from streamer.wire.codec import (
    Buffer,
    Malformed as Malformed,
    UnsupportedVersion as UnsupportedVersion,
    Unwritable as Unwritable,
)
from streamer.wire.definition import load
from streamer.wire.reader import Reader, compile_reader
from streamer.wire.structs import message_class
from streamer.wire.writer import Chunks, Writer, compile_writer

KEYS = {key.title: key for key in ApiKey}
NUMBERS = frozenset(ApiKey)
NEVER = 1 << 15  # a version is an int16

# What a compiled reader runs into when bytes are missing or are no text.
BROKEN = (StructError, IndexError, UnicodeDecodeError)
# What a compiled writer runs into when a field holds what its type cannot.
UNFIT = (StructError, AttributeError, TypeError, UnicodeEncodeError)

CLASSES: dict[int, tuple[Any, Any] | None] = {}
REQUEST_READERS: dict[tuple[int, int], Reader] = {}
RESPONSE_READERS: dict[tuple[int, int], Reader] = {}
WRITERS: dict[tuple[type, int], Writer] = {}


def __getattr__(name: str) -> Any:
    for index, part in enumerate(("Request", "Response")):
        key = KEYS.get(name.removesuffix(part)) if name.endswith(part) else None
        found = None if key is None else classes(key)
        if found:
            return found[index]
    raise AttributeError(f"{name!r} is no message with a table in wire/schema")


def classes(api_key: int) -> tuple[Any, Any] | None:
    """The request's class and the response's; None if there is no table for the key."""
    # Any client may name any number: none but the protocol's may stay in memory.
    if api_key not in CLASSES and api_key in NUMBERS:
        found = load(ApiKey(api_key))
        made = found and (message_class(found[0]), message_class(found[1]))
        CLASSES.setdefault(api_key, made)  # whoever is first, all use the same
    return CLASSES.get(api_key)


def versions(api_key: int) -> range:
    """The versions we can read and write; none if we do not know the key."""
    found = classes(api_key)
    return found[0].definition.versions if found else range(0)


def flexible_from(api_key: int) -> int:
    """The first version with tagged fields, in the message as in its header.

    It holds for versions later than ours too: who asks for one of ApiVersions is
    answered. Of a key we do not know, we say that it has none.
    """
    found = classes(api_key)
    return found[0].definition.flexible.start if found else NEVER


def read_request(api_key: int, version: int, buffer: Buffer, position: int = 0) -> Any:
    """The request that begins at `position`.

    What may follow it is not looked at, as in Apache Kafka: librdkafka sends a few bytes
    too many when it asks for the metadata of all topics.
    """
    reader = REQUEST_READERS.get((api_key, version))
    if reader is None:
        reader = REQUEST_READERS[api_key, version] = new_reader(0, api_key, version)
    message, _ = read(reader, api_key, version, buffer, position)
    return message


def read_response(api_key: int, version: int, buffer: Buffer, position: int = 0) -> Any:
    """The response that fills `buffer` from `position` to its end."""
    reader = RESPONSE_READERS.get((api_key, version))
    if reader is None:
        reader = RESPONSE_READERS[api_key, version] = new_reader(1, api_key, version)
    message, end = read(reader, api_key, version, buffer, position)
    if end != len(buffer):
        raise malformed(api_key, version, f"{len(buffer) - end} bytes too many")
    return message


def read(
    reader: Reader, api_key: int, version: int, buffer: Buffer, position: int
) -> tuple[Any, int]:
    """The message, and where it ends."""
    try:
        return reader(buffer, position, len(buffer))
    except Malformed as error:
        problem = str(error)
    except BROKEN:
        problem = "it is cut off, or holds a string that is no text"
    # Not raised from the error above: that would keep alive all that had been read.
    raise malformed(api_key, version, problem)


def malformed(api_key: int, version: int, problem: str) -> Malformed:
    return Malformed(f"{ApiKey(api_key).title} version {version}: {problem}")


def write_request(message: Any, version: int) -> Chunks:
    """The chunks that make up the message, records uncopied among them."""
    writer = WRITERS.get((type(message), version))
    if writer is None:
        writer = WRITERS[type(message), version] = new_writer(type(message), version)
    try:
        return writer(message)
    except UNFIT as error:
        raise Unwritable(f"{type(message).__name__} version {version}: {error}") from error


write_response = write_request


def new_reader(direction: int, api_key: int, version: int) -> Reader:
    found = classes(api_key)
    if found is None or version not in versions(api_key):
        raise UnsupportedVersion(f"we know no version {version} of key {api_key}")
    return compile_reader(found[direction], version, bounded=direction == 0)


def new_writer(cls: Any, version: int) -> Writer:
    if version not in cls.definition.versions:
        raise UnsupportedVersion(f"{cls.__name__} has no version {version}")
    return compile_writer(cls, version)
