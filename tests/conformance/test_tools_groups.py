"""Kafka's own tools for groups and transactions, and its eyes on what we keep of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support.clients import (
    DEADLINE_SECONDS,
    committed,
    member,
    new_name,
    produce,
    read,
    take,
    transactional,
    values,
)
from support.kafka import run_tool
from support.server import Server

pytestmark = pytest.mark.kafka

TOOLS = "org.apache.kafka.tools"
DUMP = "kafka.tools.DumpLogSegments"


def groups(bootstrap: str, *arguments: str) -> str:
    command = f"{TOOLS}.consumer.group.ConsumerGroupCommand"
    return run_tool(command, "--bootstrap-server", bootstrap, *arguments).stdout


def transactions(bootstrap: str, *arguments: str) -> list[dict[str, str]]:
    """The rows of the table that kafka-transactions.sh prints, by their headings."""
    command = f"{TOOLS}.TransactionsCommand"
    printed = run_tool(command, "--bootstrap-server", bootstrap, *arguments).stdout
    lines = [
        [cell.strip() for cell in line.split("\t")] for line in printed.splitlines() if line
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.fixture
def filled(bootstrap: str, topic: str) -> str:
    """A topic with ten records."""
    produce(bootstrap, topic, [b"%d" % number for number in range(10)])
    return topic


@pytest.fixture
def at_work(bootstrap: str, group: str, filled: str) -> Iterator[Consumer]:
    """The one member of the group; it has read and committed four records."""
    consumer = member(bootstrap, group, filled, client_id="worker")
    consumer.commit(message=take(consumer, 4)[-1], asynchronous=False)
    yield consumer
    consumer.close()


@pytest.fixture
def left(at_work: Consumer, group: str) -> str:
    """The group, when its one member has gone."""
    at_work.close()
    return group


# kafka-consumer-groups.sh


def test_groups_are_listed(bootstrap: str, group: str, at_work: Consumer) -> None:
    assert group in groups(bootstrap, "--list").split()

    with_states = groups(bootstrap, "--list", "--state").splitlines()
    assert [group, "Stable"] in [line.split() for line in with_states]
    assert group not in groups(bootstrap, "--list", "--state", "Empty")
    assert group in groups(bootstrap, "--list", "--type", "classic")


def test_a_group_is_described(
    bootstrap: str, group: str, filled: str, at_work: Consumer
) -> None:
    describe = ("--describe", "--group", group)

    row = groups(bootstrap, *describe).splitlines()[-1].split()
    assert row[:6] == [group, filled, "0", "4", "10", "6"]
    assert row[6:] == [at_work.memberid(), "/127.0.0.1", "worker"]
    row = groups(bootstrap, *describe, "--members", "--verbose").splitlines()[-1].split()
    assert row[:5] == [group, at_work.memberid(), "/127.0.0.1", "worker", "1"]
    assert f"{filled}:0" in row
    row = groups(bootstrap, *describe, "--state").splitlines()[-1].split()
    assert row[-3:] == ["range", "Stable", "1"]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (("--to-offset", "7"), 7),
        (("--to-earliest",), 0),
        (("--to-latest",), 10),
        (("--shift-by", "-3"), 1),
    ],
)
def test_offsets_are_reset(
    bootstrap: str, left: str, filled: str, wish: tuple[str, ...], expected: int
) -> None:
    reset = ("--reset-offsets", "--group", left, "--topic", filled, *wish)

    row = groups(bootstrap, *reset, "--dry-run").splitlines()[-1].split()
    assert row == [left, filled, "0", str(expected)]
    assert committed(bootstrap, left, filled).offset == 4
    groups(bootstrap, *reset, "--execute")
    assert committed(bootstrap, left, filled).offset == expected


def test_offsets_of_a_group_at_work_are_not_reset(
    bootstrap: str, group: str, filled: str, at_work: Consumer
) -> None:
    reset = ("--reset-offsets", "--group", group, "--topic", filled, "--to-earliest")

    assert "Stable" in groups(bootstrap, *reset, "--execute")
    assert committed(bootstrap, group, filled).offset == 4


def test_offsets_and_groups_are_deleted(bootstrap: str, left: str, filled: str) -> None:
    delete = ("--delete-offsets", "--group", left, "--topic", filled)
    row = groups(bootstrap, *delete).strip().splitlines()[-1].split()
    assert row == [filled, "0", "Successful"]
    assert committed(bootstrap, left, filled).offset < 0

    Consumer({"bootstrap.servers": bootstrap, "group.id": left}).commit(
        offsets=[TopicPartition(filled, 0, 1)], asynchronous=False
    )
    assert "was successful" in groups(bootstrap, "--delete", "--group", left)
    assert left not in groups(bootstrap, "--list").split()


def test_a_group_at_work_is_not_deleted(
    bootstrap: str, group: str, at_work: Consumer
) -> None:
    assert "not empty" in groups(bootstrap, "--delete", "--group", group)
    assert group in groups(bootstrap, "--list").split()


# Java's clients


def console(bootstrap: str, *arguments: str) -> list[str]:
    command = f"{TOOLS}.consumer.ConsoleConsumer"
    start = ("--bootstrap-server", bootstrap, "--timeout-ms", "8000")
    return run_tool(command, *start, *arguments).stdout.splitlines()


def test_the_console_consumer_reads_in_a_group(
    bootstrap: str, group: str, filled: str
) -> None:
    wishes = ("--topic", filled, "--group", group, "--from-beginning")

    assert console(bootstrap, *wishes, "--max-messages", "4") == ["0", "1", "2", "3"]
    assert committed(bootstrap, group, filled).offset == 4
    assert console(bootstrap, *wishes, "--max-messages", "6") == list("456789")


def test_the_console_consumer_reads_what_is_committed(bootstrap: str, topic: str) -> None:
    producer = transactional(bootstrap)
    for number in range(4):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number)
        if number % 2:
            producer.flush(DEADLINE_SECONDS)
            producer.abort_transaction(DEADLINE_SECONDS)
        else:
            producer.commit_transaction(DEADLINE_SECONDS)

    wishes = ("--topic", topic, "--from-beginning", "--isolation-level")
    found = console(bootstrap, *wishes, "read_committed", "--max-messages", "2")
    assert found == ["0", "2"]
    found = console(bootstrap, *wishes, "read_uncommitted", "--max-messages", "4")
    assert found == ["0", "1", "2", "3"]


def test_the_verifiable_clients_agree(bootstrap: str, group: str, topic: str) -> None:
    produced = run_tool(
        f"{TOOLS}.VerifiableProducer",
        *("--bootstrap-server", bootstrap, "--topic", topic),
        *("--max-messages", "500", "--acks", "-1"),
    ).stdout
    sent = [event for event in events(produced) if event["name"] == "producer_send_success"]
    assert len(sent) == 500

    consumed = run_tool(
        f"{TOOLS}.VerifiableConsumer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--group-id", group),
        *("--max-messages", "500", "--reset-policy", "earliest"),
    ).stdout
    found = events(consumed)
    read_events = [each for each in found if each["name"] == "records_consumed"]
    assert sum(each["count"] for each in read_events) == 500
    assert any(each["name"] == "partitions_assigned" for each in found)
    commits = [each for each in found if each["name"] == "offsets_committed"]
    assert all(each["success"] for each in commits)
    assert committed(bootstrap, group, topic).offset == 500


def events(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


# kafka-transactions.sh


@pytest.fixture
def open_transaction(bootstrap: str, topic: str) -> tuple[str, Producer]:
    """The name of a transaction that has written one record, and who is in it."""
    name = new_name("txn")
    producer = transactional(bootstrap, name)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(DEADLINE_SECONDS)
    return name, producer


def test_transactions_are_listed_and_described(
    bootstrap: str, topic: str, open_transaction: tuple[str, Producer]
) -> None:
    name, producer = open_transaction

    listed = {row["TransactionalId"]: row for row in transactions(bootstrap, "list")}
    assert listed[name]["TransactionState"] == "Ongoing"
    (row,) = transactions(bootstrap, "describe", "--transactional-id", name)
    assert row["TransactionState"] == "Ongoing"
    assert row["TransactionTimeoutMs"] == "60000"
    assert row["TopicPartitions"] == f"{topic}-0"
    partition = ("--topic", topic, "--partition", "0")
    (row,) = transactions(bootstrap, "describe-producers", *partition)
    assert row["CurrentTransactionStartOffset"] == "0"
    assert row["ProducerId"] == listed[name]["ProducerId"]

    producer.commit_transaction(DEADLINE_SECONDS)
    (row,) = transactions(bootstrap, "describe-producers", *partition)
    assert row["CurrentTransactionStartOffset"] == "None"


def test_a_transaction_is_aborted_by_hand(
    bootstrap: str, topic: str, open_transaction: tuple[str, Producer]
) -> None:
    produce(bootstrap, topic, [b"after"])
    partition = ("--topic", topic, "--partition", "0")

    transactions(bootstrap, "abort", *partition, "--start-offset", "0")
    found = read(bootstrap, topic, isolation_level="read_committed")
    assert values(found) == [b"after"]


def test_a_transaction_is_ended_by_force(
    bootstrap: str, topic: str, open_transaction: tuple[str, Producer]
) -> None:
    name, _ = open_transaction
    produce(bootstrap, topic, [b"after"])

    transactions(bootstrap, "forceTerminateTransaction", "--transactionalId", name)
    (row,) = transactions(bootstrap, "describe", "--transactional-id", name)
    assert row["TransactionState"] in ("Empty", "CompleteAbort")
    found = read(bootstrap, topic, isolation_level="read_committed")
    assert values(found) == [b"after"]


def test_none_is_found_hanging(
    bootstrap: str,
    server: Server,
    topic: str,
    open_transaction: tuple[str, Producer],
) -> None:
    node = "0" if server.name == "kafka" else "1"
    look = ("find-hanging", "--broker-id", node, "--max-transaction-timeout", "15")

    assert transactions(bootstrap, *look) == []


# kafka-dump-log.sh


def dumped(server: Server, topic: str, decoder: str, word: str) -> list[dict[str, Any]]:
    """Keys and values about `word` in the log of an internal topic, as Kafka reads them."""
    files = [each for each in server.logs.glob(f"{topic}-*/*.log") if each.stat().st_size]
    printed = run_tool(DUMP, decoder, "--files", ",".join(map(str, files))).stdout

    assert set(re.findall(r"isvalid: (\w+)", printed)) == {"true"}
    found = []
    for line in printed.splitlines():
        if '"' + word + '"' in line:
            parts = re.search(r"key: (\{.*\}) payload: (.*)$", line)
            assert parts is not None, line
            found.append({"key": json.loads(parts[1]), "value": as_json(parts[2])})
    return found


def as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_kafka_reads_what_we_keep_of_groups(
    server: Server, group: str, filled: str, at_work: Consumer
) -> None:
    at_work.close()
    found = dumped(server, "__consumer_offsets", "--offsets-decoder", group)

    offsets = [each["value"]["data"] for each in found if each["key"]["type"] == "1"]
    assert offsets[-1]["offset"] == 4
    states = [each["value"]["data"] for each in found if each["key"]["type"] == "2"]
    working = next(each for each in states if each["members"])
    assert working["generation"] == 1
    assert (working["protocolType"], working["protocol"]) == ("consumer", "range")
    (one,) = working["members"]
    assert (one["clientId"], one["clientHost"]) == ("worker", "/127.0.0.1")
    assert one["subscription"]["topics"] == [filled]
    assert one["assignment"]["assignedPartitions"] == [{"topic": filled, "partitions": [0]}]
    assert states[-1]["members"] == []


def test_kafka_reads_what_we_keep_of_transactions(
    server: Server, topic: str, open_transaction: tuple[str, Producer]
) -> None:
    name, producer = open_transaction
    producer.commit_transaction(DEADLINE_SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"second", partition=0)
    producer.flush(DEADLINE_SECONDS)
    producer.abort_transaction(DEADLINE_SECONDS)

    decoder = "--transaction-log-decoder"
    found = [
        each["value"]["data"]
        for each in dumped(server, "__transaction_state", decoder, name)
    ]
    empty, ongoing, prepare_commit, prepare_abort = 0, 1, 2, 3
    states = [each["transactionStatus"] for each in found]
    assert states[:3] == [empty, ongoing, prepare_commit]
    assert prepare_abort in states
    assert found[1]["transactionPartitions"] == [{"topic": topic, "partitionIds": [0]}]
    assert {each["producerId"] for each in found} == {found[0]["producerId"]}
    assert {each["transactionTimeoutMs"] for each in found} == {60_000}


def test_kafka_sees_markers_in_our_segments(
    server: Server, topic: str, open_transaction: tuple[str, Producer]
) -> None:
    _, producer = open_transaction
    producer.commit_transaction(DEADLINE_SECONDS)

    (segment,) = sorted(Path(server.logs / f"{topic}-0").glob("*.log"))
    printed = run_tool(DUMP, "--print-data-log", "--files", str(segment)).stdout
    assert re.search(r"offset: 1 .* endTxnMarker: COMMIT coordinatorEpoch: \d+", printed)
    assert "isTransactional: true isControl: true" in printed
