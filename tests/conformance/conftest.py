"""What every conformance test starts from: an admin client and topics of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient
from support.clients import create_topic
from support.raw import Wire, until_known

MakeTopic = Callable[..., str]


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def topic(admin: AdminClient) -> str:
    """A fresh topic of one partition."""
    return create_topic(admin)


@pytest.fixture
def wire(bootstrap: str) -> Iterator[Wire]:
    """A connection without a client: messages and bytes as the test wants them."""
    with Wire(bootstrap) as connection:
        yield connection


@pytest.fixture
def log(wire: Wire, topic: str) -> str:
    """A fresh topic of one partition that answers on the wire."""
    until_known(wire, topic)
    return topic


@pytest.fixture
def make_topic(admin: AdminClient) -> MakeTopic:
    """`make_topic(partitions=4, config={...})` gives the name of a new topic."""

    def make(**wishes: object) -> str:
        return create_topic(admin, **wishes)  # type: ignore[arg-type]

    return make
