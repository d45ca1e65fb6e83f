"""The command line as tests call it: in this process, against the session's broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from support.clients import new_name

from streamer.cli.main import main

Streamer = Callable[..., Result]


@pytest.fixture
def streamer(bootstrap: str) -> Streamer:
    """`streamer("topic", "list")`: its result, with stdout and stderr apart."""

    def call(*words: str, stdin: str | bytes | None = None) -> Result:
        runner = CliRunner(env={"STREAMER_BROKER": bootstrap})
        return runner.invoke(main, words, input=stdin)

    return call


@pytest.fixture
def topic(streamer: Streamer) -> Iterator[str]:
    """A topic of two partitions."""
    name = new_name("cli")
    assert streamer("topic", "create", name, "-p", "2").exit_code == 0
    # A cluster spreads the news of a topic in its own time.
    until = time.monotonic() + 10
    while streamer("topic", "describe", name).exit_code and time.monotonic() < until:
        time.sleep(0.05)
    yield name
    streamer("topic", "delete", name, "--yes")
