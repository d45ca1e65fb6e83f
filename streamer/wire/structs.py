"""Classes for the messages and for the structs inside them.

    ProduceRequest(acks=-1, topics=[ProduceRequest.Topic(name="orders")])

Fields are given by name and default as the table of `schema/` says, a list to a
new empty one. The class of a nested struct is an attribute of its message.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from streamer.wire.definition import Field, Message

# Stands for "a new list" in the signature of a constructor.
NEW_LIST = ()


class Struct:
    """Named fields, equal if their type and all fields are."""

    __slots__ = ()
    fields: ClassVar[tuple[Field, ...]]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in self.fields)

    __hash__ = None  # type: ignore[assignment]  # they can change

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={show(getattr(self, f.name))}" for f in self.fields)
        return f"{type(self).__qualname__}({shown})"


def show(value: object) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes | memoryview) else repr(value)


def message_class(message: Message) -> type[Struct]:
    made = struct_class(message.name, message.fields)
    for field in nested(message.fields):
        made_inner = struct_class(field.type, field.fields, within=message.name)
        if hasattr(made, field.type):
            raise TypeError(f"{message.name} has two structs called {field.type}")
        setattr(made, field.type, made_inner)
    made.definition = message  # type: ignore[attr-defined]
    return made


def nested(fields: tuple[Field, ...]) -> Iterator[Field]:
    for field in fields:
        if field.is_struct:
            yield field
            yield from nested(field.fields)


def struct_class(name: str, fields: tuple[Field, ...], *, within: str = "") -> type[Struct]:
    names = [field.name for field in fields]
    qualified = f"{within}.{name}" if within else name
    return type(
        name,
        (Struct,),
        {
            "__slots__": tuple(names),
            "__init__": constructor(fields),
            "__match_args__": tuple(names),
            "__module__": "streamer.wire.messages",
            "__qualname__": qualified,
            "fields": fields,
        },
    )


def constructor(fields: tuple[Field, ...]) -> Any:
    """`def __init__(self, *, acks=0, ...)`: made as text, which runs fastest."""
    parameters = ", ".join(f"{f.name}=default_{f.name}" for f in fields)
    lines = [f"def __init__(self, *, {parameters}):"]
    for field in fields:
        value = field.name
        if field.default == NEW_LIST:
            value = f"[] if {value} is NEW_LIST else {value}"
        lines.append(f"    self.{field.name} = {value}")
    space: dict[str, Any] = {f"default_{f.name}": f.default for f in fields}
    space["NEW_LIST"] = NEW_LIST
    exec("\n".join(lines), space)
    return space["__init__"]
