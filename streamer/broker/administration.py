"""What many nodes have and one open node has not: elections, moves, quotas, rules, users.

Administrators' tools ask for these on their way to something else, so each question gets
the answer of Apache Kafka on one node without an authorizer: every partition is led by
its only replica, none is moving, nobody has a quota or a password, and access rules are
switched off. Passwords are the one thing that Kafka would keep and this broker does not:
it says so, rather than let somebody believe in a login that nobody checks.
"""

from collections import Counter
from collections.abc import Iterable

from streamer.broker.api import Call, Message
from streamer.broker.security import CLUSTER, Operation
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AlterUserScramCredentialsResponse,
    CreateAclsResponse,
    DeleteAclsResponse,
    DescribeAclsResponse,
    DescribeClientQuotasResponse,
    DescribeUserScramCredentialsResponse,
    ElectLeadersResponse,
    ListPartitionReassignmentsResponse,
)

PREFERRED, UNCLEAN = 0, 1
USER, CLIENT_ID, IP = "user", "client-id", "ip"
MATCHES = {0: "EXACT", 1: "DEFAULT", 2: "SPECIFIED"}
SCRAM_SHA_256, SCRAM_SHA_512 = 1, 2


# Leaders and replicas


def handle_elect_leaders(request: Message, call: Call) -> Message:
    refused = _why_no_election(request, call)
    if refused is not None:
        code, message = refused
        return ElectLeadersResponse(
            # Version 0 has no place for an error of the whole.
            error_code=code if call.version >= 1 else ErrorCode.NONE,
            topics=[
                ElectLeadersResponse.Topic(
                    name=topic.name,
                    partitions=[_elected(i, code, message) for i in topic.partitions],
                )
                for topic in request.topics or ()
            ],
        )
    if request.topics is None:
        # All partitions: those that need no election are not told of.
        topics = [
            ElectLeadersResponse.Topic(name=name) for name in call.broker.catalog.topics
        ]
        return ElectLeadersResponse(topics=topics)
    return ElectLeadersResponse(
        topics=[
            ElectLeadersResponse.Topic(
                name=topic.name,
                partitions=[_elect(topic.name, i, call) for i in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _why_no_election(request: Message, call: Call) -> tuple[ErrorCode, str | None] | None:
    if not call.session.may(Operation.ALTER, CLUSTER):
        return ErrorCode.CLUSTER_AUTHORIZATION_FAILED, None
    if request.election_type not in (PREFERRED, UNCLEAN):
        kind = f"Unknown election type {request.election_type}"
        return ErrorCode.INVALID_REQUEST, kind
    return None


def _elect(topic: str, index: int, call: Call) -> Message:
    catalog = call.broker.catalog
    if topic not in catalog.topics:
        unknown = f"No such topic as {topic}"
        return _elected(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, unknown)
    if catalog.partition(topic, index) is None:
        unknown = f"No such partition as {topic}-{index}"
        return _elected(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, unknown)
    needless = "Leader election not needed for topic partition."
    return _elected(index, ErrorCode.ELECTION_NOT_NEEDED, needless)


def _elected(index: int, code: ErrorCode, message: str | None) -> Message:
    return ElectLeadersResponse.Partition(
        index=index, error_code=code, error_message=message
    )


def handle_list_partition_reassignments(request: Message, call: Call) -> Message:
    if not call.session.may(Operation.DESCRIBE, CLUSTER):
        return ListPartitionReassignmentsResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        )
    return ListPartitionReassignmentsResponse()


# Quotas


def handle_describe_client_quotas(request: Message, call: Call) -> Message:
    refused = _why_no_quotas(request.components, call)
    if refused is not None:
        code, message = refused
        return DescribeClientQuotasResponse(
            error_code=code, error_message=message, entries=None
        )
    return DescribeClientQuotasResponse(error_message="")


def _why_no_quotas(
    components: Iterable[Message], call: Call
) -> tuple[ErrorCode, str | None] | None:
    if not call.session.may(Operation.DESCRIBE_CONFIGS, CLUSTER):
        return ErrorCode.CLUSTER_AUTHORIZATION_FAILED, None
    seen: set[str] = set()
    for component in components:
        kind = component.entity_type
        if not kind:
            return ErrorCode.INVALID_REQUEST, "Invalid empty entity type."
        if kind in seen:
            twice = f"Entity type {kind} cannot appear more than once in the filter."
            return ErrorCode.INVALID_REQUEST, twice
        if kind not in (USER, CLIENT_ID, IP):
            return ErrorCode.UNSUPPORTED_VERSION, f"Unsupported entity type {kind}"
        seen.add(kind)
        problem = _problem_of_match(component)
        if problem is not None:
            return ErrorCode.INVALID_REQUEST, problem
    if IP in seen and len(seen) > 1:
        return ErrorCode.INVALID_REQUEST, (
            "Invalid entity filter component combination. An ip component cannot stand "
            "beside one of user or client-id."
        )
    return None


def _problem_of_match(component: Message) -> str | None:
    kind = MATCHES.get(component.match_type)
    if kind is None:
        return f"Unknown match type {component.match_type}"
    if kind == "EXACT" and component.match is None:
        return "Request specified MATCH_TYPE_EXACT, but set match string to null."
    if kind != "EXACT" and component.match is not None:
        return f"Request specified MATCH_TYPE_{kind}, but also specified a match string."
    return None


# Access rules


def handle_describe_acls(request: Message, call: Call) -> Message:
    return DescribeAclsResponse(
        error_code=ErrorCode.SECURITY_DISABLED,
        error_message="No Authorizer is configured on the broker",
    )


def handle_create_acls(request: Message, call: Call) -> Message:
    return CreateAclsResponse(
        results=[
            CreateAclsResponse.Result(
                error_code=ErrorCode.SECURITY_DISABLED,
                error_message="No Authorizer is configured.",
            )
            for _ in request.creations
        ]
    )


def handle_delete_acls(request: Message, call: Call) -> Message:
    return DeleteAclsResponse(
        filter_results=[
            DeleteAclsResponse.FilterResult(
                error_code=ErrorCode.SECURITY_DISABLED,
                error_message="No Authorizer is configured.",
            )
            for _ in request.filters
        ]
    )


# Users


def handle_describe_user_scram_credentials(request: Message, call: Call) -> Message:
    if not call.session.may(Operation.DESCRIBE, CLUSTER):
        return DescribeUserScramCredentialsResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        )
    asked = Counter(user.name for user in request.users or ())
    return DescribeUserScramCredentialsResponse(
        error_message="",
        results=[_unknown_user(name, times) for name, times in asked.items()],
    )


def _unknown_user(name: str, times: int) -> Message:
    code = ErrorCode.RESOURCE_NOT_FOUND
    message = f"Attempt to describe a user credential that does not exist: {name}"
    if times > 1:
        code = ErrorCode.DUPLICATE_RESOURCE
        message = (
            "Cannot describe SCRAM credentials for the same user twice in a single "
            f"request: {name}"
        )
    return DescribeUserScramCredentialsResponse.Result(
        user=name, error_code=code, error_message=message
    )


def handle_alter_user_scram_credentials(request: Message, call: Call) -> Message:
    """One result a user: none can be deleted, and none is kept."""
    results = {one.name: _not_deleted(one) for one in request.deletions}
    results |= {one.name: _not_kept(one) for one in request.upsertions}
    if not call.session.may(Operation.ALTER, CLUSTER):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        results = {name: _altered(name, code, None) for name in results}
    return AlterUserScramCredentialsResponse(results=list(results.values()))


def _not_deleted(deletion: Message) -> Message:
    problem = _problem_of_user(deletion)
    if problem is None:
        problem = (
            ErrorCode.RESOURCE_NOT_FOUND,
            "Attempt to delete a user credential that does not exist",
        )
    return _altered(deletion.name, *problem)


def _not_kept(upsertion: Message) -> Message:
    problem = _problem_of_user(upsertion)
    if problem is None:
        problem = (
            ErrorCode.SECURITY_DISABLED,
            "This broker has no users: everybody who connects may do everything. "
            "Nothing has been changed.",
        )
    return _altered(upsertion.name, *problem)


def _problem_of_user(change: Message) -> tuple[ErrorCode, str] | None:
    if not change.name:
        return ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"
    if change.mechanism not in (SCRAM_SHA_256, SCRAM_SHA_512):
        return ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"
    return None


def _altered(name: str, code: ErrorCode, message: str | None) -> Message:
    return AlterUserScramCredentialsResponse.Result(
        user=name, error_code=code, error_message=message
    )
