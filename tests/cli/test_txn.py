"""`streamer txn` against a running broker, with transactions in every state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cli.conftest import Streamer
from support.clients import new_name

from streamer.cli import txn
from streamer.client.confluent.producer import ConfluentTransactionalProducer

Begin = Callable[[], ConfluentTransactionalProducer]


@pytest.fixture
def name() -> str:
    return new_name("txn")


@pytest.fixture
def producer(bootstrap: str, name: str) -> ConfluentTransactionalProducer:
    return ConfluentTransactionalProducer(bootstrap, name)


@pytest.fixture
def ongoing(
    producer: ConfluentTransactionalProducer, topic: str
) -> Iterator[ConfluentTransactionalProducer]:
    """A transaction with a record in partition 0, which goes on."""
    producer.begin()
    producer.send(topic, b"undecided", partition=0)
    producer.flush(10)
    yield producer
    producer.abort()


def listed(streamer: Streamer, name: str, *words: str) -> list[dict[str, Any]]:
    result = streamer("txn", "list", "-o", "json", *words)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    return [row for row in rows if row["transactional_id"] == name]


@pytest.mark.usefixtures("ongoing")
def test_a_transaction_that_goes_on_is_listed_with_its_age(
    streamer: Streamer, name: str, topic: str
) -> None:
    time.sleep(0.05)

    (row,) = listed(streamer, name)

    assert row["state"] == "Ongoing"
    assert row["producer_id"] >= 0
    assert row["partitions"] == [f"{topic}:0"]
    assert 0.05 <= row["seconds"] < 30
    assert "SECONDS" in streamer("txn", "list").stdout


def test_one_that_was_committed_has_no_age(
    streamer: Streamer, producer: ConfluentTransactionalProducer, name: str, topic: str
) -> None:
    producer.begin()
    producer.send(topic, b"v")
    producer.commit()

    (row,) = listed(streamer, name)

    assert row["state"] in ("PrepareCommit", "CompleteCommit")
    if row["state"] == "CompleteCommit":
        assert row["seconds"] is None


@pytest.mark.usefixtures("ongoing")
def test_the_list_is_narrowed_by_state_and_by_age(streamer: Streamer, name: str) -> None:
    assert listed(streamer, name, "--state", "ongoing")
    assert not listed(streamer, name, "--state", "Empty", "--state", "PrepareAbort")
    assert listed(streamer, name, "--longer-than", "1ms")
    assert not listed(streamer, name, "--longer-than", "1h")


@pytest.mark.parametrize("words", [("--state", "Begun"), ("--longer-than", "soon")])
def test_what_is_no_state_or_duration_is_a_usage_error(
    streamer: Streamer, words: tuple[str, ...]
) -> None:
    assert streamer("txn", "list", *words).exit_code == 2


@pytest.mark.usefixtures("ongoing")
def test_a_description_tells_what_was_written_and_where(
    streamer: Streamer, name: str, topic: str
) -> None:
    table = streamer("txn", "describe", name)
    found = json.loads(streamer("txn", "describe", name, "-o", "json").stdout)

    assert table.stdout.startswith(f"transactional id {name}: Ongoing for ")
    assert (found["state"], found["timeout_ms"], found["epoch"]) == ("Ongoing", 60_000, 0)
    assert found["started"]
    assert found["partitions"] == [{"topic": topic, "partition": 0, "start_offset": 0}]


def test_an_unknown_transactional_id_is_named_with_the_way_out(
    streamer: Streamer,
) -> None:
    result = streamer("txn", "describe", "no-such-id")

    assert result.exit_code == 1
    assert "There is no transactional id 'no-such-id'" in result.stderr
    assert "-> `streamer txn list`" in result.stderr


@pytest.mark.usefixtures("ongoing")
def test_without_a_producer_abort_names_those_to_choose_from(
    streamer: Streamer, name: str, topic: str
) -> None:
    (row,) = listed(streamer, name)

    result = streamer("txn", "abort", f"{topic}:0")
    wrong = streamer("txn", "abort", f"{topic}:0", "--producer", "999999")
    none = streamer("txn", "abort", f"{topic}:1")

    assert {result.exit_code, wrong.exit_code, none.exit_code} == {1}
    assert f"--producer {row['producer_id']}  since offset 0" in result.stderr
    assert "Producer 999999 has none open" in wrong.stderr
    assert f"No transaction is open in {topic}:1" in none.stderr


@pytest.mark.usefixtures("ongoing")
def test_a_transaction_that_a_coordinator_knows_is_left_to_it(
    streamer: Streamer, name: str, topic: str
) -> None:
    (row,) = listed(streamer, name)

    result = streamer(
        "txn", "abort", f"{topic}:0", "--producer", str(row["producer_id"]), "--yes"
    )

    assert result.exit_code == 1
    assert f"does not hang: {name!r} is Ongoing" in result.stderr
    assert "-> It is aborted 60 s after its start" in result.stderr
    assert listed(streamer, name, "--state", "Ongoing")


@pytest.mark.usefixtures("ongoing")
def test_a_transaction_that_no_coordinator_knows_is_aborted(
    streamer: Streamer, name: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = listed(streamer, name)
    words = ("txn", "abort", f"{topic}:0", "--producer", str(row["producer_id"]))
    # A broker that checks what is produced lets none hang: so the coordinators go unheard.
    monkeypatch.setattr(txn, "refuse_if_known", lambda *_: None)

    refused = streamer(*words, stdin="n\n")
    assert refused.exit_code == 1
    assert streamer("consume", topic, "-e", "--uncommitted").stdout == "undecided\n"

    done = streamer(*words, "--yes")

    assert done.exit_code == 0, done.stderr
    assert "No transaction is open" in streamer("txn", "abort", f"{topic}:0").stderr
    streamer("produce", topic, "-p", "0", stdin="after\n")
    assert streamer("consume", topic, "-e").stdout == "after\n"


def test_abort_needs_a_partition(streamer: Streamer) -> None:
    assert streamer("txn", "abort", "orders").exit_code == 2
