"""Settings of topics and brokers: each with its default and its source, and changed."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
)
from conformance.conftest import MakeTopic
from support.clients import (
    code_of,
    create_topic,
    error_code,
    new_name,
    produce,
    read,
    result,
    wait_until,
)

FOREVER = "9223372036854775807"

# Apache Kafka 4.1's settings of a topic with their defaults. Tiered storage
# (`remote.*`, `local.*`) and the followers' throttles mean nothing to a single broker.
DEFAULTS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "file.delete.delay.ms": "60000",
    "flush.messages": FOREVER,
    "flush.ms": FOREVER,
    "index.interval.bytes": "4096",
    "max.compaction.lag.ms": FOREVER,
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": FOREVER,
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}

# The settings of a broker that people look up.
BROKER_SETTINGS = {
    "auto.create.topics.enable",
    "compression.type",
    "log.cleanup.policy",
    "log.retention.bytes",
    "log.retention.hours",
    "log.segment.bytes",
    "message.max.bytes",
    "num.partitions",
    "socket.request.max.bytes",
}

Entries = dict[str, ConfigEntry]


def describe(admin: AdminClient, kind: Any, name: str) -> Entries:
    asked = ConfigResource(kind, name)
    (future,) = admin.describe_configs([asked]).values()
    entries: Entries = result(future)
    return entries


def describe_topic(admin: AdminClient, topic: str) -> Entries:
    return describe(admin, ConfigResource.Type.TOPIC, topic)


def value(admin: AdminClient, topic: str, name: str) -> str | None:
    found: str | None = describe_topic(admin, topic)[name].value
    return found


def source(entry: ConfigEntry) -> ConfigSource:
    found: ConfigSource = ConfigSource(entry.source)  # the client gives a bare number
    return found


def changed(
    admin: AdminClient,
    topic: str,
    *changes: tuple[AlterConfigOpType, str, str | None],
    validate_only: bool = False,
) -> int:
    """Apply incremental changes; the error code they ended with."""
    entries = [
        ConfigEntry(name, text, incremental_operation=operation)
        for operation, name, text in changes
    ]
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    (future,) = admin.incremental_alter_configs(
        [asked], validate_only=validate_only
    ).values()
    return code_of(future)


SET = AlterConfigOpType.SET
DELETE = AlterConfigOpType.DELETE
APPEND = AlterConfigOpType.APPEND
SUBTRACT = AlterConfigOpType.SUBTRACT


@pytest.fixture(scope="module")
def untouched(admin: AdminClient) -> Entries:
    """The settings of a topic that nobody configured."""
    return describe_topic(admin, create_topic(admin))


@pytest.mark.parametrize(("name", "expected"), DEFAULTS.items())
def test_every_setting_is_described_with_its_default(
    untouched: Entries, name: str, expected: str
) -> None:
    entry = untouched[name]

    assert entry.value == expected
    if name != "min.insync.replicas":  # Kafka 4.1 writes this one into a new cluster
        assert source(entry) == ConfigSource.DEFAULT_CONFIG
        assert entry.is_default
    assert not entry.is_read_only
    assert not entry.is_sensitive


def test_a_setting_of_the_topic_says_so(admin: AdminClient, make_topic: MakeTopic) -> None:
    topic = make_topic(config={"retention.ms": "60000", "cleanup.policy": "compact,delete"})
    entries = describe_topic(admin, topic)

    for name, expected in {
        "retention.ms": "60000",
        "cleanup.policy": "compact,delete",
    }.items():
        assert entries[name].value == expected
        assert source(entries[name]) == ConfigSource.DYNAMIC_TOPIC_CONFIG
        assert not entries[name].is_default
    assert source(entries["segment.bytes"]) == ConfigSource.DEFAULT_CONFIG


def test_a_described_setting_tells_where_else_it_may_come_from(
    admin: AdminClient, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"max.message.bytes": "2000"})
    entry = describe_topic(admin, topic)["max.message.bytes"]

    synonyms = [(each.name, each.value, source(each)) for each in entry.synonyms.values()]
    assert ("message.max.bytes", "1048588", ConfigSource.DEFAULT_CONFIG) in synonyms


def test_an_unknown_topic_has_no_settings(admin: AdminClient) -> None:
    with pytest.raises(KafkaException) as refused:
        describe_topic(admin, new_name("missing"))
    assert error_code(refused.value) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_change_touches_only_what_it_names(
    admin: AdminClient, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"retention.ms": "60000"})
    assert changed(admin, topic, (SET, "segment.ms", "70000")) == 0

    wait_until(lambda: value(admin, topic, "segment.ms") == "70000", "no change was seen")
    assert value(admin, topic, "retention.ms") == "60000"


def test_a_deleted_setting_falls_back_to_its_default(
    admin: AdminClient, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"retention.ms": "60000"})
    assert changed(admin, topic, (DELETE, "retention.ms", None)) == 0

    wait_until(
        lambda: value(admin, topic, "retention.ms") == DEFAULTS["retention.ms"],
        "the default has not come back",
    )
    assert describe_topic(admin, topic)["retention.ms"].is_default


def test_lists_grow_and_shrink_by_their_members(admin: AdminClient, topic: str) -> None:
    assert changed(admin, topic, (APPEND, "cleanup.policy", "compact")) == 0
    wait_until(
        lambda: value(admin, topic, "cleanup.policy") == "delete,compact",
        "nothing appended",
    )

    assert changed(admin, topic, (SUBTRACT, "cleanup.policy", "delete")) == 0
    wait_until(
        lambda: value(admin, topic, "cleanup.policy") == "compact", "nothing subtracted"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ((SET, "retention.ms", "soon"), KafkaError.INVALID_CONFIG),
        ((SET, "no.such.config", "1"), KafkaError.INVALID_CONFIG),
        ((APPEND, "retention.ms", "1"), KafkaError.INVALID_CONFIG),
    ],
)
def test_a_bad_change_changes_nothing(
    admin: AdminClient,
    topic: str,
    change: tuple[AlterConfigOpType, str, str | None],
    code: int,
) -> None:
    assert changed(admin, topic, (SET, "segment.ms", "70000"), change) == code

    assert value(admin, topic, "segment.ms") == DEFAULTS["segment.ms"]


def test_a_change_can_be_tried_first(admin: AdminClient, topic: str) -> None:
    wanted = (SET, "retention.ms", "60000")
    assert changed(admin, topic, wanted, validate_only=True) == 0

    assert value(admin, topic, "retention.ms") == DEFAULTS["retention.ms"]


def test_an_unknown_topic_cannot_be_changed(admin: AdminClient) -> None:
    code = changed(admin, new_name("missing"), (SET, "retention.ms", "60000"))

    assert code == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_altering_replaces_all_settings(admin: AdminClient, make_topic: MakeTopic) -> None:
    topic = make_topic(config={"retention.ms": "60000"})
    asked = ConfigResource(
        ConfigResource.Type.TOPIC, topic, set_config={"segment.ms": "70000"}
    )
    with pytest.deprecated_call():  # by the client; the request is still answered
        (future,) = admin.alter_configs([asked]).values()
    assert code_of(future) == 0

    wait_until(lambda: value(admin, topic, "segment.ms") == "70000", "no change was seen")
    assert value(admin, topic, "retention.ms") == DEFAULTS["retention.ms"]


def test_a_lower_limit_holds_at_once(
    bootstrap: str, admin: AdminClient, topic: str
) -> None:
    produce(bootstrap, topic, [b"x" * 5_000])
    assert changed(admin, topic, (SET, "max.message.bytes", "1000")) == 0
    wait_until(
        lambda: value(admin, topic, "max.message.bytes") == "1000", "no change was seen"
    )

    with pytest.raises(KafkaException) as refused:
        produce(bootstrap, topic, [b"x" * 5_000])
    assert error_code(refused.value) == KafkaError.MSG_SIZE_TOO_LARGE
    assert len(read(bootstrap, topic)) == 1


def test_a_broker_describes_its_settings(admin: AdminClient) -> None:
    (broker,) = admin.list_topics(timeout=5).brokers
    entries = describe(admin, ConfigResource.Type.BROKER, str(broker))

    assert entries.keys() >= BROKER_SETTINGS
    assert entries["num.partitions"].value == "4"
    assert entries["log.segment.bytes"].value == "1073741824"
