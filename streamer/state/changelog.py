"""Changelogs: the topics that hold each change of a table, as many partitions as it has.

They are compacted: the last value of each key stays, so a table can always be had again
from its changelog. Those of windowed tables are also deleted by age, since no window is
asked for once it has expired.

At a start each is made if it is not there, and looked at if it is: with the wrong number of
partitions keys would be looked for where they are not, and with the wrong policy values
would go away. Where we may not make topics, the commands that do are shown.

The records are written by the worker, in its transaction; `recovery.py` reads them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from streamer.client.interface import (
    Admin,
    BrokerUnavailable,
    ClientError,
    ConfigEntry,
    NoSuchTopic,
    Topic,
    TopicExists,
)
from streamer.errors import StreamerError

BROKERS_CHOICE = -1

ADDITIONAL_RETENTION_MS = 24 * 3_600_000
"""Records of windows are kept for so long beyond their time, as Kafka Streams does: the
clocks of those who wrote them may differ, and a worker may have been away."""

DELETE_RETENTION_MS = 24 * 3_600_000
"""Kafka's default, where the broker does not tell."""


class ChangelogError(StreamerError):
    """A changelog is not as its table needs it."""


class WrongPartitions(ChangelogError):
    """The topics a table is filled from have got more partitions, or fewer."""


class WrongPolicy(ChangelogError):
    """Values would be deleted, or old ones never."""


class MissingChangelogs(ChangelogError):
    """Topics are missing that we may not make."""

    def __init__(self, missing: Sequence[Changelog], reason: str) -> None:
        self.missing = tuple(missing)
        names = ", ".join(changelog.topic for changelog in missing)
        commands = "\n     ".join(changelog.command() for changelog in missing)
        super().__init__(
            f"These topics are missing: {names}. {reason}".rstrip(),
            remedy=f"Have them made by somebody who may:\n     {commands}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changelog:
    """The changelog that a table needs."""

    app: str
    table: str
    partitions: int
    # How long a window is asked for: its size, the grace and what users add. None: no
    # windows, each key stays until it is deleted.
    window_retention_ms: int | None = None
    # What the user wants besides, and instead.
    extra: Mapping[str, str] = field(default_factory=dict)
    replication: int = BROKERS_CHOICE

    @property
    def topic(self) -> str:
        return topic_name(self.app, self.table)

    @property
    def configs(self) -> dict[str, str]:
        configs = {"cleanup.policy": "compact"}
        if self.window_retention_ms is not None:
            configs["cleanup.policy"] = "compact,delete"
            configs["retention.ms"] = str(
                self.window_retention_ms + ADDITIONAL_RETENTION_MS
            )
        return configs | dict(self.extra)

    def command(self) -> str:
        """The command that makes the topic."""
        words = ["streamer", "topic", "create", self.topic, "-p", str(self.partitions)]
        if self.replication != BROKERS_CHOICE:
            words += ["-r", str(self.replication)]
        for name, value in self.configs.items():
            words += ["-c", f"{name}={value}"]
        return shlex.join(words)


def topic_name(app: str, table: str) -> str:
    return f"{app}-{table}-changelog"


def ensure(
    admin: Admin, wanted: Iterable[Changelog], *, create: bool = True
) -> list[Changelog]:
    """Have each changelog there and as it must be; those that were made.

    `create`: whether we may make topics. Raises MissingChangelogs, WrongPartitions,
    WrongPolicy.
    """
    made: list[Changelog] = []
    missing: list[Changelog] = []
    reason = ""
    for changelog in wanted:
        try:
            topic = admin.topic(changelog.topic)
        except NoSuchTopic:
            if create:
                refused = _refusal(admin, changelog)
                if not refused:
                    made.append(changelog)
                    continue
                reason = refused
            missing.append(changelog)
        else:
            check(changelog, topic, admin.topic_configs(changelog.topic))
    if missing:
        raise MissingChangelogs(missing, reason)
    return made


def _refusal(admin: Admin, changelog: Changelog) -> str:
    """Make the topic; why not, if it is refused."""
    try:
        admin.create_topic(
            changelog.topic,
            partitions=changelog.partitions,
            replication=changelog.replication,
            configs=changelog.configs,
        )
    except TopicExists:
        pass  # another worker starts at the same time, and wants the same
    except BrokerUnavailable:
        raise
    except ClientError as error:
        return error.problem
    return ""


def check(changelog: Changelog, topic: Topic, configs: Iterable[ConfigEntry]) -> None:
    """Raise unless the topic can be the changelog."""
    there = len(topic.partitions)
    if there != changelog.partitions:
        raise WrongPartitions(
            f"Table {changelog.table!r} has {changelog.partitions} partitions, as have the "
            f"topics it is filled from; its changelog {topic.name} has {there}.",
            remedy=_remedy_for_partitions(changelog, there),
        )
    known = {entry.name: entry.value for entry in configs}
    policy = known.get("cleanup.policy") or ""
    policies = {word.strip() for word in policy.split(",")}
    # A user who has asked for another policy gets it.
    right = set(changelog.configs["cleanup.policy"].split(","))
    if "compact" not in policies and "compact" in right:
        raise WrongPolicy(
            f"{topic.name}, the changelog of table {changelog.table!r}, is not compacted "
            f"(cleanup.policy={policy}): the table would lose what is older than "
            "the topic's retention.",
            remedy=_alter(changelog, "cleanup.policy"),
        )
    if "delete" in policies and "delete" not in right:
        raise WrongPolicy(
            f"{topic.name}, the changelog of table {changelog.table!r}, deletes by age "
            f"(cleanup.policy={policy}): keys that are not written to would go away.",
            remedy=_alter(changelog, "cleanup.policy"),
        )
    retention, needed = known.get("retention.ms"), changelog.window_retention_ms
    if "delete" in policies and needed is not None and retention is not None:
        kept_ms = int(retention)
        if 0 <= kept_ms < needed:
            raise WrongPolicy(
                f"{topic.name} keeps records for {kept_ms} ms (retention.ms); the windows "
                f"of table {changelog.table!r} are asked for during {needed} ms.",
                remedy=_alter(changelog, "retention.ms"),
            )


def delete_retention_ms(configs: Iterable[ConfigEntry]) -> int:
    """For how long a changelog tells that a key was deleted."""
    for entry in configs:
        if entry.name == "delete.retention.ms" and entry.value is not None:
            return int(entry.value)
    return DELETE_RETENTION_MS


def _alter(changelog: Changelog, name: str) -> str:
    change = shlex.quote(f"{name}={changelog.configs[name]}")
    return f"`streamer topic alter {changelog.topic} -c {change}`, and start again."


def _remedy_for_partitions(changelog: Changelog, there: int) -> str:
    # Keys are spread by the number: no number can be changed with the state kept.
    return (
        f"Either give those topics {there} partitions again, under new names if need be; "
        "or let the table begin anew: stop all workers, "
        f"`streamer topic delete {changelog.topic}`, and start again "
        f"(it is made with {changelog.partitions} partitions, and is empty)."
    )
