"""All ways to read at once, while workers come and go, handlers fail, commits are undone:
each record has its effects once. A seed repeats the choices, though not their moments."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from support.apps import Bench, commit_may_fail, running, until, values

import streamer

PARTITIONS = 3
AGENTS = ("beside", "plain", "later", "lists")
AGAIN = streamer.retry(100, backoff=0.001)


class Trial:
    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.choice = random.Random(seed)
        self.source = ""
        self.sinks: dict[str, str] = {}
        self.id: str | None = None
        self.apps: list[streamer.App] = []
        self.held: list[streamer.Event[int]] = []
        self.sent: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}

    async def begin(self) -> None:
        self.source = await self.bench.topic(PARTITIONS)
        self.sinks = {name: await self.bench.topic() for name in AGENTS}
        await self.worker_comes()

    async def worker_comes(self) -> None:
        app = self.declared()
        self.id = app.id
        await app.start()
        self.apps.append(app)

    async def worker_goes(self) -> None:
        await self.apps.pop(self.choice.randrange(len(self.apps))).stop()

    async def some_records(self, count: int) -> None:
        number = self.choice.randrange(PARTITIONS)
        begin = sum(map(len, self.sent.values()))
        new = range(begin, begin + count)
        await self.bench.send(self.source, *new, partition=number)
        self.sent[number] += new

    async def trouble(self) -> None:
        if self.choice.random() < 0.3:
            await asyncio.sleep(self.choice.choice([0, 0.001, 0.02]))
        if self.choice.random() < 0.02:
            raise RuntimeError("now and then")

    def declared(self) -> streamer.App:
        app = self.bench.app(
            self.id,
            buffered_records_per_partition=100,
            drain_timeout_ms=self.choice.choice([0, 200]),
            session_timeout_ms=2000,
        )
        source, trouble = app.topic(self.source), self.trouble
        out = {name: app.topic(sink) for name, sink in self.sinks.items()}
        seen: dict[str, streamer.Table[str, int]] = {
            name: app.Table(name, default=int) for name in AGENTS
        }

        @app.agent(source, name="beside", concurrency=10, on_error=AGAIN)
        async def beside(stream: streamer.Stream[int]) -> None:
            async for value in stream:
                await trouble()
                seen["beside"][str(value)] += 1
                await trouble()
                await out["beside"].send(value=value)
                await trouble()

        @app.agent(source, name="plain", on_error=AGAIN)
        async def plain(stream: streamer.Stream[int]) -> None:
            async for event in stream.events():
                seen["plain"][str(event.partition)] += event.value
                await out["plain"].send(value=event.value)
                await trouble()

        @app.agent(source, name="later", on_error=AGAIN)
        async def later(stream: streamer.Stream[int]) -> None:
            held = []
            async for event in stream.noack().events():
                seen["later"][str(event.value)] += 1
                await out["later"].send(value=event.value)
                await trouble()
                held.append(event)
                self.held.append(event)
                if len(held) > self.choice.randrange(30):
                    self.choice.shuffle(held)
                    while len(held) > 3:
                        held.pop().ack()

        @app.agent(source, name="lists", on_error=AGAIN)
        async def lists(stream: streamer.Stream[int]) -> None:
            async for some in stream.take(7, within=0.02):
                await trouble()
                for value in some:
                    seen["lists"][str(value)] += 1
                    await out["lists"].send(value=value)
                await trouble()

        return app

    async def end(self) -> None:
        while len(self.apps) > 1:
            await self.worker_goes()
        worker = running(self.apps[0])
        await until(lambda: len(worker.transaction.committed) == PARTITIONS)
        await until(lambda: self.all_is_committed(), "something is never done")

    def all_is_committed(self) -> bool:
        for event in self.held:
            event.ack()
        committed = running(self.apps[0]).transaction.committed
        return len(committed) == PARTITIONS and all(
            position.offset == len(self.sent[at.partition]) and not position.note
            for at, position in committed.items()
        )

    async def verify(self) -> None:
        every = sorted(value for values in self.sent.values() for value in values)
        tables: dict[str, dict[Any, int]] = {
            name: dict(table.items()) for name, table in self.apps[0].tables.items()
        }
        await self.apps[0].stop()
        for name, sink in self.sinks.items():
            found = Counter(values(await self.bench.read(sink)))
            wrong = {value: found[value] for value in every if found[value] != 1}
            assert not wrong, f"{name}: not once: {wrong}"
            assert sorted(found) == every
        once = {str(value): 1 for value in every}
        assert tables["beside"] == once
        assert tables["later"] == once
        assert tables["lists"] == once
        sums = {str(number): sum(these) for number, these in self.sent.items() if these}
        assert tables["plain"] == sums


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [(1, 15), *(pytest.param(seed, 150, marks=pytest.mark.slow) for seed in (2, 3, 4))],
)
async def test_every_record_has_its_effects_once_whatever_happens(
    bench: Bench, seed: int, rounds: int
) -> None:
    trial = Trial(bench, seed)
    await trial.begin()
    try:
        for number in range(rounds):
            await trial.some_records(trial.choice.randrange(1, 30))
            if trial.choice.random() < 0.15:
                commit_may_fail(trial.choice.choice(trial.apps))
            if number % 8 == 4:
                if len(trial.apps) == 1 or (len(trial.apps) == 2 and number % 3):
                    await trial.worker_comes()
                else:
                    await trial.worker_goes()
            await asyncio.sleep(trial.choice.uniform(0, 0.05))
        await trial.end()
        await trial.verify()
    finally:
        for app in trial.apps:
            await app.stop()
