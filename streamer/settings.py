"""Settings: what may be set, where a value came from, and what to say when it is wrong.

An `Option` is one name with its kind, default and meaning; Kafka's names wherever
Kafka has one. A table of options lives beside what it configures
(`log/config.py`, `broker/config.py`); this module only knows how to read them:

    flag  >  environment  >  streamer.toml  >  default

    --set log.retention.ms=60000        STREAMER_LOG_RETENTION_MS=60000
    [broker]                            # in streamer.toml, or [tool.streamer.broker]
    "log.retention.ms" = 60000          # in pyproject.toml; dotted or quoted

A name nobody knows, or a value that cannot be, is an error that says what was
probably meant: a retention that is silently not applied costs somebody a disk.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from streamer.errors import SettingsError

Value = bool | int | float | str | tuple[str, ...]


class Kind(IntEnum):
    """Kinds of value, numbered as DescribeConfigs numbers them on the wire."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7


FILES: dict[str, tuple[str, ...]] = {
    "streamer.toml": (),
    "pyproject.toml": ("tool", "streamer"),
}
# What may be in them.
SECTIONS = ("broker", "app")
LIMITS = {Kind.INT: 2**31 - 1, Kind.LONG: 2**63 - 1}


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that may be set. `default` is text, as a user would write it."""

    name: str
    kind: Kind
    default: str
    doc: str
    minimum: float | None = None
    choices: tuple[str, ...] = ()
    # May be changed while the broker runs (AlterConfigs on the broker).
    dynamic: bool = False
    maximum: float | None = None

    @property
    def environment_name(self) -> str:
        return "STREAMER_" + self.name.upper().replace(".", "_")

    def parse(self, text: str) -> Value:
        """The value that `text` stands for; raises ValueError saying what is expected."""
        value = _PARSERS[self.kind](text.strip())
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise ValueError(f"must be at least {self.minimum}")
            limit = LIMITS.get(self.kind)
            most = limit if self.maximum is None else self.maximum
            if most is not None and value > most:
                raise ValueError(f"must be at most {most}")
            if limit is not None and value < -limit - 1:
                raise ValueError(f"must be at least {-limit - 1}")
        if self.choices:
            given = value if isinstance(value, tuple) else (value,)
            for item in given:
                if item not in self.choices:
                    raise ValueError(f"must be {' or '.join(self.choices)}, not {item!r}")
        return value


def _parse_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _parse_whole(text: str) -> int:
    # Clients read the text as well, and know nothing of Python's 1_000.
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError("must be a whole number")
    return int(text)


def _parse_number(text: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?", text):
        raise ValueError("must be a number")
    return float(text)


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


_PARSERS: dict[Kind, Callable[[str], Value]] = {
    Kind.BOOLEAN: _parse_boolean,
    Kind.STRING: str,
    Kind.INT: _parse_whole,
    Kind.LONG: _parse_whole,
    Kind.DOUBLE: _parse_number,
    Kind.LIST: _parse_list,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value in force, as text and as it is used, and where it came from."""

    option: Option
    text: str
    value: Value
    origin: str

    @property
    def is_default(self) -> bool:
        return self.origin == "default"


def setting(option: Option, text: str, origin: str) -> Setting:
    """`option` set to `text`, or an error that names the place where it was set."""
    try:
        return Setting(option, text, option.parse(text), origin)
    except ValueError as error:
        raise SettingsError(
            f"{option.name} = {text!r} ({origin}): {error}.",
            remedy=f"{option.doc} Its default is {option.default or 'empty'}.",
        ) from None


def resolve(
    options: Mapping[str, Option],
    *,
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    file: Mapping[str, tuple[str, str]],
) -> dict[str, Setting]:
    """Each option's setting: from a flag, the environment, a file, or its default."""
    for name, origin in [(name, "flag") for name in flags] + [
        (name, origin) for name, (_, origin) in file.items()
    ]:
        if name not in options:
            raise unknown_name(name, origin, options)
    found = {}
    for name, option in options.items():
        if name in flags:
            found[name] = setting(option, flags[name], "flag")
        elif option.environment_name in environment:
            text = environment[option.environment_name]
            found[name] = setting(option, text, f"environment {option.environment_name}")
        elif name in file:
            found[name] = setting(option, *file[name])
        else:
            found[name] = setting(option, option.default, "default")
    return found


def check_environment(
    environment: Mapping[str, str], options: Iterable[Option], others: Iterable[str]
) -> None:
    """Refuse a STREAMER_ variable that nobody reads: it was meant to change something."""
    known = {option.environment_name for option in options} | set(others)
    for name in environment:
        if name.startswith("STREAMER_") and name not in known:
            raise unknown_name(name, "environment", known)


def unknown_name(name: str, origin: str, known: Iterable[str]) -> SettingsError:
    """The error for a name nobody knows, with the name that was probably meant."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return SettingsError(
        f"There is no setting {name!r} ({origin}).",
        remedy=f"Did you mean {near[0]!r}?" if near else None,
    )


def read_toml(directory: Path, section: str) -> dict[str, tuple[str, str]]:
    """Name → (text, origin) in `[section]` of the nearest streamer.toml or pyproject.toml.

    The nearest is looked for from `directory` upward, as git looks for its folder.
    """
    for folder in (directory, *directory.parents):
        for filename, path in FILES.items():
            file = folder / filename
            if not file.is_file():
                continue
            try:
                table = tomllib.loads(file.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                if filename == "pyproject.toml":
                    continue  # not ours to complain about
                raise SettingsError(
                    f"{file} is not valid TOML: {error}.", remedy="Correct that line."
                ) from None
            ours = _within(table, path, file)
            _check_sections(ours, path, file)
            table = _within(ours, (section,), file)
            if table or filename == "streamer.toml":
                return {name: (text, str(file)) for name, text in _flatten(table)}
    return {}


def _within(table: dict[str, Any], keys: Iterable[str], file: Path) -> dict[str, Any]:
    for key in keys:
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise SettingsError(
                f"{file}: {key!r} is one value, not a table of settings.",
                remedy=f"Write the settings below [{key}], one a line.",
            )
    return table


def _check_sections(found: Iterable[str], path: tuple[str, ...], file: Path) -> None:
    """Refuse a section that nobody reads, or settings outside of any."""
    for name in found:
        if name not in SECTIONS:
            near = difflib.get_close_matches(name, SECTIONS, n=1, cutoff=0.6)
            right = ".".join((*path, near[0] if near else SECTIONS[0]))
            raise SettingsError(
                f"{file}: there is no section {name!r}.",
                remedy=f"Write the broker's settings below [{right}].",
            )


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """TOML's dotted keys make nested tables; make dotted names of them again."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            yield prefix + key, str(value).lower()
        elif isinstance(value, list):
            yield prefix + key, ",".join(str(item) for item in value)
        else:
            yield prefix + key, str(value)
