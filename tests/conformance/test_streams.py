"""A Kafka Streams application, exactly once: counts come out right though it is killed.

It is the most demanding client there is: it makes internal topics, commits offsets,
state and results in one transaction, waits for stable offsets, rebuilds its state from
a changelog, and its rebalances are cooperative. `--against=kafka` shows the same.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from conformance.conftest import MakeTopic
from support.clients import Sent, new_name, produce, read, wait_until
from support.kafka import start_java

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

WORDS = ["apple", "pear", "plum", "fig", "grape", "quince", "medlar"]

LINES = 600


def counts(bootstrap: str, output: str) -> dict[str, list[int]]:
    """Each word with all the counts that were committed of it, in their order."""
    found: dict[str, list[int]] = defaultdict(list)
    for message in read(
        bootstrap, output, partitions=range(2), isolation_level="read_committed"
    ):
        word, count = message.key(), message.value()
        assert isinstance(word, bytes)
        assert isinstance(count, bytes)
        found[word.decode()].extend(struct.unpack(">q", count))
    return found


def patiently(condition: Callable[[], bool], problem: str) -> None:
    """Several of the usual deadlines, since Java starts and groups rebalance."""
    for _ in range(5):
        try:
            return wait_until(condition, problem)
        except AssertionError:
            continue
    return wait_until(condition, problem)


def test_each_word_is_counted_once_though_the_application_is_killed(
    bootstrap: str, make_topic: MakeTopic, tmp_path: Path
) -> None:
    source, output = make_topic(partitions=2), make_topic(partitions=2)
    chance = random.Random(4)
    lines = [" ".join(chance.choices(WORDS, k=5)) for _ in range(LINES)]
    wanted = Counter(word for line in lines for word in line.split())
    arguments = (bootstrap, new_name("wordcount"), source, output, str(tmp_path / "state"))

    def send(some: list[str]) -> None:
        records = [
            Sent(value=line.encode(), partition=number % 2)
            for number, line in enumerate(some)
        ]
        produce(bootstrap, source, records)

    with start_java("WordCount", *arguments, directory=tmp_path) as killed:
        send(lines[:200])
        patiently(lambda: bool(counts(bootstrap, output)), "it never began")
        send(lines[200:400])
        killed.kill()

    with start_java("WordCount", *arguments, directory=tmp_path) as application:
        send(lines[400:])
        try:
            patiently(
                lambda: sum(map(len, counts(bootstrap, output).values())) >= LINES * 5,
                "it never came to the end",
            )
        except BaseException:
            application.kill()
            raise
    assert application.returncode == 0, (tmp_path / "WordCount.out").read_text()

    found = counts(bootstrap, output)
    assert {word: each[-1] for word, each in found.items()} == dict(wanted)
    for word, each in found.items():
        assert each == list(range(1, wanted[word] + 1)), f"{word} was counted twice"
