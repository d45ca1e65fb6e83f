"""Worker: starts everything that runs an app, holds it together, and stops it in order.

    start   a slot, a broker of our own if none is named, clients, agents up to where they
            read their streams, topics and changelogs, then the group
    stop    handlers finish what they have in hand, a last commit, then out

A worker that cannot go on ends, and says why: `wait` raises it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streamer.agent import Agent, Question
from streamer.client import embedded
from streamer.client.interface import (
    BrokerUnavailable,
    ClientError,
    Group,
    Member,
    Message,
    NotNow,
    Position,
    TopicPartition,
)
from streamer.conf import AT_MOST_ONCE
from streamer.errors import SettingsError
from streamer.event import RecordMetadata
from streamer.policy import sends_dead_letters
from streamer.processing import Send
from streamer.state.slots import Slot
from streamer.state.table_partition import TablePartition
from streamer.stream import Stream
from streamer.topic import Topic
from streamer.worker.actor import dead_letter_headers
from streamer.worker.assignment import Assignment
from streamer.worker.caution import Caution
from streamer.worker.clients import Clients
from streamer.worker.counters import Counters
from streamer.worker.crew import Crew, forwarder
from streamer.worker.errors import WorkerFailed
from streamer.worker.feed import Feed
from streamer.worker.globals import Globals
from streamer.worker.outside import Outside
from streamer.worker.own_broker import OwnBroker
from streamer.worker.positions import committed
from streamer.worker.pump import Pump
from streamer.worker.returning import wait_until_forgotten
from streamer.worker.standing import Standing, standing
from streamer.worker.tables import LocalTables
from streamer.worker.timers import Timers
from streamer.worker.topics import ensure_topics, once_known
from streamer.worker.transaction import Transaction, differing
from streamer.worker.watch import Stalls, Watch

if TYPE_CHECKING:
    from streamer.app import App

log = logging.getLogger(__name__)

T = TypeVar("T")

# Agents do what they do before they read; some of them await something first.
SETTLE_TURNS = 20
PATIENCE_S = 30.0
# Beside what handlers may take: for the last commit, with a broker that is away, say.
STOP_S = 5.0
GC_THRESHOLD = 100_000


class Worker:
    """One process of an app; also its `Runtime`."""

    def __init__(self, app: App, slot: Slot, address: str, own: Any) -> None:
        self.app = app
        self.conf = app.conf
        self.slot = slot
        self.slot_name = f"{self.conf.id}-{slot.number}"
        # In the group, and of the transactions. Each machine has slots of its own.
        self.member_name = f"{self.conf.id}-{this_machine()}-{slot.number}"
        self.counters = Counters()
        self.started_at = time.monotonic()
        self.stopping = False
        self.crews: list[Crew] = []
        self.partition_counts: dict[str, int] = {}
        self.web_port = 0
        self._own_broker = OwnBroker(own, self._missed_broker)
        self._stop_by = float("inf")
        self._member: Member | None = None
        self._feeds: dict[str, list[Feed]] = defaultdict(list)
        self._topics: list[Topic[Any]] = []
        self._subscribed: frozenset[str] = frozenset()
        self._has_dead_letter_topic = False
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.clients = Clients(address, self.conf)
        self.tables = LocalTables(app.tables, self.conf, self.clients, slot.path)
        for table in app.tables.values():
            table.late = self.counters.late
        self.globals = Globals(
            app.tables.values(),
            self.tables,
            self.conf,
            self.clients,
            slot.path,
            self.ended,
        )
        self.transaction = Transaction(self)
        self.caution = Caution(self)
        self.assignment = Assignment(self)
        self.outside = Outside(self.clients, f"{self.conf.id}-replies-{slot.number}")
        self.timers = Timers(self)
        self.pump = Pump(self)
        self.stalls = Stalls(self.all_feeds)
        self.watch = Watch(self.conf.loop_blocked_ms / 1000, self.counters.stalled)

    @classmethod
    async def start(
        cls, app: App, take_port: Callable[[Path], int] | None = None
    ) -> Worker:
        """A worker of `app`, running. `take_port` gives the port of its pages, if it has
        any, for the folder of its slot: others in the group find the pages by it, so it
        must be known before the worker joins."""
        own = await asyncio.to_thread(join_own_broker, app)
        address = own.address if own is not None else app.conf.brokers
        slot = await asyncio.to_thread(Slot.take, state_dir(app))
        worker = cls(app, slot, address, own)
        app.attach(worker)
        try:
            if take_port is not None:
                worker.web_port = await asyncio.to_thread(take_port, slot.path)
            await worker._start()
        except BaseException:
            await worker.stop()
            raise
        return worker

    async def _start(self) -> None:
        self._own_broker.start(self.ended)
        if self.app.conf.brokers:
            await asyncio.to_thread(lambda: self.clients.admin.cluster())
        await self.transaction.start()
        for agent in self.app.agents.values():
            self._add_crew(agent, agent.name)
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        await self._subscribe()
        self.assignment.start()
        self.pump.start()
        self.timers.start()
        self.stalls.start()
        self.watch.start()
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 50)
        log.debug(
            "%s runs as slot %d (%s, broker %s).",
            self.conf.id,
            self.slot.number,
            self.conf.guarantee,
            self.clients.address,
        )

    async def stop(self) -> None:
        """Stop in order; what is done is committed."""
        if self.stopping:
            return
        self.stopping = True
        self._stop_by = time.monotonic() + self.conf.drain_timeout_ms / 1000 + STOP_S
        await self.app.on_before_shutdown.send(self.app)
        await self.timers.stop()
        orderly = not self._failed.done()
        await self.assignment.stop()
        if orderly and self.assignment.partitions:
            try:
                await self.assignment.finish()
            except WorkerFailed as error:
                log.warning("What was done last is not committed: %s", error.problem)
        self._stop_by = 0.0
        for crew in self.crews:
            await crew.stop()
        await self.pump.stop()
        await self.transaction.stop()
        await self.outside.stop()
        await self._own_broker.stop()
        await self.globals.stop()
        self.stalls.stop()
        self.watch.stop()
        await asyncio.to_thread(self._close)
        self.app.detach()

    def _close(self) -> None:
        try:
            if self._member is not None:
                self._member.close()
        except ClientError as error:
            log.info("%s", error.problem)
        self.tables.close()
        self.slot.release()
        self._own_broker.leave()

    async def wait(self) -> None:
        """Until the worker cannot go on; raises why."""
        await asyncio.shield(self._failed)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """A part of the worker has ended: a failure, unless it had no more to do."""
        if task.cancelled() or self._failed.done():
            return
        error = task.exception()
        if error is None:
            return
        if not isinstance(error, ClientError | WorkerFailed):
            log.error("%s has ended.", task.get_name(), exc_info=error)
        self._failed.set_exception(error)
        self._failed.exception()  # whoever waits sees it; nobody need

    # Agents and their feeds.

    def _add_crew(self, agent: Agent[Any], feed_name: str) -> Crew:
        crew = Crew(self, agent, feed_name)
        self.crews.append(crew)
        crew.start()
        return crew

    def open_feed(self, topic: Topic[Any], name: str) -> Feed:
        feed = Feed(name, time.monotonic, self.pump.hungry)
        for one in topic.topics:
            self._feeds[one].append(feed)
        self._topics.append(topic)
        self._resubscribe()
        return feed

    def forward(
        self,
        crew: Crew,
        stream: Stream[Any],
        topic: Topic[Any],
        key: Callable[[Any], Any] | None,
    ) -> None:
        """Have the records of a stream sent on to a topic."""
        name = f"{crew.agent.name}>{topic.name}"
        agent: Agent[Any] = Agent(
            self,
            forwarder(stream, topic, key),
            name,
            stream.topic,
            on_error=crew.agent.on_error,
        )
        self._add_crew(agent, name)

    def feeds(self, topic: str) -> list[Feed]:
        return self._feeds.get(topic, [])

    def all_feeds(self) -> list[Feed]:
        return list({id(one): one for row in self._feeds.values() for one in row}.values())

    def _resubscribe(self) -> None:
        """A stream of a topic was opened after the start: ask the group for it too."""
        if self._subscribed and not set(self._feeds) <= self._subscribed:
            task = asyncio.get_running_loop().create_task(self._subscribe())
            task.add_done_callback(self.ended)

    async def _subscribe(self) -> None:
        names = frozenset(self._feeds)
        await asyncio.to_thread(self.patiently, self._prepare)
        await self.globals.start()
        self._subscribed = names
        if self._member is None:
            await asyncio.to_thread(self.patiently, self._wait_until_forgotten)
            # Not before: one that has nothing to join looks for its group in its own time.
            self._member = self.clients.member(self.member_name, self.client_id)
        if names:
            async with self.pump.owned:
                self.member.subscribe(sorted(names))

    def _wait_until_forgotten(self) -> None:
        wait_until_forgotten(
            self.clients.admin,
            self.conf.id,
            self.member_name,
            frozenset(self._feeds),
            session_timeout_s=self.conf.session_timeout_ms / 1000,
            in_vain=lambda: self.stopping,
        )

    def _prepare(self) -> None:
        """Have all topics, those of changelogs too."""
        self.partition_counts |= self._declare()
        # Nodes of a cluster hear of a topic one after another.
        once_known(lambda: self.tables.prepare(self.partition_counts))

    def _declare(self) -> dict[str, int]:
        admin = self.clients.admin
        outer = [topic for topic in self._topics if not topic.internal]
        counts = ensure_topics(admin, self.conf, outer)
        # Those that are only sent to as well: a broker would make them by its own lights.
        others = [one for name, one in self.app.topics.items() if name not in counts]
        ensure_topics(admin, self.conf, others)
        like = max(counts.values(), default=None)
        inner = [topic for topic in self._topics if topic.internal]
        if any(sends_dead_letters(one.on_error) for one in self.app.agents.values()):
            self._declare_dead_letters()
        return counts | ensure_topics(admin, self.conf, inner, like)

    def patiently(self, step: Callable[[], T]) -> T:
        """In a thread: again, for a while, when the broker is away or in trouble."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return step()
            except (BrokerUnavailable, NotNow) as error:
                if time.monotonic() > until or self.stopping_at_once:
                    raise
                log.warning("%s Trying again.", error.problem)
                self._own_broker.ensure()
                time.sleep(1.0)

    def _missed_broker(self) -> bool:
        """Whether the group's consumer has found nobody since this was asked last."""
        member = self._member
        if member is None or not member.in_trouble:
            return False
        member.in_trouble = False
        return True

    @property
    def stopping_at_once(self) -> bool:
        """No time is left to try anything again."""
        return time.monotonic() > self._stop_by

    # What the pump and the commits look at.

    @property
    def member(self) -> Member:
        assert self._member is not None, "it is there once the worker has subscribed"
        return self._member

    @property
    def waiting(self) -> int:
        return sum(feed.waiting for feed in self.all_feeds())

    def waiting_by_partition(self) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = defaultdict(int)
        for feed in self.all_feeds():
            for at, lane in feed.lanes.items():
                found[at] = max(found[at], lane.waiting)
        return found

    @property
    def is_drained(self) -> bool:
        """All that has arrived is done."""
        return self.pump.dry and all(feed.idle for feed in self.all_feeds())

    @property
    def changed_keys(self) -> int:
        return sum(part.changed for _, part in self.tables.here())

    def tables_here(self) -> Sequence[tuple[str, TablePartition]]:
        return self.tables.here()

    def positions_to_commit(self) -> dict[TopicPartition, Position]:
        """How far everything is, where that is news."""
        if self.conf.guarantee == AT_MOST_ONCE:
            return {}  # committed when they were fetched
        found: dict[TopicPartition, Position] = {}
        for at in self.assignment.partitions:
            progress = {
                feed.name: feed.lanes[at].progress()
                for feed in self.feeds(at.topic)
                if at in feed.lanes
            }
            if progress:
                found[at] = committed(progress)
        return differing(found, self.transaction.committed)

    def membership(self) -> object:
        return self.assignment.membership

    def committed_by_group(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Position]:
        return self.patiently(lambda: self.member.committed(partitions))

    async def undo(self, reason: str) -> None:
        """Nothing since the last commit has happened: go back there."""
        self.counters.undone()
        log.warning("A transaction was undone, its records are handled again: %s", reason)
        await self.assignment.reread()

    async def have_dead_letter_topic(self) -> None:
        if not self._has_dead_letter_topic:
            await asyncio.to_thread(self._declare_dead_letters)

    def _declare_dead_letters(self) -> None:
        topic: Topic[Any] = Topic(self.app, (self.dead_letter_topic,))
        self.patiently(lambda: ensure_topics(self.clients.admin, self.conf, [topic]))
        self._has_dead_letter_topic = True

    @property
    def dead_letter_topic(self) -> str:
        return str(self.conf.dead_letter_topic or f"{self.conf.id}-dead-letters")

    def dead_letter(self, message: Message, agent: str, error: BaseException) -> Send:
        headers = dead_letter_headers(message, agent, error)
        topic = self.dead_letter_topic
        return (topic, message.value(), message.key(), -1, None, None, 0, headers)

    # For the app.

    async def send_now(self, send: Send) -> RecordMetadata:
        return await self.outside.send_now(send)

    def send_soon(self, send: Send) -> None:
        self.outside.send_soon(send)

    async def ask(self, question: Question) -> Any:
        return await self.outside.ask(question)

    @property
    def is_leader(self) -> bool:
        """Whether it does what one of them has to do: it has the first partition."""
        first = min(self._subscribed, default="")
        return not first or TopicPartition(first, 0) in self.assignment.partitions

    @property
    def client_id(self) -> str:
        """Where this worker's pages are, for those who look for the owner of a key."""
        host = self.conf.web_bind
        return f"{self.conf.id}@{host}:{self.web_port}/{self.slot.number}"

    # For those who look from outside.

    @property
    def ready(self) -> bool:
        """It works on all that the group has given it, which may be nothing."""
        settled = self.assignment.settled.is_set() or not self._subscribed
        return settled and not self.stopping and not self.failure

    @property
    def failure(self) -> str:
        """Why it cannot go on; empty as long as it can."""
        if not self._failed.done():
            return ""
        error = self._failed.exception()
        return getattr(error, "problem", "") or repr(error)

    def standing(self) -> Standing:
        return standing(self)

    def group(self) -> Group:
        """All workers of the app, as the broker knows them. Blocks."""
        return self.clients.admin.group(self.conf.id)


def this_machine() -> str:
    """Its name, as far as names of members may have it."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()) or "localhost"


def state_dir(app: App) -> Path:
    conf = app.conf
    if conf.state_dir:
        return Path(conf.state_dir) / conf.id
    return embedded.home(os.environ, Path.cwd()) / "state" / conf.id


def join_own_broker(app: App) -> embedded.EmbeddedBroker | None:
    """The broker of our own, if the app names none."""
    if app.conf.brokers:
        return None
    protocol = app.conf.security_protocol
    if protocol not in ("", "PLAINTEXT"):
        raise SettingsError(
            f"security.protocol is {protocol}, and no broker is named: the app's own knows"
            " neither TLS nor passwords.",
            remedy="Name the broker that is meant, by --broker, STREAMER_BROKER or broker ="
            " in streamer.toml; or set security.protocol=PLAINTEXT.",
        )
    home = embedded.home(os.environ, Path.cwd())
    return embedded.EmbeddedBroker.join(home)
