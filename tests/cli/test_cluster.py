from __future__ import annotations

import json

from cli.conftest import Streamer


def test_the_cluster_tells_its_brokers_and_how_full_they_are(
    streamer: Streamer, bootstrap: str, topic: str, against: str
) -> None:
    streamer("produce", topic, stdin="x\n")

    cluster = json.loads(streamer("cluster", "-o", "json").stdout)

    (broker,) = cluster["brokers"]
    assert broker["address"] == bootstrap
    assert broker["controller"] is True
    assert (
        broker["software"] == {"streamer": "streamer", "kafka": "Apache Kafka 4.1"}[against]
    )
    assert broker["bytes"] > 0
    assert broker["free_bytes"] > 0
    assert cluster["partitions"] >= 2
    assert cluster["cluster_id"]


def test_the_table_has_a_line_for_each_log_folder(
    streamer: Streamer, bootstrap: str
) -> None:
    result = streamer("cluster")

    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head.startswith("cluster ")
    assert bootstrap.split(":")[1] in lines[-1]
