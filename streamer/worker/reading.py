"""A topic read from its beginning to its end, by somebody who processes nothing.

For commands of an app: an event log replayed, a read side built anew. What is committed
counts, up to where that ended when the reading began; it joins no group. It blocks; within
a running loop: `await asyncio.to_thread(...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from streamer.client.interface import Admin, Consumer, Message, TopicPartition
from streamer.codecs import DECODE_ERRORS, decode_error
from streamer.event import Event
from streamer.processing import Hand, Run
from streamer.worker.clients import Clients
from streamer.worker.worker import join_own_broker

if TYPE_CHECKING:
    from streamer.app import App
    from streamer.topic import Topic

T = TypeVar("T")

CHUNK = 1000
WAIT_S = 0.2


def read(
    app: App, topic: Topic[T], begin: Mapping[TopicPartition, int]
) -> Iterator[Event[T]]:
    """Partition by partition in order; from `begin`, or where a partition begins."""
    own = join_own_broker(app)
    try:
        clients = Clients(app.conf.brokers if own is None else own.address, app.conf)
        consumer = clients.consumer()
        try:
            for message in _messages(consumer, clients.admin, topic, begin):
                yield _event(topic, message)
        finally:
            consumer.close()
    finally:
        if own is not None:
            own.leave()


def _messages(
    consumer: Consumer, admin: Admin, topic: Topic[Any], begin: Mapping[TopicPartition, int]
) -> Iterator[Message]:
    places = [at for name in topic.topics for at in admin.topic(name).topic_partitions]
    ends = admin.end_offsets(places, committed=True)
    first = admin.first_offsets(places)
    starts = {at: max(first[at], begin.get(at, 0)) for at in places}
    unread = {at: offset for at, offset in starts.items() if offset < ends[at]}
    consumer.assign(unread)
    while unread:
        for message in consumer.consume(CHUNK, WAIT_S):
            at = TopicPartition(message.topic(), message.partition())
            offset = message.offset()
            if offset < ends[at]:
                yield message
            if offset + 1 >= ends[at]:
                unread.pop(at, None)
        # What lies before an end may be no record: a marker of a transaction, say.
        for at, offset in consumer.ended().items():
            if offset >= ends[at]:
                unread.pop(at, None)


def _event(topic: Topic[T], message: Message) -> Event[T]:
    data = message.value()
    try:
        value: Any = None if data is None else topic.decode_value(data)
    except DECODE_ERRORS as error:
        place = f"{message.topic()}:{message.partition()}@{message.offset()}"
        raise decode_error(error, data or b"", place) from error
    return Event(value, message, topic.decode_key, Hand([]), Run([message], {}))
