"""What the broker says of itself: ApiVersions, DescribeCluster, FindCoordinator, log dirs.

There is one node, so whoever asks for a controller, a leader or a coordinator is
sent to it.
"""

import re

from streamer.broker.api import Api, Call, Message
from streamer.broker.security import CLUSTER, Operation
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    ApiVersionsResponse,
    DescribeClusterResponse,
    DescribeLogDirsResponse,
    FindCoordinatorResponse,
)

SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
GROUP = 0
BROKERS = 1


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
    broker = call.broker
    address = broker.advertised(call.session)
    place = {"node_id": broker.node_id, "host": address.host, "port": address.port}
    if request.key_type != GROUP:
        place = {"node_id": -1, "host": "", "port": -1}
        error = {
            "error_code": ErrorCode.INVALID_REQUEST,
            "error_message": "This broker serves no transactions.",
        }
    else:
        error = {"error_code": ErrorCode.NONE, "error_message": None}
    if call.version < 4:
        return FindCoordinatorResponse(**place, **error)
    return FindCoordinatorResponse(
        coordinators=[
            FindCoordinatorResponse.Coordinator(key=key, **place, **error)
            for key in request.coordinator_keys
        ]
    )


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
