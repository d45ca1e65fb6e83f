"""Apache Kafka's own command line tools, and its eyes on our files.

A tool is a Java process of a second or so: hence the mark, and few words a test.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from conformance.conftest import MakeTopic
from support.broker import STREAMER
from support.clients import Sent, create_topic, new_name, produce, read
from support.kafka import run_tool
from support.server import Server

pytestmark = pytest.mark.kafka

TOOLS = "org.apache.kafka.tools"
DUMP = "kafka.tools.DumpLogSegments"


def tool(bootstrap: str, name: str, *arguments: str, stdin: str = "") -> str:
    """What a tool prints; it must end well."""
    return run_tool(name, "--bootstrap-server", bootstrap, *arguments, stdin=stdin).stdout


def topics(bootstrap: str, *arguments: str) -> str:
    return tool(bootstrap, f"{TOOLS}.TopicCommand", *arguments)


def test_topics_are_made_listed_described_and_deleted(bootstrap: str) -> None:
    name = new_name()
    topics(bootstrap, "--create", "--topic", name, "--partitions", "3")
    assert name in topics(bootstrap, "--list").split()

    described = topics(bootstrap, "--describe", "--topic", name)
    assert "PartitionCount: 3" in described
    assert len(re.findall(r"Partition: \d", described)) == 3

    topics(bootstrap, "--alter", "--topic", name, "--partitions", "5")
    assert "PartitionCount: 5" in topics(bootstrap, "--describe", "--topic", name)

    topics(bootstrap, "--delete", "--topic", name)
    assert name not in topics(bootstrap, "--list").split()


def test_lines_typed_into_the_producer_come_out_of_the_consumer(
    bootstrap: str, topic: str
) -> None:
    lines = "".join(f"line {number}\n" for number in range(100))
    tool(bootstrap, f"{TOOLS}.ConsoleProducer", "--topic", topic, stdin=lines)

    printed = tool(
        bootstrap,
        f"{TOOLS}.consumer.ConsoleConsumer",
        *("--topic", topic, "--partition", "0", "--offset", "earliest"),
        *("--max-messages", "100", "--timeout-ms", "15000"),
    )
    assert printed == lines


def test_the_performance_tool_produces(bootstrap: str, topic: str) -> None:
    printed = run_tool(
        f"{TOOLS}.ProducerPerformance",
        *("--topic", topic, "--num-records", "20000", "--record-size", "100"),
        *("--throughput", "-1", "--producer-props", f"bootstrap.servers={bootstrap}"),
        "compression.type=lz4",
    ).stdout

    assert "20000 records sent" in printed
    assert len(read(bootstrap, topic)) == 20_000


def test_offsets_are_told(bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    produce(bootstrap, topic, [Sent(value=b"x", partition=1)] * 7)

    shell = f"{TOOLS}.GetOffsetShell"
    for time, expected in (("latest", {"0:0", "1:7"}), ("earliest", {"0:0", "1:0"})):
        printed = tool(bootstrap, shell, "--topic", topic, "--time", time)
        assert {line.removeprefix(f"{topic}:") for line in printed.split()} == expected
    newest = tool(bootstrap, shell, "--topic-partitions", f"{topic}:1", "--time", "-3")
    assert newest.strip() == f"{topic}:1:{newest_offset(bootstrap, topic)}"


def newest_offset(bootstrap: str, topic: str) -> int:
    """The first record with the greatest timestamp."""
    messages = read(bootstrap, topic, partitions=[1])
    stamped = [(each.timestamp()[1], -(each.offset() or 0)) for each in messages]
    return -max(stamped)[1]


def test_settings_are_shown_and_changed(bootstrap: str, topic: str) -> None:
    command = "kafka.admin.ConfigCommand"
    entity = ("--entity-type", "topics", "--entity-name", topic)
    tool(bootstrap, command, *entity, "--alter", "--add-config", "retention.ms=60000")
    shown = tool(bootstrap, command, *entity, "--describe")
    assert "retention.ms=60000" in shown
    assert "DYNAMIC_TOPIC_CONFIG:retention.ms=60000" in shown

    everything = tool(bootstrap, command, *entity, "--describe", "--all")
    assert "segment.bytes=1073741824" in everything
    tool(bootstrap, command, *entity, "--alter", "--delete-config", "retention.ms")
    assert "retention.ms" not in tool(bootstrap, command, *entity, "--describe")


def test_the_settings_of_the_broker_are_shown(bootstrap: str) -> None:
    command = ("kafka.admin.ConfigCommand", "--entity-type", "brokers")
    shown = tool(bootstrap, *command, "--all", "--describe")

    assert "num.partitions=4" in shown


def test_the_disk_is_described(bootstrap: str, topic: str) -> None:
    (report,) = produce(bootstrap, topic, [b"x" * 1000])
    assert report.offset() == 0
    printed = tool(
        bootstrap, f"{TOOLS}.LogDirsCommand", "--describe", "--topic-list", topic
    )

    (broker,) = json.loads(printed[printed.index("{") :].splitlines()[0])["brokers"]
    (directory,) = broker["logDirs"]
    (partition,) = directory["partitions"]
    assert partition["partition"] == f"{topic}-0"
    assert partition["size"] > 1000


def test_records_are_deleted(bootstrap: str, topic: str, tmp_path: Path) -> None:
    produce(bootstrap, topic, [b"x"] * 10)
    wanted = {
        "version": 1,
        "partitions": [{"topic": topic, "partition": 0, "offset": 4}],
    }
    asked = tmp_path / "offsets.json"
    asked.write_text(json.dumps(wanted))

    printed = tool(
        bootstrap, f"{TOOLS}.DeleteRecordsCommand", "--offset-json-file", str(asked)
    )
    assert "low_watermark: 4" in printed
    assert read(bootstrap, topic)[0].offset() == 4


def test_the_versions_are_shown(bootstrap: str) -> None:
    printed = tool(bootstrap, f"{TOOLS}.BrokerApiVersionsCommand")

    assert re.search(r"Produce\(0\): \d to \d+", printed)
    assert "Fetch(1): 4 to " in printed


def test_the_cluster_says_its_id(bootstrap: str) -> None:
    printed = run_tool(
        f"{TOOLS}.ClusterTool", "cluster-id", "--bootstrap-server", bootstrap
    ).stdout

    assert "Cluster ID: " in printed


CODECS = {"none": 12_000, "gzip": 1_000, "snappy": 1_000, "lz4": 1_000, "zstd": 1_000}


@pytest.fixture(scope="module")
def written(bootstrap: str, server: Server, admin: AdminClient) -> Path:
    """The folder of a partition that several kinds of producers have written to."""
    topic = create_topic(admin, config={"segment.bytes": "1048576"})
    for codec, count in CODECS.items():
        produce(
            bootstrap,
            topic,
            [
                Sent(key=b"k", value=b"%d" % number * 25, headers=[("h", b"1")])
                for number in range(count)
            ],
            compression_type=codec,
            enable_idempotence=codec != "none",
            batch_num_messages=500,
        )
    produce(bootstrap, topic, [Sent(key=b"gone"), Sent(value=b"")])
    return server.logs / f"{topic}-0"


def test_kafka_reads_our_segments_without_a_complaint(written: Path) -> None:
    segments = sorted(written.glob("*.log"))
    assert len(segments) > 1, "the log should have rolled"
    dumped = run_tool(
        DUMP,
        *("--deep-iteration", "--print-data-log"),
        *("--files", ",".join(str(segment) for segment in segments)),
    ).stdout

    offsets = [int(each) for each in re.findall(r"^\| offset: (\d+)", dumped, re.MULTILINE)]
    assert offsets == list(range(sum(CODECS.values()) + 2))
    assert set(re.findall(r"isvalid: (\w+)", dumped)) == {"true"}
    for complaint in ("Mismatch", "not been consecutive", "Found", "ERROR"):
        assert complaint not in dumped


@pytest.mark.parametrize("kind", ["index", "timeindex"])
def test_kafka_finds_our_indexes_sound(written: Path, kind: str) -> None:
    # The last segment's indexes are still being written to.
    closed = [log.with_suffix(f".{kind}") for log in sorted(written.glob("*.log"))[:-1]]
    dumped = run_tool(
        DUMP,
        "--verify-index-only",
        *("--files", ",".join(str(each) for each in closed)),
    ).stdout

    assert dumped.count("Dumping") == len(closed) > 0
    for complaint in ("Mismatch", "Found", "not been", "ERROR", "out of order"):
        assert complaint not in dumped


def test_our_dump_shows_what_kafkas_shows(written: Path) -> None:
    segment = min(written.glob("*.log"))
    ours = subprocess.run(
        [str(STREAMER), "log", "dump", str(segment)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ours.returncode == 0, ours.stderr
    theirs = run_tool(DUMP, "--files", str(segment)).stdout
    last = re.findall(r"lastOffset: (\d+)", theirs)[-1]
    assert last in ours.stdout
