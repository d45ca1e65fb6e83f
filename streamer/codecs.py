"""How values become bytes and bytes become values.

A topic and a table ask once for their codecs and then call plain functions:

    codec = codec_for(Order, None, default="json")
    codec.encode(order)     codec.decode(data)

For JSON both are msgspec's own, written in C, with nothing of ours around them: so
what they raise is msgspec's too. Catch `DECODE_ERRORS` and `ENCODE_ERRORS`, and make
a readable error of it with `decode_error` and `encode_error`.

    json     any type that `schema.py` can describe; without a type, plain data
    raw      bytes as they are; str, int, float, bool, Decimal and UUID as text
    binary   what raw gives, in base64
    a|b      a, then b over its bytes: "json|binary"
    NAME     a codec of the user's own: `register(NAME, codec)`

Who decides, the first that says something: the topic, the Record's own `serializer`,
the type (str and bytes are raw), the default of the app.

Not here: `None` as a value (a deletion: callers know), the types of fields (`record.py`).
JSON has no NaN and no infinity: msgspec writes them as null.
"""

import base64
import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache, partial
from types import FunctionType, MethodType, NoneType
from typing import Any, Protocol, cast
from uuid import UUID

import msgspec

from streamer.errors import StreamerError
from streamer.schema import RecordError, classes_within, foreign_classes

# Values of exactly these types may be given to two people: neither can change them.
IMMUTABLE: frozenset[type] = frozenset(
    {NoneType, bool, int, float, complex, str, bytes}
    | {Decimal, UUID, datetime, date, time, timedelta}
)


class CodecError(StreamerError):
    """There is no such codec, or not for this type."""

    remedy = (
        "json, raw and binary are built in; "
        "`streamer.codecs.register(name, codec)` adds your own."
    )


class DecodeError(StreamerError):
    """Bytes that are not what their type says."""

    remedy = (
        "Compare the data with the type. A field that older records lack needs a default "
        '(`note: str | None = None`); `coerce=True` on a Record takes "5" for 5.'
    )


class EncodeError(StreamerError):
    """A value that its codec cannot write."""

    remedy = "Send a value of the type that the topic or table was declared with."


# A deeply nested document ends in a RecursionError: bad data like any other.
DECODE_ERRORS: tuple[type[Exception], ...] = (
    *(msgspec.MsgspecError, ValueError, RecursionError),
    DecodeError,
)
ENCODE_ERRORS: tuple[type[Exception], ...] = (
    *(
        msgspec.MsgspecError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        RecursionError,
    ),
    EncodeError,
)


class Codec(Protocol):
    """Anything with these two methods. A subclass may also define Faust's two instead."""

    def encode(self, value: Any, /) -> bytes:
        return cast(bytes, cast(Any, self)._dumps(value))

    def decode(self, data: bytes, /) -> Any:
        return cast(Any, self)._loads(data)


@dataclass(frozen=True, slots=True)
class Functions:
    """A codec of two functions, which are called without a detour."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


_registered: dict[str, Codec] = {}
_REFUSED = {
    "pickle": "whoever can write to the topic could run code in the worker",
    "pickle_restricted": "what it restricts has been got around before",
    "pickle_fickling": "what it restricts has been got around before",
    "yaml": "nothing here needs it, and its parsers are slow",
}


def register(name: str, codec: Codec) -> None:
    """Let `codec` be called by `name` from now on, also within a chain."""
    if name in _BUILT_IN or name in _REFUSED or "|" in name or not name:
        raise CodecError(
            f"A codec may not be called {name!r}.", remedy="Choose a name of its own."
        )
    _registered[name] = _checked(codec)
    _cached.cache_clear()


def get_codec(serializer: str | Codec) -> Codec:
    """The codec of that name, for values of no particular type."""
    return codec_for(None, serializer, default="json")


def codec_for(
    value_type: Any,
    serializer: str | Codec | None,
    *,
    default: str | Codec,
    deterministic: bool = False,
) -> Codec:
    """How values of `value_type` are written and read; make it once, then keep it.

    With `deterministic`, equal values give equal bytes, also sets and dicts: keys need
    it. The price: dicts with keys other than str are refused.
    """
    value_type = _plain_type(value_type)
    chosen = _chosen(value_type, serializer, default)
    first, *others = chosen.split("|") if isinstance(chosen, str) else [chosen]
    codecs = [_first(first, value_type, deterministic), *map(_next, others)]
    return codecs[0] if len(codecs) == 1 else _chain(codecs)


def cached_codec(value_type: type, serializer: str | Codec | None) -> Codec:
    """For callers who have no place of their own to keep it."""
    if serializer is None or isinstance(serializer, str):
        return _cached(value_type, serializer)
    return codec_for(value_type, serializer, default="json")


@cache
def _cached(value_type: type, serializer: str | None) -> Codec:
    return codec_for(value_type, serializer, default="json")


def or_none(decode: Callable[[bytes], Any]) -> Callable[[bytes | None], Any]:
    """The same for records that may be tombstones, None. What is written in C raises
    TypeError for these, and stays as it is: callers who look out for that spare a call."""
    if isinstance(decode, FunctionType | MethodType | partial):
        return lambda data: None if data is None else decode(data)
    return cast("Callable[[bytes | None], Any]", decode)


def decode_error(error: Exception, data: bytes, where: str) -> DecodeError:
    """What to tell: `where` names the record, such as "orders-0 at offset 17"."""
    shown = repr(bytes(data[:100])) + (" ..." if len(data) > 100 else "")
    remedy = error.remedy if isinstance(error, StreamerError) else None
    return DecodeError(f"{where}: {_told(error)}. The data: {shown}", remedy=remedy)


def encode_error(error: Exception, value: object, where: str) -> EncodeError:
    """The same for a value that could not be written."""
    remedy = error.remedy if isinstance(error, StreamerError) else None
    return EncodeError(
        f"{where}: a {type(value).__name__} cannot be written: {_told(error)}.",
        remedy=remedy,
    )


# --- which codec


def _plain_type(value_type: Any) -> Any:
    """What NewType stands for; None where nothing is known about the values."""
    while hasattr(value_type, "__supertype__"):
        value_type = value_type.__supertype__
    return None if value_type in (Any, object, NoneType) else value_type


def _chosen(
    value_type: Any, serializer: str | Codec | None, default: str | Codec
) -> str | Codec:
    own = getattr(getattr(value_type, "__record_options__", None), "serializer", None)
    if serializer is not None or own is not None:
        return cast("str | Codec", serializer if serializer is not None else own)
    if value_type in (str, bytes):
        return "raw"
    # Raw is the default of keys. A Record as key has no raw form, and json says the same.
    if default == "raw" and value_type not in _RAW:
        return "json"
    return default


def _first(named: str | Codec, value_type: Any, deterministic: bool) -> Codec:
    if isinstance(named, str) and named.strip() in _BUILT_IN:
        return _BUILT_IN[named.strip()](value_type, deterministic)
    return _custom(_named(named), value_type)


def _next(named: str | Codec) -> Codec:
    if isinstance(named, str) and named.strip() == "binary":
        return _BASE64
    if isinstance(named, str) and named.strip() in _BUILT_IN:
        raise CodecError(
            f"{named.strip()!r} can only come first: the others are given bytes.",
            remedy='Write it first, as in "json|binary".',
        )
    return _custom(_named(named), None)


def _named(codec: str | Codec) -> Codec:
    if not isinstance(codec, str):
        return _checked(codec)
    name = codec.strip()
    if name in _REFUSED:
        raise CodecError(
            f"The serializer {name!r} is not offered: {_REFUSED[name]}.",
            remedy="Use json with a streamer.Record; or, if you must read such data, "
            "`streamer.codecs.register` a codec of your own under another name.",
        )
    if name not in _registered:
        known = ", ".join(sorted([*_BUILT_IN, *_registered]))
        raise CodecError(f"There is no codec called {name!r}; there are {known}.")
    return _registered[name]


def _checked(codec: Any) -> Codec:
    for ours, faust in (("encode", "_dumps"), ("decode", "_loads")):
        own = getattr(type(codec), ours, None) is not getattr(Codec, ours)
        method = getattr(codec, ours if own else faust, None)
        if isinstance(codec, type) or not callable(method):
            raise CodecError(
                f"{codec!r} is no codec: it has no method {ours!r}.",
                remedy="A codec is an object with `encode(value) -> bytes` and "
                "`decode(data) -> value`; a subclass of streamer.Codec may call them "
                "`_dumps` and `_loads`.",
            )
    return cast(Codec, codec)


# --- json


def _json(value_type: Any, deterministic: bool) -> Codec:
    encoder = msgspec.json.Encoder(order="deterministic" if deterministic else None)
    if value_type is None:
        return Functions(encoder.encode, msgspec.json.Decoder().decode)
    if foreign := foreign_classes(value_type):
        raise RecordError(
            f"{foreign[0].__module__}.{foreign[0].__qualname__} has no form in JSON.",
            remedy="Make it a streamer.Record or a dataclass, or give a serializer "
            "of your own: `streamer.codecs.register(name, codec)`.",
        )
    decoder = msgspec.json.Decoder(value_type, strict=not _lenient(value_type))
    return Functions(encoder.encode, decoder.decode)


def _lenient(value_type: Any) -> bool:
    """Is there a Record with coerce=True within? A decoder is lenient as a whole."""
    lenient = False
    for cls in classes_within(value_type):
        options = getattr(cls, "__record_options__", None)
        if options is not None and options.abstract:
            raise RecordError(
                f"Record {cls.__name__} is abstract, so no value can be one.",
                remedy="Name one of its subclasses, or a union of them.",
            )
        lenient = lenient or (options is not None and options.coerce)
    return lenient


# --- raw: each function refuses what is not its own, as a wrong key is never found again


def _raw(value_type: Any, deterministic: bool) -> Codec:
    if value_type not in _RAW:
        raise CodecError(
            f"A value of type {value_type!r} has no raw form.",
            remedy='Use serializer="json", or make bytes of it yourself.',
        )
    return _RAW[value_type]


def _bytes(value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        return cast(str, value).encode()
    if kind is bytes:
        return cast(bytes, value)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError("raw takes bytes or str")


def _identity(data: bytes) -> bytes:
    return data


def _int_text(value: int) -> bytes:
    return b"%d" % operator.index(value)


def _float_text(value: float) -> bytes:
    # 1 and -0.0 are equal to 1.0 and 0.0, so as keys they are written alike.
    return float.__repr__(value + 0.0).encode()


def _bool_text(value: bool) -> bytes:
    if value is True:
        return b"true"
    if value is False:
        return b"false"
    raise TypeError("expected True or False")


def _text_bool(data: bytes) -> bool:
    text = data.lower()
    if text not in (b"true", b"false"):
        raise ValueError("expected true or false")
    return text == b"true"


def _text(kind: type, value: Any) -> bytes:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return str(value).encode()


def _text_decimal(data: bytes) -> Decimal:
    try:
        return Decimal(data.decode())
    except InvalidOperation:
        raise ValueError("expected a decimal number") from None


def _text_uuid(data: bytes) -> UUID:
    return UUID(data.decode())


_RAW: dict[Any, Codec] = {
    None: Functions(_bytes, _identity),
    bytes: Functions(_bytes, _identity),
    str: Functions(str.encode, bytes.decode),
    int: Functions(_int_text, int),
    float: Functions(_float_text, float),
    bool: Functions(_bool_text, _text_bool),
    Decimal: Functions(partial(_text, Decimal), _text_decimal),
    UUID: Functions(partial(_text, UUID), _text_uuid),
}


# --- binary, chains and the user's own


_BASE64 = Functions(base64.b64encode, partial(base64.b64decode, validate=True))


def _binary(value_type: Any, deterministic: bool) -> Codec:
    return _chain([_raw(value_type, deterministic), _BASE64])


def _chain(codecs: list[Codec]) -> Codec:
    def encode(value: Any) -> bytes:
        for codec in codecs:
            value = codec.encode(value)
        return cast(bytes, value)

    def decode(data: bytes) -> Any:
        value: Any = data
        for codec in reversed(codecs):
            value = codec.decode(value)
        return value

    return Functions(encode, decode)


def _custom(codec: Codec, value_type: Any) -> Codec:
    """A codec that somebody else wrote: it may raise anything.

    It is given plain data (dicts, lists, str, numbers) in place of Records and other
    types of ours, and gives plain data back, so that it needs to know none of them.
    """
    plain = value_type is not None and not foreign_classes(value_type)
    strict = not (plain and _lenient(value_type))

    def encode(value: Any) -> bytes:
        try:
            given = msgspec.to_builtins(value, str_keys=True) if plain else value
            return codec.encode(given)
        except Exception as error:
            raise EncodeError(f"{type(codec).__name__}: {_told(error)}") from error

    def decode(data: bytes) -> Any:
        try:
            value = codec.decode(data)
            return _read(value, value_type, strict) if plain else value
        except Exception as error:
            raise DecodeError(f"{type(codec).__name__}: {_told(error)}") from error

    return Functions(encode, decode)


def _read(value: Any, value_type: Any, strict: bool) -> Any:
    return msgspec.convert(value, value_type, strict=strict, str_keys=True)


def _told(error: Exception) -> str:
    """What went wrong, to stand within a sentence."""
    if isinstance(error, StreamerError):
        return error.problem.rstrip(".")
    if isinstance(error, ValueError | msgspec.MsgspecError):
        return str(error).rstrip(".")
    # Others, such as KeyError, say little on their own.
    return f"{type(error).__name__}: {error}".rstrip(".")


_BUILT_IN: dict[str, Callable[[Any, bool], Codec]] = {
    "json": _json,
    "raw": _raw,
    "binary": _binary,
}
