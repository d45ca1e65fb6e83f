"""Agent: an async function over a stream, and the ways to send it something.

    @app.agent(orders)
    async def count(stream):
        async for order in stream:
            ...
            yield order.quantity         # the answer to `ask`, and what sinks get

The decorator only records; a worker runs it. Called, `count(stream)` runs the function
itself. An agent without a topic has one of its own, `APP-MODULE.FUNCTION`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from streamer.errors import StreamerError
from streamer.event import RecordMetadata
from streamer.policy import OnError, fail, policy
from streamer.stream import Stream
from streamer.topic import Topic

T = TypeVar("T")
Handler = Callable[[Stream[T]], Awaitable[Any] | AsyncIterator[Any]]

REPLY_TO = "Faust-Ag-ReplyTo"
CORRELATION = "Faust-Ag-CorrelationId"
REPLY_AT_ONCE = "Streamer-Ag-AtOnce"
"""Whoever asked is processing a record, and would wait for ever for a transaction that
comes after its own."""


class InvalidAgent(StreamerError):
    remedy = "@app.agent(topic) goes above `async def name(stream): async for ...`."


class NoReply(StreamerError):
    """Nobody has answered in time."""

    remedy = "See whether a worker runs that agent, and whether it yields an answer."


class Question(NamedTuple):
    """What an agent is asked, and how long to wait for its answer."""

    agent: Agent[Any]
    value: Any
    key: Any
    partition: int | None
    headers: Mapping[str, bytes] | None
    timeout_s: float


class Asker(Protocol):
    """Sends a request and waits for its answer: the app."""

    async def ask(self, question: Question) -> Any: ...


class Agent(Generic[T]):
    def __init__(
        self,
        asker: Asker,
        fun: Handler[T],
        name: str,
        topic: Topic[T],
        *,
        concurrency: int = 1,
        sink: Iterable[Any] = (),
        on_error: OnError = fail,
        isolated_partitions: bool = False,
        help: str = "",
    ) -> None:
        if concurrency < 1:
            raise InvalidAgent(f"Agent {name}: concurrency={concurrency} does nothing.")
        if isolated_partitions and concurrency > 1:
            raise InvalidAgent(
                f"Agent {name}: isolated_partitions is one actor for each partition,"
                f" concurrency={concurrency} several for all.",
                remedy="Leave one of them out.",
            )
        if not callable(on_error):
            policy(on_error)  # it is said here if there is none of that name
        self._asker = asker
        self.fun = fun
        self.name = name
        self.topic = topic
        self.concurrency = concurrency
        self.isolated_partitions = isolated_partitions
        self.sinks = list(sink)
        self.on_error = on_error
        self.help = help or (fun.__doc__ or "")
        self.__name__ = getattr(fun, "__name__", name)
        self.__doc__ = fun.__doc__

    def __repr__(self) -> str:
        return f"<Agent {self.name}>"

    def __call__(self, stream: Stream[T]) -> Awaitable[Any] | AsyncIterator[Any]:
        return self.fun(stream)

    @property
    def channel(self) -> Topic[T]:
        return self.topic

    def get_topic_names(self) -> tuple[str, ...]:
        return self.topic.topics

    def add_sink(self, sink: Any) -> None:
        """What it yields goes there too: a topic, an agent, a function."""
        self.sinks.append(sink)

    async def send(
        self,
        *,
        key: Any = None,
        value: T | None = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> RecordMetadata:
        """Send it a record."""
        return await self.topic.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers
        )

    async def send_raw(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None
    ) -> RecordMetadata:
        return await self.topic.send_raw(key, value, headers)

    async def cast(
        self,
        value: T | None = None,
        *,
        key: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> RecordMetadata:
        """Send it a value and await no answer."""
        return await self.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers
        )

    async def ask(
        self,
        value: T | None = None,
        *,
        key: Any = None,
        partition: int | None = None,
        headers: Mapping[str, bytes] | None = None,
        timeout: float = 60.0,
    ) -> Any:
        """Send it a value; what it yields for it comes back.

        Asked from outside, the answer is part of the transaction that it is given in: it
        comes when that is committed. Asked by an agent while it has a record in hand,
        question and answer go at once, and promise nothing about a commit.
        """
        question = Question(self, value, key, partition, headers, timeout)
        return await self._asker.ask(question)

    async def map(self, values: Iterable[T], key: Any = None) -> AsyncIterator[Any]:
        """Ask it for all of them at once; each answer as soon as it and those before it
        have come, in the order of the values."""
        asked = [asyncio.ensure_future(self.ask(value, key=key)) for value in values]
        try:
            for answer in asked:
                yield await answer
        finally:
            for answer in asked:
                answer.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def join(self, values: Iterable[T], key: Any = None) -> list[Any]:
        """Ask it for all of them at once; the answers in their order."""
        return list(await asyncio.gather(*(self.ask(value, key=key) for value in values)))
