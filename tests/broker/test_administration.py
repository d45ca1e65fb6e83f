"""Administration where we differ from Apache Kafka, or where no client gets to."""

from typing import Any

import pytest
from support.core import Client

from streamer.broker.administration import (
    handle_alter_user_scram_credentials,
    handle_describe_client_quotas,
    handle_describe_user_scram_credentials,
    handle_elect_leaders,
    handle_list_partition_reassignments,
)
from streamer.broker.api import Call, Handler
from streamer.broker.core import Broker
from streamer.broker.security import Operation, Principal, Resource, Session
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AlterUserScramCredentialsRequest,
    DescribeClientQuotasRequest,
    DescribeUserScramCredentialsRequest,
    ElectLeadersRequest,
    ListPartitionReassignmentsRequest,
)


def password(name: str, mechanism: int = 1) -> Any:
    return AlterUserScramCredentialsRequest.Upsertion(
        name=name,
        mechanism=mechanism,
        iterations=4096,
        salt=b"salt",
        salted_password=b"hash",
    )


async def test_a_password_is_refused_since_nobody_would_ask_for_it(client: Client) -> None:
    """Apache Kafka keeps it; a login that nobody checks would be worse than none."""
    request = AlterUserScramCredentialsRequest(
        deletions=[AlterUserScramCredentialsRequest.Deletion(name="bob", mechanism=1)],
        upsertions=[password("ann"), password("", 1), password("eve", mechanism=9)],
    )
    answer = await client.ask(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, request)

    results = {one.user: one for one in answer.results}
    assert {name: one.error_code for name, one in results.items()} == {
        "bob": ErrorCode.RESOURCE_NOT_FOUND,
        "ann": ErrorCode.SECURITY_DISABLED,
        "": ErrorCode.UNACCEPTABLE_CREDENTIAL,
        "eve": ErrorCode.UNSUPPORTED_SASL_MECHANISM,
    }
    assert "Nothing has been changed" in results["ann"].error_message


class NothingAllowed:
    def allows(self, principal: Principal, operation: Operation, on: Resource) -> bool:
        return False


def call_of_a_stranger(broker: Broker, version: int) -> Call:
    session = Session("127.0.0.1:5555", 0, authorizer=NothingAllowed())
    return Call(version=version, session=session, client_id="eve", broker=broker)


@pytest.mark.parametrize(
    ("handler", "request_"),
    [
        (handle_elect_leaders, ElectLeadersRequest(topics=None)),
        (handle_list_partition_reassignments, ListPartitionReassignmentsRequest()),
        (handle_describe_client_quotas, DescribeClientQuotasRequest()),
        (handle_describe_user_scram_credentials, DescribeUserScramCredentialsRequest()),
    ],
)
async def test_who_may_not_ask_hears_that_and_nothing_else(
    broker: Broker, handler: Handler, request_: Any
) -> None:
    answer: Any = handler(request_, call_of_a_stranger(broker, 1))

    assert answer.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED


async def test_who_may_not_elect_hears_it_for_each_partition_in_the_oldest_version(
    broker: Broker,
) -> None:
    topic = ElectLeadersRequest.Topic(name="t", partitions=[0])
    answer: Any = handle_elect_leaders(
        ElectLeadersRequest(topics=[topic]), call_of_a_stranger(broker, 0)
    )

    assert answer.error_code == ErrorCode.NONE  # version 0 cannot carry another
    (partition,) = answer.topics[0].partitions
    assert partition.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED


async def test_who_may_not_alter_users_hears_it_for_each(broker: Broker) -> None:
    request = AlterUserScramCredentialsRequest(upsertions=[password("ann")])
    answer: Any = handle_alter_user_scram_credentials(
        request, call_of_a_stranger(broker, 0)
    )

    assert [one.error_code for one in answer.results] == [
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    ]
