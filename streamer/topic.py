"""Topic: a name in the log, the types of its keys and values, and how it is to be made.

Within processing, what is sent joins the transaction of the record in hand, and is seen
when that is committed. Anywhere else it goes at once, and what is awaited is the moment
at which the broker has it for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from streamer.codecs import Codec, codec_for, or_none
from streamer.errors import StreamerError
from streamer.event import RecordMetadata
from streamer.processing import Send, current

T = TypeVar("T")

ANY_PARTITION = -1
STAGED = -1


class InvalidTopic(StreamerError):
    remedy = "app.topic('orders', value_type=Order) is what most topics need."


class Sender(Protocol):
    """Sends at once, for code that is not processing a record: the app."""

    async def send_now(self, send: Send) -> RecordMetadata: ...

    def send_soon(self, send: Send) -> None: ...


class Topic(Generic[T]):
    def __init__(
        self,
        sender: Sender,
        names: tuple[str, ...],
        *,
        key_type: Any = None,
        value_type: type[T] | Any = None,
        key_serializer: str | Codec | None = None,
        value_serializer: str | Codec | None = None,
        partitions: int | None = None,
        retention: float | timedelta | None = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        replicas: int | None = None,
        internal: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if not names or not all(names):
            raise InvalidTopic("A topic needs a name.")
        self._sender = sender
        self._staged: asyncio.Future[RecordMetadata] | None = None
        self.topics = names
        self.name = names[0]
        self._is_one = len(names) == 1
        self.key_type = key_type
        self.value_type = value_type
        self.key_serializer = key_serializer
        self.value_serializer = value_serializer
        self.partitions = partitions
        self.replicas = replicas
        self.internal = internal
        self.configs = _configs(retention, compacting, deleting, config)
        keys = codec_for(key_type, key_serializer, default="raw")
        values = codec_for(value_type, value_serializer, default="json")
        self.encode_key, self.decode_key = keys.encode, keys.decode
        self.encode_value, self.decode_value = values.encode, values.decode
        self.decode_if_any = or_none(values.decode)

    def __repr__(self) -> str:
        return f"<Topic {', '.join(self.topics)}>"

    def get_topic_name(self) -> str:
        """The one name; an error if it stands for several."""
        if len(self.topics) > 1:
            raise InvalidTopic(
                f"{self} stands for several topics, and can be read but not sent to.",
                remedy="Send to one that has a name of its own: app.topic('a').",
            )
        return self.name

    def derive(self, name: str, **changed: Any) -> Topic[T]:
        """A topic of the same types, by another name."""
        options: dict[str, Any] = {
            "key_type": self.key_type,
            "value_type": self.value_type,
            "key_serializer": self.key_serializer,
            "value_serializer": self.value_serializer,
            "partitions": self.partitions,
            "replicas": self.replicas,
        }
        return Topic(self._sender, (name,), **(options | changed))

    def send(
        self,
        *,
        key: Any = None,
        value: T | None = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Send a record; None as the value deletes the key of a compacted topic.

        Outside of processing, it is there for good when this returns. Within, it is part
        of the transaction: see `streamer/processing.py`.
        """
        hand = current()
        if hand is None:
            return self._sender.send_now(
                self.prepared(key, value, partition, timestamp, headers)
            )
        if partition is None and timestamp is None and headers is None and self._is_one:
            hand.sends.append(
                (
                    self.name,
                    None if value is None else self.encode_value(value),
                    None if key is None else self.encode_key(key),
                    ANY_PARTITION,
                )
            )
        else:
            hand.sends.append(self.prepared(key, value, partition, timestamp, headers))
        return self._staged or self._first_staged()

    def _first_staged(self) -> Awaitable[RecordMetadata]:
        """What all that is staged is answered with: it is there already, so that awaiting
        it costs next to nothing."""
        staged = asyncio.get_running_loop().create_future()
        staged.set_result(RecordMetadata(self.name, ANY_PARTITION, STAGED))
        self._staged = staged
        return staged

    def send_soon(
        self,
        *,
        key: Any = None,
        value: T | None = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Like `send`, for code that cannot await; nobody hears when it has arrived."""
        hand = current()
        if hand is None:
            send = self.prepared(key, value, partition, timestamp, headers)
            self._sender.send_soon(send)
        elif partition is None and timestamp is None and headers is None and self._is_one:
            hand.sends.append(
                (
                    self.name,
                    None if value is None else self.encode_value(value),
                    None if key is None else self.encode_key(key),
                    ANY_PARTITION,
                )
            )
        else:
            hand.sends.append(self.prepared(key, value, partition, timestamp, headers))

    async def send_raw(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None
    ) -> RecordMetadata:
        """Send bytes as they are."""
        send = _send(self.get_topic_name(), value, key, None, None, headers)
        hand = current()
        if hand is None:
            return await self._sender.send_now(send)
        hand.sends.append(send)
        return RecordMetadata(self.name, ANY_PARTITION, STAGED)

    def prepared(
        self,
        key: Any,
        value: Any,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> Send:
        return _send(
            self.get_topic_name(),
            None if value is None else self.encode_value(value),
            None if key is None else self.encode_key(key),
            partition,
            timestamp,
            headers,
        )


def _send(
    name: str,
    value: bytes | None,
    key: bytes | None,
    partition: int | None,
    timestamp: float | None,
    headers: Mapping[str, bytes] | None,
) -> Send:
    """What `Producer.produce` is called with. Each part more costs it time."""
    where = ANY_PARTITION if partition is None else partition
    if timestamp is None and not headers:
        return (name, value, key, where)
    moment = 0 if timestamp is None else int(timestamp * 1000)
    pairs = list(headers.items()) if headers else None
    if pairs is None:
        return (name, value, key, where, None, None, moment)
    return (name, value, key, where, None, None, moment, pairs)


def _configs(
    retention: float | timedelta | None,
    compacting: bool | None,
    deleting: bool | None,
    config: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Kafka's settings for the topic, from Faust's words for them."""
    configs: dict[str, str] = {}
    if retention is not None:
        seconds = (
            retention.total_seconds() if isinstance(retention, timedelta) else retention
        )
        configs["retention.ms"] = str(int(seconds * 1000))
    policies = [
        name for name, wanted in (("compact", compacting), ("delete", deleting)) if wanted
    ]
    if policies:
        configs["cleanup.policy"] = ",".join(policies)
    return configs | {name: str(value) for name, value in (config or {}).items()}
