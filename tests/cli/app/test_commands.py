"""`send`, `agents`, `tables`, `table`, `config`, `reset`, and commands of the app's own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.clients import wait_until

from streamer.app import App
from streamer.cli.app.reset import StillRuns, planned, wait_until_empty
from streamer.cli.app.send import read
from streamer.cli.main import APP_COMMANDS, main
from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.embedded_process import BrokerProcess
from streamer.client.interface import TopicPartition

Shop = Any  # of conftest.py
QUIET = ("--web-port", "0")


def admin_of(shop: Shop) -> ConfluentAdmin:
    address = BrokerProcess(shop.home).address()
    assert address is not None
    return ConfluentAdmin(address)


def topics(shop: Shop) -> set[str]:
    return {
        topic.name
        for topic in admin_of(shop).cluster().topics
        if topic.name.startswith(f"{shop.name}-")
    }


@pytest.mark.parametrize(
    "words",
    [*[(name,) for name in APP_COMMANDS], ("table", "get")],
    ids=" ".join,
)
def test_every_command_teaches_by_an_example(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"])

    assert result.exit_code == 0
    assert f"streamer -A shop {' '.join(words)}" in result.output


# send


def test_send_says_where_records_have_landed(shop: Shop) -> None:
    assert shop.send("tea", "--partition", "1") == f"{shop.name}-orders:1 @ 0\n"
    assert shop.send("tea", "--partition", "1", "-r", "3") == (
        f"{shop.name}-orders:1 @ 1-3 (3 records)\n"
    )

    landed = json.loads(shop.send("tea", "-k", "key", "-o", "json"))
    assert [row["records"] for row in landed] == [1]


def test_send_makes_the_topic_as_the_app_declares_it(shop: Shop) -> None:
    shop.ok("send", f"{shop.name}-notes", "any text", "-k", "tea")

    at = TopicPartition(f"{shop.name}-notes", 0)
    assert admin_of(shop).topic(at.topic).topic_partitions == [at]
    assert admin_of(shop).end_offsets([at]) == {at: 1}


def test_an_agent_is_sent_to_by_the_last_part_of_its_name(shop: Shop) -> None:
    printed = shop.ok("send", "@double", "21")

    assert printed.startswith(f"{shop.name}-{shop.name}.double:")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{shop}-orders", '{"id": "1"}'), "missing required field `item`"),
        (("{shop}-orders", "tea"), "JSON of Order, which has id, item, quantity"),
        (("@double", "tea"), "'\"tea\"'"),
        (("{shop}-order", "{}"), "Did you mean '{shop}-orders'"),
        (("@triple", "1"), "There is no agent 'triple'"),
        (("{shop}-notes", "x", "-V", "no.such:Type"), "There is no type 'no.such:Type'"),
    ],
)
def test_what_is_no_such_record_is_refused(
    shop: Shop, words: tuple[str, ...], said: str
) -> None:
    result = shop("send", *(word.replace("{shop}", shop.name) for word in words))

    assert result.returncode == 1
    assert said.replace("{shop}", shop.name) in result.stderr
    assert f"{shop.name}-order" not in topics(shop)


@pytest.mark.parametrize(
    ("types", "text", "value"),
    [
        ({"value_type": str}, "[1", "[1"),
        ({"value_type": bytes}, "[1", b"[1"),
        ({"value_type": int}, "17", 17),
        ({"value_type": list[int]}, "[1]", [1]),
        ({"value_serializer": "raw"}, "[1", "[1"),
        ({}, '{"a": [1.5]}', {"a": [1.5]}),
    ],
)
def test_a_value_is_json_except_where_it_is_text(
    types: dict[str, Any], text: str, value: object
) -> None:
    assert read(text, App("a").topic("t", **types), "value") == value


# agents, tables, table


def test_agents_and_tables_are_listed(shop: Shop) -> None:
    agents = shop.ok("agents").splitlines()
    tables = json.loads(shop.ok("tables", "-o", "json"))

    assert re.split(r"\s\s+", agents[1]) == [
        f"{shop.name}.count",
        f"{shop.name}-orders",
        "1",
        "Counts what is sold.",
    ]
    assert tables == [
        {
            "table": "sold",
            "partitions": None,
            "changes": None,
            "changelog": f"{shop.name}-sold-changelog",
            "help": "Pieces of each item.",
        }
    ]


def test_without_a_worker_a_key_cannot_be_had_and_that_is_said(shop: Shop) -> None:
    result = shop("table", "get", "sold", "tea")

    assert result.returncode == 1
    assert f"No worker of {shop.name} runs" in result.stderr
    assert f"-> Start one: streamer -A {shop.name} worker" in result.stderr
    assert "It has sold" in shop("table", "get", "bought", "tea").stderr


# Commands of its own.


def test_a_command_of_the_app_may_send_and_ask(shop: Shop) -> None:
    with shop.worker(*QUIET):
        assert shop.ok("sell", "--pieces", "7") == "sold 7\n"
        assert shop.ok("twice") == "42\n"
        wait_until(lambda: shop.sold("tea") == "7", "it is not counted")
        absent = shop("table", "get", "sold", "poison")

        assert absent.returncode == 1
        assert "Table sold has no 'poison'" in absent.stderr
        assert json.loads(shop.ok("tables", "-o", "json"))[0]["changes"] >= 1
    assert not [name for name in topics(shop) if "-replies-" in name]


def test_one_that_is_no_coroutine_is_just_called(shop: Shop) -> None:
    assert shop.run(shop.file.name, "greet").stdout == "hello\n"


# reset


def test_reset_forgets_what_the_app_has_made_and_nothing_else(shop: Shop) -> None:
    foreign = f"{shop.name}-x-sold-changelog"
    state = shop.home / "state" / shop.name
    with shop.worker(*QUIET) as worker:
        admin_of(shop).create_topic(foreign, partitions=1, replication=1, configs={})
        shop.send("tea")
        wait_until(lambda: shop.sold("tea") == "1", "it is not counted")
        running = shop("reset", "--yes")
        worker.end()
    before = topics(shop)

    planned = shop("reset", "--dry-run")
    kept = topics(shop), state.is_dir()
    done = shop.ok("reset", "--yes")

    assert running.returncode == 1
    assert "A worker runs here" in running.stderr
    assert kept == (before, True)
    gone = {
        f"{shop.name}-sold-changelog",
        f"{shop.name}-{shop.name}.count-item-repartition",
    }
    assert before - topics(shop) == gone
    assert not state.exists()
    assert done == planned.stdout
    assert sorted(done.splitlines()) == sorted(
        [
            f"group {shop.name}, with its offsets",
            *(f"topic {name}" for name in gone),
            f"folder {state}",
        ]
    )
    assert f"Left alone, since no table of this app has that name: topic {foreign}" in (
        planned.stderr
    )
    assert "has nothing to forget" in shop("reset", "--yes").stderr


class Group:
    """A group of one member, for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.client_id, self.host = "shop@h:1/0", "h"

    @property
    def members(self) -> list[Any]:
        self.looks -= 1
        return [self] if self.looks >= 0 else []

    def group(self, name: str) -> Group:
        return self


def test_reset_waits_for_sessions_to_end_and_no_longer() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    patient: Callable[[Any], None] = lambda admin: wait_until_empty(  # noqa: E731
        admin, "shop", 6.0, sleep, lambda: now[0]
    )

    patient(Group(10))
    assert 2 < now[0] < 3
    with pytest.raises(StillRuns, match=r"shop runs: shop@h:1/0 \(h\)"):
        patient(Group(1000))
    assert 11 < now[0] < 13


class Broker:
    """An admin of which only names are asked."""

    def __init__(self, names: list[str], read: list[str]) -> None:
        self.topics = [type("Topic", (), {"name": name}) for name in names]
        self.read = read

    def cluster(self) -> Broker:
        return self

    def group(self, name: str) -> Broker:
        return self

    def committed(self, group: str) -> dict[TopicPartition, int]:
        return {TopicPartition(name, 0): 1 for name in self.read}


def test_only_names_that_this_app_would_give_are_its_own(tmp_path: Path) -> None:
    app = App("shop")
    app.Table("sold")
    app.topic("shop-mine-repartition")
    app.agent("in", name="m.count")(lambda stream: stream)  # type: ignore[arg-type,return-value]
    gone = [
        "shop-sold-changelog",
        "shop-m.count-item-repartition",
        "shop-m.gone-item-repartition",  # of an agent that there was: the group read it
        "shop-replies-0",
        "shop-replies-0123456789ab",
    ]
    stays = [
        "in",
        "shop-2-m.count-item-repartition",
        "shop-2-replies-0",
        "shop-bought-changelog",
        "shop-dead-letters",
        "shop-m.count",
        "shop-m.other-item-repartition",
        "shop-mine-repartition",
        "shop-replies-mine",
        "shop-v2-sold-changelog",
    ]
    read = ["shop-m.gone-item-repartition", "shop-mine-repartition", "in"]
    admin: Any = Broker(gone + stays, read)

    plan = planned(app, admin, tmp_path / "none")

    assert sorted(plan.topics) == sorted(gone)
    assert plan.left == ("shop-bought-changelog", "shop-v2-sold-changelog")
    assert plan.state is None


# config


def test_config_shows_where_each_setting_comes_from(shop: Shop) -> None:
    shop.environment |= {"STREAMER_LINGER_MS": "7", "STREAMER_SASL_PASSWORD": "sesame"}
    (shop.file.parent / "streamer.toml").write_text("[app]\nweb.port = 7000\n")

    printed = shop.ok("config", "--changed", "--set", "commit.interval.ms=50", "-o", "json")

    assert [
        (row["setting"], row["value"], row["origin"]) for row in json.loads(printed)
    ] == [
        ("commit.interval.ms", "50", "flag"),
        ("session.timeout.ms", "3000", "App(...)"),
        ("linger.ms", "7", "environment STREAMER_LINGER_MS"),
        ("topic.partitions", "2", "App(...)"),
        ("web.port", "7000", str(shop.file.parent / "streamer.toml")),
        ("sasl.password", "********", "environment STREAMER_SASL_PASSWORD"),
    ]


def test_a_variable_that_nobody_reads_is_refused(shop: Shop) -> None:
    shop.environment["STREAMER_COMMIT_INTERVALL_MS"] = "5"

    result = shop("agents")

    assert result.returncode == 1
    assert "Did you mean 'STREAMER_COMMIT_INTERVAL_MS'?" in result.stderr


def test_what_is_set_for_the_one_is_no_mistake_for_the_other(shop: Shop) -> None:
    shop.environment |= {
        "STREAMER_COMMIT_INTERVAL_MS": "5",
        "STREAMER_COMPRESSION_TYPE": "none",
        "STREAMER_LOG_RETENTION_MS": "6",
        "STREAMER_APP": shop.name,
    }

    broker = shop.run("-m", "streamer", "broker", "--show-config", "-o", "json")
    app = json.loads(shop.ok("config", "--changed", "-o", "json"))

    assert json.loads(broker.stdout)["log.retention.ms"]["value"] == "6"
    assert {row["setting"] for row in app} >= {"commit.interval.ms", "compression.type"}


# Which broker the other commands talk to.


def test_tools_use_the_broker_of_the_apps_here(shop: Shop) -> None:
    shop.ok("send", f"{shop.name}-notes", "hello", "-k", "a")

    printed = shop.run(
        *("-m", "streamer", "consume", f"{shop.name}-notes", "-e", "-f", "%k %v\\n")
    )

    assert printed.stdout == "a hello\n", printed.stderr
