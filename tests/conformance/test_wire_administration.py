"""Elections, moves, quotas, access rules and users: what one open node says of them."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.conftest import MakeTopic
from support.clients import new_name
from support.raw import Wire, until_known

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AlterUserScramCredentialsRequest,
    CreateAclsRequest,
    DeleteAclsRequest,
    DescribeAclsRequest,
    DescribeClientQuotasRequest,
    DescribeUserScramCredentialsRequest,
    ElectLeadersRequest,
    ListPartitionReassignmentsRequest,
)

Component = DescribeClientQuotasRequest.Component
EXACT, DEFAULT, ANY = 0, 1, 2
TOPIC, ANY_PATTERN, LITERAL, READ, ALLOW = 2, 1, 3, 3, 3
NO_AUTHORIZER = "No Authorizer is configured"


def elect(
    wire: Wire, *wanted: tuple[str, list[int]], version: int = 2, kind: int = 0
) -> Any:
    topics = [
        ElectLeadersRequest.Topic(name=name, partitions=indexes) for name, indexes in wanted
    ]
    return wire.ask(ElectLeadersRequest(topics=topics, election_type=kind), version)


def outcomes(answer: Any) -> list[tuple[str, int, int, str]]:
    return [
        (topic.name, one.index, one.error_code, one.error_message)
        for topic in answer.topics
        for one in topic.partitions
    ]


@pytest.mark.parametrize("version", range(3))
def test_no_partition_needs_an_election(
    wire: Wire, make_topic: MakeTopic, version: int
) -> None:
    name, unknown = make_topic(partitions=2), new_name()
    until_known(wire, name)

    answer = elect(wire, (name, [0, 1, 7]), (unknown, [0]), version=version)

    needless = "Leader election not needed for topic partition."
    nowhere = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert answer.error_code == ErrorCode.NONE
    assert outcomes(answer) == [
        (name, 0, ErrorCode.ELECTION_NOT_NEEDED, needless),
        (name, 1, ErrorCode.ELECTION_NOT_NEEDED, needless),
        (name, 7, nowhere, f"No such partition as {name}-7"),
        (unknown, 0, nowhere, f"No such topic as {unknown}"),
    ]


def test_an_election_may_be_unclean_but_not_of_a_kind_nobody_knows(
    wire: Wire, log: str
) -> None:
    (unclean,) = outcomes(elect(wire, (log, [0]), kind=1))
    assert unclean[2] == ErrorCode.ELECTION_NOT_NEEDED

    answer = elect(wire, (log, [0]), kind=7)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert outcomes(answer) == [
        (log, 0, ErrorCode.INVALID_REQUEST, "Unknown election type 7")
    ]


@pytest.mark.parametrize("version", range(3))
def test_of_all_partitions_only_those_with_a_new_leader_are_told(
    wire: Wire, log: str, version: int
) -> None:
    answer = wire.ask(ElectLeadersRequest(topics=None), version)

    assert answer.error_code == ErrorCode.NONE
    assert log in {topic.name for topic in answer.topics}
    assert outcomes(answer) == []


def test_nothing_is_moving(wire: Wire, log: str) -> None:
    request = ListPartitionReassignmentsRequest
    named = request.Topic(name=log, partition_indexes=[0, 9])
    unknown = request.Topic(name=new_name(), partition_indexes=[0])

    for topics in (None, [], [named, unknown]):
        answer = wire.ask(request(topics=topics), 0)
        assert (answer.error_code, answer.topics) == (ErrorCode.NONE, [])


@pytest.mark.parametrize("version", range(2))
def test_nobody_has_a_quota(wire: Wire, version: int) -> None:
    named = Component(entity_type="client-id", match_type=EXACT, match="till")
    default = Component(entity_type="user", match_type=DEFAULT)
    for components in (
        [],
        [named],
        [named, default],
        [Component(entity_type="ip", match_type=ANY)],
    ):
        request = DescribeClientQuotasRequest(components=components, strict=True)
        answer = wire.ask(request, version)
        assert (answer.error_code, answer.entries) == (ErrorCode.NONE, [])


@pytest.mark.parametrize(
    ("components", "code", "message"),
    [
        (
            [("shoe", ANY, None)],
            ErrorCode.UNSUPPORTED_VERSION,
            "Unsupported entity type shoe",
        ),
        ([("", ANY, None)], ErrorCode.INVALID_REQUEST, "Invalid empty entity type."),
        ([("user", 9, None)], ErrorCode.INVALID_REQUEST, "Unknown match type 9"),
        ([("user", EXACT, None)], ErrorCode.INVALID_REQUEST, "set match string to null"),
        (
            [("user", DEFAULT, "a")],
            ErrorCode.INVALID_REQUEST,
            "MATCH_TYPE_DEFAULT, but also",
        ),
        ([("user", ANY, "a")], ErrorCode.INVALID_REQUEST, "MATCH_TYPE_SPECIFIED, but also"),
        (
            [("user", ANY, None), ("user", DEFAULT, None)],
            ErrorCode.INVALID_REQUEST,
            "Entity type user cannot appear more than once",
        ),
        (
            [("ip", ANY, None), ("user", ANY, None)],
            ErrorCode.INVALID_REQUEST,
            "Invalid entity filter component combination",
        ),
    ],
)
def test_a_question_about_quotas_without_sense_is_refused(
    wire: Wire, components: list[tuple[str, int, str | None]], code: int, message: str
) -> None:
    asked = [
        Component(entity_type=kind, match_type=how, match=match)
        for kind, how, match in components
    ]
    answer = wire.ask(DescribeClientQuotasRequest(components=asked), 1)

    assert (answer.error_code, answer.entries) == (code, None)
    assert message in answer.error_message


@pytest.mark.parametrize("version", range(1, 4))
def test_access_rules_are_switched_off(wire: Wire, version: int) -> None:
    described = wire.ask(
        DescribeAclsRequest(
            resource_type_filter=TOPIC,
            pattern_type_filter=ANY_PATTERN if version > 1 else LITERAL,
            operation=READ,
            permission_type=ALLOW,
        ),
        version,
    )
    assert described.error_code == ErrorCode.SECURITY_DISABLED
    assert NO_AUTHORIZER in described.error_message
    assert described.resources == []

    rule = CreateAclsRequest.Creation(
        resource_type=TOPIC,
        resource_name="orders",
        principal="User:ann",
        host="*",
        operation=READ,
        permission_type=ALLOW,
    )
    created = wire.ask(CreateAclsRequest(creations=[rule, rule]), version)
    matching = DeleteAclsRequest.Filter(
        resource_type_filter=TOPIC, operation=READ, permission_type=ALLOW
    )
    deleted = wire.ask(DeleteAclsRequest(filters=[matching, matching]), version)
    for results in (created.results, deleted.filter_results):
        assert [(one.error_code, one.error_message) for one in results] == [
            (ErrorCode.SECURITY_DISABLED, f"{NO_AUTHORIZER}.")
        ] * 2


def describe_users(wire: Wire, *names: str) -> dict[str, tuple[int, str]]:
    users = [DescribeUserScramCredentialsRequest.User(name=name) for name in names]
    answer = wire.ask(DescribeUserScramCredentialsRequest(users=users), 0)
    assert answer.error_code == ErrorCode.NONE
    return {one.user: (one.error_code, one.error_message) for one in answer.results}


def test_there_are_no_users(wire: Wire) -> None:
    everybody = wire.ask(DescribeUserScramCredentialsRequest(users=None), 0)
    assert (everybody.error_code, everybody.results) == (ErrorCode.NONE, [])

    missing = "Attempt to describe a user credential that does not exist: "
    twice = (
        "Cannot describe SCRAM credentials for the same user twice in a single request: "
    )
    assert describe_users(wire, "ann", "bob", "ann") == {
        "ann": (ErrorCode.DUPLICATE_RESOURCE, f"{twice}ann"),
        "bob": (ErrorCode.RESOURCE_NOT_FOUND, f"{missing}bob"),
    }


@pytest.mark.parametrize(
    ("name", "mechanism", "code", "message"),
    [
        (
            "ann",
            1,
            ErrorCode.RESOURCE_NOT_FOUND,
            "Attempt to delete a user credential that",
        ),
        ("ann", 0, ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"),
        ("ann", 9, ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"),
        ("", 1, ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"),
    ],
)
def test_a_password_that_is_not_there_cannot_be_deleted(
    wire: Wire, name: str, mechanism: int, code: int, message: str
) -> None:
    gone = AlterUserScramCredentialsRequest.Deletion(name=name, mechanism=mechanism)
    answer = wire.ask(AlterUserScramCredentialsRequest(deletions=[gone, gone]), 0)

    (result,) = answer.results
    assert (result.user, result.error_code) == (name, code)
    assert message in result.error_message
