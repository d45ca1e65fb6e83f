"""Records: made like a dataclass, checked like data, known by Faust's words."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from types import MemberDescriptorType
from typing import Any, ClassVar, Literal
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from streamer.codecs import Codec, DecodeError, EncodeError
from streamer.errors import StreamerError
from streamer.record import Record, RecordMeta, field_name, key_getter
from streamer.schema import RecordError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(Record):
    street: str
    number: int = 0


class Order(Record):
    kind: ClassVar[str] = "order"
    id: str
    item: str
    quantity: int = 1
    address: Address | None = None
    parts: list[Order] = []  # noqa: RUF012  (each Order gets a list of its own)

    @property
    def label(self) -> str:
        return f"{self.quantity} x {self.item}"


class Everything(Record):
    yes: bool
    whole: int
    real: float
    text: str
    data: bytes
    at: datetime
    day: date
    price: Decimal
    key: UUID
    colour: Colour
    size: Literal["S", "L"]
    items: list[int]
    names: set[str]
    fixed: frozenset[int]
    pair: tuple[int, str]
    row: tuple[int, ...]
    by_number: dict[int, Address]
    either: int | str
    maybe: float | None = None


class Coerced(Order, coerce=True):
    at: datetime | None = None


class Validated(Order, validation=True):
    at: datetime | None = None


class Relaxed(Coerced, coerce=False):
    pass


class Frozen(Record, frozen=True):
    id: int


class Base64(Record, serializer="json|binary"):
    id: int


class Child(Base64):
    pass


class Positive(Record):
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError("an amount is never negative")


class Doubled(Record, coerce=True, kw_only=True):
    n: int

    def __post_init__(self) -> None:
        self.n *= 2


class Renamed(Record, rename="camel", validation=True):
    first_name: str


EVERYTHING = st.builds(
    Everything,
    yes=st.booleans(),
    whole=st.integers(),
    real=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(),
    data=st.binary(),
    at=st.datetimes(timezones=st.just(UTC)) | st.datetimes(),
    day=st.dates(),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    key=st.uuids(),
    colour=st.sampled_from(Colour),
    size=st.sampled_from(["S", "L"]),
    items=st.lists(st.integers(), max_size=3),
    names=st.sets(st.text(), max_size=3),
    fixed=st.frozensets(st.integers(), max_size=3),
    pair=st.tuples(st.integers(), st.text()),
    row=st.lists(st.integers(), max_size=3).map(tuple),
    by_number=st.dictionaries(
        st.integers(-(2**63), 2**63 - 1), st.builds(Address, st.text(), st.integers())
    ),
    either=st.integers() | st.text(),
    maybe=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


def test_a_record_is_made_by_position_and_by_name() -> None:
    order = Order("1", "tea", address=Address("Elm"))

    assert (order.id, order.item, order.quantity) == ("1", "tea", 1)
    assert repr(Address("Elm", 3)) == "Address(street='Elm', number=3)"
    assert order == Order(id="1", item="tea", address=Address("Elm", 0))
    order.quantity = 5
    assert order.label == "5 x tea"


def test_two_records_do_not_share_a_default() -> None:
    first, second = Order("1", "tea"), Order("2", "tea")

    first.parts.append(second)

    assert second.parts == []


@pytest.mark.parametrize("arguments", [(), ("1",), ("1", "tea", 1, None, [], "more")])
def test_wrong_arguments_are_a_type_error(
    arguments: tuple[Any, ...],
) -> None:
    with pytest.raises(TypeError):
        Order(*arguments)


@given(EVERYTHING)
def test_every_type_survives_the_journey_through_bytes(record: Everything) -> None:
    assert Everything.loads(record.dumps()) == record
    assert Everything.from_data(record.to_representation()) == record
    assert record.is_valid()


@pytest.mark.parametrize(
    "record",
    [
        Order("1", "tea", 2, Address("Elm"), [Order("2", "milk")]),
        Coerced("1", "x"),
        Frozen(1),
    ],
)
def test_a_record_can_be_pickled_and_copied(record: Record) -> None:
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == copy.copy(record) == record


def test_unknown_fields_are_ignored_also_those_of_faust() -> None:
    data = b'{"id":"1","item":"tea","new":[1],"__faust":{"ns":"shop.Order"}}'

    assert Order.loads(data) == Order("1", "tea")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"id":"1"}', "missing required field `item`"),
        (b'{"id":"1","item":2}', "Expected `str`, got `int` - at `$.item`"),
        (b'{"id":"1","item":"t","address":{"number":1}}', "`street` - at `$.address`"),
        (b'{"id":"1","item":"t","parts":[{"id":7}]}', "at `$.parts[0].id`"),
        (b'{"id":"1","item":"t","quantity":"2"}', "got `str` - at `$.quantity`"),
        (b'{"id":', "truncated"),
        (b"", "truncated"),
    ],
)
def test_bad_data_are_an_error_that_names_the_field(data: bytes, problem: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Order.loads(data)

    assert problem in caught.value.problem
    assert repr(data) in caught.value.problem
    assert "default" in caught.value.remedy


def test_plain_data_are_checked_like_bytes() -> None:
    with pytest.raises(DecodeError, match="missing required field `item`"):
        Order.from_data({"id": "1"})
    with pytest.raises(DecodeError, match="never negative"):
        Positive.loads(b'{"amount":-1}')


def test_coerce_takes_text_for_numbers_and_dates_in_data_and_in_the_constructor() -> None:
    at = datetime(2020, 1, 2, tzinfo=UTC)
    expected = Coerced("1", "tea", 5, at=at)

    assert Coerced("1", "tea", "5", at="2020-01-02T00:00:00Z") == expected  # type: ignore[arg-type]
    assert (
        Coerced.from_data(
            {"id": "1", "item": "tea", "quantity": "5", "at": "2020-01-02T00:00:00Z"}
        )
        == expected
    )
    assert (
        Coerced.loads(b'{"id":"1","item":"tea","quantity":"5","at":1577923200}') == expected
    )
    with pytest.raises(RecordError, match=r"quantity"):
        Coerced("1", "tea", "five")  # type: ignore[arg-type]


def test_validation_checks_the_constructors_arguments_as_they_are() -> None:
    assert Validated("1", "tea", 2, Address("Elm")).address == Address("Elm")
    with pytest.raises(
        RecordError, match=r"Validated: Expected `int`, got `str` .*quantity"
    ):
        Validated("1", "tea", "2")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"Expected `datetime \| null`, got `str`"):
        Validated("1", "tea", at="2020-01-02T00:00:00Z")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="first"):
        Renamed(first_name=1)  # type: ignore[arg-type]
    assert Renamed(first_name="Ada").to_representation() == {"firstName": "Ada"}


def test_what_a_record_does_after_it_is_made_is_done_once_and_to_checked_values() -> None:
    assert Doubled(n="4").n == 8  # type: ignore[arg-type]
    assert Doubled.loads(b'{"n":"4"}').n == 8


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1, 2, 3, 4, 5, 6, 7), {}),
        (("1", "tea"), {"id": "2"}),
        (("1", "tea"), {"colour": "red"}),
    ],
)
def test_a_checked_constructor_refuses_arguments_it_has_no_field_for(
    arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        Coerced(*arguments, **named)


def test_a_checked_constructor_names_the_field_that_is_missing() -> None:
    with pytest.raises(RecordError, match="missing required field `id`"):
        Coerced(item="tea")  # type: ignore[call-arg]


def test_a_subclass_may_take_an_option_back() -> None:
    assert Relaxed("1", "tea", "5").quantity == "5"  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(DecodeError):
        Relaxed.loads(b'{"id":"1","item":"tea","quantity":"5"}')


def test_an_ordinary_constructor_is_msgspecs_own() -> None:
    assert "__call__" not in RecordMeta.__dict__
    assert type(Order) is RecordMeta


def test_validate_lists_every_wrong_field_also_within_nested_records() -> None:
    order = Order(1, "tea", "2", Address(3))  # type: ignore[arg-type]

    problems = [error.problem for error in order.validate()]

    assert [problem.split("`")[1] for problem in problems] == ["id", "quantity", "address"]
    assert not order.is_valid()
    with pytest.raises(RecordError, match="field `id`"):
        order.validate_or_raise()
    assert Order("1", "tea").validation_errors == []


def test_asdict_is_shallow_and_a_representation_is_plain() -> None:
    order = Order("1", "tea", address=Address("Elm"))

    assert order.asdict()["address"] is order.address
    assert order.to_representation() == {
        "id": "1",
        "item": "tea",
        "quantity": 1,
        "address": {"street": "Elm", "number": 0},
        "parts": [],
    }


def test_derive_gives_a_new_record_with_later_fields_over_earlier() -> None:
    order = Order("1", "tea")

    derived = order.derive(Order("2", "milk"), quantity=2)

    assert derived == Order("2", "milk", 2)
    assert order == Order("1", "tea")
    with pytest.raises(TypeError):
        order.derive(colour="red")


def test_the_serializer_of_the_class_is_inherited_and_can_be_overruled() -> None:
    assert Child(1).dumps() == b"eyJpZCI6MX0="
    assert Child.loads(b"eyJpZCI6MX0=") == Child(1)
    assert Child(1).dumps("json") == b'{"id":1}'
    assert Child.loads(b'{"id":1}', "json") == Child(1)


def test_a_codec_object_may_be_named_by_the_call() -> None:
    class Reversed(Codec):
        def encode(self, value: Any, /) -> bytes:
            return repr(value).encode()[::-1]

        def decode(self, data: bytes, /) -> Any:
            return {"id": len(data)}

    assert Frozen(7).dumps(Reversed()) == b"{'id': 7}"[::-1]
    assert Frozen.loads(b"abc", Reversed()) == Frozen(3)


def test_a_value_that_json_cannot_hold_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="Order: a Order cannot be written: TypeError"):
        Order("1", object()).dumps()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "way_out"),
    [
        ({"serialiser": "json"}, "Did you mean 'serializer'"),
        ({"nonsense": 1}, "There are abstract, coerce"),
        ({"namespace": "shop.Order"}, "tag=True"),
        ({"polymorphic_fields": True}, "union"),
        ({"include_metadata": True}, "Leave it out"),
        ({"coercions": {str: str.upper}}, "__post_init__"),
    ],
)
def test_an_unknown_option_is_refused_with_a_way_out(
    option: dict[str, Any], way_out: str
) -> None:
    with pytest.raises(RecordError) as caught:
        RecordMeta("Bad", (Record,), {}, **option)

    assert repr(next(iter(option))) in caught.value.problem
    assert way_out in caught.value.remedy
    assert isinstance(caught.value, StreamerError)


def test_what_is_always_so_may_be_said() -> None:
    RecordMeta("Good", (Record,), {}, isodates=True, include_metadata=False, coerce=None)


def test_a_field_read_from_the_class_is_a_key_selector() -> None:
    assert isinstance(Order.item, MemberDescriptorType)  # type: ignore[unreachable]
    assert field_name(Order.item) == "item"  # type: ignore[unreachable]
    assert field_name(Coerced.item) == "item"
    assert key_getter(Order.item)(Order("1", "tea")) == "tea"
    assert key_getter(Order.item)(Coerced("1", "milk")) == "milk"


def test_a_function_or_a_property_is_a_key_selector_too() -> None:
    assert key_getter(len)("four") == 4
    assert field_name(len) is None
    assert field_name(Order.label) == "label"
    assert key_getter(Order.label)(Order("1", "tea")) == "1 x tea"


def test_what_selects_nothing_is_refused() -> None:
    with pytest.raises(RecordError, match=r"group_by\(Order\.item\)"):
        key_getter("item")


def test_a_frozen_record_is_hashable_and_stays_as_it_is() -> None:
    assert {Frozen(1), Frozen(1)} == {Frozen(1)}
    with pytest.raises(AttributeError):
        Frozen(1).id = 2  # type: ignore[misc]
