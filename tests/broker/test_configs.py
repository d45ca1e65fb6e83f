"""Settings as clients see and change them: where a value comes from, and the rules."""

import asyncio
from typing import Any

import pytest
from support.core import Client

from streamer.broker.config import BROKER_OPTIONS
from streamer.broker.configs import Change, Source, valid_overrides
from streamer.broker.core import Broker
from streamer.errors import SettingsError
from streamer.log.config import TOPIC_OPTIONS
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AlterConfigsRequest,
    DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
)

TOPIC, BROKER, GROUP = 2, 4, 32
T = (TOPIC, "t")
SET, DELETE, APPEND, SUBTRACT = Change


async def describe(
    client: Client, kind: int, name: str, *keys: str, only: bool = True, **more: Any
) -> Any:
    resource = DescribeConfigsRequest.Resource(
        resource_type=kind, resource_name=name, configuration_keys=list(keys)
    )
    if not only:
        resource.configuration_keys = None
    request = DescribeConfigsRequest(resources=[resource], include_synonyms=True, **more)
    answer = await client.ask(ApiKey.DESCRIBE_CONFIGS, 4, request)
    return answer.resources[0]


async def change(
    client: Client,
    resource: tuple[int, str],
    *changes: tuple[str, int, str | None],
    times: int = 1,
    validate_only: bool = False,
) -> list[int]:
    kind, name = resource
    request = IncrementalAlterConfigsRequest(
        resources=[
            IncrementalAlterConfigsRequest.Resource(
                resource_type=kind,
                resource_name=name,
                configs=[
                    IncrementalAlterConfigsRequest.Config(
                        name=key, operation=operation, value=value
                    )
                    for key, operation, value in changes
                ],
            )
        ]
        * times,
        validate_only=validate_only,
    )
    answer = await client.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request)
    return [one.error_code for one in answer.resources]


async def replace(
    client: Client, *configs: tuple[str, str | None], validate_only: bool = False
) -> int:
    kind, name = T
    resource = AlterConfigsRequest.Resource(
        resource_type=kind,
        resource_name=name,
        configs=[AlterConfigsRequest.Config(name=key, value=text) for key, text in configs],
    )
    request = AlterConfigsRequest(resources=[resource], validate_only=validate_only)
    answer = await client.ask(ApiKey.ALTER_CONFIGS, 2, request)
    return int(answer.resources[0].error_code)


def overrides(broker: Broker) -> dict[str, str]:
    return broker.catalog.topics["t"].overrides


# DescribeConfigs


@pytest.mark.parametrize("only", [True, False])
async def test_no_names_are_all_names(client: Client, only: bool) -> None:
    of_topic = await describe(client, *T, only=only)
    of_broker = await describe(client, BROKER, "1", only=only)

    assert [one.name for one in of_topic.configs] == list(TOPIC_OPTIONS)
    assert [one.name for one in of_broker.configs] == list(BROKER_OPTIONS)


async def test_every_place_that_sets_a_value_is_told_the_strongest_first(
    broker: Broker, client: Client
) -> None:
    await change(client, (BROKER, ""), ("log.retention.ms", SET, "1"))
    await change(client, (BROKER, "1"), ("log.retention.ms", SET, "2"))
    await change(client, T, ("retention.ms", SET, "3"))

    (config,) = (await describe(client, *T, "retention.ms")).configs

    assert (config.value, config.config_source, config.read_only) == ("3", 1, False)
    assert [(one.name, one.value, one.source) for one in config.synonyms] == [
        ("retention.ms", "3", Source.TOPIC),
        ("log.retention.ms", "2", Source.BROKER),
        ("log.retention.ms", "1", Source.EVERY_BROKER),
        ("log.retention.ms", "604800000", Source.DEFAULT),
    ]


async def test_what_is_set_for_all_brokers_is_only_what_was_altered(
    client: Client,
) -> None:
    assert (await describe(client, BROKER, "")).configs == []

    await change(client, (BROKER, ""), ("log.retention.ms", SET, "1"))

    (config,) = (await describe(client, BROKER, "")).configs
    assert (config.name, config.value) == ("log.retention.ms", "1")
    assert config.config_source == Source.EVERY_BROKER


async def test_what_cannot_change_while_the_broker_runs_is_read_only(
    client: Client,
) -> None:
    found = await describe(client, BROKER, "1", "node.id", "log.retention.ms")

    assert {one.name: one.read_only for one in found.configs} == {
        "node.id": True,
        "log.retention.ms": False,
    }


async def test_words_come_only_when_asked_for(client: Client) -> None:
    (quiet,) = (await describe(client, *T, "segment.ms")).configs
    (told,) = (await describe(client, *T, "segment.ms", include_documentation=True)).configs

    assert quiet.documentation is None
    assert told.documentation.startswith("How old a segment grows")


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (BROKER, "2", ErrorCode.INVALID_REQUEST),
        (BROKER, "one", ErrorCode.INVALID_REQUEST),
        (GROUP, "g", ErrorCode.INVALID_REQUEST),
    ],
)
async def test_what_is_not_there_has_no_settings_and_takes_none(
    client: Client, kind: int, name: str, code: ErrorCode
) -> None:
    found = await describe(client, kind, name)

    assert (found.error_code, found.configs) == (code, [])
    assert await change(client, (kind, name), ("segment.ms", SET, "1")) == [code]


# IncrementalAlterConfigs


async def test_single_changes_leave_the_rest_alone(broker: Broker, client: Client) -> None:
    await change(client, T, ("segment.ms", SET, "1"), ("retention.ms", SET, "2"))

    assert await change(client, T, ("segment.ms", DELETE, None)) == [ErrorCode.NONE]
    assert overrides(broker) == {"retention.ms": "2"}
    assert broker.catalog.topics["t"].partitions[0].config.retention_ms == 2
    assert broker.catalog.topics["t"].partitions[0].config.segment_ms == 604_800_000


async def test_lists_grow_and_shrink(broker: Broker, client: Client) -> None:
    steps = [
        (APPEND, " compact", "delete,compact"),
        (APPEND, "compact", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "compact,delete", ""),
    ]
    for operation, value, after in steps:
        await change(client, T, ("cleanup.policy", operation, value))
        assert overrides(broker)["cleanup.policy"] == after


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("segment.bites", SET, "1")], ErrorCode.INVALID_CONFIG),
        ([("segment.ms", SET, "0")], ErrorCode.INVALID_CONFIG),
        ([("segment.ms", APPEND, "1")], ErrorCode.INVALID_CONFIG),
        ([("nothing", APPEND, "1")], ErrorCode.INVALID_CONFIG),
        ([("cleanup.policy", APPEND, "burn")], ErrorCode.INVALID_CONFIG),
        ([("segment.ms", SET, None)], ErrorCode.INVALID_REQUEST),
        ([("cleanup.policy", APPEND, None)], ErrorCode.INVALID_REQUEST),
        ([("segment.ms", 4, "1")], ErrorCode.INVALID_REQUEST),
        (
            [("segment.ms", SET, "1"), ("segment.ms", DELETE, None)],
            ErrorCode.INVALID_REQUEST,
        ),
    ],
)
async def test_a_wrong_change_changes_nothing(
    broker: Broker,
    client: Client,
    changes: list[tuple[str, int, str | None]],
    code: ErrorCode,
) -> None:
    refused = await change(client, T, ("retention.ms", SET, "1"), *changes)

    assert refused == [code]
    assert overrides(broker) == {}


async def test_a_resource_is_changed_once_in_a_request(
    broker: Broker, client: Client
) -> None:
    refused = await change(client, T, ("segment.ms", SET, "1"), times=2)

    assert refused == [ErrorCode.INVALID_REQUEST] * 2
    assert overrides(broker) == {}


async def test_what_is_only_checked_does_not_change(broker: Broker, client: Client) -> None:
    tried = [
        await change(client, T, ("segment.ms", SET, "1"), validate_only=True),
        await change(client, T, ("segment.ms", SET, "0"), validate_only=True),
        await change(client, (BROKER, ""), ("log.roll.ms", SET, "1"), validate_only=True),
        await change(client, (BROKER, ""), ("log.roll.ms", SET, "0"), validate_only=True),
    ]

    assert tried == [[0], [ErrorCode.INVALID_CONFIG]] * 2
    assert overrides(broker) == broker.catalog.altered_in("") == {}


async def test_changes_that_meet_are_all_made(broker: Broker) -> None:
    await asyncio.gather(
        change(Client(broker), T, ("segment.ms", SET, "1")),
        change(Client(broker), T, ("retention.ms", SET, "2")),
    )

    assert overrides(broker) == {"segment.ms": "1", "retention.ms": "2"}


async def test_a_topic_deleted_meanwhile_is_not_changed(
    broker: Broker, client: Client
) -> None:
    deletion = asyncio.create_task(broker.catalog.delete(broker.catalog.topics["t"]))
    await asyncio.sleep(0)

    refused = await change(client, T, ("segment.ms", SET, "1"))

    assert refused == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    await deletion


async def test_a_change_for_the_broker_reaches_topics_without_a_value_of_their_own(
    broker: Broker, client: Client
) -> None:
    await change(client, (BROKER, "1"), ("log.retention.ms", SET, "7"))
    assert broker.catalog.topics["t"].partitions[0].config.retention_ms == 7

    await change(client, (BROKER, "1"), ("log.retention.ms", DELETE, None))
    assert broker.catalog.topics["t"].partitions[0].config.retention_ms == 604_800_000


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("node.id", "2", ErrorCode.INVALID_REQUEST),
        ("log.retention.sm", "1", ErrorCode.INVALID_CONFIG),
        ("log.retention.ms", "-2", ErrorCode.INVALID_CONFIG),
    ],
)
async def test_not_everything_about_a_broker_changes_while_it_runs(
    client: Client, name: str, value: str, code: ErrorCode
) -> None:
    assert await change(client, (BROKER, "1"), (name, SET, value)) == [code]


# AlterConfigs


async def test_what_is_named_replaces_all_that_was_set(
    broker: Broker, client: Client
) -> None:
    await change(client, T, ("segment.ms", SET, "1"))

    assert await replace(client, ("retention.ms", "2"), validate_only=True) == 0
    assert overrides(broker) == {"segment.ms": "1"}
    assert await replace(client, ("retention.ms", "2")) == ErrorCode.NONE
    assert overrides(broker) == {"retention.ms": "2"}


async def test_replacing_has_the_same_rules(broker: Broker, client: Client) -> None:
    twice = ("segment.ms", "1"), ("segment.ms", "2")

    assert await replace(client, *twice) == ErrorCode.INVALID_REQUEST
    assert await replace(client, ("segment.ms", None)) == ErrorCode.INVALID_REQUEST
    assert await replace(client, ("segment.ms", "x")) == ErrorCode.INVALID_CONFIG
    assert overrides(broker) == {}


async def test_an_offline_broker_keeps_its_settings(broker: Broker, client: Client) -> None:
    broker.go_offline("a test says so")

    refused = await change(client, T, ("segment.ms", SET, "1"))

    assert refused == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert (await describe(client, *T)).error_code == ErrorCode.NONE


@pytest.mark.parametrize(
    ("codec", "right", "wrong", "told"),
    [
        ("gzip", (-1, 1, 9), (-2, 0, 10), "from 1 to 9, or -1"),
        ("lz4", (1, 17), (-1, 0, 18), "from 1 to 17."),
        ("zstd", (-131072, 0, 22), (-131073, 23), "from -131072 to 22."),
    ],
)
async def test_a_compression_level_is_one_that_the_codec_knows(
    client: Client, codec: str, right: tuple[int, ...], wrong: tuple[int, ...], told: str
) -> None:
    name = f"compression.{codec}.level"

    for on in (T, (BROKER, "")):
        for level in right:
            assert await change(client, on, (name, SET, str(level))) == [ErrorCode.NONE]
        for level in wrong:
            refused = await change(client, on, (name, SET, str(level)))
            assert refused == [ErrorCode.INVALID_CONFIG]
    with pytest.raises(SettingsError, match=told):
        valid_overrides({name: str(wrong[0])})
