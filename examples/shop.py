"""A shop: it counts what is sold, item by item, and says when to restock.

    python shop.py worker                                      # Ctrl-C stops it

Nothing else has to run: the app starts a broker of its own, and keeps all it knows in the
folder `.streamer`, here or above. In another terminal:

    streamer -A shop send orders '{"id": "1", "item": "tea"}'
    streamer -A shop table get sold tea                        # 1
    curl http://127.0.0.1:6066/table/sold/tea                  # the same, as JSON
    streamer consume alerts -f                                 # what is to be restocked
    streamer -A shop agents                                    # who has how much to do

What to look at:

- Orders come in any order, so `group_by` brings equal items to one partition, and there one
  worker counts them. Start a second worker: the two share the partitions.
- `kill -9` a worker and start it again: no order is lost, none is counted twice. Reading an
  order, writing `sold` and sending an alert are one transaction.
- Stop all, and start again tomorrow: it goes on where it was.
"""

import streamer

app = streamer.App("shop")  # exactly once; a broker of its own unless one is named


class Order(streamer.Record):
    id: str
    item: str
    quantity: int = 1


orders = app.topic("orders", value_type=Order)
alerts = app.topic("alerts", key_type=str, value_type=str)
sold = app.Table("sold", default=int)


@app.agent(orders)
async def count(stream):
    async for order in stream.group_by(Order.item):
        sold[order.item] += order.quantity
        if sold[order.item] == 1000:
            await alerts.send(key=order.item, value="restock")


@app.timer(10.0)
async def report():
    print(sold.as_ansitable(title="sold"))


if __name__ == "__main__":
    app.main()
