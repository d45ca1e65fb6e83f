"""`streamer topic` against a running broker."""

from __future__ import annotations

import json

from cli.conftest import Streamer
from support.clients import new_name

from streamer.cli.topic import lacking_rows
from streamer.client.interface import Partition, Topic


def configs(streamer: Streamer, topic: str) -> dict[str, tuple[str, str]]:
    described = json.loads(streamer("topic", "describe", topic, "-o", "json").stdout)
    return {each["name"]: (each["value"], each["source"]) for each in described["configs"]}


def test_a_topic_is_created_listed_described_and_deleted(streamer: Streamer) -> None:
    name = new_name("cli")

    created = streamer("topic", "create", name, "-p", "3", "-c", "retention.ms=60000")
    assert (created.exit_code, created.stdout) == (0, "")
    assert name in created.stderr

    listed = {
        row["name"]: row
        for row in json.loads(streamer("topic", "list", "-o", "json").stdout)
    }
    assert listed[name] == {"name": name, "partitions": 3, "replicas": 1, "records": 0}
    assert configs(streamer, name)["retention.ms"] == ("60000", "topic")

    assert streamer("topic", "delete", name, "--yes").exit_code == 0
    assert streamer("topic", "describe", name).exit_code == 1


def test_without_numbers_the_broker_decides_how_many_partitions(streamer: Streamer) -> None:
    name = new_name("cli")

    assert streamer("topic", "create", name).exit_code == 0

    described = json.loads(streamer("topic", "describe", name, "-o", "json").stdout)
    assert len(described["partitions"]) >= 1
    streamer("topic", "delete", name, "--yes")


def test_the_table_shows_what_was_set_and_wide_shows_all(
    streamer: Streamer, topic: str
) -> None:
    streamer("topic", "alter", topic, "-c", "segment.bytes=2000000")

    table = streamer("topic", "describe", topic).stdout
    wide = streamer("topic", "describe", topic, "-o", "wide").stdout

    assert "segment.bytes" in table
    assert "cleanup.policy" not in table
    assert "cleanup.policy" in wide


def test_what_lacks_a_replica_is_shown_alone() -> None:
    whole = Partition(0, 1, (1, 2), (2, 1))
    lacking = Partition(1, 2, (1, 2, 3), (2,))
    dead = Partition(2, -1, (1,), ())

    rows = lacking_rows([Topic("t", (whole, lacking, dead)), Topic("u", (whole,))])

    assert [(row["partition"], row["leader"], row["lacking"]) for row in rows] == [
        (1, 2, [1, 3]),
        (2, None, [1]),
    ]


def test_one_broker_has_every_replica_there_is(streamer: Streamer, topic: str) -> None:
    for words in ((), (topic,)):
        result = streamer("topic", "describe", "--under-replicated", *words)

        assert result.exit_code == 0, result.stderr
        assert len(result.stdout.splitlines()) == 1  # the titles


def test_describe_needs_a_name_or_a_question(streamer: Streamer) -> None:
    assert streamer("topic", "describe").exit_code == 2


def test_alter_sets_one_config_and_leaves_the_others(
    streamer: Streamer, topic: str
) -> None:
    streamer("topic", "alter", topic, "-c", "retention.ms=1000", "-c", "segment.ms=60000")

    changed = streamer(
        "topic", "alter", topic, "-c", "retention.ms=2000", "--delete-config", "segment.ms"
    )

    assert changed.exit_code == 0
    assert configs(streamer, topic)["retention.ms"] == ("2000", "topic")
    assert configs(streamer, topic)["segment.ms"][1] == "default"


def test_alter_without_a_change_is_a_usage_error(streamer: Streamer, topic: str) -> None:
    assert streamer("topic", "alter", topic).exit_code == 2


def test_add_partitions_adds_to_what_there_is(streamer: Streamer, topic: str) -> None:
    assert streamer("topic", "add-partitions", topic, "3").exit_code == 0

    described = json.loads(streamer("topic", "describe", topic, "-o", "json").stdout)
    assert [each["partition"] for each in described["partitions"]] == [0, 1, 2, 3, 4]


def test_delete_asks_first(streamer: Streamer, topic: str) -> None:
    refused = streamer("topic", "delete", topic, stdin="n\n")

    assert refused.exit_code == 1
    assert streamer("topic", "describe", topic).exit_code == 0


def test_deleting_several_deletes_none_if_one_is_unknown(
    streamer: Streamer, topic: str
) -> None:
    result = streamer("topic", "delete", topic, "no-such-topic", "--yes")

    assert result.exit_code == 1
    assert "'no-such-topic'" in result.stderr
    assert streamer("topic", "describe", topic).exit_code == 0


def test_a_topic_that_exists_is_not_created_again(streamer: Streamer, topic: str) -> None:
    result = streamer("topic", "create", topic)

    assert result.exit_code == 1
    assert "one of that name already" in result.stderr
    assert "-> `streamer topic describe`" in result.stderr


def test_a_config_that_does_not_exist_is_the_brokers_to_name(streamer: Streamer) -> None:
    result = streamer("topic", "create", new_name("cli"), "-c", "retentoin.ms=1")

    assert result.exit_code == 1
    assert "retentoin.ms" in result.stderr
    assert "-> " in result.stderr


def test_a_config_without_a_value_is_a_usage_error(streamer: Streamer) -> None:
    assert streamer("topic", "create", "t", "-c", "retention.ms").exit_code == 2


def test_an_unknown_topic_is_named_with_the_way_out(streamer: Streamer) -> None:
    result = streamer("topic", "describe", "no-such-topic")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: There is no topic 'no-such-topic' at ")
    assert "-> `streamer topic list`" in result.stderr
