"""Crew: the actors of one agent, the feeds they take from, and what they yield.

An agent whose stream goes through a topic (`group_by`, `through`) has two crews and more:
each cut makes one that forwards records to the topic, as an agent of its own with one
actor, while the agent itself reads the topic.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from streamer.agent import CORRELATION, REPLY_AT_ONCE, REPLY_TO, Agent, InvalidAgent
from streamer.channel import Channel, Line
from streamer.client.interface import TopicPartition
from streamer.codecs import codec_for
from streamer.processing import Hand, Send
from streamer.record import field_name, key_getter
from streamer.stream import Cut, Stream
from streamer.topic import Topic
from streamer.worker.actor import Actor
from streamer.worker.feed import Feed

if TYPE_CHECKING:
    from streamer.worker.worker import Worker


PLAIN_JSON = codec_for(None, None, default="json")


class Crew:
    def __init__(self, worker: Worker, agent: Agent[Any], feed_name: str) -> None:
        self.worker = worker
        self.agent = agent
        # What its positions are noted under.
        self.feed_name = feed_name
        self.actors: list[Actor] = []
        # By partition: the record that failed last, and how often.
        self.attempts: dict[TopicPartition, tuple[int, int]] = {}
        # The record that the last dead letter was made of.
        self.dead_letter: tuple[TopicPartition, int] | None = None
        self._feeds: dict[Topic[Any], Feed | Line] = {}
        self._cuts: dict[str, Topic[Any]] = {}

    def start(self) -> None:
        """Start the actors; those that run go on."""
        if not self.actors:
            # Where partitions are isolated, the first opens the stream: what is read, and
            # so which partitions there are, is known only then.
            number = 1 if self.agent.isolated_partitions else self.agent.concurrency
            only = 0 if self.agent.isolated_partitions else None
            self.actors = [Actor(self, one, only) for one in range(number)]
        for actor in self.actors:
            if not actor.is_running:
                actor.start()

    async def stop(self) -> None:
        for actor in self.actors:
            await actor.stop()

    def partitions_changed(self, partitions: frozenset[TopicPartition]) -> None:
        """Where partitions are isolated, each has an actor of its own. That of a partition
        that has gone waits, and costs nothing."""
        if not self.agent.isolated_partitions:
            return
        topics = {name for topic in self._feeds for name in topic.topics}
        ours = {number for topic, number in partitions if topic in topics}
        new = ours - {actor.only for actor in self.actors}
        self.actors += [Actor(self, number, only=number) for number in sorted(new)]
        self.start()

    def feed(self, topic: Topic[Any]) -> Feed | Line:
        """What a stream of this topic takes from; made when it is first asked for."""
        if isinstance(topic, Channel):
            return self._feeds.setdefault(topic, topic.line(self.feed_name))
        if topic not in self._feeds:
            name = self.feed_name
            if topic is not self.agent.topic:
                name = f"{name}/{topic.name}"
            self._feeds[topic] = self.worker.open_feed(topic, name)
        return self._feeds[topic]

    # Streams that go through a topic.

    def cut(self, stream: Stream[Any], cut: Cut) -> Topic[Any]:
        key = None if cut.key is None else key_getter(cut.key)
        if isinstance(cut.topic, Channel):
            name = cut.topic.name
        elif isinstance(cut.topic, Topic):
            name = cut.topic.get_topic_name()
        elif isinstance(cut.topic, str):
            name = cut.topic
        else:
            name = self._repartition_name(cut)
        if name not in self._cuts:
            topic = cut.topic
            if not isinstance(topic, Topic):
                topic = stream.topic.derive(
                    name,
                    key_serializer="raw"
                    if key is not None
                    else stream.topic.key_serializer,
                    key_type=None if key is not None else stream.topic.key_type,
                    partitions=cut.partitions,
                    internal=key is not None,
                )
            self._cuts[name] = topic
            self.worker.forward(self, stream, topic, key)
        return self._cuts[name]

    def _repartition_name(self, cut: Cut) -> str:
        called = cut.name or field_name(cut.key) or getattr(cut.key, "__name__", "<lambda>")
        if called == "<lambda>":
            raise InvalidAgent(
                f"Agent {self.agent.name}: group_by with a lambda needs a name, since its"
                " topic is found by it after a restart.",
                remedy="stream.group_by(lambda order: order.item, name='item')",
            )
        return f"{self.worker.conf.id}-{self.agent.name}-{called}-repartition"

    # What an agent yields.

    async def yielded(self, result: Any, hand: Hand) -> None:
        await self._reply(result, hand)
        for sink in self.agent.sinks:
            if hasattr(sink, "send"):
                await sink.send(value=result)
            else:
                outcome = sink(result)
                if inspect.isawaitable(outcome):
                    await outcome

    async def _reply(self, result: Any, hand: Hand) -> None:
        assert hand.message is not None
        headers = dict(hand.message.headers() or ())
        reply_to = headers.get(REPLY_TO)
        correlation = headers.get(CORRELATION)
        if not reply_to or not correlation:
            return
        send = reply(reply_to.decode(), correlation, result)
        if REPLY_AT_ONCE in headers:
            await self.worker.outside.send_now(send)
        else:
            hand.sends.append(send)


def reply(topic: str, correlation: bytes, value: Any) -> Send:
    headers = [(CORRELATION, correlation)]
    data = None if value is None else PLAIN_JSON.encode(value)
    return (topic, data, correlation, -1, None, None, 0, headers)


def forwarder(
    original: Stream[Any], topic: Topic[Any], key: Callable[[Any], Any] | None
) -> Callable[[Stream[Any]], Awaitable[None]]:
    """The function of an agent that sends what `original` would give on to a topic."""
    if isinstance(topic, Channel):
        return passer(original, topic, key)
    name, encode, steps = topic.get_topic_name(), topic.encode_value, original.steps
    # What is as it came stays in bytes, if it came so.
    anew = bool(steps) or isinstance(original.topic, Channel)

    async def forward(stream: Stream[Any]) -> None:
        hand = stream.hand
        async for event in stream.stepping(*steps).events():
            message, value = event.message, event.value
            data, new_key = message.value(), message.key()
            if anew and value is not None:
                data = encode(value)
            if key is not None and value is not None:
                new_key = key_bytes(key(value))
            # With its own time and headers, as if it had not been sent again.
            moment, headers = message.timestamp()[1], message.headers()
            if headers:
                send: Send = (name, data, new_key, -1, None, None, moment, headers)
            else:
                send = (name, data, new_key, -1, None, None, moment)
            hand.sends.append(send)

    return forward


def passer(
    original: Stream[Any], channel: Channel[Any], key: Callable[[Any], Any] | None
) -> Callable[[Stream[Any]], Awaitable[None]]:
    """The same for a channel; a record is done as soon as it is in there."""
    steps = original.steps

    async def forward(stream: Stream[Any]) -> None:
        async for event in stream.stepping(*steps).events():
            await channel.send(
                key=event.key if key is None else key(event.value),
                value=event.value,
                timestamp=event.timestamp,
                headers=event.headers,
            )

    return forward


def key_bytes(key: Any) -> bytes:
    """A key as bytes: text as it is, so that other clients choose the same partition."""
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    return json.dumps(key, separators=(",", ":"), sort_keys=True).encode()
