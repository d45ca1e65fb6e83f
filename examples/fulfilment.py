"""Orders that are paid and shipped, or cancelled and every step of them undone: a saga.

    python fulfilment.py demo                # places two hundred, and shows how they end

Money and stock belong to different agents, which know nothing of each other. Both are asked
at once, and either may say no; then what the other has done already is undone:

    orders              payments          shipments
    key: order          key: customer     key: item

    placed ──────┬────► charge
                 └──────────────────────► reserve
    paid, refused ◄──────┘                   │
    reserved, missing ◄──────────────────────┘

    paid and reserved ──────────────────► ship        and it is shipped
    paid and missing ─► refund                        and it is cancelled
    refused and reserved ───────────────► release     and it is cancelled
    refused and missing                               and it is cancelled

Each column is a topic, and one agent reads it; `states`, `accounts` and `shelves` are what
these remember. What they answer goes to `orders`, and `NEXT` says what follows from it.

Reading a record, changing a table and sending the next record is one transaction. So every
step happens once, whatever dies in between: nobody is charged for an order that nobody
knows, and no refund is paid twice. Try it, in two terminals:

    python fulfilment.py worker                  # kill -9 this one, and start it again
    python fulfilment.py place --count 5000
    curl http://127.0.0.1:6066/sums              # once nothing is under way: it adds up

Where that ends: `accounts` stands for a bank. A real one takes no part in the transaction;
give it the order's id with each charge, so that it knows one that it has seen before.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Literal

import click

import streamer
from streamer import Stream

app = streamer.App("fulfilment")


class Order(streamer.Record):
    id: str
    customer: str
    item: str
    quantity: int
    cents: int


class Step(streamer.Record):
    """What has happened to an order."""

    order: str
    what: Literal[
        "placed",
        "paid",
        "refused",
        "refunded",
        "reserved",
        "missing",
        "released",
        "shipped",
    ]
    placed: Order | None = None


class Payment(streamer.Record):
    customer: str
    what: Literal["deposit", "charge", "refund"]
    cents: int
    order: str = ""


class Shipment(streamer.Record):
    item: str
    what: Literal["deliver", "reserve", "release", "ship"]
    quantity: int
    order: str = ""


class State(streamer.Record):
    order: Order
    state: str = "new"


class Account(streamer.Record):
    deposited: int = 0
    spent: int = 0


class Shelf(streamer.Record):
    delivered: int = 0
    taken: int = 0


orders = app.topic("fulfilment-orders", key_type=str, value_type=Step)
payments = app.topic("fulfilment-payments", key_type=str, value_type=Payment)
shipments = app.topic("fulfilment-shipments", key_type=str, value_type=Shipment)

states = app.Table("states", key_type=str, value_type=State)
accounts = app.Table("accounts", key_type=str, value_type=Account, default=Account)
shelves = app.Table("shelves", key_type=str, value_type=Shelf, default=Shelf)


# What can be asked for.


async def charge(order: Order) -> None:
    payment = Payment(order.customer, "charge", order.cents, order.id)
    await payments.send(key=order.customer, value=payment)


async def refund(order: Order) -> None:
    payment = Payment(order.customer, "refund", order.cents, order.id)
    await payments.send(key=order.customer, value=payment)


async def reserve(order: Order) -> None:
    shipment = Shipment(order.item, "reserve", order.quantity, order.id)
    await shipments.send(key=order.item, value=shipment)


async def release(order: Order) -> None:
    shipment = Shipment(order.item, "release", order.quantity, order.id)
    await shipments.send(key=order.item, value=shipment)


async def ship(order: Order) -> None:
    shipment = Shipment(order.item, "ship", order.quantity, order.id)
    await shipments.send(key=order.item, value=shipment)


# How an order stands, and what happens: how it stands then, and what is asked for.
NEXT: dict[tuple[str, str], tuple[str, list[Callable[[Order], Awaitable[None]]]]] = {
    ("new", "placed"): ("asked", [charge, reserve]),
    ("asked", "paid"): ("paid", []),
    ("asked", "refused"): ("refused", []),
    ("asked", "reserved"): ("reserved", []),
    ("asked", "missing"): ("missing", []),
    ("paid", "reserved"): ("shipping", [ship]),
    ("reserved", "paid"): ("shipping", [ship]),
    ("paid", "missing"): ("refunding", [refund]),
    ("missing", "paid"): ("refunding", [refund]),
    ("reserved", "refused"): ("releasing", [release]),
    ("refused", "reserved"): ("releasing", [release]),
    ("refused", "missing"): ("cancelled", []),
    ("missing", "refused"): ("cancelled", []),
    ("shipping", "shipped"): ("shipped", []),
    ("refunding", "refunded"): ("cancelled", []),
    ("releasing", "released"): ("cancelled", []),
}
ENDS = ("shipped", "cancelled")


@app.agent(orders)
async def decide(stream: Stream[Step]) -> None:
    """Knows how each order stands, and asks for what comes next."""
    async for step in stream:
        known = states.get(step.order)
        if step.placed is not None:
            if known is not None:
                continue  # the customer has pressed the button twice
            known = State(step.placed)
        assert known is not None, f"{step} is about an order that nobody has placed"
        # A step that is not in the table is a mistake in this program. The worker ends
        # with a KeyError and goes on from this very step once that is mended.
        state, asked = NEXT[known.state, step.what]
        states[step.order] = State(known.order, state)
        for request in asked:
            await request(known.order)


@app.agent(payments)
async def pay(stream: Stream[Payment]) -> None:
    """Has the money."""
    async for payment in stream:
        account = accounts[payment.customer]
        match payment.what:
            case "deposit":
                account.deposited += payment.cents
            case "charge" if account.deposited - account.spent < payment.cents:
                await tell(Step(payment.order, "refused"))
            case "charge":
                account.spent += payment.cents
                await tell(Step(payment.order, "paid"))
            case "refund":
                account.spent -= payment.cents
                await tell(Step(payment.order, "refunded"))
        accounts[payment.customer] = account


@app.agent(shipments)
async def pack(stream: Stream[Shipment]) -> None:
    """Has the stock."""
    async for shipment in stream:
        shelf = shelves[shipment.item]
        match shipment.what:
            case "deliver":
                shelf.delivered += shipment.quantity
            case "reserve" if shelf.delivered - shelf.taken < shipment.quantity:
                await tell(Step(shipment.order, "missing"))
            case "reserve":
                shelf.taken += shipment.quantity
                await tell(Step(shipment.order, "reserved"))
            case "release":
                shelf.taken -= shipment.quantity
                await tell(Step(shipment.order, "released"))
            case "ship":
                await tell(Step(shipment.order, "shipped"))
        shelves[shipment.item] = shelf


async def tell(step: Step) -> None:
    await orders.send(key=step.order, value=step)


# To see it at work.

CUSTOMERS = ["anna", "ben", "clara", "david", "emma"]
PRICES = {"tea": 450, "coffee": 790, "cocoa": 620, "honey": 980}


@app.page("/sums")
async def sums() -> dict[str, Any]:
    """What there is in the tables here; in each pair both are equal in the end."""
    shipped = [each.order for each in states.values() if each.state == "shipped"]
    return {
        "orders": Counter(each.state for each in states.values()),
        "cents_spent": sum(account.spent for account in accounts.values()),
        "cents_shipped": sum(order.cents for order in shipped),
        "pieces_taken": sum(shelf.taken for shelf in shelves.values()),
        "pieces_shipped": sum(order.quantity for order in shipped),
    }


COUNT = click.option("--count", default=200, show_default=True, help="How many orders.")


@app.command(COUNT)
async def place(count: int) -> None:
    """Place orders, with money for some of them and stock for some of them."""
    placed = await place_orders(count)
    print(f"{len(placed)} orders placed")


@app.command(COUNT)
def demo(count: int) -> None:
    """Run a worker, place orders, and show how they end."""
    asyncio.run(play(count))


async def play(count: int) -> None:
    async with app:
        placed = await place_orders(count)
        ended = 0
        while ended < len(placed):
            await asyncio.sleep(0.2)
            now = [states[id].state for id in placed if id in states]
            ended = sum(state in ENDS for state in now)
            print(f"{ended} of {count} orders have ended  {in_words(Counter(now))}")
        for name, number in (await sums()).items():
            print(f"{name:>14}  {number if isinstance(number, int) else in_words(number)}")


def in_words(numbers: Counter[str]) -> str:
    return "  ".join(f"{number} {what}" for what, number in numbers.most_common())


async def place_orders(count: int) -> list[str]:
    """Money and stock for two thirds of what is ordered then; the ids of the orders."""
    placed, random = [], Random()
    for _ in range(count):
        item, quantity = random.choice(list(PRICES)), random.randint(1, 3)
        cents = quantity * PRICES[item]
        customer = random.choice(CUSTOMERS)
        placed.append(Order(uuid.uuid4().hex, customer, item, quantity, cents))
    cents = sum(order.cents for order in placed) * 2 // 3 // len(CUSTOMERS)
    pieces = sum(order.quantity for order in placed) * 2 // 3 // len(PRICES)
    for customer in CUSTOMERS:
        await payments.send(key=customer, value=Payment(customer, "deposit", cents))
    for item in PRICES:
        await shipments.send(key=item, value=Shipment(item, "deliver", pieces))
    await asyncio.gather(*(tell(Step(order.id, "placed", order)) for order in placed))
    return [order.id for order in placed]


if __name__ == "__main__":
    app.main()
