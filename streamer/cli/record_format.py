"""The words of `-f`: how a record becomes text, and a line of text a record.

kcat's letters, the same both ways:

    %t topic   %p partition   %o offset   %T timestamp in milliseconds
    %k key     %v or %s value   %h headers as name=value,name=value
    %% a percent sign   \\n \\t \\r \\0 \\\\ and \\xHH as usual

Keys and values are bytes and are printed as they are. A line is read by the same
letters: each field reaches up to the text that follows it in the format, the last
one to the end of the line.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from streamer.client.interface import Message
from streamer.errors import StreamerError

Render = Callable[[Message], bytes]

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
TOKEN = re.compile(r"%(?P<field>.)|\\x(?P<hex>[0-9a-fA-F]{2})|\\(?P<escape>.)", re.DOTALL)


class FormatError(StreamerError):
    remedy = "`streamer consume --help` lists the letters of -f."


class LineError(StreamerError):
    remedy = "Correct the line, or describe the lines with -f."


def parse_format(text: str, letters: str) -> list[bytes | str]:
    """The format as a sequence of literal bytes and letters."""
    parts: list[bytes | str] = []
    literal = b""
    at = 0
    for token in TOKEN.finditer(text):
        literal += text[at : token.start()].encode()
        at = token.end()
        if token["hex"]:
            literal += bytes.fromhex(token["hex"])
        elif token["escape"]:
            if token["escape"] not in ESCAPES:
                raise FormatError(f"\\{token['escape']} in {text!r} is no escape.")
            literal += ESCAPES[token["escape"]].encode()
        elif token["field"] == "%":
            literal += b"%"
        elif token["field"] in letters:
            parts += [literal, token["field"]] if literal else [token["field"]]
            literal = b""
        else:
            raise FormatError(
                f"%{token['field']} in {text!r} cannot stand here.",
                remedy="These can: " + " ".join("%" + letter for letter in letters),
            )
    literal += text[at:].encode()
    return [*parts, literal] if literal else parts


# ---------------------------------------------------------------- a record as text

FIELDS: dict[str, Render] = {
    "t": lambda message: message.topic().encode(),
    "p": lambda message: b"%d" % message.partition(),
    "o": lambda message: b"%d" % message.offset(),
    "T": lambda message: b"%d" % message.timestamp()[1],
    "k": lambda message: message.key() or b"",
    "v": lambda message: message.value() or b"",
    "s": lambda message: message.value() or b"",
    "h": lambda message: b",".join(
        name.encode() + b"=" + (value or b"") for name, value in message.headers() or ()
    ),
}


def printer(text: str) -> Render:
    """A function that prints a record as the format says."""
    parts = parse_format(text, "".join(FIELDS))
    renders = [FIELDS[part] if isinstance(part, str) else part for part in parts]

    def render(message: Message) -> bytes:
        return b"".join(
            [part if isinstance(part, bytes) else part(message) for part in renders]
        )

    return render


def print_json(message: Message) -> bytes:
    """One JSON object and a newline; what is not UTF-8 becomes {"base64": ...}."""
    record = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "headers": [
            {"key": name, "value": _json_text(value)}
            for name, value in message.headers() or ()
        ],
        "key": _json_text(message.key()),
        "value": _json_text(message.value()),
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _json_text(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


# ----------------------------------------------------------------- a line as record


class Line(NamedTuple):
    """What a line says of the record to write; None or empty where it is silent."""

    key: bytes | None = None
    value: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


LINE_LETTERS = "kvsph"


def line_reader(text: str) -> Callable[[bytes], Line]:
    """A function that reads a line (without its newline) as the format says."""
    parts = parse_format(text, LINE_LETTERS)
    while parts and isinstance(parts[-1], bytes) and parts[-1].endswith(b"\n"):
        # A newline at the end of the format is the end of the line.
        stripped = parts.pop()[:-1]
        parts += [stripped] if stripped else []
    fields = [part for part in parts if isinstance(part, str)]
    if len(set(fields)) < len(fields) or {"v", "s"} <= set(fields):
        raise FormatError(f"{text!r} names a field twice.")
    if parts in (["v"], ["s"]):
        return lambda line: Line(None, line)  # the usual case, and the fastest
    for part, following in pairwise(parts):
        if isinstance(part, str) and isinstance(following, str):
            raise FormatError(
                f"Nothing stands between %{part} and %{following} in {text!r}.",
                remedy="Put the text between them that separates them in each line.",
            )
    pattern = re.compile(
        b"".join(
            re.escape(part) if isinstance(part, bytes) else b"(?P<%s>.*?)" % part.encode()
            for part in parts
        ),
        re.DOTALL,
    )

    def read(line: bytes) -> Line:
        found = pattern.fullmatch(line)
        if found is None:
            raise LineError(f"{shown(line)} does not fit {text!r}.")
        named = found.groupdict()
        return Line(
            key=named.get("k"),
            value=named.get("v", named.get("s")),
            partition=_partition(named.get("p")),
            headers=read_headers(named.get("h") or b""),
        )

    return read


def read_headers(text: bytes) -> list[tuple[str, bytes | None]]:
    """name=value,name=value; a name without = has no value."""
    headers: list[tuple[str, bytes | None]] = []
    for pair in text.split(b",") if text else []:
        name, equals, value = pair.partition(b"=")
        headers.append((name.decode(errors="replace"), value if equals else None))
    return headers


def _partition(text: bytes | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit():
        raise LineError(f"{shown(text)} is no partition.")
    return int(text)


def shown(line: bytes) -> str:
    """Bytes for a person: quoted, and not too long."""
    text = line.decode(errors="backslashreplace")
    return repr(text if len(text) <= 60 else text[:57] + "...")
