"""Compiles the function that writes one version of a message.

For version 3 of a response to CreatePartitions it ends so:

        add(pack_i(message.throttle_time_ms))
        add(VARINTS[n] if n < 128 else write_varint(n))
        for topic in message_topics:
            data = topic.name.encode()
            n = len(data) + 1
            add(VARINTS[n] if n < 128 else write_varint(n))
            add(data)
            ...
        add(VARINTS[0])
        if parts:
            out.append(b"".join(parts))
        return out

Records become chunks of their own, so that what was read from a file or came
from a client is not copied on its way. `source_of_writer` gives the whole text
of one.
"""

from collections.abc import Callable
from contextlib import nullcontext
from struct import Struct as Layout, pack
from typing import Any

from streamer.wire.codec import (
    CODES,
    NUMBERS,
    VARINTS,
    Buffer,
    Unwritable,
    missing_in_version,
    variable,
    write_varint,
)
from streamer.wire.definition import Field, Message
from streamer.wire.source import Source

Chunks = list[Buffer]
Writer = Callable[[Any], Chunks]


def compile_writer(cls: Any, version: int) -> Writer:
    made: Writer = source_of_writer(cls, version).compile(
        f"{cls.__name__} v{version} writer"
    )
    return made


def source_of_writer(cls: Any, version: int) -> Source:
    message: Message = cls.definition
    making = WriterSource(message, version)
    making.source.add("out = []")
    making.source.add("parts = []")
    making.source.add("add = parts.append")
    making.struct("message", message.fields)
    with making.source.block("if parts:"):
        making.source.add('out.append(b"".join(parts))')
    making.source.add("return out")
    return making.source


def records_length(records: Buffer | list[Buffer] | None) -> int:
    if records is None:
        return -1
    return sum(map(len, records)) if isinstance(records, list) else len(records)


def add_records(out: Chunks, parts: Chunks, records: Buffer | list[Buffer] | None) -> None:
    """End the chunk begun in `parts` and put the records behind it, uncopied."""
    if not records:
        return
    out.append(b"".join(parts))
    parts.clear()
    if isinstance(records, list):
        out.extend(records)
    else:
        out.append(records)


class WriterSource:
    def __init__(self, message: Message, version: int) -> None:
        self.version, self.flexible = version, version in message.flexible
        self.source = Source("write(message)")
        self.source.names |= {
            "VARINTS": VARINTS,
            "Unwritable": Unwritable,
            "write_varint": write_varint,
            "pack": pack,
            "records_length": records_length,
            "add_records": add_records,
            "missing": lambda name: missing_in_version(message.name, version, name),
        }
        self.fixed: list[tuple[str, str]] = []  # (expression, type) still to be packed
        self.tag_depth = 0

    def struct(self, var: str, fields: tuple[Field, ...]) -> None:
        tagged = []
        for field in fields:
            if self.version not in field.versions:
                self.refuse_if_set(var, field)
            elif field.tag is not None:
                tagged.append(field)
            else:
                self.field(f"{var}.{field.name}", field)
        if self.flexible and tagged:
            self.tags(var, tagged)
        elif self.flexible:
            self.fixed.append(("0", "uint8"))
        self.pack_fixed()

    def refuse_if_set(self, var: str, field: Field) -> None:
        if not field.ignorable:
            with self.source.block(f"if {is_set(var, field)}:"):
                self.source.add(f'raise missing("{field.name}")')

    def field(self, value: str, field: Field) -> None:
        if field.array:
            self.array(value, field)
        elif field.is_struct:
            self.pack_fixed()
            var = variable(field.type)
            self.source.add(f"{var} = {value}")
            self.struct(var, field.fields)
        elif field.type == "uuid":
            self.fixed.append((f"{value}.bytes", field.type))
        elif field.type in CODES:
            self.fixed.append((value, field.type))
        elif field.type == "records":
            self.records(value, field)
        else:
            self.content(value, field)

    def content(self, value: str, field: Field) -> None:
        """A string or bytes, behind its length."""
        nullable = self.version in field.nullable
        encode = field.type == "string"
        if encode and not nullable:
            value += ".encode()"
        self.source.add(f"data = {value}")
        if encode and nullable:
            with self.source.block("if data is not None:"):
                self.source.add("data = data.encode()")
        self.length("data", "int16" if encode else "int32", nullable=nullable)
        with self.source.block("if data:") if nullable else nullcontext():
            self.source.add("add(data)")

    def records(self, value: str, field: Field) -> None:
        self.source.add(f"data = {value}")
        self.source.add("n = records_length(data)")
        if self.version not in field.nullable:
            with self.source.block("if n < 0:"):
                self.source.add(f'raise Unwritable("{field.name} may not be null")')
        if self.flexible:
            self.source.add("n += 1")
        self.pack_length("int32")
        self.source.add("add_records(out, parts, data)")

    def array(self, value: str, field: Field) -> None:
        items = value.replace(".", "_")
        self.source.add(f"{items} = {value}")
        nullable = self.version in field.nullable
        self.length(items, "int32", nullable=nullable)
        with self.source.block(f"if {items}:") if nullable else nullcontext():
            self.items(items, field)

    def items(self, items: str, field: Field) -> None:
        if field.type in NUMBERS:
            code = NUMBERS[field.type]
            self.source.add(f'add(pack(f">{{len({items})}}{code}", *{items}))')
            return
        var = variable(field.type) if field.is_struct else "item"
        with self.source.block(f"for {var} in {items}:"):
            if field.is_struct:
                self.struct(var, field.fields)
            else:
                self.field(var, field.element)
                self.pack_fixed()

    def length(self, of: str, type_: str, *, nullable: bool) -> None:
        """The length of the variable `of`; null is told from empty."""
        n = f"len({of}) + 1" if self.flexible else f"len({of})"
        null = 0 if self.flexible else -1
        self.source.add(f"n = {null} if {of} is None else {n}" if nullable else f"n = {n}")
        self.pack_length(type_)

    def pack_length(self, type_: str) -> None:
        if self.flexible:
            self.pack_fixed()
            self.source.add("add(VARINTS[n] if n < 128 else write_varint(n))")
        else:
            self.fixed.append(("n", type_))
            self.pack_fixed()

    def pack_fixed(self) -> None:
        """Pack all that has gathered in `fixed`, with one call."""
        if not self.fixed:
            return
        codes = "".join(CODES[type_] for _, type_ in self.fixed)
        name = codes.replace("?", "c")  # no name may hold a question mark
        if self.fixed == [("0", "uint8")]:
            self.source.add("add(VARINTS[0])")
        else:
            self.source.names[f"pack_{name}"] = Layout(">" + codes).pack
            values = ", ".join(value for value, _ in self.fixed)
            self.source.add(f"add(pack_{name}({values}))")
        self.fixed.clear()

    def tags(self, var: str, tagged: list[Field]) -> None:
        """The tagged fields that differ from their defaults, each behind its size."""
        self.pack_fixed()
        conditions = [is_set(var, field) for field in tagged]
        with self.source.block(f"if {' or '.join(conditions)}:"):
            count = " + ".join(f"bool({c})" for c in conditions)
            self.source.add(f"add(VARINTS[{count}])")
            for condition, field in zip(conditions, tagged, strict=True):
                with self.source.block(f"if {condition}:"):
                    self.tagged(f"{var}.{field.name}", field)
        with self.source.block("else:"):
            self.source.add("add(VARINTS[0])")

    def tagged(self, value: str, field: Field) -> None:
        """The size comes first, so the field is written into a list of its own."""
        outer = f"outer_{self.tag_depth}"
        self.tag_depth += 1
        self.source.add(f"{outer}, parts = parts, []")
        self.source.add("add = parts.append")
        self.field(value, field)
        self.pack_fixed()
        self.source.add('data = b"".join(parts)')
        self.source.add(f"parts, add = {outer}, {outer}.append")
        self.source.add(f"add(VARINTS[{field.tag}])")
        self.source.add("add(write_varint(len(data)))")
        self.source.add("add(data)")
        self.tag_depth -= 1


def is_set(var: str, field: Field) -> str:
    """The condition that a field differs from its default."""
    value = f"{var}.{field.name}"
    if field.default is None:
        return f"{value} is not None"
    if field.type == "uuid":
        return f"{value}.int"
    return f"{value} != {field.default!r}" if field.default else value
