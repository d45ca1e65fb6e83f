"""The command as a whole: help, versions, exit codes, and what is never imported."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import streamer
from streamer.cli.main import COMMANDS, main

STREAMER = str(Path(sys.executable).with_name("streamer"))
NOBODY = "127.0.0.1:1"


def commands() -> list[tuple[str, ...]]:
    """The words of every command and subcommand."""
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.commands]
    return found


def test_help_names_every_command_without_importing_one() -> None:
    script = (
        "import sys; from click.testing import CliRunner;"
        "from streamer.cli.main import main;"
        "print(CliRunner().invoke(main, ['--help']).output);"
        "print([m for m in sys.modules if m.startswith('streamer.')])"
    )

    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert all(f"  {name} " in output for name in COMMANDS)
    assert "streamer.cli.topic" not in output
    assert "streamer.cli.broker" not in output


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_teaches_by_an_example(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"])

    assert result.exit_code == 0
    assert f"streamer {words[0]}" in result.output.split("Usage:")[1].split("\n", 1)[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_in_the_list_is_known_for_every_command(name: str) -> None:
    command = main.get_command(click.Context(main), name)

    assert command is not None
    assert command.help, f"{name} has no help"


def test_the_version_is_the_packages() -> None:
    assert streamer.__version__ in CliRunner().invoke(main, ["--version"]).output


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["topics"]).exit_code == 2


IMPORTED = "import streamer.cli.broker"
ASKED_FOR_HELP = """
from streamer.cli.main import main
try:
    main(["broker", "--help"])
except SystemExit as end:
    assert end.code == 0
"""


@pytest.mark.parametrize("script", [IMPORTED, ASKED_FOR_HELP], ids=["import", "help"])
def test_the_broker_command_imports_nothing_that_only_a_client_needs(script: str) -> None:
    heavy = {"confluent_kafka", "rich", "rocksdict", "msgspec", "starlette", "uvicorn"}
    heavy |= {
        "prometheus_client",
        "streamer.conf",
        "streamer.app",
        "streamer.worker",
        "streamer.client",
    }
    script += "\nimport sys; print('imported:', *sys.modules)"

    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    imported = set(output.partition("imported:")[2].split())
    assert "streamer.cli.broker" in imported
    assert not heavy & imported


@pytest.mark.parametrize(
    "words",
    [
        ("topic", "list"),
        ("topic", "create", "t"),
        ("produce", "t"),
        ("consume", "t"),
        ("consume", "t", "-g", "g"),
        ("cluster",),
        ("group", "list"),
        ("group", "seek", "g", "--to", "end", "-t", "t"),
        ("txn", "list"),
        ("txn", "abort", "t:0"),
        ("bench", "produce"),
        ("bench", "txn"),
    ],
    ids=" ".join,
)
def test_a_broker_that_is_not_there_is_named_with_the_way_out(
    words: tuple[str, ...],
) -> None:
    started = time.monotonic()

    result = CliRunner().invoke(main, [*words, "-b", NOBODY], input="")

    assert result.exit_code == 1
    assert f"No broker at {NOBODY}" in result.stderr
    assert "-> Start a broker with `streamer broker`" in result.stderr
    assert result.stdout == ""
    assert time.monotonic() - started < 3


def test_who_accepts_connections_but_is_silent_is_named_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"

        result = subprocess.run(
            [STREAMER, "topic", "list", "-b", address],
            capture_output=True,
            text=True,
            timeout=20,
        )

    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {address} accepts connections, but does not")
    assert len(result.stderr.splitlines()) == 2  # not librdkafka's log


@pytest.mark.parametrize("address", ["", "host:port", "host:0", ":9092", "a:1:x"])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    result = CliRunner().invoke(main, ["topic", "list", "-b", address])

    assert result.exit_code == 2
    assert "host:port" in result.stderr
