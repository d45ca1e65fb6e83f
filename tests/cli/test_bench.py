"""The benches run and leave nothing behind; what they measure is not judged here."""

from __future__ import annotations

import json

import pytest
from cli.conftest import Streamer


@pytest.mark.parametrize("test", ["produce", "consume"])
def test_a_rate_is_measured_on_a_topic_that_is_deleted(
    streamer: Streamer, test: str
) -> None:
    result = streamer("bench", test, "-n", "20000", "-o", "json")

    row = json.loads(result.stdout)
    assert row["test"] == test
    assert row["records"] > 10_000
    assert row["records_per_second"] > 0
    assert row["client_cpu_us_per_record"] > 0
    assert "streamer-bench" not in streamer("topic", "list").stdout


def test_latency_is_measured_from_producer_to_consumer(streamer: Streamer) -> None:
    result = streamer("bench", "latency", "--rate", "200", "--seconds", "0.5", "-o", "json")

    row = json.loads(result.stdout)
    assert row["records"] == 100
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]


def test_a_topic_that_is_named_is_kept(streamer: Streamer, topic: str) -> None:
    result = streamer("bench", "produce", "-n", "1000", "--topic", topic)

    assert result.exit_code == 0
    assert "RECORDS/S" in result.stdout
    assert streamer("topic", "describe", topic).exit_code == 0


def test_transactions_are_timed_one_by_one(streamer: Streamer) -> None:
    result = streamer("bench", "txn", "-n", "20", "-r", "6", "-p", "3", "-o", "json")

    row = json.loads(result.stdout)
    assert (row["transactions"], row["records_each"], row["partitions"]) == (20, 6, 3)
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert row["transactions_per_second"] > 0
    assert "streamer-bench" not in streamer("topic", "list").stdout
    assert "streamer-bench" not in streamer("group", "list").stdout


def test_members_are_timed_until_all_have_partitions(streamer: Streamer) -> None:
    result = streamer("bench", "group", "-m", "2", "-p", "4", "-o", "json")

    row = json.loads(result.stdout)
    assert (row["members"], row["partitions"]) == (2, 4)
    assert row["join_seconds"] > 0
    assert row["one_more_seconds"] > 0
    assert "streamer-bench" not in streamer("group", "list").stdout


def test_more_members_than_partitions_are_a_usage_error(streamer: Streamer) -> None:
    result = streamer("bench", "group", "-m", "4", "-p", "4")

    assert result.exit_code == 2
    assert "need 5 partitions" in result.stderr
