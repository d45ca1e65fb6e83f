"""Options that many commands share: which broker, and configs as `name=value`."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

DEFAULT_PORT = 9092
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


def bootstrap_option(command: F) -> F:
    """-b: which broker; the command receives `bootstrap`."""
    return click.option(
        "-b",
        "--bootstrap-server",
        "--broker",
        "bootstrap",
        type=Address(),
        envvar="STREAMER_BROKER",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        show_default=True,
        show_envvar=True,
        help="A broker of the cluster, ours or any other Kafka.",
    )(command)


def pass_admin(command: Callable[..., Any]) -> Callable[..., Any]:
    """-b as well; the command receives an `Admin` of that broker as its first argument."""

    @functools.wraps(command)
    def with_admin(*arguments: Any, bootstrap: str, **options: Any) -> Any:
        from streamer.client.confluent import ConfluentAdmin

        return command(ConfluentAdmin(bootstrap), *arguments, **options)

    return bootstrap_option(with_admin)


def config_option(help: str) -> Callable[[F], F]:
    """-c name=value, as often as wanted; the command receives pairs."""
    return click.option(
        "-c", "--config", "configs", type=Assignment(), multiple=True, help=help
    )
