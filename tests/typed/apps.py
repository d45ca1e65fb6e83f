"""What type checkers know of apps: checked by mypy in `make check`, never run."""

from typing import assert_type

import streamer
from streamer import Agent, Event, Stream, Table, Topic


class Order(streamer.Record):
    id: str
    item: str
    quantity: int = 1


app = streamer.App("shop")
orders = app.topic("orders", value_type=Order)
alerts = app.topic("alerts", key_type=str, value_type=str)
sold = app.Table("sold", key_type=str, default=int)


@app.agent(orders)
async def count(stream: Stream[Order]) -> None:
    assert_type(stream.filter(lambda order: order.quantity > 0), Stream[Order])
    assert_type(stream.group_by(Order.item), Stream[Order])
    async for order in stream.group_by(Order.item):
        assert_type(order, Order)
        sold[order.item] += order.quantity
        assert_type(sold[order.item], int)
        assert_type(sold.get(order.item), int | None)
        await alerts.send(key=order.item, value="restock")
    async for batch in stream.take(10, within=1.0):
        assert_type(batch, list[Order])
    async for event in stream.events():
        assert_type(event, Event[Order])
        assert_type(event.value, Order)


assert_type(count, Agent[Order])
assert_type(orders, Topic[Order])
assert_type(alerts, Topic[str])
assert_type(sold, Table[str, int])


@app.timer(10.0)
async def report() -> None:
    assert_type(sold.as_ansitable(title="sold"), str)
