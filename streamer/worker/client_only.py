"""A runtime that sends and asks, and processes nothing: for commands, and for programs that
only feed an app.

It joins no group and takes no slot. The broker is looked for when something is sent for the
first time: a command that sends nothing needs none.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any

from streamer.client.embedded import EmbeddedBroker
from streamer.client.interface import ClientError
from streamer.event import RecordMetadata
from streamer.worker.clients import Clients
from streamer.worker.outside import Outside
from streamer.worker.topics import ensure_topics
from streamer.worker.worker import join_own_broker

if TYPE_CHECKING:
    from streamer.agent import Question
    from streamer.app import App
    from streamer.processing import Send

log = logging.getLogger(__name__)


class ClientOnly:
    """`app.Runtime`, for those who are no worker."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._own_broker: EmbeddedBroker | None = None
        self._outside: Outside | None = None
        self._connecting = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._there: set[str] = set()
        self._on_the_way: set[asyncio.Task[RecordMetadata]] = set()
        # Nobody else's, for we have no slot; it goes when we do.
        self._reply_topic = f"{app.conf.id}-replies-{uuid.uuid4().hex[:12]}"
        self._has_asked = False

    async def _connected(self, topic: str) -> Outside:
        async with self._connecting:
            if self._outside is None:
                clients = await asyncio.to_thread(self._connect)
                self._outside = Outside(clients, self._reply_topic)
            if topic not in self._there:
                await asyncio.to_thread(self._have, topic)
                self._there.add(topic)
        return self._outside

    def _connect(self) -> Clients:
        self._own_broker = join_own_broker(self._app)
        own = self._own_broker
        address = self._app.conf.brokers if own is None else own.address
        self.clients = Clients(address, self._app.conf)
        if own is None:
            # Whom it does not let in hears so here, and not when a record times out.
            self.clients.admin.cluster()
        return self.clients

    def _have(self, name: str) -> None:
        """Have the topic as the app declares it, and not as a broker would make it."""
        topic = self._app.topics.get(name)
        if topic is not None:
            ensure_topics(self.clients.admin, self._app.conf, [topic])

    async def send_now(self, send: Send) -> RecordMetadata:
        outside = await self._connected(send[0])
        return await outside.send_now(send)

    def send_soon(self, send: Send) -> None:
        task = asyncio.get_running_loop().create_task(self.send_now(send))
        self._on_the_way.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[RecordMetadata]) -> None:
        self._on_the_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s", error)

    async def ask(self, question: Question) -> Any:
        outside = await self._connected(question.agent.topic.get_topic_name())
        self._has_asked = True
        return await outside.ask(question)

    async def wait(self) -> None:
        """Until it is stopped: there is nothing that could fail by itself."""
        await self._stopped.wait()

    async def stop(self) -> None:
        """What was sent has arrived when this returns."""
        if self._on_the_way:
            await asyncio.wait(self._on_the_way)
        if self._outside is not None:
            await self._outside.stop()
            if self._has_asked:
                await asyncio.to_thread(self._forget_answers)
        if self._own_broker is not None:
            self._own_broker.leave()
        self._app.detach()
        self._stopped.set()

    def _forget_answers(self) -> None:
        try:
            self.clients.admin.delete_topics([self._reply_topic])
        except ClientError as error:
            log.info("%s stays, and may be deleted: %s", self._reply_topic, error.problem)
