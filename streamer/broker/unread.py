"""Answers that clients have not read yet: how much memory they may take, all together.

Nothing more is begun for a client that does not read (`connection.py`), so each leaves one
answer unread at the most. But a Fetch may bring 55 MB, and clients are many. So it gets

    what is left of `UNREAD_MAX`     as long as that is more than
    `SMALL` bytes, or one batch      enough to go on with, whatever the others leave unread

and nobody waits for those who do not read. What a Fetch reads from the disk is counted
from the start, since many may be under way at once. Counted is what the system's buffers
did not take, which for clients that read is next to nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

UNREAD_MAX = 256 << 20
SMALL = 64 << 10


class Unread:
    def __init__(self) -> None:
        self._bytes = 0

    @property
    def room(self) -> int:
        """How much one more Fetch may bring."""
        return max(SMALL, UNREAD_MAX - self._bytes)

    def changed(self, by: int) -> None:
        """A client has left so much more unread; less, if negative."""
        self._bytes += by

    @contextmanager
    def kept_free(self, size: int) -> Iterator[None]:
        """Room for an answer that is still being read from the disk."""
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
