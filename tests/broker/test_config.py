"""The broker's settings: coarser units, listeners, and what clients may alter."""

from pathlib import Path

import pytest

from streamer.broker.config import BROKER_OPTIONS, BrokerConfig, Listener, load
from streamer.errors import SettingsError
from streamer.log.compaction_process import PACE_MAX
from streamer.log.config import TOPIC_OPTIONS, LogConfig, log_config


def config(**flags: str) -> BrokerConfig:
    return load(
        flags={name.replace("_", "."): text for name, text in flags.items()},
        environment={},
        directory=Path("/"),
    )


def test_a_coarser_unit_counts_where_no_finer_one_is_set() -> None:
    assert config().number("log.retention.ms") == 7 * 24 * 3_600_000
    assert config(log_retention_hours="1").number("log.retention.ms") == 3_600_000
    assert config(log_retention_hours="-1").number("log.retention.ms") == -1
    assert (
        config(log_retention_hours="1", log_retention_minutes="2").number(
            "log.retention.ms"
        )
        == 120_000
    )
    assert (
        config(log_retention_ms="5", log_retention_minutes="2").number("log.retention.ms")
        == 5
    )


def test_the_origin_of_a_coarser_unit_is_told() -> None:
    assert config(log_retention_hours="1")["log.retention.ms"].origin == (
        "log.retention.hours, flag"
    )


def test_listeners_are_places() -> None:
    assert config(listeners="PLAINTEXT://[::1]:0").listeners == [Listener("::1", 0)]
    assert config(listeners="PLAINTEXT://:9092").listeners == [Listener("0.0.0.0", 9092)]


@pytest.mark.parametrize(
    "flags",
    [
        {"listeners": "SSL://a:1"},
        {"listeners": "PLAINTEXT://a"},
        {"listeners": "PLAINTEXT://a:70000"},
        {"listeners": ""},
        {"advertised_listeners": "PLAINTEXT://a:1,PLAINTEXT://b:1"},
        {"log_dirs": "a,b"},
    ],
)
def test_what_cannot_be_is_refused(flags: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        config(**flags)


def test_what_was_altered_lies_over_what_was_set_at_start() -> None:
    running = config(log_retention_ms="5")

    running.alter({"log.retention.ms": "6"})
    assert running.number("log.retention.ms") == 6
    assert running.static("log.retention.ms").value == 5

    running.alter({})
    assert running.number("log.retention.ms") == 5


def test_every_default_of_a_topic_is_a_setting_of_the_broker() -> None:
    for name, entry in TOPIC_OPTIONS.items():
        if entry.broker_name is not None:
            broker_option = BROKER_OPTIONS[entry.broker_name]
            assert broker_option.default == entry.option.default, name
            assert broker_option.dynamic, name


def test_the_typed_defaults_are_those_of_the_table() -> None:
    values = {
        name: entry.option.parse(entry.option.default)
        for name, entry in TOPIC_OPTIONS.items()
    }

    assert log_config(values) == LogConfig()


def test_compaction_leaves_the_disk_to_others_unless_it_is_told_otherwise() -> None:
    assert config().decimal("log.cleaner.io.max.bytes.per.second") == PACE_MAX == 50 << 20


def test_every_option_explains_itself_and_has_a_valid_default() -> None:
    for option in BROKER_OPTIONS.values():
        assert option.doc.endswith(".")
        option.parse(option.default)
