"""After a new leader took over, whoever still believes in the old one is told.

One broker has no elections, but Kafka counts each of its starts as one, and ours
counts a start that had to cut a torn tail: in both the epoch tells a client that what
it has read may be gone. So this file has a broker of its own, to end it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from support.batches import batch, headers
from support.broker import start_streamer
from support.clients import create_topic
from support.kafka import start_kafka
from support.raw import (
    Wire,
    epoch_end,
    fetch,
    leader_epoch,
    offsets,
    produce,
    until_known,
)
from support.server import Server

from streamer.wire.error_codes import ErrorCode

TOPIC = "shaken"


@pytest.fixture(scope="module")
def broker(against: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker in its second life; TOPIC held three records in the first."""
    directory = tmp_path_factory.mktemp("epochs")
    first = start(against, directory)
    create_topic(AdminClient({"bootstrap.servers": first.address}), name=TOPIC)
    with Wire(first.address) as wire:
        until_known(wire, TOPIC)
        produce(wire, TOPIC, batch([b"x"] * 3))
    if against == "kafka":
        first.stop()
    else:
        first.kill()
        tear(first.logs / f"{TOPIC}-0")

    with start(against, directory) as second:
        yield second


def start(against: str, directory: Path) -> Server:
    return start_kafka(directory) if against == "kafka" else start_streamer(directory)


def tear(partition: Path) -> None:
    """Half a batch at the end of the log, as a power cut may leave it."""
    (segment,) = partition.glob("*.log")
    with segment.open("ab") as log:
        log.write(batch([b"never acknowledged"], base_offset=3)[:-5])


@pytest.fixture
def wire(broker: Server) -> Iterator[Wire]:
    with Wire(broker.address) as connection:
        until_known(connection, TOPIC)
        yield connection


def test_what_was_acknowledged_is_there_and_nothing_else(wire: Wire) -> None:
    found = fetch(wire, TOPIC, 0)

    assert next(headers(found.records)).record_count == 3
    assert leader_epoch(wire, TOPIC) > 0


def test_a_client_of_the_old_leader_is_fenced(wire: Wire) -> None:
    epoch = leader_epoch(wire, TOPIC)

    for given, code in (
        (epoch - 1, ErrorCode.FENCED_LEADER_EPOCH),
        (epoch, ErrorCode.NONE),
        (epoch + 1, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ):
        assert fetch(wire, TOPIC, 0, leader_epoch=given).error_code == code
        assert offsets(wire, TOPIC, -1, epoch=given).error_code == code
        assert epoch_end(wire, TOPIC, 0, current=given).error_code == code


def test_the_old_epoch_ends_where_the_new_one_begins(wire: Wire) -> None:
    end = fetch(wire, TOPIC, 0).high_watermark
    answer = produce(wire, TOPIC, batch([b"new"]))
    assert answer.base_offset == end

    old = epoch_end(wire, TOPIC, 0)
    assert (old.leader_epoch, old.end_offset) == (0, 3)
    epoch = leader_epoch(wire, TOPIC)
    new = epoch_end(wire, TOPIC, epoch)
    assert (new.leader_epoch, new.end_offset) == (epoch, end + 1)
    *_, last = headers(fetch(wire, TOPIC, end).records)
    assert last.leader_epoch == epoch
