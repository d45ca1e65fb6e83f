"""The brokers that tests run against.

`--against=streamer` (the default) starts our broker, `--against=kafka` a real
Apache Kafka: the conformance tests must pass on both, or they test ourselves and not
the protocol. One broker serves the whole session; tests keep out of each other's way
by topics with names of their own.

Tests marked `kafka` need Java (Kafka's own tools); without it they are skipped and
say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.broker import start_streamer
from support.kafka import start_kafka, why_not_here
from support.server import PROMPT, Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--against",
        choices=("streamer", "kafka"),
        default="streamer",
        help="the broker that the conformance tests talk to",
    )


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python reads its schemas by functions that Python 3.11 deprecates.
    config.addinivalue_line("filterwarnings", "ignore:(open|read)_text is deprecated")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_not_here()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def against(request: pytest.FixtureRequest) -> str:
    """`streamer` or `kafka`: for the few places where the two differ on purpose."""
    return str(request.config.getoption("against"))


@pytest.fixture(scope="session")
def server(against: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The broker of this session."""
    directory = tmp_path_factory.mktemp("broker")
    if against == "kafka":
        if reason := why_not_here():
            pytest.fail(reason)
        running = start_kafka(directory)
    else:
        running = start_streamer(directory, settings=PROMPT)
    with running:
        yield running


@pytest.fixture(scope="session")
def bootstrap(server: Server) -> str:
    """Its address, as clients want it."""
    return server.address
