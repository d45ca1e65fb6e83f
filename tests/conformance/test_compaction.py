"""What our compaction leaves, in the eyes of Apache Kafka's tools and of every client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from support.broker import start_streamer
from support.clients import Sent, create_topic, produce, read, wait_until
from support.kafka import run_tool

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
KEYS = 40
DUMP = "kafka.tools.DumpLogSegments"


class Compacted(NamedTuple):
    bootstrap: str
    topic: str
    folder: Path
    newest: dict[bytes, bytes]


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compacted]:
    """A topic of all codecs, tombstones, idempotent producers, compacted twice."""
    settings = {
        "log.cleaner.backoff.ms": "100",
        "log.flush.offset.checkpoint.interval.ms": "100",
    }
    config = {
        "cleanup.policy": "compact",
        "segment.bytes": str(1 << 20),
        "min.cleanable.dirty.ratio": "0.01",
        "index.interval.bytes": "1000",
    }
    newest: dict[bytes, bytes] = {}
    with start_streamer(tmp_path_factory.mktemp("compacted"), settings=settings) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        topic = create_topic(admin, config=config)
        folder = server.logs / f"{topic}-0"
        for turn in range(2):
            for codec in CODECS:
                write(server.address, topic, codec, turn, newest)
            # What fills the last segment is not compacted.
            filler = [Sent(key=b"filler", value=bytes(100_000)) for _ in range(25)]
            produce(server.address, topic, filler, enable_idempotence=True)
            newest[b"filler"] = bytes(100_000)
            wait_until(lambda: is_small(folder), "it was not compacted")
        yield Compacted(server.address, topic, folder, newest)


def write(
    bootstrap: str, topic: str, codec: str, turn: int, newest: dict[bytes, bytes]
) -> None:
    """Some that stay, among many that do not; at last a key is deleted."""
    sent = [
        Sent(
            key=b"%s %d" % (codec.encode(), number % KEYS),
            value=b"%d %d" % (turn, number) * 30,
        )
        for number in range(2000)
    ]
    sent += [
        Sent(key=f"{codec} once {turn} {number}".encode(), value=b"1")
        for number in range(200)
    ]
    sent.append(Sent(key=b"%s 0" % codec.encode()))
    produce(
        bootstrap,
        topic,
        sent,
        compression_type=codec,
        enable_idempotence=True,
        batch_num_messages=100,
    )
    for one in sent:
        assert one.key is not None
        if one.value is None:
            del newest[one.key]
        else:
            newest[one.key] = one.value


def is_small(folder: Path) -> bool:
    return sum(path.stat().st_size for path in folder.glob("*.log")) < 1_500_000


@pytest.mark.kafka
def test_kafka_reads_compacted_segments_without_a_complaint(compacted: Compacted) -> None:
    logs = sorted(compacted.folder.glob("*.log"))
    dumped = run_tool(
        DUMP,
        *("--deep-iteration", "--print-data-log"),
        *("--files", ",".join(str(log) for log in logs)),
    ).stdout

    assert set(re.findall(r"isvalid: (\w+)", dumped)) == {"true"}
    assert set(re.findall(r"compresscodec: (\w+)", dumped)) == set(CODECS)
    assert "count: 0 " in dumped, "empty batches tell of producers"
    assert "deleteHorizonMs: OptionalLong[" in dumped
    offsets = [int(each) for each in re.findall(r"^\| offset: (\d+)", dumped, re.MULTILINE)]
    assert offsets == sorted(set(offsets))
    for complaint in ("Mismatch", "Found", "ERROR", "Exception"):
        assert complaint not in dumped


@pytest.mark.kafka
@pytest.mark.parametrize("kind", ["index", "timeindex"])
def test_kafka_finds_the_indexes_of_compacted_segments_sound(
    compacted: Compacted, kind: str
) -> None:
    closed = [log.with_suffix(f".{kind}") for log in sorted(compacted.folder.glob("*.log"))]
    dumped = run_tool(
        DUMP,
        "--verify-index-only",
        *("--files", ",".join(str(each) for each in closed[:-1])),
    ).stdout

    assert dumped.count("Dumping") == len(closed) - 1 > 0
    for complaint in ("Mismatch", "Found", "not been", "ERROR", "out of order"):
        assert complaint not in dumped


@pytest.mark.kafka
@pytest.mark.parametrize("level", ["read_committed", "read_uncommitted"])
def test_javas_consumer_reads_what_compaction_leaves(
    compacted: Compacted, level: str
) -> None:
    printed = run_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", compacted.bootstrap, "--topic", compacted.topic),
        *(
            "--partition",
            "0",
            "--offset",
            "earliest",
            "--timeout-ms",
            "4000",
            "--isolation-level",
            level,
        ),
        *("--property", "print.key=true"),
        *("--property", "key.separator=="),
    ).stdout

    found: dict[str, str] = {}
    for line in printed.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key] = value
    found = {key: value for key, value in found.items() if value != "null"}
    assert found == {
        key.decode(): value.decode() for key, value in compacted.newest.items()
    }


def test_librdkafka_reads_what_compaction_leaves(compacted: Compacted) -> None:
    found: dict[bytes, bytes] = {}
    for message in read(compacted.bootstrap, compacted.topic):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        if value is None:
            found.pop(key, None)
        else:
            assert isinstance(value, bytes)
            found[key] = value
    assert found == compacted.newest


def test_a_removed_offset_leads_to_the_next_one(compacted: Compacted) -> None:
    offsets = [message.offset() for message in read(compacted.bootstrap, compacted.topic)]
    assert offsets[0] is not None
    assert offsets[0] > 0
    assert len(offsets) < 3000


def test_a_producer_goes_on_after_its_records_are_gone(compacted: Compacted) -> None:
    producer = Producer(
        {"bootstrap.servers": compacted.bootstrap, "enable.idempotence": True}
    )
    for number in range(3):
        producer.produce(compacted.topic, key=b"last", value=b"%d" % number)
        assert producer.flush(10) == 0
    compacted.newest[b"last"] = b"2"
