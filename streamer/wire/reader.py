"""Compiles the function that reads one version of a message.

For version 9 of a Metadata request it begins so:

    def read(buffer, at, end):
        room = room_for(end - at)
        message = new(MetadataRequest)
        n = buffer[at]
        at += 1
        if n > 127:
            n, at = read_varint(buffer, at - 1)
        n -= 1
        if n == -1:
            message.topics = None
        else:
            if n < 0 or n * 2 > end - at:
                raise wrong_length("topics", n, end - at)
            if n * cost_of_message_topics <= room:
                room -= n * cost_of_message_topics
                message.topics = message_topics = []
                for _ in range(n):
                    topic = new(Topic)
                    ...
            else:
                message.topics, at = rows_of_message_topics(buffer, at, end, n)

Neighbours of fixed width are unpacked with one call, together with the length
that follows them. `source_of_reader` gives the whole text of one.

Anybody may send a request, so its arrays are charged to a `room`, as `rows.py`
tells. Responses come from a broker that we chose to ask: theirs are always lists.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from struct import Struct as Layout, unpack_from
from typing import Any

from streamer.wire.codec import (
    CODES,
    NUMBERS,
    WIDTHS,
    Buffer,
    fewest_bytes,
    fewest_bytes_of,
    long_text,
    read_varint,
    skip_tags,
    uuid_of,
    variable,
    wrong_length,
    wrong_tag,
)
from streamer.wire.definition import Field, Message
from streamer.wire.rows import (
    ElementReader,
    Rows,
    heaviest_element,
    is_fixed,
    passed,
    room_for,
)
from streamer.wire.source import Source

# Takes a buffer, where the message starts in it and where the buffer ends; gives
# the message and where it ended.
Reader = Callable[[Buffer, int, int], tuple[Any, int]]
# Takes where an array's elements start, and how many they are.
RowsMaker = Callable[[Buffer, int, int, int], tuple[Rows, int]]


def compile_reader(cls: Any, version: int, *, bounded: bool = True) -> Reader:
    made: Reader = source_of_reader(cls, version, bounded=bounded).compile(
        f"{cls.__name__} v{version} reader"
    )
    return made


def source_of_reader(cls: Any, version: int, *, bounded: bool = True) -> Source:
    message: Message = cls.definition
    making = ReaderSource(cls, version, bounded=bounded)
    making.begin(message.fields, room="room_for(end - at)")
    making.struct("message", cls, message.fields)
    making.source.add("return message, at")
    return making.source


def compile_element_reader(cls: Any, version: int, field: Field) -> ElementReader:
    """For one element of an array. It has no room: arrays inside it are Rows too."""
    making = ReaderSource(cls, version, bounded=True)
    making.begin((field.element,), room="0")
    making.element(field)
    making.source.add(f"return {element_variable(field)}, at")
    made: ElementReader = making.source.compile(
        f"{cls.__name__} v{version} reader of {field.name}"
    )
    return made


def carry_records(fields: tuple[Field, ...]) -> bool:
    return any(f.type == "records" or carry_records(f.fields) for f in fields)


def element_variable(field: Field) -> str:
    return variable(field.type) if field.is_struct else "item"


class ReaderSource:
    def __init__(self, cls: Any, version: int, *, bounded: bool) -> None:
        self.cls, self.version, self.bounded = cls, version, bounded
        self.flexible = version in cls.definition.flexible
        self.source = Source("read(buffer, at, end)")
        self.source.names |= {
            "new": object.__new__,
            "uuid_of": uuid_of,
            "long_text": long_text,
            "read_varint": read_varint,
            "room_for": room_for,
            "skip_tags": skip_tags,
            "unpack_from": unpack_from,
            "wrong_length": wrong_length,
            "wrong_tag": wrong_tag,
        }
        self.fixed: list[tuple[str, str]] = []  # (target, type) still to be unpacked
        self.tag_depth = 0

    def begin(self, fields: tuple[Field, ...], *, room: str) -> None:
        """What comes before the fields: the room for arrays, a view to cut records of."""
        if self.bounded:
            self.source.add(f"room = {room}")
        if carry_records(fields):
            self.source.add("view = memoryview(buffer)")

    def struct(self, var: str, cls: Any, fields: tuple[Field, ...]) -> None:
        """Make `var`, an instance of `cls`, and read its fields in order."""
        self.source.names[cls.__name__] = cls
        self.source.add(f"{var} = new({cls.__name__})")
        tagged = []
        for field in fields:
            if self.version not in field.versions:
                self.absent(var, field)
            elif field.tag is not None:
                self.absent(var, field)
                tagged.append(field)
            else:
                self.field(f"{var}.{field.name}", field)
        if self.flexible:
            self.tags(var, tagged)
        self.unpack_fixed()

    def absent(self, var: str, field: Field) -> None:
        value = "[]" if field.default == () else repr(field.default)
        if field.type == "uuid":
            value = f"default_{field.name}"
            self.source.names[value] = field.default
        self.source.add(f"{var}.{field.name} = {value}")

    def field(self, target: str, field: Field) -> None:
        if field.array:
            self.measured(target, field, self.array)
        elif field.is_struct:
            self.unpack_fixed()
            var = variable(field.type)
            self.struct(var, getattr(self.cls, field.type), field.fields)
            self.source.add(f"{target} = {var}")
        elif field.type in CODES:
            self.fixed.append((target, field.type))
        else:
            self.measured(target, field, self.content)

    def measured(
        self, target: str, field: Field, body: Callable[[str, Field], None]
    ) -> None:
        """Read a length into `n`, check it, then read what it is the length of."""
        self.length(field)
        nullable = self.version in field.nullable
        if nullable:
            self.source.add("if n == -1:")
            self.source.add(f"    {target} = None")
        with self.source.block("else:") if nullable else nullcontext():
            width = self.element_width(field) if field.array else 1
            needed = f"n * {width}" if width > 1 else "n"
            with self.source.block(f"if n < 0 or {needed} > end - at:"):
                self.source.add(f'raise wrong_length("{field.name}", n, end - at)')
            body(target, field)

    def length(self, field: Field) -> None:
        if self.flexible:
            self.varint_length()
            self.source.add("n -= 1")
        else:
            short = field.type == "string" and not field.array
            self.fixed.append(("n", "int16" if short else "int32"))
            self.unpack_fixed()

    def varint_length(self) -> None:
        self.fixed.append(("n", "uint8"))
        self.unpack_fixed()
        with self.source.block("if n > 127:"):
            self.source.add("n, at = read_varint(buffer, at - 1)")

    def content(self, target: str, field: Field) -> None:
        """A string, bytes or records of `n` bytes. Records are not copied."""
        form = {
            "string": 'str(buffer[at : at + n], "utf-8")',
            "bytes": "bytes(buffer[at : at + n])",
            "records": "view[at : at + n]",
        }[field.type]
        if field.type == "string":
            form += " if n < 128 else long_text(buffer, at, n)"
        self.source.add(f"{target} = {form}")
        self.source.add("at += n")

    def array(self, target: str, field: Field) -> None:
        """An array of `n` elements: a list if there is room for it, else Rows."""
        if not self.bounded:
            self.elements(target, field)
            return
        items = target.replace(".", "_")
        cost, rows = f"cost_of_{items}", f"rows_of_{items}"
        self.source.names[cost] = heaviest_element(field, self.version)
        self.source.names[rows] = self.rows_maker(field)
        with self.source.block(f"if n * {cost} <= room:"):
            self.source.add(f"room -= n * {cost}")
            self.elements(target, field)
        with self.source.block("else:"):
            self.source.add(f"{target}, at = {rows}(buffer, at, end, n)")

    def elements(self, target: str, field: Field) -> None:
        if field.type in NUMBERS:
            code, width = NUMBERS[field.type], WIDTHS[field.type]
            self.source.add(f'{target} = list(unpack_from(f">{{n}}{code}", buffer, at))')
            self.source.add(f"at += n * {width}")
            return

        items = target.replace(".", "_")
        self.source.add(f"{target} = {items} = []")
        with self.source.block("for _ in range(n):"):
            self.element(field)
            self.source.add(f"{items}.append({element_variable(field)})")

    def element(self, field: Field) -> None:
        var = element_variable(field)
        if field.is_struct:
            self.struct(var, getattr(self.cls, field.type), field.fields)
        else:
            self.field(var, field.element)
            self.unpack_fixed()

    def rows_maker(self, field: Field) -> RowsMaker:
        """What makes Rows of `n` elements; their reader is compiled when some come."""
        width = self.element_width(field)
        fixed = is_fixed(field.element, self.version, flexible=self.flexible)

        @cache
        def element_reader() -> ElementReader:
            return compile_element_reader(self.cls, self.version, field)

        def rows(buffer: Buffer, at: int, end: int, n: int) -> tuple[Rows, int]:
            read = element_reader()
            # That `n` elements of fixed width are there has been checked already.
            after = at + n * width if fixed else passed(read, buffer, at, end, n)
            return Rows(read, buffer, at, n), after

        return rows

    def element_width(self, field: Field) -> int:
        if field.is_struct:
            return fewest_bytes(field.fields, self.version, flexible=self.flexible)
        return fewest_bytes_of(field.element, self.version, flexible=self.flexible)

    def unpack_fixed(self) -> None:
        """Unpack all that has gathered in `fixed`, with one call."""
        if not self.fixed:
            return
        codes = "".join(CODES[type_] for _, type_ in self.fixed)
        name = codes.replace("?", "c")  # no name may hold a question mark
        layout = Layout(">" + codes)
        if codes == "B":
            self.source.add(f"{self.fixed[0][0]} = buffer[at]")
        else:
            self.source.names[f"unpack_{name}"] = layout.unpack_from
            targets = ", ".join(target for target, _ in self.fixed)
            comma = "," if len(self.fixed) == 1 else ""
            self.source.add(f"{targets}{comma} = unpack_{name}(buffer, at)")
        self.source.add(f"at += {layout.size}")
        for target, type_ in self.fixed:
            if type_ == "uuid":
                self.source.add(f"{target} = uuid_of({target})")
        self.fixed.clear()

    def tags(self, var: str, tagged: list[Field]) -> None:
        """The tagged fields that end a struct; those we do not know are skipped."""
        self.fixed.append(("n", "uint8"))
        self.unpack_fixed()
        with self.source.block("if n:"):
            if not tagged:
                self.source.add("at = skip_tags(buffer, at - 1, end)")
                return
            tag, after = f"tag_{self.tag_depth}", f"after_{self.tag_depth}"
            self.tag_depth += 1
            self.source.add("n, at = read_varint(buffer, at - 1)")
            with self.source.block("for _ in range(n):"):
                self.source.add(f"{tag}, at = read_varint(buffer, at)")
                self.source.add(f"{after}, at = read_varint(buffer, at)")
                self.source.add(f"{after} += at")
                with self.source.block(f"if {after} > end:"):
                    self.source.add(f"raise wrong_tag({tag}, end - at)")
                for field in tagged:
                    self.tagged(f"{var}.{field.name}", field, tag, after)
                self.source.add(f"at = {after}")
            self.tag_depth -= 1

    def tagged(self, target: str, field: Field, tag: str, after: str) -> None:
        with self.source.block(f"if {tag} == {field.tag}:"):
            self.field(target, field)
            self.unpack_fixed()
            with self.source.block(f"if at != {after}:"):
                self.source.add(f"raise wrong_tag({tag}, {after} - at)")
