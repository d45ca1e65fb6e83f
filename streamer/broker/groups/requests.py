"""JoinGroup, SyncGroup, Heartbeat, LeaveGroup; DescribeGroups, ListGroups, DeleteGroups.

What members and administrators ask is put into the words of `group.py` here, and its
answers into theirs. Before that: may this client name the group, and has the group a name.
"""

from streamer.broker.api import Call, Message
from streamer.broker.groups.group import Group
from streamer.broker.groups.member import Join, Leaver, Protocol, Sync
from streamer.broker.groups.states import State
from streamer.broker.security import CLUSTER, Operation, group as group_resource
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DeleteGroupsResponse,
    DescribeGroupsResponse,
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    ListGroupsResponse,
    SyncGroupResponse,
)

CLASSIC = "classic"
# From here on the versions of the requests have more to say.
JOIN_NEEDS_MEMBER_ID = 4
JOIN_MAY_BE_WITHOUT_PROTOCOL = 7
JOIN_KNOWS_SKIPPING = 9
SYNC_NAMES_PROTOCOL = 5
LEAVE_OF_MANY = 3


def _error(group_id: str, call: Call, operation: Operation) -> ErrorCode:
    """What stands in the way of any request about this group."""
    if not call.session.may(operation, group_resource(group_id)):
        return ErrorCode.GROUP_AUTHORIZATION_FAILED
    if not call.broker.groups.is_available:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    return ErrorCode.NONE


def _member_error(group_id: str, call: Call) -> ErrorCode:
    """The same, for those who are members or want to be."""
    error = _error(group_id, call, Operation.READ)
    return error if error or group_id else ErrorCode.INVALID_GROUP_ID


# JoinGroup


async def handle_join_group(request: Message, call: Call) -> Message:
    groups = call.broker.groups
    error = _member_error(request.group_id, call)
    if not error and not groups.limits.allow_session(request.session_timeout_ms):
        error = ErrorCode.INVALID_SESSION_TIMEOUT
    if error:
        return _join_response(call, error_code=error, member_id=request.member_id)
    joined = await groups.join(request.group_id, _join(request, call))
    return _join_response(
        call,
        error_code=joined.error,
        generation_id=joined.generation,
        protocol_type=joined.protocol_type,
        protocol_name=joined.protocol,
        leader=joined.leader,
        member_id=joined.member_id,
        skip_assignment=joined.skip_assignment,
        members=[
            JoinGroupResponse.Member(
                member_id=one.member_id,
                group_instance_id=one.instance_id,
                metadata=one.metadata,
            )
            for one in joined.members
        ],
    )


def _join(request: Message, call: Call) -> Join:
    rebalance_ms = request.rebalance_timeout_ms
    return Join(
        member_id=request.member_id,
        protocol_type=request.protocol_type,
        protocols=tuple(Protocol(one.name, one.metadata) for one in request.protocols),
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=request.session_timeout_ms
        if rebalance_ms < 0
        else rebalance_ms,
        instance_id=request.group_instance_id,
        client_id=call.client_id,
        # With a slash, as Java prints an address.
        client_host=f"/{call.session.host}",
        reason=request.reason,
        knows_member_ids=call.version >= JOIN_NEEDS_MEMBER_ID,
        knows_skipping=call.version >= JOIN_KNOWS_SKIPPING,
    )


def _join_response(
    call: Call, *, protocol_name: str | None = None, **fields: object
) -> Message:
    if protocol_name is None and call.version < JOIN_MAY_BE_WITHOUT_PROTOCOL:
        protocol_name = ""
    return JoinGroupResponse(protocol_name=protocol_name, **fields)


# SyncGroup


async def handle_sync_group(request: Message, call: Call) -> Message:
    error = _member_error(request.group_id, call)
    unnamed = request.protocol_type is None or request.protocol_name is None
    if not error and unnamed and call.version >= SYNC_NAMES_PROTOCOL:
        error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if error:
        return SyncGroupResponse(error_code=error)
    sync = Sync(
        member_id=request.member_id,
        generation=request.generation_id,
        instance_id=request.group_instance_id,
        protocol_type=request.protocol_type,
        protocol=request.protocol_name,
        assignments={one.member_id: one.assignment for one in request.assignments},
    )
    synced = await call.broker.groups.sync(request.group_id, sync)
    return SyncGroupResponse(
        error_code=synced.error,
        protocol_type=synced.protocol_type,
        protocol_name=synced.protocol,
        assignment=synced.assignment,
    )


# Heartbeat, LeaveGroup


def handle_heartbeat(request: Message, call: Call) -> Message:
    error = _member_error(request.group_id, call)
    return HeartbeatResponse(
        error_code=error
        or call.broker.groups.heartbeat(
            request.group_id,
            request.member_id,
            request.group_instance_id,
            request.generation_id,
        )
    )


def handle_leave_group(request: Message, call: Call) -> Message:
    if error := _member_error(request.group_id, call):
        return LeaveGroupResponse(error_code=error)
    if call.version < LEAVE_OF_MANY:
        leavers = [Leaver(request.member_id)]
        (error,) = call.broker.groups.leave(request.group_id, leavers)
        return LeaveGroupResponse(error_code=error)
    leavers = [
        Leaver(one.member_id, one.group_instance_id, one.reason) for one in request.members
    ]
    errors = call.broker.groups.leave(request.group_id, leavers)
    return LeaveGroupResponse(
        members=[
            LeaveGroupResponse.Member(
                member_id=one.member_id,
                group_instance_id=one.instance_id,
                error_code=error,
            )
            for one, error in zip(leavers, errors, strict=True)
        ]
    )


# DescribeGroups


def handle_describe_groups(request: Message, call: Call) -> Message:
    return DescribeGroupsResponse(
        groups=[_described(group_id, request, call) for group_id in request.groups]
    )


def _described(group_id: str, request: Message, call: Call) -> Message:
    error = _error(group_id, call, Operation.DESCRIBE)
    group = None if error else call.broker.groups.get(group_id)
    if group is None:
        described = DescribeGroupsResponse.Group(error_code=error, group_id=group_id)
        # There is none: in these versions that is a state, and no error.
        described.group_state = "" if error else State.DEAD.value
    else:
        described = _description(group)
    if request.include_authorized_operations and not error:
        resource = group_resource(group_id)
        described.authorized_operations = call.session.allowed_bits(resource)
    return described


def _description(group: Group) -> Message:
    """What members say of themselves is told once all agree on the protocol."""
    protocol = group.protocol if group.state is State.STABLE else None
    return DescribeGroupsResponse.Group(
        group_id=group.group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=protocol or "",
        members=[
            DescribeGroupsResponse.Member(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=b"" if protocol is None else member.metadata(protocol),
                member_assignment=member.assignment,
            )
            for member in group.members.values()
        ],
    )


# ListGroups


def handle_list_groups(request: Message, call: Call) -> Message:
    groups = call.broker.groups
    if not groups.is_available:
        return ListGroupsResponse(error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE)
    may = call.session.may
    sees_all = may(Operation.DESCRIBE, CLUSTER)
    states = {state.lower() for state in request.states_filter}
    types = {type_.lower() for type_ in request.types_filter}
    return ListGroupsResponse(
        groups=[
            ListGroupsResponse.Group(
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state.value,
                group_type=CLASSIC,
            )
            for group in groups
            if (not states or group.state.value.lower() in states)
            and (not types or CLASSIC in types)
            and (sees_all or may(Operation.DESCRIBE, group_resource(group.group_id)))
        ]
    )


# DeleteGroups


async def handle_delete_groups(request: Message, call: Call) -> Message:
    return DeleteGroupsResponse(
        results=[
            DeleteGroupsResponse.Result(
                group_id=group_id,
                error_code=_error(group_id, call, Operation.DELETE)
                or await call.broker.groups.delete(group_id),
            )
            for group_id in request.groups_names
        ]
    )
