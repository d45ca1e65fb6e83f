"""What type checkers must know of Records: checked by mypy and pyright, never run.

An `ignore` here is a claim too: mypy reports one that ignores nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_type

from streamer import codecs
from streamer.codecs import Codec, codec_for
from streamer.record import Record, field_name, key_getter


class Address(Record):
    street: str
    number: int = 0


class Order(Record, serializer="json", coerce=True):
    id: str
    item: str
    quantity: int = 1
    address: Address | None = None
    previous: Order | None = None
    placed: datetime | None = None


class Paid(Order, tag=True):
    amount: float = 0.0


class Point(Record, frozen=True):
    x: int


order = Order("1", "tea", quantity=2, address=Address("Elm"))
assert_type(order, Order)
assert_type(order.quantity, int)
assert_type(order.address, Address | None)
assert_type(Paid("1", "tea", amount=2.0).amount, float)

assert_type(Order.loads(b"{}"), Order)
assert_type(Order.from_data({}), Order)
assert_type(order.derive(quantity=3), Order)
assert_type(order.dumps(), bytes)
assert_type(order.asdict(), dict[str, Any])

assert_type(field_name(Order.item), str | None)
assert_type(key_getter(Order.item), Callable[[Any], Any])

order.quantity = 3
Point(1).x = 2  # type: ignore[misc]
order.quantity = "three"  # type: ignore[assignment]
Order("1")  # type: ignore[call-arg]
Order("1", "tea", colour="red")  # type: ignore[call-arg]
Order(1, "tea")  # type: ignore[arg-type]


class Reversed(Codec):
    def encode(self, value: Any, /) -> bytes:
        return bytes(reversed(value))

    def decode(self, data: bytes, /) -> bytes:
        return bytes(reversed(data))


class Unrelated:
    def encode(self, value: Any, /) -> bytes:
        return bytes(value)

    def decode(self, data: bytes, /) -> bytes:
        return data


class FaustStyle(Codec):
    def _dumps(self, obj: Any) -> bytes:
        return bytes(obj)

    def _loads(self, s: bytes) -> Any:
        return s


codecs.register("reversed", Reversed())
codecs.register("unrelated", Unrelated())
codecs.register("faust", FaustStyle())
codecs.register("text", "json")  # type: ignore[arg-type]
assert_type(codec_for(Order, None, default="json"), Codec)
assert_type(codec_for(Order, FaustStyle(), default="json").encode(order), bytes)
