"""Which topics exist, their settings and open partitions; which producer ids are taken.

All of it is written down in one journal (`log/journal.py`), an entry a change:

    {"topic": NAME, "id": UUID, "partitions": N, "configs": {...}}     created or altered
    {"delete": UUID}
    {"broker": {"": {...}, "1": {...}}}                                altered settings
    {"producer_ids": N}                                                ids below N are taken
    {"starts": N}                                                      how often we started

A change is on disk before anybody can see it; partitions are made before the entry that
names them, so that a full disk leaves no topic that nobody can write to. Changes come one
after another, each judged by what those before it have left.

At start the journal is replayed and written anew without what is superseded. Partitions
on disk that belong to a deleted topic are removed, since the deletion was cut short; those
that belong to no topic that was ever here are set aside.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar
from uuid import UUID

from streamer.broker.config import BrokerConfig
from streamer.broker.trouble import way_out
from streamer.log.clock import Clock
from streamer.log.config import TOPIC_OPTIONS, LogConfig, log_config
from streamer.log.directory import LogDirectory
from streamer.log.errors import Refused
from streamer.log.journal import Journal
from streamer.log.partition import Partition
from streamer.settings import Setting, setting
from streamer.wire.error_codes import ErrorCode

log = logging.getLogger(__name__)

PRODUCER_ID_BLOCK = 1000
# How often a start that takes long says how far it has come.
PROGRESS_SECONDS = 2.0
INTERNAL = frozenset({"__consumer_offsets", "__transaction_state"})

LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

P = ParamSpec("P")
T = TypeVar("T")

InThread: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
# From what is set on a topic or a broker to what shall be.
Change: TypeAlias = Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(slots=True)
class Topic:
    name: str
    id: UUID
    overrides: dict[str, str]
    config: LogConfig
    partitions: list[Partition] = field(default_factory=list)

    @property
    def is_internal(self) -> bool:
        return self.name in INTERNAL

    def partition(self, index: int) -> Partition | None:
        return self.partitions[index] if 0 <= index < len(self.partitions) else None


def invalid_name(name: str) -> str | None:
    """What is wrong with `name` as a topic's, if anything."""
    if name in ("", ".", ".."):
        return f"{name!r} cannot be the name of a topic."
    if not LEGAL_NAME.fullmatch(name):
        return (
            f"{name!r} cannot be the name of a topic: up to 249 letters, digits, "
            "dots, underscores and hyphens make one."
        )
    return None


class TopicExists(Exception):
    """Somebody has created a topic of that name."""


class TopicGone(Exception):
    """Somebody has deleted the topic meanwhile."""


class TopicHasGrown(Exception):
    """Somebody has given the topic as many partitions meanwhile."""


class NotWritten(Refused):
    """The disk did not take a change, so nothing has changed."""

    def __init__(self, why: str) -> None:
        super().__init__(ErrorCode.KAFKA_STORAGE_ERROR, why)


def _in_turn(
    change: Callable[Concatenate["Catalog", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Catalog", P], Coroutine[Any, Any, T]]:
    """Let `change` wait until no other one is under way.

    So what a change was judged by still holds when it is on disk, and what the journal
    says last is what is so. The broker may have stopped in the meantime, or its disk have
    failed: then nothing is begun.
    """

    @wraps(change)
    async def in_turn(catalog: "Catalog", /, *args: P.args, **kwargs: P.kwargs) -> T:
        async with catalog._turn:
            catalog._check_writable()
            return await change(catalog, *args, **kwargs)

    return in_turn


class _Opening:
    """A start that takes long says how far it has come."""

    def __init__(self, clock: Clock, total: int) -> None:
        self._clock = clock
        self._told = clock.monotonic()
        self._total = total
        self._count = self._size = 0

    def opened(self, partition: Partition) -> None:
        self._count += 1
        self._size += partition.size
        if self._clock.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = self._clock.monotonic()
            log.info(
                "Opened %s of %s partitions, %.1f GiB; what was not closed is checked.",
                f"{self._count:,}",
                f"{self._total:,}",
                self._size / 2**30,
            )


class Catalog:
    def __init__(
        self,
        directory: LogDirectory,
        journal: Journal,
        config: BrokerConfig,
        *,
        in_thread: InThread,
        forget: Callable[[], Awaitable[None]],
        on_failed: Callable[[str], None],
        check_writable: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._config = config
        self._in_thread = in_thread
        self._forget = forget
        self._on_failed = on_failed
        self._check_writable = check_writable
        self._ids: dict[UUID, Topic] = {}
        self._turn = asyncio.Lock()
        self._altered: dict[str, dict[str, str]] = {}
        self._next_producer_id = 0
        self._producer_id_limit = 0
        self.topics: dict[str, Topic] = {}
        self.starts = 0

    # Start.

    def load(self) -> None:
        """Replay the journal, write it anew, and open every partition it names."""
        described: dict[str, dict[str, Any]] = {}
        deleted: set[UUID] = set()
        for entry in self._journal.entries():
            if "topic" in entry:
                described[entry["id"]] = entry
            elif "delete" in entry:
                described.pop(entry["delete"], None)
                deleted.add(UUID(entry["delete"]))
            elif "broker" in entry:
                self._altered = entry["broker"]
            elif "producer_ids" in entry:
                self._producer_id_limit = entry["producer_ids"]
            elif "starts" in entry:
                self.starts = entry["starts"]
        self.starts += 1
        # What was left of the last block is given up: an id is never given twice.
        self._next_producer_id = self._producer_id_limit
        self._apply_altered()
        # Before the journal is written anew: only the old one knows what was deleted.
        self._directory.delete_leftovers(deleted)
        self._rewrite(
            [
                {"starts": self.starts},
                {"producer_ids": self._producer_id_limit},
                {"broker": self._altered},
                *described.values(),
            ]
        )
        opening = _Opening(
            self._directory.clock, sum(entry["partitions"] for entry in described.values())
        )
        for entry in described.values():
            overrides = entry["configs"]
            topic = Topic(
                entry["topic"], UUID(entry["id"]), overrides, self._log_config(overrides)
            )
            for index in range(entry["partitions"]):
                topic.partitions.append(self._open(topic, index))
                opening.opened(topic.partitions[-1])
            self._show(topic)
        for path in self._directory.set_strangers_aside():
            log.warning("A partition that no topic claims was set aside: %s", path)

    def _rewrite(self, entries: list[dict[str, Any]]) -> None:
        try:
            self._journal.rewrite(entries)
        except OSError as error:
            # It says the same, in more words. The next start tries again.
            log.warning(
                "%s cannot be written anew: %s. The old one holds.\n  -> %s",
                self._journal.path,
                error,
                way_out(error),
            )

    def _open(self, topic: Topic, index: int) -> Partition:
        partition = self._directory.open_partition(
            topic.name, index, topic.id, topic.config
        )
        if partition.recovered is not None:
            log.warning("%s: %s", partition.path, partition.recovered)
        if partition.offline is not None:
            log.error(
                "%s; the others are served.\n"
                "  -> `streamer log verify %s` shows what is damaged. When it is mended,"
                " or there is room on the disk again, restart the broker.",
                partition.offline,
                self._directory.path,
            )
        return partition

    def _show(self, topic: Topic) -> None:
        self.topics[topic.name] = topic
        self._ids[topic.id] = topic

    # Topics.

    def by_id(self, topic_id: UUID) -> Topic | None:
        return self._ids.get(topic_id)

    def partition(self, name: str, index: int) -> Partition | None:
        topic = self.topics.get(name)
        return None if topic is None else topic.partition(index)

    @_in_turn
    async def create(self, name: str, count: int, overrides: Mapping[str, str]) -> Topic:
        if name in self.topics:
            raise TopicExists(name)
        topic = Topic(name, uuid.uuid4(), dict(overrides), self._log_config(overrides))
        await self._make_partitions(topic, count)
        self._show(topic)
        log.info("Topic %s created with %d partitions.", name, count)
        return topic

    @_in_turn
    async def add_partitions(self, topic: Topic, count: int) -> None:
        self._must_be_there(topic)
        if count <= len(topic.partitions):
            raise TopicHasGrown(topic.name)
        await self._make_partitions(topic, count)

    async def _make_partitions(self, topic: Topic, count: int) -> None:
        """Make those that are missing and write them down; all of them, or none."""
        made: list[Partition] = []
        try:
            for index in range(len(topic.partitions), count):
                made.append(
                    self._directory.open_partition(
                        topic.name, index, topic.id, topic.config
                    )
                )
                if (why := made[-1].offline) is not None:
                    raise NotWritten(why)
            await self._forget_namesakes()
            await self._write(_described(topic, count, topic.overrides))
        except NotWritten:
            for partition in made:
                self._discard(partition)
            raise
        topic.partitions += made

    async def _forget_namesakes(self) -> None:
        """Have nothing on disk speak any more of deleted partitions with the same names."""
        try:
            await self._forget()
        except OSError as error:
            raise NotWritten(f"A new partition cannot be noted: {error}") from error

    @_in_turn
    async def alter_topic(self, topic: Topic, change: Change) -> None:
        self._must_be_there(topic)
        overrides = dict(change(topic.overrides))
        await self._write(_described(topic, len(topic.partitions), overrides))
        topic.overrides = overrides
        self._configure(topic)

    @_in_turn
    async def delete(self, topic: Topic) -> list[Partition]:
        """Forget `topic`; its partitions are handed back, for those who wait for them."""
        self._must_be_there(topic)
        await self._write({"delete": str(topic.id)})
        del self.topics[topic.name]
        del self._ids[topic.id]
        for partition in topic.partitions:
            self._discard(partition)
        log.info("Topic %s deleted.", topic.name)
        return topic.partitions

    def _discard(self, partition: Partition) -> None:
        try:
            self._directory.delete_partition(partition)
        except OSError as error:
            log.warning(
                "%s was deleted, but its files are still there: %s. The next start sees to"
                " them.\n  -> %s",
                partition.path,
                error,
                way_out(error),
            )

    def _must_be_there(self, topic: Topic) -> None:
        if topic.id not in self._ids:
            raise TopicGone(topic.name)

    # Settings.

    def settings_of(self, overrides: Mapping[str, str]) -> dict[str, Setting]:
        """Every setting of a topic that overrides these: its own, else the broker's."""
        found = {}
        for name, entry in TOPIC_OPTIONS.items():
            if name in overrides:
                found[name] = setting(entry.option, overrides[name], "topic")
            elif entry.broker_name is not None:
                of_broker = self._config[entry.broker_name]
                found[name] = setting(entry.option, of_broker.text, of_broker.origin)
            else:
                found[name] = setting(entry.option, entry.option.default, "default")
        return found

    def altered_in(self, scope: str) -> dict[str, str]:
        """What was altered for one broker (its number) or for all of them ("")."""
        return dict(self._altered.get(scope, {}))

    @_in_turn
    async def alter_broker(self, scope: str, change: Change) -> None:
        altered = {**self._altered, scope: dict(change(self.altered_in(scope)))}
        await self._write({"broker": altered})
        self._altered = altered
        self._apply_altered()
        for topic in self.topics.values():
            self._configure(topic)

    def _apply_altered(self) -> None:
        own = str(self._config.number("node.id"))
        self._config.alter({**self.altered_in(""), **self.altered_in(own)})

    def _configure(self, topic: Topic) -> None:
        topic.config = self._log_config(topic.overrides)
        for partition in topic.partitions:
            partition.config = topic.config

    def _log_config(self, overrides: Mapping[str, str]) -> LogConfig:
        return log_config(
            {name: found.value for name, found in self.settings_of(overrides).items()}
        )

    # Producer ids.

    async def next_producer_id(self) -> int:
        while self._next_producer_id == self._producer_id_limit:
            await self._take_block()
        self._next_producer_id += 1
        return self._next_producer_id - 1

    @_in_turn
    async def _take_block(self) -> None:
        if self._next_producer_id == self._producer_id_limit:
            limit = self._producer_id_limit + PRODUCER_ID_BLOCK
            await self._write({"producer_ids": limit})
            self._producer_id_limit = limit

    async def _write(self, entry: dict[str, Any]) -> None:
        self._check_writable()
        try:
            self._journal.append(entry)
        except OSError as error:
            raise NotWritten(f"{self._journal.path} cannot be written: {error}") from error
        try:
            await self._in_thread(self._journal.sync)
        except OSError as error:
            why = f"syncing {self._journal.path} failed: {error}"
            self._on_failed(why)
            raise NotWritten(why) from error


def _described(topic: Topic, count: int, overrides: Mapping[str, str]) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "id": str(topic.id),
        "partitions": count,
        "configs": overrides,
    }
