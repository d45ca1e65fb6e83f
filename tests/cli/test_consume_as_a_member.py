"""`streamer consume -g`, and what any consumer sees of transactions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Streamer
from support.clients import new_name

from streamer.client.confluent.producer import ConfluentTransactionalProducer

STREAMER = str(Path(sys.executable).with_name("streamer"))


@pytest.fixture
def group(streamer: Streamer) -> Iterator[str]:
    name = new_name("group")
    yield name
    streamer("group", "delete", name, "--yes")


@pytest.fixture
def transactional(bootstrap: str) -> ConfluentTransactionalProducer:
    return ConfluentTransactionalProducer(bootstrap, new_name("txn"))


def lag(streamer: Streamer, group: str) -> object:
    return json.loads(streamer("group", "describe", group, "-o", "json").stdout)["lag"]


def test_a_group_goes_on_where_it_was(streamer: Streamer, topic: str, group: str) -> None:
    streamer("produce", topic, "-p", "0", stdin="a\nb\nc\n")

    first = streamer("consume", topic, "-g", group, "-n", "2")
    second = streamer("consume", topic, "-g", group, "-e")
    third = streamer("consume", topic, "-g", group, "-e")

    assert (first.stdout, second.stdout, third.stdout) == ("a\nb\n", "c\n", "")
    assert {first.stderr, second.stderr, third.stderr} == {""}
    assert lag(streamer, group) == 0


def test_where_a_group_has_no_offset_the_option_says_where_to_begin(
    streamer: Streamer, topic: str, group: str
) -> None:
    streamer("produce", topic, "-p", "0", stdin="old\n")

    assert streamer("consume", topic, "-g", group, "-o", "end", "-e").stdout == ""
    streamer("produce", topic, "-p", "0", stdin="new\n")

    assert streamer("consume", topic, "-g", group, "-e").stdout == "new\n"


@pytest.mark.parametrize("words", [("-o", "-10"), ("-o", "@0"), ("-p", "1")])
def test_what_the_group_decides_is_not_the_commands_to_say(
    streamer: Streamer, words: tuple[str, ...]
) -> None:
    result = streamer("consume", "t", "-g", "g", *words)

    assert result.exit_code == 2
    assert "With -g the group" in result.stderr


def test_two_members_share_the_partitions(
    streamer: Streamer, bootstrap: str, topic: str, group: str
) -> None:
    command = [STREAMER, "consume", topic, "-g", group, "-b", bootstrap, "-f", r"%p %v\n"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other,
    ):
        while "2 members, range" not in (
            described := streamer("group", "describe", group).stdout
        ) or ("Stable" not in described):
            pass
        streamer("produce", topic, "-f", "%p %v", stdin="0 a\n1 b\n")
        assert one.stdout is not None
        assert other.stdout is not None
        found = {one.stdout.readline(), other.stdout.readline()}
        for each in (one, other):
            each.send_signal(signal.SIGINT)
            assert each.wait(15) == 0

    assert found == {"0 a\n", "1 b\n"}
    # Both have left, and what they printed is committed.
    assert streamer("consume", topic, "-g", group, "-e").stdout == ""


def test_what_could_not_be_printed_is_not_committed(
    streamer: Streamer, bootstrap: str, topic: str, group: str
) -> None:
    streamer("produce", topic, "-p", "0", stdin="a\nb\n")
    # A pipe that nobody reads from any more.
    result = subprocess.run(
        f"'{STREAMER}' consume '{topic}' -g '{group}' -b {bootstrap} -e | true",
        shell=True,
        capture_output=True,
        text=True,
    )

    assert result.stderr == ""
    assert streamer("consume", topic, "-g", group, "-e").stdout == "a\nb\n"


@pytest.mark.parametrize("words", [(), ("-g", "GROUP")], ids=["alone", "member"])
def test_what_was_aborted_is_not_printed(
    streamer: Streamer,
    transactional: ConfluentTransactionalProducer,
    topic: str,
    group: str,
    words: tuple[str, ...],
) -> None:
    for value, finish in [
        (b"one", transactional.commit),
        (b"never", transactional.abort),
        (b"two", transactional.commit),
    ]:
        transactional.begin()
        transactional.send(topic, value, partition=0)
        transactional.flush(10)
        finish()
    words = tuple(word.replace("GROUP", group) for word in words)

    # Markers lie behind the last record, and hold up neither the end nor the group.
    assert streamer("consume", topic, "-e", *words).stdout == "one\ntwo\n"
    every = streamer("consume", topic, "-e", "--uncommitted").stdout
    assert every == "one\nnever\ntwo\n"
    if words:
        assert lag(streamer, group) == 0


def test_the_end_is_before_a_transaction_that_goes_on(
    streamer: Streamer,
    transactional: ConfluentTransactionalProducer,
    topic: str,
    group: str,
) -> None:
    streamer("produce", topic, "-p", "0", stdin="before\n")
    transactional.begin()
    transactional.send(topic, b"undecided", partition=0)
    transactional.flush(10)
    streamer("produce", topic, "-p", "0", stdin="after\n")

    assert streamer("consume", topic, "-e").stdout == "before\n"
    assert streamer("consume", topic, "-e", "-o", "-1").stdout == "before\n"
    uncommitted = streamer("consume", topic, "-e", "--uncommitted").stdout
    assert streamer("group", "seek", group, "--to", "end", "-t", topic).exit_code == 0
    transactional.commit()

    assert uncommitted == "before\nundecided\nafter\n"
    assert streamer("consume", topic, "-e").stdout == uncommitted
    assert streamer("consume", topic, "-e", "-g", group).stdout == "undecided\nafter\n"


def test_an_aborted_tail_is_read_past(
    streamer: Streamer, transactional: ConfluentTransactionalProducer, topic: str
) -> None:
    transactional.begin()
    transactional.send(topic, b"never", partition=0)
    transactional.flush(10)
    transactional.abort()

    assert streamer("consume", topic, "-e").stdout == ""
    assert streamer("consume", topic, "-e", "-o", "@0:@2100-01-01").stdout == ""
