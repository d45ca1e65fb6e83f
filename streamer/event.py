"""Event: a record as its handler may want to see it, with key, headers and place.

Most handlers want the value only, and none of this is made for them. What costs time to
read (timestamp, headers) is read when it is asked for.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from streamer.client.interface import Message, TopicPartition
from streamer.errors import StreamerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from streamer.processing import Hand, Run

T = TypeVar("T")


class NotStreaming(StreamerError):
    """Something was asked for that exists only while a record is handled."""

    remedy = "Do it within `async for ... in stream:` of an agent."


class RecordMetadata(NamedTuple):
    """Where a record that was sent has come to lie."""

    topic: str
    partition: int
    offset: int
    """-1 for a record that is part of a transaction: it is not decided yet."""

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Sendable(Protocol):
    """A topic, a channel or an agent: whatever a record can be sent to."""

    def send(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> Awaitable[RecordMetadata]: ...

    async def send_raw(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None
    ) -> RecordMetadata: ...


class Event(Generic[T]):
    """A record, decoded. `async with event:` acknowledges it at the end."""

    __slots__ = ("_decode_key", "_hand", "_later", "_run", "message", "value")

    def __init__(
        self,
        value: T,
        message: Message,
        decode_key: Callable[[bytes], Any],
        hand: Hand,
        run: Run,
    ) -> None:
        self.value = value
        self.message = message
        self._decode_key = decode_key
        self._hand = hand
        self._run = run
        # Where a record is done later than the next one is begun.
        self._later = hand.later

    def __repr__(self) -> str:
        return f"<Event {self.tp}@{self.offset}: {self.value!r}>"

    @property
    def key(self) -> Any:
        key = self.message.key()
        return None if key is None else self._decode_key(key)

    @property
    def headers(self) -> dict[str, bytes]:
        return {name: value or b"" for name, value in self.message.headers() or ()}

    @property
    def topic(self) -> str:
        return self.message.topic()

    @property
    def partition(self) -> int:
        return self.message.partition()

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    @property
    def offset(self) -> int:
        return self.message.offset()

    @property
    def timestamp(self) -> float:
        """Seconds since 1970, as its producer or the broker has set it."""
        return self.message.timestamp()[1] / 1000

    @property
    def acked(self) -> bool:
        run = self._run
        return run.done > 0 and run.messages[run.done - 1].offset() >= self.offset

    def ack(self) -> bool:
        """It is done: what was sent and written for it joins the transaction.

        Only where a stream leaves that to you, by `noack()`; elsewhere it changes nothing.
        False if it was done before, or is handled again anyway.
        """
        if self.acked or self._run.void:
            return False
        if not self._run.manual:
            # It is done when the loop comes back, whatever may still go wrong till then.
            return True
        self._run.done = 1
        if self._later is self._hand.later:
            # What is sent and written from now on is kept when the loop comes back.
            self._hand.keep()
            self._hand.acked = True
        elif self._later is not None:
            self._hand.keep_later(self._later)
        self._run.lane.eased()
        return True

    async def send(self, channel: Sendable, **options: Any) -> RecordMetadata:
        """Send its key and value on, encoded as the channel likes it."""
        return await channel.send(**{"key": self.key, "value": self.value, **options})

    async def forward(
        self, channel: Sendable, *, headers: Mapping[str, bytes] | None = None
    ) -> RecordMetadata:
        """Send its bytes on as they came, headers included."""
        message = self.message
        own = self.headers if headers is None else headers
        return await channel.send_raw(message.key(), message.value(), own)

    async def __aenter__(self) -> Event[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.ack()
