"""The consumer is called by one at a time: whoever comes while a thread is in a call waits
for that one, and if it is the loop, everything does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support.apps import Bench, running, until

import streamer
from streamer.client.confluent.member import ConfluentMember
from streamer.client.interface import Taken, TopicPartition

CALLS = (
    *("subscribe", "consume", "read", "pause", "resume"),
    *("let_go", "watermarks", "commit", "close"),
)


class Overlaps:
    """Calls of members that were made while another was under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: set[str] = set()
        self.seen: set[str] = set()
        self._under_way: list[str] = []
        self._lock = threading.Lock()
        for name in CALLS:
            real = getattr(ConfluentMember, name)
            noted = partial(self._noted, name, real)
            monkeypatch.setattr(
                ConfluentMember, name, lambda *given, noted=noted: noted(*given)
            )

    def _noted(self, name: str, real: Callable[..., Any], *given: Any) -> Any:
        with self._lock:
            self.seen.add(name)
            self.found |= {f"{name} during {other}" for other in self._under_way}
            self._under_way.append(name)
        try:
            return real(*given)
        finally:
            with self._lock:
                self._under_way.remove(name)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once", "at_most_once"])
async def test_nobody_calls_the_consumer_while_somebody_else_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, guarantee: str
) -> None:
    overlaps = Overlaps(monkeypatch)
    app = bench.app(processing_guarantee=guarantee)
    topic = await bench.topic()
    at, done = TopicPartition(topic, 0), list[int]()

    @app.agent(app.topic(topic), name="read")
    async def read(stream: streamer.Stream[int]) -> None:
        async for number in stream:
            await asyncio.sleep(0.001)
            done.append(number)

    async with app:
        worker = running(app)
        await bench.send(topic, *range(100))
        await until(lambda: len(done) == 100)
        worker.assignment.changed([Taken((at,), lost=False)])
        await until(lambda: "let_go" in overlaps.seen)
        for _ in range(20):
            await asyncio.sleep(0.02)
            worker.standing()

    assert overlaps.found == set()
    assert {"consume", "read", "let_go", "watermarks"} <= overlaps.seen
