"""Global tables: written by whoever has the record, read by everybody."""

from __future__ import annotations

import asyncio
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from support.apps import Bench, running, until
from support.clients import Sent, new_name

import streamer


def price(item: str, value: int, partition: int = 0) -> Sent:
    return Sent(value=json.dumps([item, value]).encode(), partition=partition)


def is_now(prices: streamer.GlobalTable[str, int], wanted: dict[str, int]) -> bool:
    one_by_one = {item: prices[item] for item in ("tea", "milk", "salt", "oil")}
    found = {item: price for item, price in one_by_one.items() if price}
    return found == dict(prices.items()) == wanted


class Shop:
    """A worker of an app that keeps prices, and looks them up for orders."""

    def __init__(self, bench: Bench, id: str, source: str, store: str = "memory") -> None:
        self.app = bench.app(id, store=store)
        changes = self.app.topic(source, value_type=list[str | int])
        self.prices: streamer.GlobalTable[str, int] = self.app.GlobalTable(
            "prices", default=int
        )
        prices = self.prices
        self.seen: list[tuple[int, int]] = []

        @self.app.agent(changes)
        async def change(stream: streamer.Stream[list[str | int]]) -> None:
            async for item, value in stream:
                assert isinstance(item, str)
                assert isinstance(value, int)
                before = prices[item]
                if value:
                    prices[item] = value
                else:
                    prices.pop(item, None)
                self.seen.append((before, prices[item]))

    @property
    def partitions(self) -> int:
        return len(running(self.app).assignment.partitions)


async def test_each_worker_has_all_of_it_and_a_new_one_before_its_first_record(
    bench: Bench,
) -> None:
    source, id = await bench.topic(partitions=4), new_name("shop")
    first, second, third = (Shop(bench, id, source, "rocksdb") for _ in range(3))
    wanted = {"tea": 1, "milk": 2, "salt": 3, "oil": 4}

    async with first.app, second.app:
        await until(lambda: first.partitions == second.partitions == 2)
        for number, (item, value) in enumerate(wanted.items()):
            await bench.send(source, price(item, value, number))
        await until(partial(is_now, first.prices, wanted))
        await until(partial(is_now, second.prices, wanted))

        async with third.app:
            assert is_now(third.prices, wanted), "as soon as it has started"

            await until(lambda: third.partitions > 0)
            await bench.send(source, price("milk", 0, 1), price("tea", 9, 0))
            changed = {"tea": 9, "salt": 3, "oil": 4}
            for prices in (first.prices, second.prices, third.prices):
                await until(partial(is_now, prices, changed), f"{dict(prices.items())}")
            assert len(third.prices) == 3


async def test_an_agent_reads_what_it_has_just_written(bench: Bench) -> None:
    source = await bench.topic()
    shop = Shop(bench, new_name("shop"), source)

    async with shop.app:
        await bench.send(source, *(price("tea", value) for value in (1, 2, 0, 3)))
        await until(lambda: len(shop.seen) == 4)

    assert shop.seen == [(0, 1), (1, 2), (2, 0), (0, 3)]


async def test_what_fails_is_seen_by_nobody(bench: Bench) -> None:
    source, app = await bench.topic(), bench.app()
    prices: streamer.GlobalTable[str, int] = app.GlobalTable("prices", default=int)
    handled: list[int] = []

    @app.agent(app.topic(source, value_type=int), on_error="skip")
    async def change(stream: streamer.Stream[int]) -> None:
        async for value in stream:
            prices["tea"] = value
            handled.append(value)
            if value == 2:
                raise RuntimeError("after it has written")

    async with app:
        await bench.send(source, 1, 2)
        await until(lambda: handled == [1, 2])
        await asyncio.sleep(0.2)
        assert prices["tea"] == 1
        assert prices.followed[0].committed_get("tea") == 1


@pytest.mark.parametrize(
    ("store", "lost"), [("rocksdb", False), ("rocksdb", True), ("memory", False)]
)
async def test_after_a_restart_it_is_there_from_disk_or_from_the_changelog(
    bench: Bench, tmp_path: Path, store: str, lost: bool
) -> None:
    source, id = await bench.topic(partitions=2), new_name("shop")
    shop = Shop(bench, id, source, store)
    async with shop.app:
        await bench.send(source, price("tea", 1), price("milk", 2, 1), price("tea", 3))
        await until(lambda: dict(shop.prices.items()) == {"tea": 3, "milk": 2})
        await until(lambda: shop.prices.followed[0].committed_get("tea") == 3)

    if lost:
        shutil.rmtree(tmp_path / "state")
    shop = Shop(bench, id, source, store)
    async with shop.app:
        assert dict(shop.prices.items()) == {"tea": 3, "milk": 2}
        await bench.send(source, price("tea", 4))
        await until(lambda: shop.prices["tea"] == 4)


async def test_a_timer_reads_it_and_cannot_write_it(bench: Bench) -> None:
    source = await bench.topic()
    shop = Shop(bench, new_name("shop"), source)
    read: list[int] = []
    refused: list[str] = []

    @shop.app.timer(0.05)
    async def look() -> None:
        read.append(shop.prices["tea"])
        try:
            shop.prices["tea"] = 7
        except streamer.StreamerError as error:
            refused.append(str(error))

    async with shop.app:
        await bench.send(source, price("tea", 5))
        await until(lambda: read and read[-1] == 5)

    assert "can be changed by an agent only" in refused[0]


def test_it_has_no_windows() -> None:
    table: streamer.GlobalTable[str, int] = streamer.GlobalTable("prices")

    with pytest.raises(streamer.StreamerError, match="cannot have windows"):
        table.tumbling(60.0)
