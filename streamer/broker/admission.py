"""How much of the machine clients may take: connections, memory for what they send, time.

    enter / leave        a connection comes or goes; beyond `max.connections` it is refused
    take / give_back     room to receive a large request; beyond `queued.max.request.bytes`
                         a connection is not read from until others have been handled
    sweep                closes who has been silent for `connections.max.idle.ms`, and who
                         stopped in the middle of a request

Requests up to 64 KiB ask for no room: a thousand idle connections cost their sockets only,
since all connections receive into one buffer (`wire/frames.py`).
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.broker.connection import Connection

# A client that began a request has this long to send a little more of it.
STALLED_AFTER = 30.0
# Nobody waits longer for an answer: what takes this long to send, a byte now and then, is
# only meant to hold the room that a large request was given.
SLOW_AFTER = 120.0


class Admission:
    def __init__(
        self, *, connections_max: int, bytes_max: int, idle_seconds: float
    ) -> None:
        self.connections_max = connections_max
        self._bytes_max = bytes_max
        self._idle_seconds = idle_seconds
        self._bytes = 0
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._queue: deque[tuple[Connection, int]] = deque()
        self.connections: set[Connection] = set()
        # In the middle of which request a connection was first seen, and when.
        self._begun: dict[Connection, tuple[int, float]] = {}

    def enter(self, connection: "Connection") -> bool:
        if len(self.connections) >= self.connections_max:
            return False
        self.connections.add(connection)
        self._none_left.clear()
        return True

    def leave(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        self._begun.pop(connection, None)
        if not self.connections:
            self._none_left.set()
        self._queue = deque(entry for entry in self._queue if entry[0] is not connection)

    async def all_gone(self, seconds: float) -> None:
        """Wait until no connection is left, for so many seconds at the most."""
        try:
            async with asyncio.timeout(seconds):
                await self._none_left.wait()
        except TimeoutError:
            pass

    def take(self, connection: "Connection", size: int) -> bool:
        """Room to receive `size` bytes now; if not, `connection.admitted` follows later."""
        if self._fits(size):
            self._bytes += size
            return True
        self._queue.append((connection, size))
        return False

    def give_back(self, size: int) -> None:
        self._bytes -= size
        while self._queue and self._fits(self._queue[0][1]):
            connection, size = self._queue.popleft()
            self._bytes += size
            connection.admitted(size)

    def _fits(self, size: int) -> bool:
        # One request always fits, however large: else it could never be received.
        return self._bytes == 0 or self._bytes + size <= self._bytes_max

    def _same_request(self, connection: "Connection", now: float) -> float:
        """How long it has been sending the request that it is sending."""
        number, since = self._begun.get(connection, (-1, now))
        if number == connection.completed:
            return now - since
        self._begun[connection] = connection.completed, now
        return 0.0

    def sweep(self, now: float) -> None:
        """Close the silent and the stalled."""
        for connection in list(self.connections):
            silent = now - connection.last_heard
            if connection.is_mid_frame:
                if silent > STALLED_AFTER:
                    connection.close(
                        f"stopped in the middle of a request, {silent:.0f} s ago"
                    )
                elif self._same_request(connection, now) > SLOW_AFTER:
                    connection.close(f"took over {SLOW_AFTER:.0f} s to send one request")
                continue
            self._begun.pop(connection, None)
            if silent > self._idle_seconds and connection.is_idle:
                connection.close(f"said nothing for {silent:.0f} s")
