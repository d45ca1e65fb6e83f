"""Sends that belong to no record, and asking agents.

A timer, a task, a page or somebody else's loop sends by a plain producer, at once; what is
awaited is the moment when the broker has the record for good. A thread of its own hears of
deliveries and wakes the loop.

An answer to `ask` comes through a topic of this worker's slot, `APP-replies-N`, which is
read from its end, committed records only: an answer from within a transaction comes when
that is committed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamer import processing
from streamer.agent import CORRELATION, REPLY_AT_ONCE, REPLY_TO, NoReply, Question
from streamer.client.interface import (
    ClientError,
    Message,
    NoSuchTopic,
    Producer,
    TopicExists,
    TopicPartition,
)
from streamer.event import RecordMetadata
from streamer.processing import Send
from streamer.worker.errors import SendFailed

if TYPE_CHECKING:
    from streamer.worker.clients import Clients

log = logging.getLogger(__name__)

POLL_S = 0.1
FLUSH_S = 5.0
FULL_S = 0.01
LOST_EACH_S = 5.0
SEND_REMEDY = "Send what the topic takes: `streamer topic describe TOPIC -o wide` tells."
REPLY_CONFIGS = {"retention.ms": str(24 * 3_600_000)}


class Outside:
    def __init__(self, clients: Clients, reply_topic: str) -> None:
        self._clients = clients
        self._reply_topic = reply_topic
        self._loop = asyncio.get_running_loop()
        self._producer: Producer | None = None
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._opening = asyncio.Lock()
        self._asked: dict[bytes, asyncio.Future[Any]] = {}
        self._reads_replies = False
        # Sent and awaited by nobody; and how many of those were lost since that was told.
        self._on_the_way: set[asyncio.Task[RecordMetadata]] = set()
        self._lost = 0

    # Sending.

    async def send_now(self, send: Send) -> RecordMetadata:
        """Send it, and return when it is there for good."""
        producer = await self._open()
        arrived = self._loop.create_future()
        full = _with_callback(send, self._reporter(send[0], arrived))
        while True:
            try:
                producer.produce(*full)
                break
            except BufferError:
                await asyncio.sleep(FULL_S)
            except Exception as error:
                problem = producer.meaning(error, send[0]).problem
                raise SendFailed(problem, remedy=SEND_REMEDY) from error
        metadata: RecordMetadata = await arrived
        return metadata

    @property
    def queued(self) -> int:
        return 0 if self._producer is None else len(self._producer)

    def send_soon(self, send: Send) -> None:
        """Send it; what becomes of it is only logged."""
        task = self._loop.create_task(self.send_now(send))
        self._on_the_way.add(task)  # else nobody would hold it
        task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[Any]) -> None:
        self._on_the_way.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._lost += 1
        if self._lost == 1:
            # A broker that is away loses thousands; one line each few seconds will do.
            self._loop.call_later(LOST_EACH_S, self._tell_lost)
            log.error("%s", error)

    def _tell_lost(self) -> None:
        if self._lost > 1:
            log.error("%d records were lost that way.", self._lost)
        self._lost = 0

    def _reporter(
        self, topic: str, arrived: asyncio.Future[Any]
    ) -> Callable[[object, Message], None]:
        def delivered(error: object, message: Message) -> None:
            if error is None:
                found = RecordMetadata(topic, message.partition(), message.offset())
                self._soon(_resolve, arrived, found)
            else:
                problem = f"A record for {topic} did not arrive: {error}."
                failed = SendFailed(problem, remedy=SEND_REMEDY)
                self._soon(_fail, arrived, failed)

        return delivered

    def _soon(self, fun: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(fun, *arguments)
        except RuntimeError:
            pass  # the loop has ended, and nobody waits any more

    async def _open(self) -> Producer:
        if self._producer is None:
            async with self._opening:
                if self._producer is None:
                    self._producer = await asyncio.to_thread(self._clients.plain_producer)
                    self._start("deliveries", self._hear)
        return self._producer

    def _start(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hear(self) -> None:
        assert self._producer is not None
        while not self._stopped.is_set():
            self._producer.poll(POLL_S)

    # Asking.

    async def ask(self, question: Question) -> Any:
        agent, value, key, partition, headers, timeout_s = question
        await self._read_replies()
        correlation = uuid.uuid4().hex.encode()
        named = {REPLY_TO: self._reply_topic.encode(), CORRELATION: correlation}
        if processing.current() is not None:
            named[REPLY_AT_ONCE] = b"1"
        answer = self._loop.create_future()
        self._asked[correlation] = answer
        try:
            await self.send_now(
                agent.topic.prepared(
                    key, value, partition, None, {**(headers or {}), **named}
                )
            )
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise NoReply(f"{agent} has not answered within {timeout_s:g} s.") from None
        finally:
            self._asked.pop(correlation, None)

    async def _read_replies(self) -> None:
        if self._reads_replies:
            return
        async with self._opening:
            if not self._reads_replies:
                begin = await asyncio.to_thread(self._reply_end)
                self._start("replies", lambda: self._hear_replies(begin))
                self._reads_replies = True

    def _reply_end(self) -> int:
        """Have the topic for answers; where it ends now."""
        admin = self._clients.admin
        try:
            admin.topic(self._reply_topic)
        except NoSuchTopic:
            try:
                admin.create_topic(
                    self._reply_topic, partitions=1, replication=-1, configs=REPLY_CONFIGS
                )
            except TopicExists:
                pass
        at = TopicPartition(self._reply_topic, 0)
        return admin.end_offsets([at], committed=True)[at]

    def _hear_replies(self, begin: int) -> None:
        consumer = self._clients.consumer()
        consumer.assign({TopicPartition(self._reply_topic, 0): begin})
        while not self._stopped.is_set():
            try:
                found = consumer.consume(100, POLL_S)
            except ClientError as error:
                log.warning("Answers cannot be read: %s", error.problem)
                continue
            for message in found:
                self._soon(self._answered, message.key(), message.value())
        consumer.close()

    def _answered(self, correlation: bytes, data: bytes | None) -> None:
        answer = self._asked.get(correlation)
        if answer is not None and not answer.done():
            answer.set_result(None if data is None else json.loads(data))

    async def stop(self) -> None:
        """What was sent has arrived when this returns, unless that takes too long."""
        until = self._loop.time() + FLUSH_S
        if self._on_the_way:
            await asyncio.wait(self._on_the_way, timeout=FLUSH_S)
        if self._producer is not None:
            left_s = max(0.0, until - self._loop.time())
            await asyncio.to_thread(self._producer.flush, left_s)
        self._stopped.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)


def _with_callback(send: Send, delivered: Callable[[object, Message], None]) -> Send:
    # Positional: topic, value, key, partition, callback, (unused), timestamp, headers.
    return (*send[:4], delivered, *send[5:])


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
