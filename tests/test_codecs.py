"""Codecs: which one is meant, what it writes, and what is said when it cannot."""

from __future__ import annotations

import dataclasses
import math
import zlib
from decimal import Decimal
from types import FunctionType
from typing import Any, NewType, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from streamer import codecs
from streamer.codecs import (
    DECODE_ERRORS,
    ENCODE_ERRORS,
    IMMUTABLE,
    Codec,
    CodecError,
    DecodeError,
    EncodeError,
    codec_for,
    decode_error,
    encode_error,
    get_codec,
    or_none,
)
from streamer.record import Record
from streamer.schema import RecordError


class Order(Record):
    id: str
    quantity: int = 1


class Lenient(Record, coerce=True):
    n: int


class Wrapped(Record, serializer="json|binary"):
    n: int


class Created(Record, tag=True):
    id: int


class Deleted(Record, tag=True):
    id: int


class Abstract(Record, abstract=True):
    n: int


class Concrete(Abstract):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Typed(TypedDict):
    x: int


class Foreign:
    pass


UserId = NewType("UserId", str)


class Zipped(Codec):
    """Written as Faust's users write them."""

    def _dumps(self, obj: Any) -> bytes:
        return zlib.compress(obj)

    def _loads(self, s: bytes) -> Any:
        return zlib.decompress(s)


class Text:
    """Related to nothing; sees only plain data."""

    def encode(self, value: Any, /) -> bytes:
        return repr(value).encode()

    def decode(self, data: bytes, /) -> Any:
        return {"id": data.decode()}


codecs.register("zipped", Zipped())

UUID_1 = UUID(int=1)


@pytest.mark.parametrize(
    ("value_type", "serializer", "default", "value", "data"),
    [
        (None, None, "json", {"a": [1, None]}, b'{"a":[1,null]}'),
        (Any, None, "json", "text", b'"text"'),
        (None, None, "raw", b"\xff", b"\xff"),
        (str, None, "json", "tea", b"tea"),
        (bytes, None, "json", b"\xff", b"\xff"),
        (UserId, None, "json", "ann", b"ann"),
        (str, "json", "raw", "tea", b'"tea"'),
        (bytes, "json", "raw", b"\xff", b'"/w=="'),
        (int, None, "json", 5, b"5"),
        (int, None, "raw", -5, b"-5"),
        (float, None, "raw", 1.5, b"1.5"),
        (bool, None, "raw", True, b"true"),
        (bool, None, "raw", False, b"false"),
        (Decimal, None, "raw", Decimal("1.50"), b"1.50"),
        (UUID, None, "raw", UUID_1, b"00000000-0000-0000-0000-000000000001"),
        (Order, None, "json", Order("1"), b'{"id":"1","quantity":1}'),
        (Order, None, "raw", Order("1"), b'{"id":"1","quantity":1}'),
        (list[Order], None, "json", [Order("1")], b'[{"id":"1","quantity":1}]'),
        (Point, None, "json", Point(1, 2), b'{"x":1,"y":2}'),
        (Typed, None, "json", {"x": 1}, b'{"x":1}'),
        (dict[int, str], None, "json", {1: "a"}, b'{"1":"a"}'),
        (tuple[int, str], None, "raw", (1, "a"), b'[1,"a"]'),
        (Created | Deleted, None, "json", Deleted(1), b'{"type":"Deleted","id":1}'),
        (Concrete, None, "json", Concrete(1), b'{"n":1}'),
        (Wrapped, None, "json", Wrapped(1), b"eyJuIjoxfQ=="),
        (Wrapped, "json", "raw", Wrapped(1), b'{"n":1}'),
        (None, "binary", "json", b"\xff", b"/w=="),
        (str, "binary", "json", "\xff", b"w78="),
        (Order, "json | binary", "raw", Order("1"), b"eyJpZCI6IjEiLCJxdWFudGl0eSI6MX0="),
        (None, "json|binary|binary", "raw", 1, b"TVE9PQ=="),
        (Order, Text(), "json", Order("{'id': '1', 'quantity': 1}"), None),
    ],
)
def test_a_value_goes_out_and_comes_back(
    value_type: Any,
    serializer: str | Codec | None,
    default: str,
    value: Any,
    data: bytes | None,
) -> None:
    codec = codec_for(value_type, serializer, default=default)

    if data is not None:
        assert codec.encode(value) == data
        assert codec.decode(data) == value
        assert type(codec.decode(data)) is type(value)


def test_json_has_nothing_of_ours_around_it() -> None:
    for value_type in (None, Order, list[Order], dict[str, int]):
        codec = codec_for(value_type, None, default="json")
        functions: Any = (codec.encode, codec.decode)
        assert [type(function).__name__ for function in functions] == [
            "builtin_function_or_method"
        ] * 2


@pytest.mark.parametrize(
    ("value_type", "values"),
    [
        (str, st.text()),
        (bytes, st.binary()),
        (int, st.integers()),
        (float, st.floats(allow_nan=False)),
        (bool, st.booleans()),
        (Decimal, st.decimals(allow_nan=False)),
        (UUID, st.uuids()),
        (frozenset[str], st.frozensets(st.text(), max_size=8)),
        (tuple[int, str], st.tuples(st.integers(), st.text())),
        (dict[str, int], st.dictionaries(st.text(), st.integers(), max_size=8)),
    ],
)
@given(data=st.data())
def test_a_key_comes_back_as_it_was(
    value_type: Any, values: Any, data: st.DataObject
) -> None:
    codec = codec_for(value_type, None, default="raw", deterministic=True)
    value = data.draw(values)

    assert codec.decode(codec.encode(value)) == value


@given(st.dictionaries(st.text(), st.integers(), max_size=8), st.randoms())
def test_equal_keys_are_equal_bytes(pairs: dict[str, int], random: Any) -> None:
    shuffled = list(pairs.items())
    random.shuffle(shuffled)
    dicts = codec_for(dict[str, int], None, default="raw", deterministic=True)
    sets = codec_for(frozenset[str], None, default="raw", deterministic=True)

    assert dicts.encode(pairs) == dicts.encode(dict(shuffled))
    assert sets.encode(frozenset(pairs)) == sets.encode(
        frozenset(key for key, _ in shuffled)
    )
    assert sets.encode(frozenset({"b", "a", "c"})) == b'["a","b","c"]'


def test_equal_numbers_are_equal_keys() -> None:
    real = codec_for(float, None, default="raw")

    assert real.encode(1) == real.encode(1.0) == b"1.0"
    assert real.encode(-0.0) == real.encode(0.0)
    assert math.isinf(real.decode(real.encode(math.inf)))


@pytest.mark.parametrize(
    ("value_type", "value"),
    [
        (str, b"bytes"),
        (str, 5),
        (str, "\ud800"),
        (bytes, 5),
        (int, "5"),
        (int, 5.0),
        (float, "5"),
        (bool, 1),
        (Decimal, 1.5),
        (UUID, "00000000-0000-0000-0000-000000000001"),
        (Order, object()),
        (Order, {(1, 2): 3}),
    ],
)
def test_a_wrong_value_is_refused_when_it_is_written(value_type: Any, value: Any) -> None:
    codec = codec_for(value_type, None, default="raw")

    with pytest.raises(ENCODE_ERRORS) as caught:
        codec.encode(value)

    error = encode_error(caught.value, value, "orders")
    assert isinstance(error, EncodeError)
    assert error.problem.startswith(f"orders: a {type(value).__name__} cannot be written")


@pytest.mark.parametrize(
    ("value_type", "serializer", "data"),
    [
        (None, "json", b"{"),
        (None, "json", b"\xff"),
        (None, "json", b'"\xff"'),
        (None, "json", b"[" * 100_000),
        (Order, "json", b"[]"),
        (Order, "json", b'{"quantity":1}'),
        (Order, "json|binary", b"!!!"),
        (Created | Deleted, "json", b'{"type":"Stolen","id":1}'),
        (str, "raw", b"\xff"),
        (int, "raw", b"five"),
        (float, "raw", b""),
        (bool, "raw", b"yes"),
        (Decimal, "raw", b"much"),
        (UUID, "raw", b"1"),
        (None, "binary", b"?"),
        (None, "raw|zipped", b"not zipped"),
        (Order, Text(), b"\xff"),
    ],
)
def test_bad_data_are_an_error_that_a_worker_catches_and_explains(
    value_type: Any, serializer: str | Codec, data: bytes
) -> None:
    codec = codec_for(value_type, serializer, default="json")

    with pytest.raises(DECODE_ERRORS) as caught:
        codec.decode(data)

    error = decode_error(caught.value, data, "orders-0 at offset 17")
    assert isinstance(error, DecodeError)
    assert error.problem.startswith("orders-0 at offset 17: ")
    assert repr(data[:100])[:-1] in error.problem
    assert len(error.problem) < 1000


def test_a_decode_error_names_the_field_and_where_it_is() -> None:
    codec = codec_for(list[Order], None, default="json")

    with pytest.raises(DECODE_ERRORS) as caught:
        codec.decode(b'[{"id":"1"},{"id":"2","quantity":"3"}]')

    problem = decode_error(caught.value, b"...", "orders-0").problem
    assert "orders-0: Expected `int`, got `str` - at `$[1].quantity`" in problem


def test_one_record_with_coerce_makes_its_decoder_lenient() -> None:
    assert codec_for(list[Lenient], None, default="json").decode(b'[{"n":"5"}]') == [
        Lenient(5)
    ]


@pytest.mark.parametrize(
    ("value_type", "serializer", "way_out"),
    [
        (None, "pickle", "json with a streamer.Record"),
        (None, "yaml", "codec of your own"),
        (None, "jsn", "streamer.codecs.register"),
        (None, "json|", "streamer.codecs.register"),
        (None, "binary|json", "Write it first"),
        (Order, "raw", 'serializer="json"'),
        (Order, object(), "encode(value) -> bytes"),
        (Order, Text, "encode(value) -> bytes"),
    ],
)
def test_a_serializer_that_cannot_be_is_refused_with_a_way_out(
    value_type: Any, serializer: Any, way_out: str
) -> None:
    with pytest.raises(CodecError) as caught:
        codec_for(value_type, serializer, default="json")

    assert way_out in caught.value.remedy


@pytest.mark.parametrize(
    ("value_type", "way_out"),
    [
        (Foreign, "streamer.codecs.register"),
        (list[Foreign], "streamer.codecs.register"),
        (Order | Lenient, "tag=True"),
        (Abstract, "subclasses"),
    ],
)
def test_a_type_that_cannot_be_is_refused_when_it_is_declared(
    value_type: Any, way_out: str
) -> None:
    with pytest.raises(RecordError) as caught:
        codec_for(value_type, None, default="json")

    assert way_out in caught.value.remedy


def test_a_codec_in_fausts_way_works_by_name_and_in_a_chain() -> None:
    codec = codec_for(Order, "json|zipped|binary", default="json")

    assert codec.decode(codec.encode(Order("1"))) == Order("1")
    assert get_codec("raw|zipped").decode(zlib.compress(b"x")) == b"x"


def test_a_codec_of_the_users_own_sees_plain_data_and_gives_plain_data() -> None:
    codec = codec_for(Order, Text(), default="json")

    assert codec.encode(Order("1")) == b"{'id': '1', 'quantity': 1}"
    assert codec.decode(b"7") == Order("7")


def test_coerce_holds_for_what_a_codec_of_the_users_gives() -> None:
    class Digits:
        def encode(self, value: Any, /) -> bytes:
            return str(value["n"]).encode()

        def decode(self, data: bytes, /) -> Any:
            return {"n": data.decode()}

    codec = codec_for(Lenient, Digits(), default="json")

    assert codec.decode(codec.encode(Lenient(5))) == Lenient(5)


def test_a_type_known_only_to_the_codec_is_left_to_it() -> None:
    class Keep:
        def encode(self, value: Any, /) -> bytes:
            assert isinstance(value, Foreign)
            return b"foreign"

        def decode(self, data: bytes, /) -> Any:
            return Foreign()

    codec = codec_for(Foreign, Keep(), default="json")

    assert codec.encode(Foreign()) == b"foreign"
    assert isinstance(codec.decode(b"foreign"), Foreign)


def test_whatever_a_codec_of_the_users_raises_is_a_decode_error() -> None:
    class Broken:
        def encode(self, value: Any, /) -> bytes:
            raise KeyError("a")

        def decode(self, data: bytes, /) -> Any:
            raise KeyError("a")

    codec = codec_for(None, Broken(), default="json")

    with pytest.raises(DecodeError, match="Broken: KeyError: 'a'"):
        codec.decode(b"")
    with pytest.raises(EncodeError, match="Broken: KeyError: 'a'"):
        codec.encode(1)


@pytest.mark.parametrize("name", ["json", "pickle", "a|b", ""])
def test_a_name_that_means_something_else_cannot_be_registered(name: str) -> None:
    with pytest.raises(CodecError):
        codecs.register(name, Text())


def test_a_codec_registered_anew_replaces_the_old_one_also_in_records() -> None:
    codecs.register("mine", Text())
    assert Order("1").dumps("mine") == b"{'id': '1', 'quantity': 1}"

    codecs.register("mine", get_codec("json"))
    assert Order("1").dumps("mine") == b'{"id":"1","quantity":1}'


def test_what_may_be_shared_is_known_by_its_exact_type() -> None:
    assert {int, str, bytes, type(None), Decimal} <= IMMUTABLE
    assert not {list, dict, Order, tuple} & IMMUTABLE


@pytest.mark.parametrize(
    ("value_type", "serializer"),
    [
        *((kind, "json") for kind in (None, int, str, Order, Decimal, list[int])),
        *((kind, "raw") for kind in (None, bytes, str, int, float, bool, Decimal, UUID)),
        *((None, name) for name in ("binary", "zipped", "json|binary")),
        (None, Text()),
    ],
)
def test_a_tombstone_is_none_or_a_type_error_whatever_the_codec(
    value_type: Any, serializer: str | Codec
) -> None:
    decode = or_none(codec_for(value_type, serializer, default="json").decode)

    try:
        assert decode(None) is None
    except TypeError:
        assert not isinstance(decode, FunctionType), "then it would cost an exception"
