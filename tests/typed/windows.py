"""What type checkers must know of windowed tables, global tables and channels: checked by
mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

import streamer


class Order(streamer.Record):
    item: str
    quantity: int = 1


app = streamer.App("typed")

clicks: streamer.WindowedTable[str, int] = app.Table("clicks", default=int).tumbling(60.0)
plain: streamer.Table[str, int] = app.Table("plain", default=int)
hopping = plain.hopping(60.0, 20.0, expires=3600)
assert_type(hopping, streamer.WindowedTable[str, int])
assert_type(hopping.relative_to_now(), streamer.WindowedTable[str, int])

assert_type(clicks["a"], streamer.WindowSet[str, int])
assert_type(clicks["a"].value(), int)
assert_type(clicks["a"].delta(60.0), int)
assert_type(clicks["a"][streamer.WindowRange(0, 60)], int)
assert_type(list(clicks.keys()), list[str])
assert_type(list(clicks.items().now()), list[tuple[str, int]])
clicks["a"] += 1
clicks["a"] = 1
clicks["a"] = "one"  # type: ignore[assignment]
clicks[1].value()  # type: ignore[index]

prices: streamer.GlobalTable[str, float] = app.GlobalTable("prices", default=float)
assert_type(prices["tea"], float)

orders = app.channel(value_type=Order)
assert_type(orders, streamer.Channel[Order])


@app.agent(orders)
async def take(stream: streamer.Stream[Order]) -> None:
    async for order in stream:
        assert_type(order, Order)
        event = await orders.get()
        assert_type(event.value, Order)
