"""How values of options are written, wherever there are options of that kind.

Which broker a command talks to, and how it gets in, is in `access.py`.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

DEFAULT_PORT = 9092
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
F = TypeVar("F", bound=Callable[..., Any])


class Address(click.ParamType[str]):
    """`host:port`, several with commas; `kafka://` before and a missing port are fine."""

    name = "host:port"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> str:
        addresses = [
            self._address(part.strip(), parameter, context)
            for part in str(value).replace(";", ",").split(",")
            if part.strip()
        ]
        if not addresses:
            self.fail("no address given; write host:port.", parameter, context)
        return ",".join(addresses)

    def _address(
        self, text: str, parameter: click.Parameter | None, context: click.Context | None
    ) -> str:
        host, colon, port = text.removeprefix("kafka://").rstrip("/").rpartition(":")
        if not colon or port.endswith("]"):
            host, port = text.removeprefix("kafka://").rstrip("/"), str(DEFAULT_PORT)
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            self.fail(f"{text!r} is no address; write host:port.", parameter, context)
        return f"{host}:{port}"


class Assignment(click.ParamType[tuple[str, str]]):
    """`name=value`."""

    name = "name=value"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not name=value.", parameter, context)
        return name, text


class TopicPartitions(NamedTuple):
    """All partitions of a topic, or one."""

    topic: str
    partition: int | None


class PartitionsType(click.ParamType[TopicPartitions]):
    """`topic` or `topic:partition`."""

    name = "topic[:partition]"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> TopicPartitions:
        if isinstance(value, TopicPartitions):
            return value
        topic, colon, partition = str(value).partition(":")
        if not topic or (colon and not partition.isdecimal()):
            self.fail(f"{value!r} is not topic or topic:partition.", parameter, context)
        return TopicPartitions(topic, int(partition) if colon else None)


class Duration(click.ParamType[float]):
    """`500ms`, `10s`, `5m`, `2h`; a number alone is seconds. The command gets seconds."""

    name = "duration"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]*)", str(value))
        if found is None or found[2] not in SECONDS:
            self.fail(
                f"{value!r} is no duration; write 500ms, 10s, 5m or 2h.", parameter, context
            )
        return float(found[1]) * SECONDS[found[2]]


def config_option(help: str) -> Callable[[F], F]:
    """-c name=value, as often as wanted; the command receives pairs."""
    return click.option(
        "-c", "--config", "configs", type=Assignment(), multiple=True, help=help
    )
