"""Windowed tables on a broker: over restarts, from their changelogs, with late records."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.apps import Bench, running, until
from support.clients import Sent

import streamer

START_S = 1_700_000_000
"""A multiple of ten."""


def click(moment_s: float, page: str = "tea") -> Sent:
    stamp = round((START_S + moment_s) * 1000)
    return Sent(value=page.encode(), timestamp=stamp)


class Shop:
    """An app that counts clicks by page, in windows; made anew for each start."""

    def __init__(self, bench: Bench, source: str, id: str, store: str) -> None:
        self.app = bench.app(id, store=store)
        clicks = self.app.topic(source, value_type=str)
        hopping: streamer.WindowedTable[str, int] = self.app.Table(
            "clicks", default=int
        ).hopping(10.0, 5.0, expires=20.0)
        self.windows = hopping
        self.handled: list[str] = []

        @self.app.agent(clicks)
        async def count(stream: streamer.Stream[str]) -> None:
            async for page in stream:
                hopping[page] += 1
                self.handled.append(page)

    def counts(self, page: str = "tea", until_s: int = 100) -> dict[int, int]:
        """By start of the window, in seconds since ours."""
        found = {}
        for second in range(-10, until_s, 5):
            window = streamer.WindowRange(START_S + second, 0)
            if count := self.windows[page][window]:
                found[second] = count
        return found

    @property
    def late(self) -> int:
        return running(self.app).counters.late["clicks"]


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
async def test_counts_late_records_and_expiry_go_on_where_they_were(
    bench: Bench, store: str, tmp_path: Path
) -> None:
    source, id = await bench.topic(), f"windows-{store}"

    shop = Shop(bench, source, id, store)
    async with shop.app:
        await bench.send(source, click(1), click(7), click(12))
        await until(lambda: shop.counts() == {-5: 1, 0: 2, 5: 2, 10: 1})

    # Another process, in the middle: what is late is judged by what the first has seen.
    shop = Shop(bench, source, id, store)
    async with shop.app:
        await bench.send(source, click(4), click(14))
        await until(lambda: len(shop.handled) == 2)
        await until(lambda: shop.counts() == {-5: 1, 0: 2, 5: 3, 10: 2}, f"{shop.counts()}")
        assert shop.late == 1

    # And one that has to read it all from the changelog, and removes what is over.
    shutil.rmtree(tmp_path / "state")
    shop = Shop(bench, source, id, store)
    async with shop.app:
        assert not shop.handled
        await bench.send(source, click(35))
        await until(lambda: shop.counts() == {10: 2, 30: 1, 35: 1}, f"{shop.counts()}")
        parts = list(shop.windows.table.here.values())
        windows = {start for part in parts for (start, _), _ in part.committed_items()}
        assert windows == {(START_S + second) * 1000 for second in (10, 30, 35)}

    changelog = await bench.read(f"{id}-clicks-changelog")
    latest = {record.key: record.data for record in changelog}
    assert sum(data is not None for data in latest.values()) == 4, "and the stream time"
    assert sum(data is None for data in latest.values()) == 3


async def test_the_changelog_of_windows_is_compacted_and_kept_for_a_time(
    bench: Bench,
) -> None:
    shop = Shop(bench, await bench.topic(), "windows-kept", "memory")

    async with shop.app:
        admin = running(shop.app).clients.admin
        entries = await asyncio.to_thread(
            admin.topic_configs, "windows-kept-clicks-changelog"
        )
        configs = {entry.name: entry.value for entry in entries}

    assert configs["cleanup.policy"] == "compact,delete"
    assert configs["retention.ms"] == str(30_000 + 24 * 3_600_000)


async def test_windows_go_by_a_field_of_the_record(bench: Bench) -> None:
    source, app = await bench.topic(), bench.app()
    orders = app.topic(source, value_type=Order)
    sold: streamer.WindowedTable[str, int] = app.Table("sold", default=int).tumbling(60.0)
    by_field = sold.relative_to_field(Order.at)
    seen: list[int] = []

    @app.agent(orders)
    async def count(stream: streamer.Stream[Order]) -> None:
        async for order in stream:
            by_field[order.item] += order.quantity
            seen.append(by_field[order.item].value())

    async with app:
        for at, quantity in ((10.0, 1), (59.9, 2), (60.0, 4)):
            await bench.send(source, {"item": "tea", "at": at, "quantity": quantity})
        await until(lambda: len(seen) == 3)
        await until(lambda: sold["tea"][streamer.WindowRange(60, 120)] == 4)
        assert sold["tea"][streamer.WindowRange(0, 60)] == 3
        assert dict(sold.items()) == {"tea": 4}, "outside: the latest window"

    assert seen == [1, 3, 4]


async def test_an_event_names_the_window_in_which_it_is(bench: Bench) -> None:
    source, app = await bench.topic(), bench.app()
    clicks = app.topic(source, value_type=str)
    counts: streamer.WindowedTable[str, int] = app.Table("counts", default=int).tumbling(10)
    found: Counter[str] = Counter()

    @app.agent(clicks)
    async def count(stream: streamer.Stream[str]) -> None:
        first: streamer.Event[str] | None = None
        async for event in stream.events():
            first = first or event
            counts["all"] += 1
            found["value"] = counts["all"].value(first)
            found["current"] = counts["all"].current(event)
            found["delta"] = counts["all"].delta(10.0, event)
            found["item"] = counts["all"][first]
            found["items"] = dict(counts.items().current(first))["all"]

    async with app:
        await bench.send(source, click(1), click(2), click(11))
        await until(lambda: found["current"] == 1 and found["delta"] == 2)

    assert found == {"value": 2, "current": 1, "delta": 2, "item": 2, "items": 2}


class Order(streamer.Record):
    item: str
    at: float
    quantity: int = 1
