"""What the members of a consumer group tell each other, as far as a broker cares to know.

A member's subscription and its assignment are bytes that the broker passes on unread. But
to say which topics a group reads, so that their offsets are kept, and to show who reads
which partition, it looks inside:

    subscription   version, topics, user data, then what later versions have added
    assignment     version, topics with their partitions, user data

Only what all versions begin with is read. Bytes that are something else, since any client
may send what it likes, are None, and no error.
"""

from struct import Struct, error as StructError  # noqa: N812
from typing import NamedTuple

from streamer.wire.codec import Buffer

INT16, INT32 = Struct(">h"), Struct(">i")
# What a topic takes at least: the length of its name, and in an assignment a count.
SUBSCRIBED_WIDTH, ASSIGNED_WIDTH = 2, 6


class Unreadable(Exception):
    """These bytes are something else."""


class Assigned(NamedTuple):
    """The partitions of one topic that a member reads."""

    topic: str
    partitions: tuple[int, ...]


def subscribed_topics(data: Buffer) -> tuple[str, ...] | None:
    """The topics that a member wants to read."""
    cursor = Cursor(data)
    try:
        cursor.version()
        return tuple(cursor.string() for _ in range(cursor.count(SUBSCRIBED_WIDTH)))
    except (Unreadable, StructError, UnicodeDecodeError):
        return None


def assigned_partitions(data: Buffer) -> tuple[Assigned, ...] | None:
    """The partitions that a member was given. No bytes at all are none."""
    if not data:
        return ()
    cursor = Cursor(data)
    try:
        cursor.version()
        return tuple(
            Assigned(
                cursor.string(),
                tuple(cursor.int32() for _ in range(cursor.count(INT32.size))),
            )
            for _ in range(cursor.count(ASSIGNED_WIDTH))
        )
    except (Unreadable, StructError, UnicodeDecodeError):
        return None


class Cursor:
    """Reads on from where it is."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._at = 0

    def int16(self) -> int:
        (value,) = INT16.unpack_from(self._data, self._at)
        self._at += INT16.size
        return int(value)

    def int32(self) -> int:
        (value,) = INT32.unpack_from(self._data, self._at)
        self._at += INT32.size
        return int(value)

    def version(self) -> None:
        if self.int16() < 0:
            raise Unreadable

    def count(self, width: int) -> int:
        """How many elements follow, each of at least `width` bytes."""
        count = self.int32()
        if not 0 <= count * width <= len(self._data) - self._at:
            raise Unreadable
        return count

    def string(self) -> str:
        size = self.int16()
        if not 0 <= size <= len(self._data) - self._at:
            raise Unreadable
        self._at += size
        return str(self._data[self._at - size : self._at], "utf-8")
