"""The topics that an app reads and writes: made where they are missing, or listed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from streamer.client.interface import Admin, ClientError, NoSuchTopic, TopicExists
from streamer.conf import Conf
from streamer.errors import StreamerError
from streamer.topic import Topic

T = TypeVar("T")

KNOWN_S = 10.0


class MissingTopics(StreamerError):
    """Topics are missing, and may not be made."""


def ensure_topics(
    admin: Admin, conf: Conf, topics: Iterable[Topic[Any]], like: int | None = None
) -> dict[str, int]:
    """Have each of them; the number of partitions of each by name.

    `like`: how many partitions topics get that name none, if the app's settings do not
    say; those that records are regrouped through follow the topics they come from.
    """
    counts: dict[str, int] = {}
    commands: list[str] = []
    for topic in topics:
        for name in topic.topics:
            try:
                counts[name] = len(admin.topic(name).partitions)
                continue
            except NoSuchTopic:
                pass
            partitions = topic.partitions or like or conf.topic_partitions
            replicas = topic.replicas or conf.topic_replication_factor
            if not conf.topic_allow_declare:
                commands.append(_command(name, partitions, replicas, topic.configs))
                continue
            try:
                admin.create_topic(
                    name,
                    partitions=partitions,
                    replication=replicas,
                    configs=topic.configs,
                )
            except TopicExists:
                pass  # another worker has been quicker
            except ClientError as error:
                commands.append(_command(name, partitions, replicas, topic.configs))
                reason = error.problem
                raise _missing(commands, reason) from error
            counts[name] = len(once_known(partial(admin.topic, name)).partitions)
    if commands:
        raise _missing(commands, "The app may not make them (topic.allow.declare).")
    return counts


def once_known(step: Callable[[], T]) -> T:
    """Blocks. A topic that was made just now is not known to all nodes of a cluster."""
    until = time.monotonic() + KNOWN_S
    while True:
        try:
            return step()
        except NoSuchTopic:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _missing(commands: list[str], reason: str) -> MissingTopics:
    listed = "\n     ".join(commands)
    return MissingTopics(
        f"Topics that the app needs are not there. {reason}",
        remedy=f"Have them made by somebody who may:\n     {listed}",
    )


def _command(name: str, partitions: int, replicas: int, configs: dict[str, str]) -> str:
    words = ["streamer", "topic", "create", name]
    if partitions > 0:
        words += ["-p", str(partitions)]
    if replicas > 0:
        words += ["-r", str(replicas)]
    for key, value in configs.items():
        words += ["-c", f"{key}={value}"]
    return shlex.join(words)
