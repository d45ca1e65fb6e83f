"""What a transaction does when the producer, or the broker, does not go along."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from support.apps import Bench, running, until, values
from support.clients import new_name

import streamer
from streamer.client import librdkafka
from streamer.client.interface import (
    BrokerUnavailable,
    MustAbort,
    Taken,
    TransactionalProducer,
)


def copying(bench: Bench, topic: str, out: str, **agent: Any) -> streamer.App:
    """Sends each number on, so many times."""
    app = bench.app(new_name("app"))
    sent = app.topic(out)
    counts = app.Table("counts", default=int, value_type=int)

    @app.agent(app.topic(topic), name="copy", **agent)
    async def copy(stream: streamer.Stream[dict[str, Any]]) -> None:
        async for order in stream:
            counts["all"] += 1
            for number in range(order["times"]):
                await sent.send(value=str(number) + "." * order.get("size", 0))

    return app


def with_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    ours = librdkafka.SETTINGS["producer"] | {name: value}  # type: ignore[operator]
    monkeypatch.setitem(librdkafka.SETTINGS, "producer", ours)


async def test_what_the_producer_has_no_room_for_is_sent_a_moment_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_setting(monkeypatch, "queue.buffering.max.messages", 100)
    topic, out = await bench.topic(), await bench.topic()

    async with copying(bench, topic, out):
        await bench.send(topic, {"times": 5000})
        found = await bench.outputs(out, 5000)

    assert values(found) == [str(number) for number in range(5000)]


async def test_a_record_that_the_producer_does_not_take_is_an_error_of_its_handler(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_setting(monkeypatch, "message.max.bytes", 2000)
    topic, out = await bench.topic(), await bench.topic()

    async with copying(bench, topic, out, on_error=streamer.skip) as app:
        await bench.send(
            topic, {"times": 1}, {"times": 1, "size": 5000}, {"times": 1, "size": 5}
        )
        found = await bench.outputs(out, 2)
        await until(lambda: dict(app.tables["counts"].items()) == {"all": 2})

    assert values(found) == ["0", "0....."]


@pytest.mark.parametrize("is_committed", [True, False])
async def test_an_answer_that_got_lost_costs_nothing_and_repeats_nothing(
    bench: Bench, is_committed: bool
) -> None:
    topic, out = await bench.topic(), await bench.topic()
    async with copying(bench, topic, out) as app:
        await until(lambda: running(app).assignment.settled.is_set())
        real = producer_of(app)
        commit = real.commit

        def once() -> None:
            real.commit = commit  # type: ignore[method-assign]
            if is_committed:
                commit()
            raise BrokerUnavailable("No answer.")

        real.commit = once  # type: ignore[method-assign]
        await bench.send(topic, {"times": 2})
        await bench.send(topic, {"times": 1})
        await until(lambda: dict(app.tables["counts"].items()) == {"all": 2})

        assert values(await bench.read(out)) == ["0", "1", "0"]
        assert producer_of(app) is not real, "a new one has ended what was left open"


async def test_a_transaction_that_must_be_aborted_is_done_again(bench: Bench) -> None:
    topic, out = await bench.topic(), await bench.topic()
    async with copying(bench, topic, out) as app:
        await until(lambda: running(app).assignment.settled.is_set())
        real = producer_of(app)
        commit = real.commit

        def once() -> None:
            real.commit = commit  # type: ignore[method-assign]
            raise MustAbort("Not this time.")

        real.commit = once  # type: ignore[method-assign]
        await bench.send(topic, {"times": 2}, {"times": 1})
        await until(lambda: dict(app.tables["counts"].items()) == {"all": 2})

        assert values(await bench.read(out)) == ["0", "1", "0"]
        assert running(app).counters.aborts == 1


async def test_a_store_has_nothing_before_the_broker_has_committed_it(bench: Bench) -> None:
    topic, out = await bench.topic(), await bench.topic()
    app = copying(bench, topic, out)
    async with app:
        producer, before = producer_of(app), list[dict[str, int]]()
        commit = producer.commit

        def looking() -> None:
            before.append(dict(app.tables["counts"].items()))
            commit()

        producer.commit = looking  # type: ignore[method-assign]
        await bench.send(topic, {"times": 1})
        await until(lambda: dict(app.tables["counts"].items()) == {"all": 1})

    assert before[0] == {}


async def test_a_worker_that_is_stopped_while_it_gives_back_partitions_ends_its_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "streamer")
    topic, out = await bench.topic(), await bench.topic()
    app = copying(bench, topic, out)
    await app.start()
    worker, begun, go_on = running(app), threading.Event(), threading.Event()
    await until(lambda: worker.assignment.settled.is_set())
    producer = producer_of(app)
    commit = producer.commit

    def in_its_time() -> None:
        begun.set()
        go_on.wait(10)
        commit()

    # The commit is that of the revoke, and still runs when the worker is told to stop.
    monkeypatch.setattr(worker.transaction, "_is_due", lambda *_: False)
    producer.commit = in_its_time  # type: ignore[method-assign]
    await bench.send(topic, {"times": 1})
    await until(lambda: worker.transaction.staged)
    worker.assignment.changed([Taken(tuple(worker.assignment.partitions), lost=False)])
    await until(begun.is_set)
    stopping = asyncio.create_task(app.stop())
    await asyncio.sleep(0.2)
    go_on.set()
    await stopping

    assert caplog.messages == []
    assert values(await bench.read(out)) == ["0"]


def producer_of(app: streamer.App) -> TransactionalProducer:
    producer: Any = running(app).transaction._producer
    found: TransactionalProducer = producer
    return found
