"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: settings as clients see them.

A value may be set in several places; the strongest counts, and all of them are shown
as its synonyms, strongest first:

    the topic  >  altered for this broker  >  altered for all  >  at start  >  the default

Every setting is listed, with its default where nobody set it: tools read the list,
change it, and write it back whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from functools import partial
from typing import NamedTuple, TypeAlias

from streamer.broker.api import Call, Message
from streamer.broker.catalog import Topic, TopicGone, invalid_name
from streamer.broker.config import BROKER_OPTIONS
from streamer.broker.security import CLUSTER, Operation, Resource, topic as topic_resource
from streamer.errors import SettingsError
from streamer.log.config import TOPIC_OPTIONS
from streamer.log.errors import Refused
from streamer.settings import Kind, Option, setting, unknown_name
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AlterConfigsResponse,
    DescribeConfigsResponse,
    IncrementalAlterConfigsResponse,
)

TOPIC, BROKER = 2, 4
EVERY_BROKER = ""
OF_TOPIC = {name: entry.option for name, entry in TOPIC_OPTIONS.items()}
# From what is set on a resource to what shall be, not yet checked; which settings it has.
Wish: TypeAlias = Callable[[Mapping[str, str], Mapping[str, Option]], Mapping[str, str]]


class Source(IntEnum):
    TOPIC = 1
    BROKER = 2
    EVERY_BROKER = 3
    START = 4
    DEFAULT = 5


class Change(IntEnum):
    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Origin(NamedTuple):
    """One place that gives a value to a setting."""

    name: str
    text: str
    source: Source


# Which places set a value


def origins_of_topic(name: str, overrides: Mapping[str, str], call: Call) -> list[Origin]:
    entry = TOPIC_OPTIONS[name]
    found = []
    if name in overrides:
        found.append(Origin(name, overrides[name], Source.TOPIC))
    if entry.broker_name is None:
        return [*found, Origin(name, entry.option.default, Source.DEFAULT)]
    return found + origins_of_broker(entry.broker_name, call)


def origins_of_broker(name: str, call: Call) -> list[Origin]:
    broker = call.broker
    found = []
    for scope, source in (
        (str(broker.node_id), Source.BROKER),
        (EVERY_BROKER, Source.EVERY_BROKER),
    ):
        altered = broker.catalog.altered_in(scope)
        if name in altered:
            found.append(Origin(name, altered[name], source))
    at_start = broker.config.static(name)
    if not at_start.is_default:
        found.append(Origin(name, at_start.text, Source.START))
    return [*found, Origin(name, BROKER_OPTIONS[name].default, Source.DEFAULT)]


def described_config(
    shape: Callable[..., Message], name: str, overrides: Mapping[str, str], call: Call
) -> Message:
    """One setting of a topic in the words of CreateTopics or DescribeConfigs."""
    strongest = origins_of_topic(name, overrides, call)[0]
    return shape(name=name, value=strongest.text, config_source=strongest.source)


# DescribeConfigs


def handle_describe_configs(request: Message, call: Call) -> Message:
    return DescribeConfigsResponse(
        resources=[_describe(resource, request, call) for resource in request.resources]
    )


def _describe(resource: Message, request: Message, call: Call) -> Message:
    described = DescribeConfigsResponse.Resource(
        resource_type=resource.resource_type, resource_name=resource.resource_name
    )
    try:
        named = list(_settings(resource, call))
    except Refused as refused:
        described.error_code, described.error_message = refused.code, refused.message
        return described
    wanted = resource.configuration_keys  # null or empty: all
    described.configs = [
        _config(option, origins, request, read_only=read_only)
        for option, origins, read_only in named
        if not wanted or option.name in wanted
    ]
    return described


def _settings(resource: Message, call: Call) -> Iterator[tuple[Option, list[Origin], bool]]:
    """Option, origins and whether it is fixed, for each setting of a resource."""
    name = resource.resource_name
    if resource.resource_type == TOPIC:
        _check_allowed(Operation.DESCRIBE_CONFIGS, topic_resource(name), call)
        overrides = _topic(name, call).overrides
        for key, entry in TOPIC_OPTIONS.items():
            yield entry.option, origins_of_topic(key, overrides, call), False
    elif resource.resource_type == BROKER:
        _check_allowed(Operation.DESCRIBE_CONFIGS, CLUSTER, call)
        scope = _broker_scope(name, call)
        altered = call.broker.catalog.altered_in(EVERY_BROKER)
        for key, option in BROKER_OPTIONS.items():
            # The settings for all brokers are only those that were altered.
            if scope != EVERY_BROKER:
                yield option, origins_of_broker(key, call), not option.dynamic
            elif key in altered:
                yield option, [Origin(key, altered[key], Source.EVERY_BROKER)], False
    else:
        raise _unknown_type(resource)


def _config(
    option: Option, origins: list[Origin], request: Message, *, read_only: bool
) -> Message:
    return DescribeConfigsResponse.Config(
        name=option.name,
        value=origins[0].text,
        read_only=read_only,
        config_source=origins[0].source,
        synonyms=[
            DescribeConfigsResponse.Synonym(
                name=one.name, value=one.text, source=one.source
            )
            for one in origins
        ]
        if request.include_synonyms
        else [],
        config_type=option.kind,
        documentation=option.doc if request.include_documentation else None,
    )


# AlterConfigs, IncrementalAlterConfigs


async def handle_alter_configs(request: Message, call: Call) -> Message:
    """What the request names replaces all that was set."""
    return AlterConfigsResponse(
        resources=await _alter_each(AlterConfigsResponse.Resource, _replaced, request, call)
    )


async def handle_incremental_alter_configs(request: Message, call: Call) -> Message:
    """What the request names changes; all else stays as it is."""
    return IncrementalAlterConfigsResponse(
        resources=await _alter_each(
            IncrementalAlterConfigsResponse.Resource, _changed, request, call
        )
    )


async def _alter_each(
    shape: Callable[..., Message],
    how: Callable[[Message, Mapping[str, str], Mapping[str, Option]], dict[str, str]],
    request: Message,
    call: Call,
) -> list[Message]:
    """What became of each resource of a request; one refusal does not stop the others."""
    times = Counter((one.resource_type, one.resource_name) for one in request.resources)
    results = []
    for resource in request.resources:
        result = shape(
            resource_type=resource.resource_type, resource_name=resource.resource_name
        )
        try:
            if times[resource.resource_type, resource.resource_name] > 1:
                raise Refused(
                    ErrorCode.INVALID_REQUEST, "The request names this resource twice."
                )
            _check_names(resource)
            await _alter(
                resource, partial(how, resource), call, only_check=request.validate_only
            )
        except Refused as refused:
            result.error_code, result.error_message = refused.code, refused.message
        except SettingsError as error:
            result.error_code = ErrorCode.INVALID_CONFIG
            result.error_message = str(error)
        results.append(result)
    return results


def _check_names(resource: Message) -> None:
    """Each setting must be named once, and with a value unless it is to be deleted."""
    for name, times in Counter(config.name for config in resource.configs).items():
        if times > 1:
            raise Refused(ErrorCode.INVALID_REQUEST, f"{name} is changed twice.")
    for config in resource.configs:
        if config.value is None and getattr(config, "operation", None) != Change.DELETE:
            raise Refused(ErrorCode.INVALID_REQUEST, f"{config.name} has no value.")


async def _alter(resource: Message, wish: Wish, call: Call, *, only_check: bool) -> None:
    """Set on a topic or a broker what `wish` makes of what is set now."""
    name = resource.resource_name
    catalog = call.broker.catalog
    call.broker.check_writable()
    if resource.resource_type == TOPIC:
        _check_allowed(Operation.ALTER_CONFIGS, topic_resource(name), call)
        topic = _topic(name, call)

        def of_topic(now: Mapping[str, str]) -> dict[str, str]:
            return valid_overrides(wish(now, OF_TOPIC))

        if only_check:
            of_topic(topic.overrides)
            return
        try:
            await catalog.alter_topic(topic, of_topic)
        except TopicGone:
            raise _no_topic(name) from None
    elif resource.resource_type == BROKER:
        _check_allowed(Operation.ALTER_CONFIGS, CLUSTER, call)
        scope = _broker_scope(name, call)

        def of_broker(now: Mapping[str, str]) -> dict[str, str]:
            return _valid_for_broker(wish(now, BROKER_OPTIONS))

        if only_check:
            of_broker(catalog.altered_in(scope))
            return
        await catalog.alter_broker(scope, of_broker)
    else:
        raise _unknown_type(resource)


def _replaced(
    resource: Message, now: Mapping[str, str], options: Mapping[str, Option]
) -> dict[str, str]:
    return {config.name: config.value for config in resource.configs}


def _changed(
    resource: Message, now: Mapping[str, str], options: Mapping[str, Option]
) -> dict[str, str]:
    """What is set on a resource after single changes to it."""
    texts = dict(now)
    for config in resource.configs:
        name = config.name
        if config.operation == Change.SET:
            texts[name] = config.value
        elif config.operation == Change.DELETE:
            texts.pop(name, None)
        elif config.operation in (Change.APPEND, Change.SUBTRACT):
            texts[name] = _list_changed(config, now.get(name), options.get(name))
        else:
            raise Refused(
                ErrorCode.INVALID_REQUEST, f"There is no operation {config.operation}."
            )
    return texts


def _list_changed(config: Message, now: str | None, option: Option | None) -> str:
    if option is None or option.kind is not Kind.LIST:
        raise Refused(
            ErrorCode.INVALID_CONFIG,
            f"{config.name} is no list to append to or subtract from.",
        )
    items = _items(option.default if now is None else now)
    for item in _items(config.value):
        if config.operation == Change.SUBTRACT:
            items = [kept for kept in items if kept != item]
        elif item not in items:
            items.append(item)
    return ",".join(items)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


# Rules


def valid_overrides(texts: Mapping[str, str | None]) -> dict[str, str]:
    """The settings of a topic, checked; a wrong one raises SettingsError."""
    for name, text in texts.items():
        if name not in TOPIC_OPTIONS:
            raise unknown_name(name, "topic", TOPIC_OPTIONS)
        if text is None:
            raise SettingsError(f"{name} has no value.", remedy="Delete it to unset it.")
        setting(TOPIC_OPTIONS[name].option, text, "topic")
    return {name: text for name, text in texts.items() if text is not None}


def _valid_for_broker(texts: Mapping[str, str]) -> dict[str, str]:
    for name, text in texts.items():
        option = BROKER_OPTIONS.get(name)
        if option is None:
            raise unknown_name(name, "broker", BROKER_OPTIONS)
        if not option.dynamic:
            raise Refused(
                ErrorCode.INVALID_REQUEST,
                f"{name} cannot change while the broker runs: set it and start it again.",
            )
        setting(option, text, "altered")
    return dict(texts)


def _topic(name: str, call: Call) -> Topic:
    if wrong := invalid_name(name):
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, wrong)
    found = call.broker.catalog.topics.get(name)
    if found is None:
        raise _no_topic(name)
    return found


def _no_topic(name: str) -> Refused:
    return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic {name!r}.")


def _broker_scope(name: str, call: Call) -> str:
    own = str(call.broker.node_id)
    if name not in (EVERY_BROKER, own):
        raise Refused(
            ErrorCode.INVALID_REQUEST, f"There is no broker {name!r}; this one is {own}."
        )
    return name


def _check_allowed(operation: Operation, on: Resource, call: Call) -> None:
    if not call.session.may(operation, on):
        code = (
            ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            if on == CLUSTER
            else ErrorCode.TOPIC_AUTHORIZATION_FAILED
        )
        raise Refused(code, "That is not allowed.")


def _unknown_type(resource: Message) -> Refused:
    return Refused(
        ErrorCode.INVALID_REQUEST,
        f"Resources of type {resource.resource_type} have no settings here.",
    )
