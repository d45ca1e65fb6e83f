"""What the compiled readers and writers share: errors, numbers, lengths.

A message is read and written by a function made for that one version of it (see
`reader.py` and `writer.py`): straight-line Python without a branch that the
version already decides. Here is what these functions call when a value needs
more than a line.

    length    in flexible versions a varint of n + 1, otherwise int16 or int32 of n;
              null is 0 or -1
    varint    seven bits a byte, lowest first, the top bit says "more"

A reader believes no length. It compares it with what remains, counting for each
element of an array the fewest bytes it can take, before it does anything else.
"""

from collections.abc import Sequence
from struct import Struct as Layout
from uuid import UUID

from streamer.wire.definition import Field

Buffer = bytes | bytearray | memoryview

# A varint of a length that fits an int32.
VARINT_BYTES_MAX = 5

# `struct` codes of the types with a fixed width; all numbers are big-endian.
CODES = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
WIDTHS = {name: Layout(">" + code).size for name, code in CODES.items()}

# Numbers that travel as an array are read and written in one step.
NUMBERS = {name: code for name, code in CODES.items() if name not in ("bool", "uuid")}

NO_UUID = UUID(int=0)
NO_UUID_BYTES = bytes(16)

# Nearly every length is below 128 and so takes one byte.
VARINTS = tuple(bytes([n]) for n in range(128))


class Malformed(Exception):
    """Bytes that are not the message they should be; the connection has to close."""


class UnsupportedVersion(Exception):
    """We have no such message, or not in this version."""


class Unwritable(ValueError):
    """A message of ours which its version cannot express: a bug on our side."""


def read_varint(buffer: Buffer, at: int) -> tuple[int, int]:
    """The value and the position behind it."""
    value = 0
    for shift in range(0, 7 * VARINT_BYTES_MAX, 7):
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed(f"a varint of more than {VARINT_BYTES_MAX} bytes before byte {at}")


def skip_tags(buffer: Buffer, at: int, end: int) -> int:
    """The position behind a set of tagged fields of which we know none."""
    count, at = read_varint(buffer, at)
    for _ in range(count):
        tag, at = read_varint(buffer, at)
        size, at = read_varint(buffer, at)
        if size > end - at:
            raise wrong_tag(tag, end - at)
        at += size
    return at


def write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def uuid_of(data: bytes) -> UUID:
    return NO_UUID if data == NO_UUID_BYTES else UUID(bytes=data)


def long_text(buffer: Buffer, at: int, n: int) -> str:
    """A string read from where it is.

    Decoding may take six times its size already, and a copy would be a seventh: after
    an é and a 中, one 🦀 makes every letter four bytes wide, one copy at a time.
    """
    return str(memoryview(buffer)[at : at + n], "utf-8")


def wrong_length(field: str, length: int, remaining: int) -> Malformed:
    if length == -1:
        return Malformed(f"{field} is null and may not be")
    return Malformed(f"{field} claims {length} bytes or elements, {remaining} bytes remain")


def wrong_tag(tag: int, remaining: int) -> Malformed:
    return Malformed(
        f"the tagged field {tag} does not fit its size ({remaining} bytes remain)"
    )


def missing_in_version(message: str, version: int, field: str) -> Unwritable:
    return Unwritable(f"{message} version {version} has no field {field}, but it is set")


def fewest_bytes(fields: Sequence[Field], version: int, *, flexible: bool) -> int:
    """The least that a struct of these fields takes on the wire."""
    in_order = (f for f in fields if version in f.versions and f.tag is None)
    tags = 1 if flexible else 0
    return tags + sum(fewest_bytes_of(f, version, flexible=flexible) for f in in_order)


def fewest_bytes_of(field: Field, version: int, *, flexible: bool) -> int:
    """The least that one field takes; of an array that is its length alone."""
    if field.array:
        return length_width(field, flexible=flexible)
    if field.is_struct:
        return fewest_bytes(field.fields, version, flexible=flexible)
    return WIDTHS.get(field.type) or length_width(field, flexible=flexible)


def length_width(field: Field, *, flexible: bool) -> int:
    if flexible:
        return 1
    return 2 if field.type == "string" and not field.array else 4


def variable(struct: str) -> str:
    """What a struct is called in the code made for it: EpochEnd -> epoch_end."""
    return "".join("_" + c.lower() if c.isupper() else c for c in struct).lstrip("_")
