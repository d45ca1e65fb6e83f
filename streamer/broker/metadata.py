"""Metadata: which topics there are, and who leads their partitions.

A client's first real question. A topic that does not exist is created here if both
the client and `auto.create.topics.enable` allow it; the answer then already shows it.
"""

from streamer.broker import topics
from streamer.broker.api import Answer, Call, Message
from streamer.broker.catalog import Topic, invalid_name
from streamer.broker.security import CLUSTER, Operation, topic as topic_resource
from streamer.log.errors import Refused
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import MetadataResponse

# Versions 10 and 11 have the field for it, but do not look a topic up by its id yet.
BY_ID_SINCE = 12


def handle_metadata(request: Message, call: Call) -> Answer:
    """Describe the topics asked for; some may have to be created first."""
    asked = request.topics
    if asked is None or (call.version == 0 and not asked):
        return _respond(
            request, call, [_found(topic, request, call) for topic in _all(call)]
        )
    if any(_to_be_created(one, request, call) for one in asked):
        return _create_and_respond(request, call)
    return _respond(request, call, [_look_up(one, request, call) for one in _once(asked)])


def _once(asked: list[Message]) -> list[Message]:
    """Each topic once: a small request must not ask for a large answer."""
    return list({(one.name, one.topic_id): one for one in asked}.values())


async def _create_and_respond(request: Message, call: Call) -> Message:
    described = []
    for one in _once(request.topics):
        if _to_be_created(one, request, call):
            try:
                await topics.create_by_default(one.name, call)
            except Refused as refused:
                described.append(_missing(one, refused.code, call))
                continue
        described.append(_look_up(one, request, call))
    return _respond(request, call, described)


def _to_be_created(asked: Message, request: Message, call: Call) -> bool:
    return (
        asked.name is not None
        and asked.name not in call.broker.catalog.topics
        and request.allow_auto_topic_creation
        and call.broker.config.flag("auto.create.topics.enable")
        and call.session.may(Operation.CREATE, topic_resource(asked.name))
    )


def _all(call: Call) -> list[Topic]:
    may = call.session.may
    return [
        topic
        for topic in call.broker.catalog.topics.values()
        if may(Operation.DESCRIBE, topic_resource(topic.name))
    ]


def _look_up(asked: Message, request: Message, call: Call) -> Message:
    catalog = call.broker.catalog
    if asked.name is None and call.version < BY_ID_SINCE:
        return _missing(asked, ErrorCode.INVALID_REQUEST, call)
    if asked.name is None:
        topic = catalog.by_id(asked.topic_id)
        missing = ErrorCode.UNKNOWN_TOPIC_ID
    elif invalid_name(asked.name):
        return _missing(asked, ErrorCode.INVALID_TOPIC_EXCEPTION, call)
    else:
        topic = catalog.topics.get(asked.name)
        missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if topic is None:
        return _missing(asked, missing, call)
    if not call.session.may(Operation.DESCRIBE, topic_resource(topic.name)):
        return _missing(asked, ErrorCode.TOPIC_AUTHORIZATION_FAILED, call)
    return _found(topic, request, call)


def _missing(asked: Message, code: ErrorCode, call: Call) -> Message:
    return MetadataResponse.Topic(
        # Only later versions can say that a topic has no name here.
        error_code=code,
        name="" if asked.name is None and call.version < BY_ID_SINCE else asked.name,
        topic_id=asked.topic_id,
    )


def _found(topic: Topic, request: Message, call: Call) -> Message:
    node = [call.broker.node_id]
    described = MetadataResponse.Topic(
        name=topic.name,
        topic_id=topic.id,
        is_internal=topic.is_internal,
        partitions=[
            MetadataResponse.Partition(
                index=partition.index,
                leader_id=node[0],
                leader_epoch=partition.leader_epoch,
                replica_nodes=node,
                isr_nodes=node,
            )
            for partition in topic.partitions
        ],
    )
    if request.include_topic_authorized_operations:
        described.authorized_operations = call.session.allowed_bits(
            topic_resource(topic.name)
        )
    return described


def _respond(request: Message, call: Call, described: list[Message]) -> Message:
    broker = call.broker
    address = broker.advertised(call.session)
    response = MetadataResponse(
        brokers=[
            MetadataResponse.Broker(
                node_id=broker.node_id, host=address.host, port=address.port
            )
        ],
        cluster_id=broker.cluster_id,
        controller_id=broker.node_id,
        topics=described,
    )
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = call.session.allowed_bits(CLUSTER)
    return response
