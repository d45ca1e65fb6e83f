"""CreateTopics, DeleteTopics, CreatePartitions: the rules that a topic has to keep.

Each topic of a request is judged by itself: one refusal does not stop the others.
A replication factor above one is accepted and means one, so that a script made for a
cluster runs here unchanged.
"""

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from streamer.broker.api import Call, Message
from streamer.broker.catalog import (
    Topic,
    TopicExists,
    TopicGone,
    TopicHasGrown,
    invalid_name,
)
from streamer.broker.configs import described_config, valid_overrides
from streamer.broker.security import Operation, topic as topic_resource
from streamer.errors import SettingsError
from streamer.log.errors import Refused
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteTopicsResponse,
)

PARTITIONS_MAX = 10_000
BY_DEFAULT = -1
NO_ID = UUID(int=0)
UNKNOWN_TOPIC = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
NO_TOPIC = "There is no such topic."
NAMED_TWICE = "The request names it twice."


async def create_by_default(name: str, call: Call) -> None:
    """Create a topic because somebody asked for it."""
    _check_new_name(name, call)
    try:
        await call.broker.catalog.create(
            name, call.broker.config.number("num.partitions"), overrides={}
        )
    except TopicExists:
        pass  # Another client asked at the same moment.


# CreateTopics


async def handle_create_topics(request: Message, call: Call) -> Message:
    twice = _named_twice(topic.name for topic in request.topics)
    results: list[Message] = []
    for wanted in {topic.name: topic for topic in request.topics}.values():
        try:
            if wanted.name in twice:
                raise Refused(ErrorCode.INVALID_REQUEST, NAMED_TWICE)
            results.append(await _create(wanted, call, only_check=request.validate_only))
        except Refused as refused:
            results.append(
                CreateTopicsResponse.Topic(
                    name=wanted.name,
                    error_code=refused.code,
                    error_message=refused.message,
                    configs=[],
                )
            )
    return CreateTopicsResponse(topics=results)


async def _create(wanted: Message, call: Call, *, only_check: bool) -> Message:
    catalog = call.broker.catalog
    if not call.session.may(Operation.CREATE, topic_resource(wanted.name)):
        raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Creating it is not allowed.")
    _check_new_name(wanted.name, call)
    count = _partition_count(wanted, call)
    try:
        overrides = valid_overrides({one.name: one.value for one in wanted.configs})
    except SettingsError as error:
        raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from None
    created = CreateTopicsResponse.Topic(
        name=wanted.name,
        num_partitions=count,
        replication_factor=1,
        configs=[
            described_config(CreateTopicsResponse.Config, name, overrides, call)
            for name in catalog.settings_of(overrides)
        ],
    )
    if not only_check:
        try:
            topic = await catalog.create(wanted.name, count, overrides)
        except TopicExists:
            raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, "It exists already.") from None
        created.topic_id = topic.id
    return created


def _check_new_name(name: str, call: Call) -> None:
    topics = call.broker.catalog.topics
    call.broker.check_writable()
    if wrong := invalid_name(name):
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, wrong)
    if name in topics:
        raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic {name!r} exists already.")
    # Kafka's metrics tell dots and underscores not apart; what it refuses, we refuse.
    if "." in name or "_" in name:
        same = name.replace(".", "_")
        for other in topics:
            if other.replace(".", "_") == same:
                raise Refused(
                    ErrorCode.INVALID_TOPIC_EXCEPTION,
                    f"Topic {name!r} collides with {other!r}: dots count as underscores.",
                )


def _partition_count(wanted: Message, call: Call) -> int:
    count: int = _assigned(wanted, call) if wanted.assignments else wanted.num_partitions
    if wanted.replication_factor != BY_DEFAULT and wanted.replication_factor < 1:
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "The replication factor must be at least 1.",
        )
    if count == BY_DEFAULT:
        return call.broker.config.number("num.partitions")
    if not 0 < count <= PARTITIONS_MAX:
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"The number of partitions must be from 1 to {PARTITIONS_MAX}, not {count}.",
        )
    return count


def _assigned(wanted: Message, call: Call) -> int:
    """How many partitions are assigned by hand; all of them to this broker."""
    if wanted.num_partitions != BY_DEFAULT or wanted.replication_factor != BY_DEFAULT:
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            "Give either assignments, or partitions and replication factor.",
        )
    indexes = sorted(one.partition_index for one in wanted.assignments)
    if indexes != list(range(len(indexes))):
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Partitions must be numbered from 0 without a gap.",
        )
    for one in wanted.assignments:
        _check_assignment(one.broker_ids, call)
    return len(indexes)


def _check_assignment(broker_ids: list[int], call: Call) -> None:
    if broker_ids != [call.broker.node_id]:
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"Broker {call.broker.node_id} is the only one, and holds the only copy.",
        )


def _named_twice(names: Iterable[str]) -> set[str]:
    return {name for name, times in Counter(names).items() if times > 1}


# DeleteTopics


async def handle_delete_topics(request: Message, call: Call) -> Message:
    if call.version >= 6:
        asked = [(one.name, one.topic_id) for one in request.topics]
    else:
        asked = [(name, NO_ID) for name in request.topic_names]
    times = Counter(asked)
    return DeleteTopicsResponse(
        topics=[
            await _delete(name, topic_id, call, once=times[name, topic_id] == 1)
            for name, topic_id in times
        ]
    )


async def _delete(name: str | None, topic_id: UUID, call: Call, *, once: bool) -> Message:
    result = DeleteTopicsResponse.Topic(name=name, topic_id=topic_id)
    missing = ErrorCode.UNKNOWN_TOPIC_ID if topic_id.int else UNKNOWN_TOPIC
    try:
        if not once:
            raise Refused(ErrorCode.INVALID_REQUEST, NAMED_TWICE)
        topic = _to_delete(name, topic_id, call)
        result.name, result.topic_id = topic.name, topic.id
        for partition in await call.broker.catalog.delete(topic):
            call.broker.watchers.moved(partition)
        await call.broker.groups.forget_topic(topic.name)
    except Refused as refused:
        result.error_code, result.error_message = refused.code, refused.message
    except TopicGone:
        result.error_code, result.error_message = missing, NO_TOPIC
    return result


def _to_delete(name: str | None, topic_id: UUID, call: Call) -> Topic:
    catalog = call.broker.catalog
    if not call.broker.config.flag("delete.topic.enable"):
        raise Refused(
            ErrorCode.TOPIC_DELETION_DISABLED
            if call.version >= 3
            else ErrorCode.INVALID_REQUEST,
            "`delete.topic.enable` is false on this broker.",
        )
    if (name is None) == (topic_id == NO_ID):
        raise Refused(
            ErrorCode.INVALID_REQUEST, "Name a topic or give its id, one of the two."
        )
    call.broker.check_writable()
    if name is not None:
        topic = catalog.topics.get(name)
    else:
        topic = catalog.by_id(topic_id)
    if topic is None:
        raise TopicGone
    if not call.session.may(Operation.DELETE, topic_resource(topic.name)):
        raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Deleting it is not allowed.")
    return topic


# CreatePartitions


async def handle_create_partitions(request: Message, call: Call) -> Message:
    twice = _named_twice(topic.name for topic in request.topics)
    results = []
    for wanted in {topic.name: topic for topic in request.topics}.values():
        result = CreatePartitionsResponse.Topic(name=wanted.name)
        try:
            if wanted.name in twice:
                raise Refused(ErrorCode.INVALID_REQUEST, NAMED_TWICE)
            await _extend(wanted, call, only_check=request.validate_only)
        except Refused as refused:
            result.error_code, result.error_message = refused.code, refused.message
        results.append(result)
    return CreatePartitionsResponse(topics=results)


async def _extend(wanted: Message, call: Call, *, only_check: bool) -> None:
    topic = _to_extend(wanted, call)
    if only_check:
        return
    try:
        await call.broker.catalog.add_partitions(topic, wanted.count)
    except (TopicGone, TopicHasGrown):
        _to_extend(wanted, call)  # says what is wrong with it now


def _to_extend(wanted: Message, call: Call) -> Topic:
    call.broker.check_writable()
    topic = call.broker.catalog.topics.get(wanted.name)
    if topic is None:
        raise Refused(UNKNOWN_TOPIC, NO_TOPIC)
    if not call.session.may(Operation.ALTER, topic_resource(wanted.name)):
        raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Altering it is not allowed.")
    now = len(topic.partitions)
    if wanted.count <= now:
        problem = (
            "has that many already" if wanted.count == now else "never loses partitions"
        )
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"Topic {wanted.name!r} has {now} partitions; it {problem}.",
        )
    if wanted.count > PARTITIONS_MAX:
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"A topic has at most {PARTITIONS_MAX} partitions.",
        )
    if wanted.assignments is not None:
        if len(wanted.assignments) != wanted.count - now:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"{wanted.count - now} partitions are new, but "
                f"{len(wanted.assignments)} are assigned.",
            )
        for one in wanted.assignments:
            _check_assignment(one.broker_ids, call)
    return topic
