"""Arrays that would take too much memory as lists.

An element of two bytes on the wire may be an object of a hundred in memory. So a
request is read with a `room`: the bytes of objects that its arrays may still make,
in proportion to its size. Each array is charged, element by element, what these
can take at most (`heaviest`). What no longer fits is read through once, so that
damage shows at the same time as ever, and becomes `Rows`: they look like a list,
and make an element anew whenever somebody comes by it.

    for topic in request.topics:     # a list or Rows: who reads it need not know
        ...

What elements take besides is the text of their strings: up to four times what
came, and six while it is decoded, since one wide letter widens all of them.
`room_for` leaves that much, so that all stays within eight times the request.

Nothing in Rows can be changed, and an element has no number: finding one means to
read all before it. They keep the whole request in memory, as records do. An array
inside one of their elements is Rows again, so that a byte is read once to check it
and then once for each array around it that is gone through: four deep at the most.
"""

from collections.abc import Callable, Iterator, Sequence
from sys import getsizeof
from typing import Any

from streamer.wire.codec import CODES, NO_UUID, NUMBERS, WIDTHS, Buffer
from streamer.wire.definition import Field

# Requests of fewer bytes may take 4 KiB in all, of which their text needs little.
SHORT = 530

# What CPython puts in front of an object that may refer to others, for its collector.
COLLECTED = 16
POINTER = 8
# A pointer in a list that grows by an eighth at a time.
LISTED = 9
# A list with what it keeps free while it is short, or Rows with their two numbers.
ARRAY = getsizeof([]) + 9 * POINTER

# CPython makes even a small number in the space of two digits.
NUMBER = getsizeof(1 << 30)

# The most that a value takes, without the text of a string and the bytes of bytes.
HEAVIEST = {
    "bool": 0,
    "uuid": getsizeof(NO_UUID) + getsizeof((1 << 128) - 1),
    "string": getsizeof("\U0001f980") - 4,
    "bytes": getsizeof(b""),
    "records": getsizeof(memoryview(b"")),
    **{name: max(NUMBER, getsizeof((1 << 8 * WIDTHS[name]) - 1)) for name in NUMBERS},
}

# Reads one element that starts here: the element, and where it ended.
ElementReader = Callable[[Buffer, int, int], tuple[Any, int]]


def room_for(size: int) -> int:
    """What the arrays of a request of `size` bytes may take as lists."""
    return 2 * size - 512 if size > SHORT else 3200 - 5 * size


class Rows:
    """An array in its request, decoded each time that it is iterated."""

    __slots__ = ("_buffer", "_count", "_read", "_start")

    def __init__(self, read: ElementReader, buffer: Buffer, start: int, count: int) -> None:
        self._read = read
        self._buffer = buffer
        self._start = start
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        read, buffer, at, end = self._read, self._buffer, self._start, len(self._buffer)
        for _ in range(self._count):
            element, at = read(buffer, at, end)
            yield element

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | Rows):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return f"<{self._count} rows>"


def passed(read: ElementReader, buffer: Buffer, at: int, end: int, count: int) -> int:
    """The position behind `count` elements; what is wrong with one is raised."""
    for _ in range(count):
        _, at = read(buffer, at, end)
    return at


def heaviest_element(field: Field, version: int) -> int:
    """The most that an element of this array takes, with its place in a list."""
    return LISTED + heaviest(field.element, version)


def heaviest(field: Field, version: int) -> int:
    """The most that a value takes; of an array inside it that is the empty array."""
    if field.array:
        return ARRAY
    if field.is_struct:
        return heaviest_struct(field.fields, version)
    return HEAVIEST[field.type]


def heaviest_struct(fields: Sequence[Field], version: int) -> int:
    """An object and what its fields hold."""
    # A field that the version lacks takes its place all the same, and a list its list.
    carried = (f for f in fields if version in f.versions or f.default == ())
    slots = COLLECTED + getsizeof(object()) + POINTER * len(fields)
    return slots + sum(heaviest(f, version) for f in carried)


def is_fixed(field: Field, version: int, *, flexible: bool) -> bool:
    """Whether each value takes the same bytes on the wire, and any bytes are one."""
    if field.array:
        return False
    if field.is_struct:
        carried = [f for f in field.fields if version in f.versions]
        return not flexible and all(is_fixed(f, version, flexible=False) for f in carried)
    return field.type in CODES
