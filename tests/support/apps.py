"""Apps that run in the test's own loop, on a broker that is a process of its own.

A test declares an app, sends it records, and reads what it has committed. Whatever blocks
is in a thread, since the app needs the loop; every wait ends by what is waited for, or
fails after a while.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message
from confluent_kafka.admin import AdminClient
from support.clients import (
    DEADLINE_SECONDS,
    Sent,
    assigned,
    create_topic,
    new_name,
    produce,
    read,
    read_to_the_end,
)

import streamer
from streamer.client.interface import MustAbort
from streamer.worker.worker import Worker


async def until(condition: Callable[[], Any], problem: str = "it never came to be") -> None:
    """Let the loop run until this holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        await asyncio.sleep(0.005)


def running(app: streamer.App) -> Worker:
    """The worker that runs the app."""
    worker = app._runtime
    assert isinstance(worker, Worker)
    return worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A record as whoever reads committed records gets it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    data: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int

    @property
    def value(self) -> Any:
        return None if self.data is None else json.loads(self.data)


def seen(message: Message) -> Seen:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Seen(
        topic=topic,
        partition=partition,
        offset=offset,
        key=_bytes(message.key()),
        data=_bytes(message.value()),
        headers=_headers(message),
        timestamp_ms=message.timestamp()[1],
    )


def _headers(message: Message) -> dict[str, bytes]:
    pairs: Any = message.headers() or []
    return {name: data or b"" for name, data in pairs}


def _bytes(data: Any) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def values(records: Iterable[Seen]) -> list[Any]:
    return [record.value for record in records]


def as_json(*wanted: Any, key: bytes | None = None, partition: int = 0) -> list[Sent]:
    """Records of one partition, each with a value in JSON."""
    return [
        Sent(value=json.dumps(value).encode(), key=key, partition=partition)
        for value in wanted
    ]


class Bench:
    """A broker, and what a test needs to try an app on it."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.folder = folder
        self._admin = AdminClient({"bootstrap.servers": address})
        self._consumers: dict[str, tuple[Consumer, list[Seen]]] = {}

    def app(self, id: str | None = None, **settings: Any) -> streamer.App:
        """An app of its own; with the `id` of an earlier one, that one started again."""
        ours: dict[str, Any] = {
            "broker": self.address,
            "state_dir": str(self.folder / "state"),
            "web_enabled": False,
            "commit_interval_ms": 20,
            "linger_ms": 0,
            "drain_timeout_ms": 300,
        }
        return streamer.App(id or new_name("app"), **{**ours, **settings})

    async def topic(self, partitions: int = 1, **config: str) -> str:
        named = {name.replace("_", "."): value for name, value in config.items()}
        return await asyncio.to_thread(
            create_topic, self._admin, partitions=partitions, config=named
        )

    def topics(self) -> list[str]:
        return list(self._admin.list_topics(timeout=DEADLINE_SECONDS).topics)

    async def send(self, topic: str, *records: Any, partition: int = 0) -> None:
        """Send these, and return when they are there; what is no `Sent` goes as JSON."""
        sent = [
            one if isinstance(one, Sent) else as_json(one, partition=partition)[0]
            for one in records
        ]
        await asyncio.to_thread(produce, self.address, topic, sent)

    async def read(self, topic: str, partitions: int = 1) -> list[Seen]:
        """All that is committed, once nothing more comes."""
        found = await asyncio.to_thread(
            read, self.address, topic, partitions=range(partitions)
        )
        return [seen(message) for message in found]

    async def outputs(self, topic: str, count: int, partitions: int = 1) -> list[Seen]:
        """The first `count` committed records and what came with them, as they come."""
        return await asyncio.to_thread(self._wait, topic, count, partitions)

    def _wait(self, topic: str, count: int, partitions: int) -> list[Seen]:
        if topic not in self._consumers:
            consumer = assigned(self.address, topic, partitions=range(partitions))
            self._consumers[topic] = consumer, []
        consumer, found = self._consumers[topic]
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(found) < count:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                found.append(seen(message))
            assert time.monotonic() < deadline, f"{len(found)} of {count}: {found[-3:]}"
        return list(found)

    def close(self) -> None:
        for consumer, _ in self._consumers.values():
            consumer.close()


@contextmanager
def commit_fails(app: streamer.App) -> Iterator[None]:
    """The next commit with something in it ends in an abort."""
    producer = commit_may_fail(app)
    yield
    assert "commit" not in vars(producer), "there was no commit"


def commit_may_fail(app: streamer.App) -> Any:
    """The same, if there is one; returns the producer."""
    producer: Any = running(app).transaction._producer

    def fail() -> None:
        del producer.commit
        raise MustAbort("A test wants it.")

    if "commit" not in vars(producer):
        producer.commit = fail
    return producer


@asynccontextmanager
async def failing(app: streamer.App) -> AsyncIterator[list[BaseException]]:
    """Run an app that cannot go on; afterwards the list holds why."""
    reasons: list[BaseException] = []
    async with app:
        yield reasons
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await app.wait()
        except streamer.StreamerError as error:
            reasons.append(error)


__all__ = [
    "OFFSET_BEGINNING",
    "Bench",
    "Seen",
    "as_json",
    "commit_fails",
    "commit_may_fail",
    "failing",
    "read_to_the_end",
    "running",
    "seen",
    "until",
    "values",
]
