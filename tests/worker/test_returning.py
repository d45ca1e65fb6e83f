"""A worker that comes back with other topics than it left with."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.apps import Bench, running, until
from support.clients import new_name, produce

import streamer
from streamer.client.interface import GroupMember, TopicPartition
from streamer.worker.returning import is_other

SESSION_MS = 1500


async def test_an_app_that_reads_other_topics_than_before_its_restart_gets_those(
    bench: Bench,
) -> None:
    id, first, second = new_name("app"), new_name(), new_name()
    seen: list[str] = []

    async def run(topic: str, value: bytes) -> None:
        app = bench.app(id, session_timeout_ms=SESSION_MS)
        words: streamer.Topic[str] = app.topic(topic, value_type=str, partitions=2)

        @app.agent(words, name="listen")
        async def listen(stream: streamer.Stream[str]) -> None:
            async for word in stream:
                seen.extend([word])

        async with app:
            worker = running(app)
            produce(bench.address, topic, [value])
            await until(lambda: value.decode() in seen, "nobody reads the topic")
            assert {at.topic for at in worker.assignment.partitions} == {topic}

    await run(first, b"before")
    await run(second, b"after")

    assert seen == ["before", "after"]


async def test_workers_on_two_machines_share_the_work(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, topic = new_name("app"), await bench.topic(partitions=2)
    seen: list[str] = []

    def made(machine: str) -> streamer.App:
        app = bench.app(id, state_dir=str(tmp_path / machine))
        words: streamer.Topic[str] = app.topic(topic, value_type=str)

        @app.agent(words, name="listen")
        async def listen(stream: streamer.Stream[str]) -> None:
            async for word in stream:
                seen.extend([word])

        return app

    async with made("one") as one:
        monkeypatch.setattr("platform.node", lambda: "another")
        async with made("two") as two:
            # Each is slot 0 of its own machine.
            await until(
                lambda: (
                    [len(running(each).assignment.partitions) for each in (one, two)]
                    == [1, 1]
                )
            )
            await bench.send(topic, "a", partition=0)
            await bench.send(topic, "b", partition=1)
            await until(lambda: len(seen) == 2)

    assert {part.strip('"') for part in seen} == {"a", "b"}


@pytest.mark.parametrize(
    ("ours", "others", "reads", "expected"),
    [
        ("", "", "a", False),  # nobody knows us
        ("a", "", "a", False),
        ("a", "", "b", True),  # what we have we do not read any more
        ("a b", "", "a", True),
        ("a", "", "a b", True),  # b is news to the group
        ("a", "a b", "a b", False),  # b has fewer partitions than there are workers
        ("", "a", "a b", False),  # we had nothing, and get nothing that is wrong
    ],
)
def test_whether_the_group_takes_us_for_what_we_were(
    ours: str, others: str, reads: str, expected: bool
) -> None:
    def member(name: str, topics: str) -> GroupMember:
        partitions = tuple(TopicPartition(topic, 0) for topic in topics.split())
        return GroupMember(name, name, "", "", partitions)

    members = [member("me", ours), member("other", others)]

    assert is_other(members, "me", frozenset(reads.split())) is expected
