"""What the broker says of itself: ApiVersions, DescribeCluster, FindCoordinator, log dirs.

There is one node, so whoever asks for a controller, a leader or a coordinator is
sent to it.
"""

import re
from typing import Any

from streamer.broker.api import Api, Call, Message
from streamer.broker.security import CLUSTER, Operation, group, transactional_id
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    ApiVersionsResponse,
    DescribeClusterResponse,
    DescribeLogDirsResponse,
    FindCoordinatorResponse,
)

SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
BROKERS = 1

# What has a coordinator, by the type of its key; and who may not ask for it is told what.
COORDINATED = {
    0: (group, ErrorCode.GROUP_AUTHORIZATION_FAILED),
    1: (transactional_id, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
}


def handle_api_versions(request: Message, call: Call) -> Message:
    if call.version >= 3:
        name, version = request.client_software_name, request.client_software_version
        if not (SOFTWARE.fullmatch(name) and SOFTWARE.fullmatch(version)):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        call.session.software = f"{name} {version}"
    return ApiVersionsResponse(api_keys=[_advertised(api) for api in call.broker.table])


def unsupported_api_versions(api: Api) -> Message:
    """The answer to a version of ApiVersions that we do not know."""
    return ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=[_advertised(api)]
    )


def _advertised(api: Api) -> Message:
    lowest = api.lowest if api.advertised_lowest is None else api.advertised_lowest
    return ApiVersionsResponse.Api(
        api_key=api.key, min_version=lowest, max_version=api.highest
    )


def handle_describe_cluster(request: Message, call: Call) -> Message:
    broker, session = call.broker, call.session
    if request.endpoint_type != BROKERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="This is a broker; it has no controller listener.",
            endpoint_type=request.endpoint_type,
        )
    address = broker.advertised(session)
    response = DescribeClusterResponse(
        cluster_id=broker.cluster_id,
        controller_id=broker.node_id,
        brokers=[
            DescribeClusterResponse.Broker(
                broker_id=broker.node_id, host=address.host, port=address.port
            )
        ],
    )
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = session.allowed_bits(CLUSTER)
    return response


def handle_find_coordinator(request: Message, call: Call) -> Message:
    if call.version < 4:
        return FindCoordinatorResponse(**_coordinator(request.key_type, request.key, call))
    return FindCoordinatorResponse(
        coordinators=[
            FindCoordinatorResponse.Coordinator(
                key=key, **_coordinator(request.key_type, key, call)
            )
            for key in request.coordinator_keys
        ]
    )


def _coordinator(key_type: int, key: str, call: Call) -> dict[str, Any]:
    """Where to find who looks after `key`: here, if anywhere."""
    if key_type not in COORDINATED:
        return _no_coordinator(ErrorCode.INVALID_REQUEST, "Nobody coordinates that here.")
    resource, unauthorized = COORDINATED[key_type]
    if not call.session.may(Operation.DESCRIBE, resource(key)):
        return _no_coordinator(unauthorized, "You may not ask for it.")
    address = call.broker.advertised(call.session)
    return {
        "node_id": call.broker.node_id,
        "host": address.host,
        "port": address.port,
        "error_code": ErrorCode.NONE,
        "error_message": None,
    }


def _no_coordinator(code: ErrorCode, why: str) -> dict[str, Any]:
    nowhere = {"node_id": -1, "host": "", "port": -1}
    return {**nowhere, "error_code": code, "error_message": why}


def handle_describe_log_dirs(request: Message, call: Call) -> Message:
    """How much each partition takes, and what is left of the disk."""
    broker = call.broker
    if not call.session.may(Operation.DESCRIBE, CLUSTER):
        return DescribeLogDirsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    wanted = (
        None
        if request.topics is None
        else {t.name: set(t.partitions) for t in request.topics}
    )
    topics = []
    for topic in broker.catalog.topics.values():
        if wanted is not None and topic.name not in wanted:
            continue
        topics.append(
            DescribeLogDirsResponse.Topic(
                name=topic.name,
                partitions=[
                    DescribeLogDirsResponse.Partition(index=one.index, size=one.size)
                    for one in topic.partitions
                    if wanted is None or one.index in wanted[topic.name]
                ],
            )
        )
    described = DescribeLogDirsResponse.LogDir(
        path=str(broker.directory.path), topics=topics
    )
    try:
        space = broker.directory.space()
        described.total_bytes, described.usable_bytes = space.total, space.free
    except OSError:
        described.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    if broker.offline:
        described.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    return DescribeLogDirsResponse(log_dirs=[described])
