"""What every conformance test starts from: an admin client and topics of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from support.clients import create_topic
from support.raw import Wire, until_known
from support.raw_groups import RawMember, new_group

MakeTopic = Callable[..., str]
MakeMember = Callable[..., RawMember]


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
def group(wire: Wire) -> str:
    """The name of a fresh group."""
    return new_group(wire)


@pytest.fixture
def member(bootstrap: str, group: str) -> Iterator[MakeMember]:
    """`member(instance=...)` gives one who may join this test's group on the wire."""
    with ExitStack() as at_the_end:

        def make(**wishes: Any) -> RawMember:
            one = RawMember(bootstrap, wishes.pop("group", group), **wishes)
            at_the_end.callback(one.close)
            return one

        yield make


@pytest.fixture
def make_topic(admin: AdminClient) -> MakeTopic:
    """`make_topic(partitions=4, config={...})` gives the name of a new topic."""

    def make(**wishes: object) -> str:
        return create_topic(admin, **wishes)  # type: ignore[arg-type]

    return make
