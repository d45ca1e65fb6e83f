"""Which topics exist, their settings and open partitions; which producer ids are taken.

All of it is written down in one journal (`log/journal.py`), an entry a change:

    {"topic": NAME, "id": UUID, "partitions": N, "configs": {...}}     created or altered
    {"delete": UUID}
    {"broker": {"": {...}, "1": {...}}}                                altered settings
    {"producer_ids": N}                                                ids below N are taken
    {"starts": N}                                                      how often we started

A change is on disk before anybody can see it; partitions are made before the entry that
names them, so that a full disk leaves no topic that nobody can write to. At start the
journal is replayed and written anew without what is superseded. Partitions on disk that
belong to no topic here are set aside.
"""

import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from streamer.broker.config import BrokerConfig
from streamer.broker.trouble import way_out
from streamer.log.config import TOPIC_OPTIONS, LogConfig, log_config
from streamer.log.directory import LogDirectory
from streamer.log.journal import Journal
from streamer.log.partition import Partition
from streamer.settings import Setting, setting

log = logging.getLogger(__name__)

PRODUCER_ID_BLOCK = 1000
INTERNAL = frozenset({"__consumer_offsets", "__transaction_state"})

LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

InThread = Callable[[Callable[[], None]], Awaitable[None]]


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
    """There is a topic of that name, or it is being created, extended or deleted."""


class NotWritten(Exception):
    """The disk did not take a change, so nothing has changed."""


class Catalog:
    def __init__(
        self,
        directory: LogDirectory,
        journal: Journal,
        config: BrokerConfig,
        *,
        in_thread: InThread,
        on_failed: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._config = config
        self._in_thread = in_thread
        self._on_failed = on_failed
        self._ids: dict[UUID, Topic] = {}
        self._changing: set[str] = set()
        self._altered: dict[str, dict[str, str]] = {}
        self._next_producer_id = 0
        self._producer_id_limit = 0
        self.topics: dict[str, Topic] = {}
        self.starts = 0

    # Start.

    def load(self) -> None:
        """Replay the journal, write it anew, and open every partition it names."""
        described: dict[str, dict[str, Any]] = {}
        for entry in self._journal.entries():
            if "topic" in entry:
                described[entry["id"]] = entry
            elif "delete" in entry:
                described.pop(entry["delete"], None)
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
        self._rewrite(
            [
                {"starts": self.starts},
                {"producer_ids": self._producer_id_limit},
                {"broker": self._altered},
                *described.values(),
            ]
        )
        for entry in described.values():
            overrides = entry["configs"]
            topic = Topic(
                entry["topic"], UUID(entry["id"]), overrides, self._log_config(overrides)
            )
            for index in range(entry["partitions"]):
                topic.partitions.append(self._open(topic, index))
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
            log.warning("%s lost in the crash: %s", partition.path, partition.recovered)
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

    async def create(self, name: str, count: int, overrides: Mapping[str, str]) -> Topic:
        if name in self.topics:
            raise TopicExists(name)
        with self._nobody_else_changes(name):
            topic = Topic(name, uuid.uuid4(), dict(overrides), self._log_config(overrides))
            await self._make_partitions(topic, count)
            self._show(topic)
        log.info("Topic %s created with %d partitions.", name, count)
        return topic

    async def add_partitions(self, topic: Topic, count: int) -> None:
        with self._nobody_else_changes(topic.name):
            await self._make_partitions(topic, count)

    @contextmanager
    def _nobody_else_changes(self, name: str) -> Iterator[None]:
        if name in self._changing:
            raise TopicExists(name)
        self._changing.add(name)
        try:
            yield
        finally:
            self._changing.discard(name)

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
            await self._write(_described(topic, count))
        except NotWritten:
            for partition in made:
                self._directory.delete_partition(partition)
            raise
        topic.partitions += made

    async def alter_topic(self, topic: Topic, overrides: Mapping[str, str]) -> None:
        before, topic.overrides = topic.overrides, dict(overrides)
        try:
            await self._write(_described(topic, len(topic.partitions)))
        except NotWritten:
            topic.overrides = before
            raise
        self._configure(topic)

    async def delete(self, topic: Topic) -> list[Partition]:
        """Forget `topic`; its partitions are handed back, for those who wait for them."""
        with self._nobody_else_changes(topic.name):
            del self.topics[topic.name]
            del self._ids[topic.id]
            try:
                await self._write({"delete": str(topic.id)})
            except NotWritten:
                self._show(topic)
                raise
            for partition in topic.partitions:
                self._directory.delete_partition(partition)
        log.info("Topic %s deleted.", topic.name)
        return topic.partitions

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

    async def alter_broker(self, scope: str, texts: Mapping[str, str]) -> None:
        altered = {**self._altered, scope: dict(texts)}
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
            start = self._producer_id_limit
            await self._write({"producer_ids": start + PRODUCER_ID_BLOCK})
            # Another request may have waited for a block of its own: the first one counts.
            if self._producer_id_limit == start:
                self._producer_id_limit = start + PRODUCER_ID_BLOCK
        self._next_producer_id += 1
        return self._next_producer_id - 1

    async def _write(self, entry: dict[str, Any]) -> None:
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


def _described(topic: Topic, count: int) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "id": str(topic.id),
        "partitions": count,
        "configs": topic.overrides,
    }
