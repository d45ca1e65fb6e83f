"""The words of the language, each as a user would write it, on a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from support.apps import Bench, until, values
from support.clients import Sent

import streamer
from streamer import agent as agents
from streamer.app import NotRunning
from streamer.table import TableError
from streamer.topic import InvalidTopic


class Order(streamer.Record):
    id: str
    item: str
    quantity: int = 1


def order(id: str, item: str, quantity: int = 1) -> dict[str, Any]:
    return {"id": id, "item": item, "quantity": quantity}


# Yields, and asking.


async def test_what_an_agent_yields_goes_to_all_of_its_sinks(bench: Bench) -> None:
    source, sink, second = await bench.topic(), await bench.topic(), await bench.topic()
    app = bench.app()
    orders, out, further = app.topic(source), app.topic(sink), app.topic(second)
    heard: list[int] = []

    @app.agent(further, name="next")
    async def next_one(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            heard.insert(0, -value)

    async def later(value: int) -> None:
        await asyncio.sleep(0)
        heard.append(value)

    @app.agent(orders, sink=[out, next_one])
    async def double(stream: streamer.Stream[int]) -> AsyncIterator[int]:
        async for value in stream:
            yield 2 * value

    double.add_sink(heard.append)
    double.add_sink(later)

    async with app:
        await bench.send(source, 1, 2)
        await bench.outputs(sink, 2)
        await until(lambda: len(heard) == 6)

    assert values(await bench.read(sink)) == [2, 4]
    assert sorted(heard) == [-4, -2, 2, 2, 4, 4]


async def test_asking_gives_what_the_agent_yields_once_that_is_committed(
    bench: Bench,
) -> None:
    app = bench.app(topic_partitions=1)
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(name="count")
    async def count(stream: streamer.Stream[str]) -> AsyncIterator[int]:
        async for word in stream:
            counts[word] += 1
            yield counts[word]

    async with app:
        assert await count.ask("tea") == 1
        await until(lambda: counts["tea"] == 1)
        assert await count.ask("tea", key=b"k", headers={"h": b"1"}) == 2
        await count.cast("tea")
        await count.send(value="milk")
        assert await count.ask("tea") == 4
        assert await count.join(["a", "b", "a"]) in ([1, 1, 2], [2, 1, 1])
        assert [answer async for answer in count.map(["c", "d"])] == [1, 1]


async def test_who_answers_nothing_is_named(bench: Bench) -> None:
    app = bench.app()

    @app.agent(name="silent")
    async def silent(stream: streamer.Stream[str]) -> None:
        async for _ in stream:
            pass

    async with app:
        with pytest.raises(agents.NoReply, match="silent"):
            await silent.ask("hello", timeout=0.2)


async def test_an_agent_may_ask_another_while_it_has_a_record_in_hand(
    bench: Bench,
) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app(commit_interval_ms=60_000)
    out = app.topic(sink)

    @app.agent(name="price")
    async def price(stream: streamer.Stream[str]) -> AsyncIterator[int]:
        async for item in stream:
            yield len(item)

    @app.agent(app.topic(source), name="sell")
    async def sell(stream: streamer.Stream[str]) -> None:
        async for item in stream:
            first = await price.ask(item, timeout=10)
            both = await price.join([item, item + item])
            await out.send(value=[item, first, both])

    async with app:
        await bench.send(source, "tea", "milk")
        await bench.outputs(sink, 2)

    assert values(await bench.read(sink)) == [["tea", 3, [3, 6]], ["milk", 4, [4, 8]]]


async def test_an_answer_finds_its_way_through_a_group_by(bench: Bench) -> None:
    app = bench.app()
    sizes: streamer.Table[int, int] = app.Table("sizes", default=int)

    @app.agent(name="count", concurrency=3)
    async def count(stream: streamer.Stream[str]) -> AsyncIterator[list[int]]:
        async for word in stream.group_by(lambda one: len(one), name="size"):
            sizes[len(word)] += 1
            yield [len(word), sizes[len(word)]]

    async with app:
        assert await count.ask("tea") == [3, 1]
        assert await count.ask("milk") == [4, 1]
        assert await count.ask("ale") == [3, 2]


async def test_an_answer_of_a_record_that_failed_does_not_come(bench: Bench) -> None:
    app, tries = bench.app(), list[str]()

    @app.agent(name="count", on_error=streamer.retry(2, backoff=0.0))
    async def count(stream: streamer.Stream[str]) -> AsyncIterator[int]:
        async for word in stream:
            tries.append(word)
            yield len(tries)
            if len(tries) == 1:
                raise RuntimeError("after it has answered")

    async with app:
        assert await count.ask("tea") == 2


# Streams.


async def test_steps_apply_in_the_order_in_which_they_are_written(bench: Bench) -> None:
    source, sink = await bench.topic(2), await bench.topic()
    app = bench.app()
    orders, out = app.topic(source, value_type=Order), app.topic(sink)
    looked_at: list[tuple[str, str]] = []

    def look(name: str, yes: bool) -> Any:
        def check(one: Order) -> bool:
            looked_at.append((name, one.id))
            return yes or one.id != "2"

        return check

    async def is_small(one: Order) -> bool:
        return one.quantity < 10

    @app.agent(orders)
    async def sell(stream: streamer.Stream[Order]) -> None:
        grouped = stream.filter(look("before", False)).group_by(Order.item)
        async for one in grouped.filter(look("after", True)).filter(is_small):
            await out.send(value=[one.id, one.item, one.quantity])

    async with app:
        await bench.send(source, order("1", "tea"), order("2", "tea"))
        await bench.send(source, order("3", "tea", 10), order("4", "milk"), partition=1)
        await bench.outputs(sink, 2)
        await until(lambda: len(looked_at) == 7)

    assert sorted(values(await bench.read(sink))) == [["1", "tea", 1], ["4", "milk", 1]]
    assert sorted(one for name, one in looked_at if name == "after") == ["1", "3", "4"]


async def test_records_are_grouped_twice_and_counted_where_they_belong(
    bench: Bench,
) -> None:
    source = await bench.topic(3)
    app = bench.app()
    orders = app.topic(source, value_type=Order)
    first: streamer.Table[str, int] = app.Table("first", default=int)
    second: streamer.Table[int, int] = app.Table("second", default=int)

    def by_item(one: Order) -> str:
        return one.item

    @app.agent(orders, name="items")
    async def items(stream: streamer.Stream[Order]) -> None:
        async for one in stream.group_by(by_item):
            first[one.item] += one.quantity

    @app.agent(orders, name="sizes")
    async def sizes(stream: streamer.Stream[Order]) -> None:
        twice = stream.group_by(Order.item).group_by(lambda one: one.quantity, name="size")
        async for one in twice:
            second[one.quantity] += 1

    async with app:
        for partition in range(3):
            sent = [order(str(n), ["tea", "milk"][n % 2], n % 3) for n in range(30)]
            await bench.send(source, *sent, partition=partition)
        await until(lambda: dict(second.items()) == {0: 30, 1: 30, 2: 30})
        await until(lambda: dict(first.items()) == {"tea": 45, "milk": 45})

    topics = {f"{app.id}-items-by_item-repartition", f"{app.id}-sizes-item-repartition"}
    assert {*topics, f"{app.id}-sizes-size-repartition"} <= set(
        await asyncio.to_thread(bench.topics)
    )


async def test_a_lambda_without_a_name_is_refused_with_the_way_out(bench: Bench) -> None:
    source = await bench.topic()
    app = bench.app()

    @app.agent(app.topic(source, value_type=Order))
    async def sell(stream: streamer.Stream[Order]) -> None:
        async for _ in stream.group_by(lambda one: one.item):
            pass

    async with app:
        with pytest.raises(streamer.StreamerError, match="name='item'"):
            await app.wait()


async def test_headers_and_the_time_of_a_record_outlive_a_group_by(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders: streamer.Topic[Order | None] = app.topic(source, value_type=Order)
    out = app.topic(sink)

    @app.agent(orders)
    async def sell(stream: streamer.Stream[Order | None]) -> None:
        async for event in stream.group_by(Order.item).events():
            if event.value is None:
                await out.send(value=["deleted", event.key.decode()])
                continue
            await out.send(
                value=[event.key.decode(), event.timestamp, event.value.id],
                headers={"had": event.headers["trace"]},
                timestamp=event.timestamp + 1,
            )

    async with app:
        data = json.dumps(order("1", "tea")).encode()
        sent = Sent(value=data, headers=[("trace", b"7")], timestamp=1_600_000_000_123)
        await bench.send(source, sent, Sent(value=None, key=b"gone"))
        await bench.outputs(sink, 2)

    found = await bench.read(sink)
    assert found[0].value == ["tea", 1_600_000_000.123, "1"]
    assert found[0].headers == {"had": b"7"}
    assert found[0].timestamp_ms == 1_600_000_001_123
    assert found[1].value == ["deleted", "gone"]


async def test_through_sends_a_stream_on_and_reads_it_back(bench: Bench) -> None:
    source, between, sink = [await bench.topic() for _ in range(3)]
    app = bench.app()
    orders, way, out = app.topic(source), app.topic(between), app.topic(sink)

    @app.agent(orders)
    async def work(stream: streamer.Stream[int]) -> None:
        async for key, value in stream.filter(lambda one: one != 2).through(way).items():
            await out.send(key=key, value=value)

    async with app:
        await bench.send(source, *[Sent(value=b"%d" % n, key=b"k") for n in range(4)])
        await bench.outputs(sink, 3)

    assert values(await bench.read(between)) == [0, 1, 3]
    assert [(one.key, one.value) for one in await bench.read(sink)] == [
        (b"k", 0),
        (b"k", 1),
        (b"k", 3),
    ]


async def test_echo_events_items_enumerate_and_the_current_event(bench: Bench) -> None:
    source, copy, sink = [await bench.topic() for _ in range(3)]
    app = bench.app()
    orders, also = app.topic(source, key_type=str), app.topic(copy)
    out = app.topic(sink)

    async def where() -> list[Any]:
        event = streamer.current_event()
        return [event.topic, event.partition, event.offset, event.value, event.key]

    @app.agent(orders, name="echo")
    async def echo(stream: streamer.Stream[int]) -> None:
        async for number, value in stream.echo(also).enumerate(start=5):
            await out.send(value=["echo", number, value, stream.current_event.value])

    @app.agent(orders, name="items")
    async def items(stream: streamer.Stream[int]) -> None:
        async for key, value in stream.items():
            await out.send(value=["items", key, value, await where()])

    async with app:
        await bench.send(source, Sent(value=b"1", key=b"a"), Sent(value=b"2", key=b"b"))
        await bench.outputs(sink, 4)
        with pytest.raises(streamer.StreamerError, match="No record"):
            streamer.current_event()

    found = values(await bench.read(sink))
    assert [one for one in found if one[0] == "echo"] == [
        ["echo", 5, 1, 1],
        ["echo", 6, 2, 2],
    ]
    assert [one for one in found if one[0] == "items"] == [
        ["items", "a", 1, [source, 0, 0, 1, "a"]],
        ["items", "b", 2, [source, 0, 1, 2, "b"]],
    ]
    assert values(await bench.read(copy)) == [1, 2]


async def test_a_processor_may_skip_and_may_be_async(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    out = app.topic(sink)

    async def halved(value: int) -> int:
        if value % 2:
            raise streamer.Skip
        return value // 2

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for value in stream.add_processor(halved).add_processor(lambda one: -one):
            await out.send(value=value)

    async with app:
        await bench.send(source, 0, 1, 2, 3, 4)
        await bench.outputs(sink, 3)

    assert values(await bench.read(sink)) == [0, -1, -2]


async def test_an_event_is_sent_on_and_forwarded_as_it_came(bench: Bench) -> None:
    source, sent, forwarded = [await bench.topic() for _ in range(3)]
    app = bench.app()
    orders = app.topic(source, key_type=str, value_type=Order)
    first, second = app.topic(sent, key_type=str, value_type=Order), app.topic(forwarded)

    @app.agent(orders)
    async def work(stream: streamer.Stream[Order]) -> None:
        async for event in stream.events():
            await event.send(first, headers={"sent": b"1"})
            await event.forward(second)
            await event.forward(second, headers={"own": b"2"})

    async with app:
        raw = b'{ "id":"1","item":"tea" , "more": 1}'
        await bench.send(source, Sent(value=raw, key=b"k", headers=[("trace", b"7")]))
        await bench.outputs(forwarded, 2)
        (one,) = await bench.outputs(sent, 1)

    assert (one.key, one.value, one.headers) == (b"k", order("1", "tea"), {"sent": b"1"})
    found = [(two.key, two.data, two.headers) for two in await bench.read(forwarded)]
    assert found == [(b"k", raw, {"trace": b"7"}), (b"k", raw, {"own": b"2"})]


async def test_a_tombstone_is_a_value_of_none(bench: Bench) -> None:
    source, sink = await bench.topic(), await bench.topic()
    app = bench.app()
    orders: streamer.Topic[Order | None] = app.topic(source, key_type=str, value_type=Order)
    out = app.topic(sink)

    @app.agent(orders)
    async def work(stream: streamer.Stream[Order | None]) -> None:
        async for key, one in stream.items():
            await out.send(key=b"k", value=None if one is None else [key, one.id])

    async with app:
        data = json.dumps(order("1", "tea")).encode()
        await bench.send(source, Sent(value=data, key=b"a"), Sent(value=None, key=b"a"))
        await bench.outputs(sink, 2)

    assert [one.value for one in await bench.read(sink)] == [["a", "1"], None]


async def test_several_topics_are_read_as_one_and_not_sent_to(bench: Bench) -> None:
    one, other, sink = [await bench.topic() for _ in range(3)]
    app = bench.app()
    both, out = app.topic(one, other), app.topic(sink)
    refused: list[BaseException] = []

    @app.agent(both)
    async def work(stream: streamer.Stream[int]) -> None:
        async for event in stream.events():
            await out.send(value=[event.topic, event.value])
            try:
                await both.send(value=1)
            except InvalidTopic as error:
                refused.append(error)

    async with app:
        await bench.send(one, 1)
        await bench.send(other, 2)
        await bench.outputs(sink, 2)

    assert sorted(values(await bench.read(sink))) == sorted([[one, 1], [other, 2]])
    assert len(refused) == 2


# Around agents.


async def test_an_agent_without_a_topic_has_one_of_its_own(bench: Bench) -> None:
    app, heard = bench.app(), list[Any]()

    @app.agent()
    async def listen(stream: streamer.Stream[str]) -> None:
        async for word in stream:
            heard.append(word)

    assert listen.get_topic_names() == (f"{app.id}-tests.worker.test_words.listen",)
    async with app:
        await app.send(listen, value="one")
        await app.send(listen.get_topic_names()[0], value="two")
        await until(lambda: sorted(heard) == ["one", "two"])


async def test_a_send_from_outside_says_where_the_record_has_come_to_lie(
    bench: Bench,
) -> None:
    sink = await bench.topic(2)
    app = bench.app()
    out = app.topic(sink, key_type=str)

    async with app:
        found = await out.send(key="k", value=1, partition=1)
        again = await app.send(sink, value=2, partition=1, headers={"h": b"1"})
        out.send_soon(value=3, partition=0)  # and it is there, though the app ends now

    assert len(await bench.outputs(sink, 3, 2)) == 3
    assert (found.topic, found.partition, found.offset) == (sink, 1, 0)
    assert again.offset == 1
    with pytest.raises(NotRunning, match="async with app"):
        await out.send(value=4)


async def test_a_send_from_outside_that_is_refused_is_said_to_whoever_sends(
    bench: Bench,
) -> None:
    sink = await bench.topic(max_message_bytes="1000")
    app = bench.app()
    out = app.topic(sink, value_serializer="raw")

    async with app:
        with pytest.raises(streamer.StreamerError, match="too large"):
            await out.send(value=bytes(range(256)) * 400)
        with pytest.raises(streamer.StreamerError, match="Unknown partition"):
            await out.send(value=b"1", partition=9)


async def test_tables_are_written_by_agents_only(bench: Bench) -> None:
    source = await bench.topic()
    app = bench.app()
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            counts["all"] += 1

    async with app:
        with pytest.raises(TableError, match="counts"):
            counts["all"] = 1


async def test_clearing_a_table_clears_the_partition_of_the_record_in_hand(
    bench: Bench,
) -> None:
    source = await bench.topic(2)
    app = bench.app()
    marks: streamer.Table[str, int] = app.Table("marks")

    @app.agent(app.topic(source))
    async def mark(stream: streamer.Stream[str]) -> None:
        async for event in stream.events():
            if event.value == "clear":
                marks.clear()
            else:
                marks[event.value] = event.partition

    async with app:
        await bench.send(source, "a", "b", partition=0)
        await bench.send(source, "c", partition=1)
        await until(lambda: len(marks) == 3)
        await bench.send(source, "clear", partition=1)
        await until(lambda: len(marks) == 2)
        assert dict(marks.items()) == {"a": 0, "b": 0}


async def test_timers_tasks_and_crontabs_run_and_what_they_send_goes_at_once(
    bench: Bench,
) -> None:
    sink = await bench.topic()
    app = bench.app()
    out = app.topic(sink)
    seen: list[str] = []

    @app.timer(0.02)
    async def tick() -> None:
        seen.append("tick")
        if seen.count("tick") == 2:
            raise RuntimeError("it runs again all the same")

    @app.timer("50/s", on_leader=True)
    async def lead() -> None:
        seen.append("lead")

    @app.crontab("* * * * *")
    async def each_minute() -> None: ...

    @app.task
    async def once(own: streamer.App) -> None:
        assert own is app
        await out.send(value="once")

    @app.task(on_leader=True)
    async def once_by_the_leader() -> None:
        await out.send(value="leader")

    async with app:
        await bench.outputs(sink, 2)
        await until(lambda: seen.count("tick") >= 4 and seen.count("lead") >= 3)

    assert sorted(values(await bench.read(sink))) == ["leader", "once"]


async def test_a_task_that_raises_ends_the_worker(bench: Bench) -> None:
    app = bench.app()

    @app.task
    async def once() -> None:
        raise ValueError("no database")

    async with app:
        with pytest.raises(ValueError, match="no database"):
            await app.wait()


async def test_signals_tell_of_partitions_that_come_and_go(bench: Bench) -> None:
    source = await bench.topic(2)
    app = bench.app()
    heard: list[Any] = []

    @app.agent(app.topic(source))
    async def work(stream: streamer.Stream[int]) -> None:
        async for _ in stream:
            pass

    @app.on_partitions_assigned.connect
    async def assigned(own: streamer.App, partitions: set[streamer.TopicPartition]) -> None:
        heard.append(("assigned", partitions))

    @app.on_rebalance_complete.connect
    def complete(own: streamer.App) -> None:
        heard.append("complete")

    @app.on_before_shutdown.connect
    def shutdown(own: streamer.App) -> None:
        heard.append("shutdown")

    async with app:
        await until(lambda: "complete" in heard)

    ours = {streamer.TopicPartition(source, number) for number in range(2)}
    assert heard == [("assigned", ours), "complete", "shutdown"]


async def test_an_app_runs_in_a_loop_of_ones_own_and_again_after_that(
    bench: Bench,
) -> None:
    source = await bench.topic()
    app = bench.app()
    counts: streamer.Table[str, int] = app.Table("counts", default=int)

    @app.agent(app.topic(source))
    async def count(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            counts["all"] += value

    for total in (1, 2, 3):
        async with app:
            await bench.send(source, 1)
            await until(partial(lambda total: counts["all"] == total, total))
            with pytest.raises(streamer.StreamerError, match="runs already"):
                await app.start()
        assert counts.get("all") is None
