"""Looking up a key of a table by its text, in the partitions that are here; of a global
table, in all.

    text    as it stands in the path: `tea`, `17` where keys are int, `2026-01-01`
    json    any value in JSON, for keys of no declared type: `17`, `["tea", 2]`

What is found is what is committed. Of a windowed table that is each of the latest windows
that has the key, or those of one moment.
"""

from __future__ import annotations

from typing import Any, cast

from streamer.codecs import DECODE_ERRORS
from streamer.state.table_partition import ABSENT, TablePartition
from streamer.state.window_partition import NEVER, WindowPartition
from streamer.table import Table
from streamer.web.answers import JSON
from streamer.window import Window

WINDOWS_MAX = 100
"""So many windows are looked into, from the latest back."""

Found = dict[str, Any]


class NoKey(Exception):
    """The text cannot be a key of this table."""


def key_of(table: Table[Any, Any], text: str, *, is_json: bool) -> Any:
    """The key that a text stands for."""
    if is_json:
        try:
            plain = JSON.decode(text.encode())
        except DECODE_ERRORS as error:
            raise NoKey(f"{text!r} is no JSON: {error}.") from error
        if not isinstance(plain, str):
            return hashable(plain if untyped(table) else typed(table, text))
        text = plain
    return text if untyped(table) else hashable(typed(table, text))


def untyped(table: Table[Any, Any]) -> bool:
    return table.key_type in (None, Any, object)


def typed(table: Table[Any, Any], text: str) -> Any:
    """As the table's codec reads it: as it is, or else as a text in JSON."""
    decode = table.decode_key
    try:
        return decode(text.encode())
    except DECODE_ERRORS:
        pass
    try:
        return decode(JSON.encode(text))
    except DECODE_ERRORS as error:
        raise NoKey(f"{text!r} is no key of table {table.name}: {error}.") from error


def hashable(key: Any) -> Any:
    return tuple(map(hashable, key)) if isinstance(key, list) else key


def look_up(table: Table[Any, Any], key: Any, at_ms: int | None) -> Found | None:
    """The committed value, and where it is; None: it is not here."""
    for part in table._parts(None):
        if table.window is not None:
            windows = windows_of(cast(WindowPartition, part), table.window, key, at_ms)
            if windows:
                return {"partition": part.number, "windows": windows}
        elif (value := committed(part, key)) is not ABSENT:
            return {"partition": part.number, "value": value}
    return None


def committed(part: TablePartition, key: Any) -> Any:
    try:
        return part.committed_get(key)
    except TypeError as error:
        raise NoKey(f"{key!r} is no key: {error}.") from error


def windows_of(
    part: WindowPartition, window: Window, key: Any, at_ms: int | None
) -> list[Found]:
    """Windows that have the key, the latest first; start and end in seconds."""
    time_ms = part.committed_ms
    if time_ms == NEVER:
        return []
    if at_ms is None:
        latest = window.current(time_ms)
        starts = [latest - back * window.step_ms for back in range(WINDOWS_MAX)]
    else:
        starts = sorted(window.starts(at_ms), reverse=True)
    first = window.expired_before(time_ms)
    found = []
    for start in starts:
        if first is not None and start < first:
            break
        value = committed(part, (start, key))
        if value is not ABSENT:
            begin_s, end_s = window.range(start)
            found.append({"start": begin_s, "end": end_s, "value": value})
    return found
