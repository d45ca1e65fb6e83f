"""Stream: the records of a topic, one after another, for `async for`.

    @app.agent(orders)
    async def count(stream):
        async for order in stream.filter(is_paid).group_by(Order.item):
            ...

A record is done when the loop comes back for the next one; what was sent and written for
it is kept then. Operations apply in the order in which they are written. Each gives a new
stream; nothing is read before somebody iterates.

Speed: `async for` touches the event loop once for each run of records, not for each
record, so what is in the loops below is paid a million times a second. They resemble each
other for that reason, and are as short as can be.

Where records come from is behind `Origin`; `worker/actor.py` is one.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from operator import methodcaller
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    NamedTuple,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from streamer.client.interface import Message
from streamer.codecs import DECODE_ERRORS, decode_error
from streamer.event import Event, NotStreaming, Sendable
from streamer.processing import Hand, Later, Run, current

if TYPE_CHECKING:
    from streamer.topic import Topic

T = TypeVar("T")
U = TypeVar("U")

RUN_RECORDS_MAX = 1000

# A tombstone among values that are decoded in one go is a TypeError.
UNREADABLE: tuple[type[Exception], ...] = (TypeError, *DECODE_ERRORS)

SKIPPED: Final = object()
"""What a step gives for a record that goes no further."""


class Skip(Exception):
    """Raised in a processor: this record goes no further, and is done."""


class Cut(NamedTuple):
    """A place where records go through a topic before they come on."""

    name: str | None
    topic: Topic[Any] | str | None
    key: Callable[[Any], Any] | object | None
    """Computed from the value; None keeps the key that a record has."""
    partitions: int | None


class Origin(Protocol):
    """Who gives a stream its records, and deals with those that fail."""

    hand: Hand

    async def next(self, topic: Topic[Any], limit: int) -> Run:
        """The next records; those of the last run that are not done come first."""

    async def batch(self, topic: Topic[Any], size: int, within_s: float) -> Run:
        """So many records of one partition; fewer when the first has waited so long."""

    async def undecodable(self, error: Exception) -> None:
        """Deal with the record in hand, which cannot be read, as the agent's policy says;
        raises where the agent must not go on."""

    def cut(self, stream: Stream[Any], cut: Cut) -> Topic[Any]:
        """The topic that `stream` goes through; from now on its records do."""


class Stream(Generic[T]):
    def __init__(self, topic: Topic[Any], origin: Origin) -> None:
        self.topic = topic
        self._origin = origin
        self._steps: tuple[Callable[[Any], Any], ...] = ()
        self._acks = True

    def __repr__(self) -> str:
        return f"<Stream of {self.topic}>"

    @property
    def hand(self) -> Hand:
        return self._origin.hand

    @property
    def steps(self) -> tuple[Callable[[Any], Any], ...]:
        return self._steps

    # How it is put together.

    def filter(self, fun: Callable[[T], Any]) -> Stream[T]:
        """Only records for which `fun`, which may be async, says yes."""
        if inspect.iscoroutinefunction(fun):

            async def check_async(value: T) -> object:
                return value if await fun(value) else SKIPPED

            return self.stepping(check_async)

        def check(value: T) -> object:
            return value if fun(value) else SKIPPED

        return self.stepping(check)

    @overload
    def add_processor(self, processor: Callable[[T], Awaitable[U]]) -> Stream[U]: ...
    @overload
    def add_processor(self, processor: Callable[[T], U]) -> Stream[U]: ...
    def add_processor(self, processor: Callable[[T], Any]) -> Stream[Any]:
        """Each value goes through this, which may be async, and may raise `Skip`."""
        return self.stepping(processor)

    def echo(self, *channels: Sendable) -> Stream[T]:
        """Each value is sent to these channels as well."""

        async def send_on(value: T) -> T:
            for channel in channels:
                await channel.send(value=value)
            return value

        return self.stepping(send_on)

    def noack(self) -> Stream[T]:
        """A record is done when you say so: `event.ack()`, or `stream.ack(event)`."""
        stream = self.stepping()
        stream._acks = False
        return stream

    def group_by(
        self,
        key: Callable[[T], Any] | object,
        *,
        name: str | None = None,
        topic: Topic[T] | None = None,
        partitions: int | None = None,
    ) -> Stream[T]:
        """The same records by another key: equal keys come to the same partition.

        They go through a topic of their own, `APP-AGENT-NAME-repartition`, and join the
        transaction that they were read in. `key` is a field (`Order.item`) or a function;
        a function that has no name, such as a lambda, needs `name`.
        """
        return Stream(
            self._origin.cut(self, Cut(name, topic, key, partitions)), self._origin
        )

    def through(self, channel: Topic[T] | str) -> Stream[T]:
        """The same records, after they have gone through another topic."""
        return Stream(self._origin.cut(self, Cut(None, channel, None, None)), self._origin)

    def stepping(self, *steps: Callable[[Any], Any]) -> Stream[Any]:
        """The same stream, with further steps that each value goes through."""
        stream: Stream[Any] = Stream(self.topic, self._origin)
        stream._steps = self._steps + steps
        stream._acks = self._acks
        return stream

    # How it is read.

    def __aiter__(self) -> AsyncIterator[T]:
        if self._steps or not self._acks:
            return self._each(_value)
        return self._values()

    def events(self) -> AsyncIterator[Event[T]]:
        """Events in place of values: with key, headers, partition, offset."""
        return self._each(_itself)

    def items(self) -> AsyncIterator[tuple[Any, T]]:
        """Keys and values."""
        return self._each(_item)

    async def enumerate(self, start: int = 0) -> AsyncIterator[tuple[int, T]]:
        number = start
        async for value in self:
            yield number, value
            number += 1

    async def take(self, max_: int, within: float = 1.0) -> AsyncIterator[list[T]]:
        """Lists of up to `max_` values; fewer when the first has waited `within` seconds.

        A list is done as one, and is of one partition: tables may be written to.
        """
        origin, hand, decode = self._begin()
        while True:
            run = await origin.batch(self.topic, max_, within)
            messages = run.messages
            hand.message = messages[0]
            try:
                values = list(map(decode, map(_bytes_of, messages)))
            except UNREADABLE:
                values = await self._decoded_one_by_one(messages)
            if self._steps:
                values = [
                    value
                    for each in values
                    if (value := await self._stepped(each)) is not SKIPPED
                ]
            if values:
                yield values
            run.done = len(messages)
            hand.keep()

    async def take_events(
        self, max_: int, within: float = 1.0
    ) -> AsyncIterator[list[Event[T]]]:
        """Like `take`, with events in place of values: with key, partition, offset."""
        origin, hand, decode = self._begin()
        while True:
            run = await origin.batch(self.topic, max_, within)
            events: list[Event[T]] = []
            for message in run.messages:
                hand.message = message
                try:
                    value: Any = decode(message.value())
                except UNREADABLE as error:
                    value = None if await self._is_tombstone(message, error) else SKIPPED
                if self._steps and value is not SKIPPED:
                    value = await self._stepped(value)
                if value is not SKIPPED:
                    events.append(Event(value, message, self.topic.decode_key, hand, run))
            if events:
                yield events
            run.done = len(run.messages)
            hand.keep()

    async def _decoded_one_by_one(self, messages: Iterable[Message]) -> list[Any]:
        hand, values = self._origin.hand, []
        first = None
        for message in messages:
            try:
                value = self.topic.decode_if_any(message.value())
            except UNREADABLE as error:
                if not await self._is_tombstone(message, error):
                    continue
                value = None
            values.append(value)
            first = first or message
        hand.message = first or hand.message
        return values

    async def _values(self) -> AsyncIterator[T]:
        origin, hand, decode = self._begin()
        sends, outbox, undo, aside = hand.sends, hand.outbox, hand.undo, hand.aside
        while True:
            run = await origin.next(self.topic, RUN_RECORDS_MAX)
            while not run.is_done:
                try:
                    for hand.message, value in run.decoded(decode):
                        yield value
                        run.done += 1
                        # `hand.keep`, written out.
                        if sends:
                            outbox += sends
                            sends.clear()
                        if undo:
                            undo.clear()
                        if aside:
                            hand.keep_changes()
                    break
                except UNREADABLE as found:
                    error = found
                if await self._is_tombstone(run.messages[run.done], error):
                    yield cast(T, None)
                run.done += 1
                hand.keep()
                run.again()

    async def _each(self, form: Callable[[Event[Any]], Any]) -> AsyncIterator[Any]:
        """The general way: with steps, as events, acknowledged or not."""
        origin, hand, decode = self._begin()
        limit, decode_key = RUN_RECORDS_MAX if self._acks else 1, self.topic.decode_key
        while True:
            run = await origin.next(self.topic, limit)
            run.manual = not self._acks
            for message in run.rest:
                hand.message = message
                try:
                    value: Any = decode(message.value())
                except UNREADABLE as error:
                    value = None if await self._is_tombstone(message, error) else SKIPPED
                if self._steps and value is not SKIPPED:
                    value = await self._stepped(value)
                if value is not SKIPPED:
                    if not self._acks:
                        hand.later = Later()
                    yield form(Event(value, message, decode_key, hand, run))
                    if not self._acks:
                        # Its effects wait with the event for `ack`.
                        hand.part()
                        continue
                run.done += 1
                if hand.sends or hand.undo or hand.aside:
                    hand.keep()

    async def _is_tombstone(self, message: Message, error: Exception) -> bool:
        """Why this record could not be decoded; if it is a bad one, deal with that."""
        self._origin.hand.message, data = message, message.value()
        if data is None:
            return True
        if not isinstance(error, DECODE_ERRORS):
            raise error
        await self._origin.undecodable(decode_error(error, data, f"{self.topic}"))
        return False

    def _begin(self) -> tuple[Origin, Hand, Callable[[Any], Any]]:
        hand = self._origin.hand
        hand.stream = self
        return self._origin, hand, self.topic.decode_if_any

    async def _stepped(self, value: Any) -> Any:
        for step in self._steps:
            try:
                value = step(value)
                if inspect.isawaitable(value):
                    value = await value
            except Skip:
                return SKIPPED
            if value is SKIPPED:
                return SKIPPED
        return value

    # The record in hand.

    @property
    def current_event(self) -> Event[T]:
        """The record that is being handled."""
        hand = self._origin.hand
        if hand.message is None or hand.run is None:
            raise NotStreaming("No record is being handled.")
        data = hand.message.value()
        value: Any = None if data is None else self.topic.decode_value(data)
        return Event(value, hand.message, self.topic.decode_key, hand, hand.run)

    def ack(self, event: Event[T]) -> bool:
        """The record of this event is done; see `noack`."""
        return event.ack()


def current_event() -> Event[Any]:
    """The record that is being handled, wherever in the code this is called."""
    hand = current()
    if hand is None or hand.stream is None:
        raise NotStreaming("No record is being handled here.")
    event: Event[Any] = hand.stream.current_event
    return event


def _value(event: Event[Any]) -> Any:
    return event.value


def _item(event: Event[Any]) -> tuple[Any, Any]:
    return event.key, event.value


def _itself(event: Event[Any]) -> Event[Any]:
    return event


_bytes_of = methodcaller("value")
