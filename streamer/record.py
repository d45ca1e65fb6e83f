"""Record: what a user declares, so that a value has fields, and fields have types.

    class Order(streamer.Record):
        id: str
        item: str
        quantity: int = 1

A msgspec Struct underneath: made, read and compared in C, and typed for mypy and
pyright. What Faust's users know is here: `asdict`, `dumps`, `loads`, `derive`,
`coerce=True`, and `Order.item`, which names a field to `group_by`.

- Decoding checks types. The constructor does not, unless `coerce` or `validation`
  asks for it: then it costs a microsecond or two, and an ordinary Record nothing.
- Unknown fields in data are ignored; Faust's own `__faust` among them.
- `note: str | None` must be given; `note: str | None = None` may be left out. (In
  Faust both may. Here the type checker and the constructor agree.)

How a Record becomes bytes: `codecs.py`. What changed since last year: `schema.py`.
"""

import difflib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import MemberDescriptorType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Self,
    cast,
    dataclass_transform,
    get_type_hints,
)
from uuid import UUID

import msgspec

from streamer.codecs import (
    DECODE_ERRORS,
    ENCODE_ERRORS,
    Codec,
    cached_codec,
    decode_error,
    encode_error,
)
from streamer.schema import RecordError


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What stands in brackets behind a Record's name. Subclasses inherit it."""

    # Its codec where the topic names none.
    serializer: str | Codec | None = None
    # Take "5" for 5, in data and in the constructor.
    coerce: bool = False
    # Check the types of the constructor's arguments.
    validation: bool = False
    # Only there to be inherited from. (Itself not inherited.)
    abstract: bool = False


# What msgspec understands itself.
_STRUCT_OPTIONS = frozenset(
    {"frozen", "kw_only", "order", "rename", "tag", "tag_field"}
    | {"omit_defaults", "forbid_unknown_fields"}
)
_OWN_OPTIONS = ("serializer", "coerce", "validation")
# Checked as they are, not as the text that JSON would make of them.
_NATIVE = (bytes, datetime, date, time, timedelta, Decimal, UUID)
# Faust's, which here are always so, or need no word.
_ALWAYS = frozenset({"isodates", "decimals", "lazy_creation"})
_REMEDIES = {
    "include_metadata": "Leave it out: no `__faust` metadata is written.",
    "allow_blessed_key": "Leave it out: a type is never chosen by what the data say.",
    "namespace": "Leave it out; to tell Records in a union apart, give each `tag=True`.",
    "polymorphic_fields": "Annotate a union, and give each Record in it `tag=True`.",
    "coercions": "Convert in `__post_init__`, or use a type that is known here.",
    "date_parser": "Dates are ISO 8601; parse others from a str in `__post_init__`.",
}


def _sorted_out(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for msgspec, and our own; None is as good as not given."""
    passed: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for option, value in given.items():
        if option in _STRUCT_OPTIONS:
            passed[option] = value
        elif option in _OWN_OPTIONS:
            if value is not None:
                own[option] = value
        elif option not in _ALWAYS and not (option in _REMEDIES and not value):
            known = sorted({*_STRUCT_OPTIONS, *_OWN_OPTIONS, "abstract"})
            near = difflib.get_close_matches(option, known, n=1)
            meant = (
                f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
            )
            raise RecordError(
                f"Record {name}: there is no option {option!r}.",
                remedy=_REMEDIES.get(option, meant),
            )
    return passed, own


class RecordMeta(msgspec.StructMeta):
    """Reads the options; all else is msgspec's."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        abstract: bool = False,
        **options: Any,
    ) -> Any:
        inherited = next(
            (base.__record_options__ for base in bases if isinstance(base, RecordMeta)),
            RecordOptions(),
        )
        passed, own = _sorted_out(name, options)
        settled = replace(inherited, abstract=abstract, **own)
        namespace["__record_options__"] = settled
        if settled.coerce or settled.validation:
            mcls = CheckedMeta
        return super().__new__(mcls, name, bases, namespace, **passed)

    if TYPE_CHECKING:
        __record_options__: RecordOptions


class CheckedMeta(RecordMeta):
    """The class of those Records whose constructor looks at what it is given.

    Here and not in `__post_init__`, which decoding calls too: data are checked already.
    """

    if not TYPE_CHECKING:  # Else the arguments of the constructor were lost on them.

        def __call__(cls, *args, **fields):  # noqa: N805  (it is a metaclass)
            options = cls.__record_options__
            named = {**dict(zip(cls.__match_args__, args, strict=False)), **fields}
            both = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
            data = {encoded: named[field] for field, encoded in both if field in named}
            unasked = not (options.coerce or options.validation)
            if unasked or len(data) != len(args) + len(fields):
                # The latter is a TypeError, and msgspec says which.
                return super().__call__(*args, **fields)
            return _made(cls, data, options.coerce)


if TYPE_CHECKING:
    # A Struct to them is a dataclass that is not frozen, so no Record could be.
    class _Struct:
        __struct_fields__: ClassVar[tuple[str, ...]]
        __struct_encode_fields__: ClassVar[tuple[str, ...]]
else:
    _Struct = msgspec.Struct


@dataclass_transform(field_specifiers=(msgspec.field,))
class Record(_Struct, metaclass=RecordMeta):
    """A value with named, typed fields: subclass it, and annotate them."""

    __record_options__: ClassVar[RecordOptions]

    def asdict(self) -> dict[str, Any]:
        """The fields and their values; the values are the same objects."""
        return msgspec.structs.asdict(cast(Any, self))

    def to_representation(self) -> dict[str, Any]:
        """Plain data, all the way down: what JSON would hold."""
        return cast(dict[str, Any], msgspec.to_builtins(self, str_keys=True))

    def dumps(self, serializer: str | Codec | None = None) -> bytes:
        codec = cached_codec(type(self), serializer)
        try:
            return codec.encode(self)
        except ENCODE_ERRORS as error:
            raise encode_error(error, self, type(self).__name__) from error

    @classmethod
    def loads(cls, data: bytes, serializer: str | Codec | None = None) -> Self:
        codec = cached_codec(cls, serializer)
        try:
            return cast(Self, codec.decode(data))
        except DECODE_ERRORS as error:
            raise decode_error(error, data, cls.__name__) from error

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """A Record from plain data, such as `to_representation` gives."""
        try:
            return msgspec.convert(
                data, cls, strict=not cls.__record_options__.coerce, str_keys=True
            )
        except msgspec.ValidationError as error:
            raise decode_error(error, repr(data).encode(), cls.__name__) from error

    def derive(self, *others: "Record", **fields: Any) -> Self:
        """A new Record: this one, then the others' fields, then those named, over it."""
        merged = Record.asdict(self)
        for other in others:
            merged |= Record.asdict(other)
        return type(self)(**(merged | fields))

    def validate(self) -> list[RecordError]:
        """What is wrong with the values, field by field."""
        if _problem(self, type(self)) is None:
            return []
        hints = get_type_hints(type(self), include_extras=True)
        found = {
            field: _problem(getattr(self, field), hints[field])
            for field in self.__struct_fields__
        }
        return [
            _wrong(type(self), f"field `{field}`: {problem}")
            for field, problem in found.items()
            if problem is not None
        ]

    def is_valid(self) -> bool:
        return not self.validate()

    @property
    def validation_errors(self) -> list[RecordError]:
        return self.validate()

    def validate_or_raise(self) -> None:
        for error in self.validate():
            raise error


def field_name(selector: object) -> str | None:
    """The name of the field that `Order.item` stands for; None if it stands for none."""
    if isinstance(selector, MemberDescriptorType):
        return selector.__name__
    if isinstance(selector, property) and selector.fget is not None:
        return selector.fget.__name__
    return None


def key_getter(selector: Any) -> Callable[[Any], Any]:
    """What gives the key of a value: for `Order.item` that field, else the function."""
    if isinstance(selector, MemberDescriptorType):
        return operator.attrgetter(selector.__name__)
    if isinstance(selector, property) and selector.fget is not None:
        return selector.fget
    if callable(selector):
        return cast(Callable[[Any], Any], selector)
    raise RecordError(
        f"{selector!r} does not say how to find the key of a value.",
        remedy="Name a field of a Record, as in `group_by(Order.item)`, or give a "
        "function: `group_by(lambda order: order.item)`.",
    )


def _made(cls: type[Record], data: dict[str, Any], coerce: bool) -> Record:
    """A Record of values that have the types of its fields."""
    try:
        return msgspec.convert(
            data, cls, strict=not coerce, builtin_types=None if coerce else _NATIVE
        )
    except msgspec.ValidationError as error:
        raise _wrong(cls, str(error)) from error


def _problem(value: Any, declared: Any) -> str | None:
    try:
        # Nested Records as well: what is an instance already would be taken as it is.
        plain = msgspec.to_builtins(value, builtin_types=_NATIVE)
        msgspec.convert(plain, declared, builtin_types=_NATIVE)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        return str(error)
    return None


def _wrong(cls: type[Record], problem: str) -> RecordError:
    return RecordError(
        f"{cls.__name__}: {problem}.",
        remedy='Give values of the declared types; `coerce=True` takes "5" for 5.',
    )
