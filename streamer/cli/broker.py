"""`streamer broker`: run the built-in broker until Ctrl-C, or while somebody uses it.

Apps that name no broker start one by this command, with `--while-used`: see
`client/embedded.py`. It must start fast: nothing is imported here that a broker does not
need.
"""

import asyncio
import gc
import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import click

from streamer import __version__
from streamer.broker import config as broker_config
from streamer.broker.config import BROKER_OPTIONS, BrokerConfig
from streamer.broker.memory import keep_large_blocks
from streamer.broker.server import Server, serve
from streamer.broker.users import Users
from streamer.cli.environment import for_broker
from streamer.errors import BrokerError
from streamer.log.clock import SystemClock


@click.command("broker")
@click.option("--host", help="Address to listen at.  [default: 127.0.0.1]")
@click.option(
    "--port", type=int, help="Port to listen at; 0 takes a free one and keeps it."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder that holds everything.  [default: .streamer/broker]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting, by Kafka's name; may be given more than once.",
)
@click.option(
    "--address-file",
    type=click.Path(path_type=Path),
    help="Write host:port to this file once the broker serves.",
)
@click.option(
    "--while-used",
    type=click.Path(path_type=Path),
    metavar="LOCKFILE",
    help="Stop by itself once no process holds this file locked (a shared flock): how an "
    "app that names no broker starts one. Its port is a free one unless named.",
)
@click.option(
    "--show-config",
    is_flag=True,
    help="Print every setting with its value and origin; stop.",
)
@click.option(
    "-o",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Form of what --show-config prints.",
)
def broker_command(
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    settings: tuple[str, ...],
    address_file: Path | None,
    while_used: Path | None,
    show_config: bool,
    output: str,
) -> None:
    """Run the built-in broker. Ctrl-C stops it.

    Any Kafka client can use it. Settings come from flags, the environment
    (STREAMER_LOG_RETENTION_MS), and [broker] in the nearest streamer.toml.

    \b
      streamer broker
      streamer broker --port 0 --data-dir /tmp/d --address-file /tmp/address
      streamer broker --set log.retention.hours=1 --set log.durability=page-cache
    """
    flags = _flags(host, port, data_dir, settings)
    config = _load_for_app(flags) if while_used else _load(flags, os.environ)
    if show_config:
        _print_config(config, output)
        return
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    _run(config, address_file, while_used)


def _flags(
    host: str | None, port: int | None, data_dir: Path | None, settings: tuple[str, ...]
) -> dict[str, str]:
    flags = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="--set")
        flags[name.strip()] = value.strip()
    if host is not None or port is not None:
        if "listeners" in flags:
            raise click.UsageError("Give either --host and --port, or --set listeners=...")
        flags["listeners"] = (
            f"PLAINTEXT://{host or '127.0.0.1'}:{9092 if port is None else port}"
        )
    if data_dir is not None:
        flags["log.dirs"] = str(data_dir)
    return flags


def _load(flags: Mapping[str, str], environment: Mapping[str, str]) -> BrokerConfig:
    return broker_config.load(
        flags=flags, environment=for_broker(environment), directory=Path.cwd()
    )


def _load_for_app(flags: Mapping[str, str]) -> BrokerConfig:
    """The same for a broker that an app starts: at a free port unless one was named."""
    # It is the app's environment: what means nothing to a broker means something there.
    names = {option.environment_name for option in BROKER_OPTIONS.values()}
    environment = {name: text for name, text in os.environ.items() if name in names}
    config = _load(flags, environment)
    if config["listeners"].is_default:
        return _load({**flags, "listeners": "PLAINTEXT://127.0.0.1:0"}, environment)
    return config


def _print_config(config: BrokerConfig, output: str) -> None:
    if output == "json":
        click.echo(
            json.dumps(
                {
                    one.option.name: {
                        "value": one.text,
                        "origin": one.origin,
                        "default": one.option.default,
                        "description": one.option.doc,
                    }
                    for one in config
                },
                indent=2,
            )
        )
        return
    wide = max(len(one.option.name) for one in config)
    for one in config:
        click.echo(f"{one.option.name:<{wide}}  {one.text}  ({one.origin})")


def _write_address(file: Path, server: Server) -> None:
    """In one step: whoever waits for the file finds it whole."""
    temporary = file.with_name(file.name + ".tmp")
    try:
        temporary.write_text(f"{server.addresses[0]}\n")
        temporary.replace(file)
    except OSError as error:
        raise BrokerError(
            f"{file} cannot be written: {error.strerror or error}.",
            remedy="Name another place with --address-file.",
        ) from error


def _run(config: BrokerConfig, address_file: Path | None, while_used: Path | None) -> None:
    end = f"it ends with the last user of {while_used}" if while_used else "Ctrl-C stops it"

    def ready(server: Server) -> None:
        addresses = ", ".join(map(str, server.addresses))
        if address_file is not None:
            _write_address(address_file, server)
        click.echo(
            f"streamer {__version__} serves {addresses} from {config.text('log.dirs')} "
            f"(durability: {config.text('log.durability')}); {end}",
            err=True,
        )
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    keep_large_blocks()
    try:
        import uvloop
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    with ExitStack() as until_the_end:
        users = until_the_end.enter_context(Users(while_used)) if while_used else None
        runner = until_the_end.enter_context(asyncio.Runner(loop_factory=loop_factory))
        runner.run(serve(config, SystemClock(), ready, users))
