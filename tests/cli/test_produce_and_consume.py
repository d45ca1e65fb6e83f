"""Lines in, records out: `streamer produce` and `streamer consume` together."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Streamer

STREAMER = str(Path(sys.executable).with_name("streamer"))


def records(streamer: Streamer, topic: str, *words: str) -> list[dict[str, Any]]:
    """What `consume -J` prints up to the end, in order of partition and offset."""
    result = streamer("consume", topic, "-e", "-J", *words)
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return sorted(found, key=lambda record: (record["partition"], record["offset"]))


def values(streamer: Streamer, topic: str, *words: str) -> list[Any]:
    return [record["value"] for record in records(streamer, topic, *words)]


def test_a_line_becomes_a_record_and_a_record_a_line(
    streamer: Streamer, topic: str
) -> None:
    produced = streamer("produce", topic, "-p", "0", stdin="one\ntwo words\n\nlast")
    assert (produced.exit_code, produced.stdout, produced.stderr) == (0, "", "")

    consumed = streamer("consume", topic, "-e")

    assert consumed.stdout == "one\ntwo words\n\nlast\n"
    assert consumed.stderr == ""


def test_a_format_splits_each_line(streamer: Streamer, topic: str) -> None:
    streamer("produce", topic, "-f", "%p %k %v", stdin="0 alice 3 apples\n1 bob 2 pears\n")

    consumed = streamer("consume", topic, "-e", "-p", "1", "-f", r"%t %p %o %k %v\n")

    assert consumed.stdout == f"{topic} 1 0 bob 2 pears\n"


def test_equal_keys_go_to_equal_partitions_as_in_java(
    streamer: Streamer, topic: str
) -> None:
    # murmur2 over two partitions; librdkafka's own default puts two of these elsewhere.
    streamer("produce", topic, "-f", "%k", stdin="a\nb\nc\nd\n")

    placed = {record["key"]: record["partition"] for record in records(streamer, topic)}

    assert placed == {key: java_partition(key.encode(), 2) for key in "abcd"}


def java_partition(key: bytes, partitions: int) -> int:
    """Kafka's `toPositive(murmur2(key)) % partitions`."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    for at in range(0, len(key) // 4 * 4, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = key[len(key) // 4 * 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


def test_options_fix_key_headers_and_partition_for_all(
    streamer: Streamer, topic: str
) -> None:
    streamer(
        "produce", topic, "-k", "k", "-H", "a=1", "-H", "b=x=y", "-p", "1", stdin="v\n"
    )

    (record,) = records(streamer, topic)

    assert (record["key"], record["value"], record["partition"]) == ("k", "v", 1)
    assert record["headers"] == [{"key": "a", "value": "1"}, {"key": "b", "value": "x=y"}]


def test_tombstones_have_a_key_and_no_value(streamer: Streamer, topic: str) -> None:
    streamer("produce", topic, "-T", stdin="alice\n")
    streamer("produce", topic, "-T", "-k", "bob")

    found = {record["key"]: record["value"] for record in records(streamer, topic)}

    assert found == {"alice": None, "bob": None}


def test_files_are_read_one_after_another(
    streamer: Streamer, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("3")

    streamer("produce", topic, "-p", "0", str(tmp_path / "a"), str(tmp_path / "b"))

    assert values(streamer, topic) == ["1", "2", "3"]


@pytest.mark.parametrize("acks", ["all", "1", "0"])
@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_acks_and_compression_arrives(
    streamer: Streamer, topic: str, acks: str, compression: str
) -> None:
    result = streamer(
        "produce", topic, "--acks", acks, "--compression", compression, stdin="x\n" * 100
    )

    assert result.exit_code == 0
    # Not -e: with acks=0 nobody has waited until they were there.
    assert streamer("consume", topic, "-n", "100").stdout == "x\n" * 100


def test_a_line_that_does_not_fit_is_named_and_those_before_it_are_kept(
    streamer: Streamer, topic: str
) -> None:
    result = streamer("produce", topic, "-f", "%k %v", stdin="a 1\nb 2\nbroken\nc 3\n")

    assert result.exit_code == 1
    assert "Line 3 of " in result.stderr
    assert "'broken'" in result.stderr
    assert sorted(values(streamer, topic)) == ["1", "2"]


def test_what_was_not_delivered_is_named(streamer: Streamer, topic: str) -> None:
    streamer("topic", "alter", topic, "-c", "max.message.bytes=1000")

    result = streamer(
        "produce",
        topic,
        "--compression",
        "none",
        "-f",
        "%p %k %v",
        stdin=f"0 small x\n1 large {'x' * 2000}\n",
    )

    assert result.exit_code == 1
    assert f"1 of 2 records were written to {topic}" in result.stderr
    assert "key 'large'" in result.stderr
    assert "MSG_SIZE_TOO_LARGE" in result.stderr
    assert values(streamer, topic) == ["x"]


def test_a_partition_that_does_not_exist_is_no_silent_loss(
    streamer: Streamer, topic: str
) -> None:
    result = streamer("produce", topic, "-p", "9", stdin="x\n")

    assert result.exit_code == 1
    assert "UNKNOWN_PARTITION" in result.stderr


def test_the_last_ten_of_each_partition(streamer: Streamer, topic: str) -> None:
    lines = "".join(f"{number % 2} {number}\n" for number in range(50))
    streamer("produce", topic, "-f", "%p %v", stdin=lines)

    found = values(streamer, topic, "-o", "-10")

    assert sorted(map(int, found)) == list(range(30, 50))


def test_from_an_offset_and_only_so_many(streamer: Streamer, topic: str) -> None:
    streamer("produce", topic, "-p", "0", stdin="a\nb\nc\nd\n")

    result = streamer("consume", topic, "-p", "0", "-o", "1", "-n", "2")

    assert result.stdout == "b\nc\n"


def test_from_the_end_up_to_the_end_is_nothing(streamer: Streamer, topic: str) -> None:
    streamer("produce", topic, stdin="a\nb\n")

    result = streamer("consume", topic, "-o", "end", "-e")

    assert (result.exit_code, result.stdout) == (0, "")


def test_a_range_of_time_has_a_begin_and_an_end(streamer: Streamer, topic: str) -> None:
    streamer("produce", topic, "-p", "0", stdin="first\n")
    time.sleep(0.01)
    middle = records(streamer, topic)[0]["timestamp"] + 1
    while datetime.now(UTC).timestamp() * 1000 < middle + 1:
        time.sleep(0.001)
    streamer("produce", topic, "-p", "0", stdin="second\n")
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")

    assert values(streamer, topic, "-o", f"@{middle}") == ["second"]
    # With a stop it ends by itself.
    until = streamer("consume", topic, "-o", f"@{hour_ago}:@{middle}")
    assert until.stdout == "first\n"


def test_a_reader_of_no_records_asks_nothing(streamer: Streamer, topic: str) -> None:
    assert streamer("consume", topic, "-n", "0").exit_code == 0


@pytest.mark.parametrize("where", ["5x", "@yesterday", "@1:@x", ""])
def test_a_place_that_is_none_is_a_usage_error(streamer: Streamer, where: str) -> None:
    result = streamer("consume", "t", "-o", where)

    assert result.exit_code == 2
    assert "-> Write beginning, end" in result.stderr


def test_reading_what_does_not_exist_is_an_error(streamer: Streamer, topic: str) -> None:
    assert "There is no topic" in streamer("consume", "no-such-topic").stderr

    result = streamer("consume", topic, "-p", "2")
    assert result.exit_code == 1
    assert f"{topic} has no partition 2" in result.stderr


def test_a_follower_sees_new_records_and_ctrl_c_ends_it_quietly(
    streamer: Streamer, bootstrap: str, topic: str
) -> None:
    command = [STREAMER, "consume", topic, "-o", "beginning", "-b", bootstrap]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        for word in ("one", "two"):
            streamer("produce", topic, "-p", "0", stdin=f"{word}\n")
            assert follower.stdout.readline() == f"{word}\n"

        follower.send_signal(signal.SIGINT)
        stdout, stderr = follower.communicate(timeout=10)

    assert (follower.returncode, stdout, stderr) == (0, "", "")


def test_a_follower_of_a_topic_that_is_deleted_says_so(
    streamer: Streamer, bootstrap: str, topic: str
) -> None:
    command = [STREAMER, "consume", topic, "-b", bootstrap]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        streamer("produce", topic, stdin="seen\n")
        assert follower.stdout.readline() == "seen\n"

        streamer("topic", "delete", topic, "--yes")
        _, stderr = follower.communicate(timeout=30)

    assert follower.returncode == 1
    assert f"There is no topic {topic!r}" in stderr


def test_ctrl_c_on_a_producer_keeps_what_it_has_read(
    streamer: Streamer, bootstrap: str, topic: str
) -> None:
    command = [STREAMER, "produce", topic, "-b", bootstrap]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as producer:
        assert producer.stdin is not None
        producer.stdin.write("typed\n")
        producer.stdin.flush()
        # Once the record is there, the command has certainly read it.
        assert streamer("consume", topic, "-n", "1").stdout == "typed\n"
        producer.send_signal(signal.SIGINT)
        assert producer.stderr is not None
        assert producer.wait(10) == 130
        assert producer.stderr.read() == ""

    assert values(streamer, topic) == ["typed"]


def test_a_closed_pipe_ends_it_quietly(
    streamer: Streamer, bootstrap: str, topic: str
) -> None:
    streamer("produce", topic, stdin="x" * 100 + "\n" + "y\n" * 50_000)
    command = [STREAMER, "consume", topic, "-b", bootstrap]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as consumer:
        assert consumer.stdout is not None
        assert consumer.stderr is not None
        consumer.stdout.readline()
        consumer.stdout.close()
        # It notices when it next writes.
        streamer("produce", topic, stdin="z\n" * 10_000)
        assert consumer.wait(10) == 0
        assert consumer.stderr.read() == ""
