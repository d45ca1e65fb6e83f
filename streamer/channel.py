"""Channel: a queue in memory, where a topic would be too much.

    parsed = app.channel(value_type=Order)

    await parsed.send(value=order)      waits while `maxsize` records wait in it

    @app.agent(parsed)
    async def check(stream): ...        each agent over it gets every record

    event = await parsed.get()          or without an agent: one reader after another

It is no part of the log, and its records are in no transaction:

- a record that is sent is there at once, also when whoever has sent it fails afterwards,
  and once more when that is handled again;
- what an agent over a channel sends goes at once, and it can write to no table;
- what is in a channel when the worker ends is gone.

Where that will not do, take a topic.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from streamer.client.interface import Message
from streamer.errors import StreamerError
from streamer.event import Event, RecordMetadata
from streamer.processing import Hand, Run
from streamer.state.store import now_ms
from streamer.topic import Sender, Topic

T = TypeVar("T")

MAXSIZE = 4000

_numbers = itertools.count(1)


class ChannelError(StreamerError):
    remedy = "app.topic(...) is in the log, and has all that a channel has not."


class ChannelFull(ChannelError):
    remedy = "`await channel.send(...)` waits until there is room."


class Passed:
    """A record of a channel, in the form of one that was read, but as it was sent."""

    __slots__ = ("_channel", "_headers", "_key", "_number", "_timestamp_ms", "_value")

    def __init__(
        self,
        channel: Channel[Any],
        number: int,
        key: Any,
        value: Any,
        timestamp_ms: int,
        headers: Mapping[str, bytes] | None,
    ) -> None:
        self._channel = channel
        self._number = number
        self._key = key
        self._value = value
        self._timestamp_ms = timestamp_ms
        self._headers = headers

    def topic(self) -> str:
        return self._channel.name

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._number

    def key(self) -> Any:
        return self._key

    def value(self) -> Any:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self._headers.items()) if self._headers else None

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp_ms

    def in_bytes(self) -> Message:
        """As a topic would have it."""
        channel, key, value = self._channel, self._key, self._value
        return Passed(
            channel,
            self._number,
            None if key is None else channel.encode_key(key),
            None if value is None else channel.encode_value(value),
            self._timestamp_ms,
            self._headers,
        )


class Line:
    """What one agent has still to take from a channel; its actors take in turns."""

    def __init__(self, channel: Channel[Any]) -> None:
        self._channel = channel
        self._records: deque[Message] = deque()
        self._since = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Message) -> None:
        if not self._records:
            self._since = time.monotonic()
        self._records.append(record)
        _wake(self._waiters)

    async def next(self, limit: int) -> Run:
        """The next records, as soon as there are any."""
        await asyncio.sleep(0)  # a turn for the others
        while not self._records:
            await _wait(self._waiters)
        return self._taken(limit, whole=False)

    async def batch(self, size: int, within_s: float) -> Run:
        """So many; fewer when the first has waited so long."""
        await asyncio.sleep(0)
        while len(self._records) < size:
            left = self._since + within_s - time.monotonic() if self._records else None
            if left is not None and left <= 0:
                break
            await _wait(self._waiters, left)
        return self._taken(size, whole=True)

    def _taken(self, limit: int, *, whole: bool) -> Run:
        records = [self._records.popleft() for _ in range(min(limit, len(self._records)))]
        self._since = time.monotonic()
        self._channel.has_room()
        return Run(records, {}, self, whole=whole)

    def eased(self) -> None:
        """A record was done later than the next was taken: nobody waits for that here."""

    def put_back(self, run: Run) -> None:
        """Whoever took these has been stopped before they were done."""
        self._records.extendleft(reversed(run.messages[run.done :]))
        _wake(self._waiters)


class Channel(Topic[T]):
    """What takes a topic takes a channel; what needs its name in the log says so."""

    def __init__(
        self,
        sender: Sender,
        *,
        key_type: Any = None,
        value_type: type[T] | Any = None,
        maxsize: int | None = None,
    ) -> None:
        super().__init__(
            sender, (f"channel-{next(_numbers)}",), key_type=key_type, value_type=value_type
        )
        self.topics = ()
        self.maxsize = MAXSIZE if maxsize is None else maxsize
        # Records are passed as they are; the codecs are for what comes or leaves as bytes.
        self._read_key, self._read_value = self.decode_key, self.decode_value
        self.decode_key = self.decode_value = self.decode_if_any = _as_it_is
        self._numbers = itertools.count()
        # By agent. As long as there is none, records wait for `get`.
        self._lines: dict[str, Line] = {}
        self._own = Line(self)
        self._blocked: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Channel {self.name}>"

    def get_topic_name(self) -> str:
        raise ChannelError(f"{self} is in memory only, and has no name in the log.")

    # Sending.

    async def send(
        self,
        *,
        key: Any = None,
        value: T | None = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> RecordMetadata:
        """Put a record in it, at once; waits while it is full."""
        while self.full():
            await _wait(self._blocked)
        return self._add(key, value, timestamp, headers)

    async def put(self, value: T | Event[T]) -> None:
        """Put a value in it, or what an event brings."""
        if isinstance(value, Event):
            await self.send(
                key=value.key,
                value=value.value,
                timestamp=value.timestamp,
                headers=value.headers,
            )
        else:
            await self.send(value=value)

    def send_soon(
        self,
        *,
        key: Any = None,
        value: T | None = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Like `send`, for code that cannot await. Raises ChannelFull."""
        if self.full():
            raise ChannelFull(f"{self} is full: {self.maxsize} records wait in it.")
        self._add(key, value, timestamp, headers)

    async def send_raw(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None
    ) -> RecordMetadata:
        """Put in it what these bytes stand for."""
        return await self.send(
            key=None if key is None else self._read_key(key),
            value=None if value is None else self._read_value(value),
            headers=headers,
        )

    def _add(
        self,
        key: Any,
        value: Any,
        timestamp: float | None,
        headers: Mapping[str, bytes] | None,
    ) -> RecordMetadata:
        number = next(self._numbers)
        moment = now_ms() if timestamp is None else round(timestamp * 1000)
        record = Passed(self, number, key, value, moment, headers)
        for line in self._all_lines():
            line.add(record)
        return RecordMetadata(self.name, 0, number)

    def full(self) -> bool:
        return any(len(line) >= self.maxsize for line in self._all_lines())

    def empty(self) -> bool:
        return not any(self._all_lines())

    def has_room(self) -> None:
        """Something was taken."""
        _wake(self._blocked)

    def _all_lines(self) -> list[Line]:
        return list(self._lines.values()) or [self._own]

    # Taking.

    async def get(self, *, timeout: float | None = None) -> Event[T]:
        """The next record, as an event. Raises TimeoutError."""
        if self._lines:
            raise ChannelError(
                f"{self} is read by {', '.join(self._lines)}; `get` would get nothing.",
                remedy="Use a channel of its own for `get`.",
            )
        async with asyncio.timeout(timeout):
            run = await self._own.next(1)
        message = run.messages[0]
        value: Any = message.value()
        return Event(value, message, _as_it_is, Hand([]), run)

    async def __aiter__(self) -> AsyncIterator[Event[T]]:
        while True:
            yield await self.get()

    def line(self, agent: str) -> Line:
        """What this agent takes from; the same when its worker is started again."""
        if agent not in self._lines:
            # Who comes first gets what was sent before.
            self._lines[agent] = Line(self) if self._lines else self._own
        return self._lines[agent]


def _as_it_is(value: Any) -> Any:
    return value


async def _wait(
    waiters: deque[asyncio.Future[None]], within_s: float | None = None
) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    try:
        async with asyncio.timeout(within_s):
            await waiter
    except TimeoutError:
        pass
    finally:
        waiter.cancel()


def _wake(waiters: deque[asyncio.Future[None]]) -> None:
    """All of them look again."""
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
