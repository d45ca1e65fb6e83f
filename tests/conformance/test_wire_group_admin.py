"""Groups seen from outside, message by message: described, listed, deleted."""

from __future__ import annotations

import pytest
from conformance.conftest import MakeMember
from support.clients import new_name
from support.raw import Wire
from support.raw_groups import describe, new_group, stable_alone, until

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import DeleteGroupsRequest, ListGroupsRequest

# So long that a wait for it shows.
HALF_A_MINUTE = 30_000


@pytest.mark.parametrize("version", range(6))
def test_a_group_is_described(
    wire: Wire, group: str, member: MakeMember, version: int
) -> None:
    assert describe(wire, group, version=version).group_state == "Dead"
    one = stable_alone(member(instance="one"))

    found = describe(wire, group, version=version)
    assert (found.error_code, found.group_state) == (ErrorCode.NONE, "Stable")
    assert (found.protocol_type, found.protocol_data) == ("consumer", "range")
    (described,) = found.members
    assert (described.member_id, described.client_id) == (one.id, "raw")
    assert described.client_host == "/127.0.0.1"
    assert described.member_metadata == one.metadata
    assert described.member_assignment == b"all"
    if version >= 4:
        assert described.group_instance_id == "one"
    one.leave()
    assert describe(wire, group, version=version).group_state == "Empty"


def test_a_rebalance_is_seen(wire: Wire, group: str, member: MakeMember) -> None:
    one, two = stable_alone(member()), member()
    two.ask_to_join()
    two.send_join()
    until(one, ErrorCode.REBALANCE_IN_PROGRESS)

    found = describe(wire, group)
    assert found.group_state == "PreparingRebalance"
    assert found.protocol_data == ""
    assert [each.member_metadata for each in found.members] == [b"", b""]


@pytest.mark.parametrize("version", range(6))
def test_groups_are_listed(
    wire: Wire, group: str, member: MakeMember, version: int
) -> None:
    stable_alone(member())

    (found,) = [
        each
        for each in wire.ask(ListGroupsRequest(), version).groups
        if each.group_id == group
    ]
    assert found.protocol_type == "consumer"
    if version >= 4:
        assert found.group_state == "Stable"
    if version >= 5:
        assert found.group_type == "classic"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], True),
        (["Stable"], True),
        (["stable"], True),
        (["Empty", "Stable"], True),
        (["Empty"], False),
        (["NoSuchState"], False),
    ],
)
def test_groups_are_listed_by_state(
    wire: Wire, group: str, member: MakeMember, states: list[str], expected: bool
) -> None:
    stable_alone(member())

    answer = wire.ask(ListGroupsRequest(states_filter=states), 4)
    assert answer.error_code == ErrorCode.NONE
    assert (group in {each.group_id for each in answer.groups}) is expected


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["classic"], True),
        (["Classic"], True),
        (["consumer"], False),
        (["NoSuchType"], False),
    ],
)
def test_groups_are_listed_by_type(
    wire: Wire, group: str, member: MakeMember, types: list[str], expected: bool
) -> None:
    stable_alone(member())

    answer = wire.ask(ListGroupsRequest(types_filter=types), 5)
    assert answer.error_code == ErrorCode.NONE
    assert (group in {each.group_id for each in answer.groups}) is expected


@pytest.mark.parametrize("version", range(3))
def test_groups_are_deleted_each_for_itself(
    wire: Wire, group: str, member: MakeMember, version: int
) -> None:
    at_work, unknown = new_group(wire), new_name("group")
    stable_alone(member(group=at_work))
    stable_alone(member()).leave()

    names = [group, at_work, unknown]
    answer = wire.ask(DeleteGroupsRequest(groups_names=names), version)
    assert {each.group_id: each.error_code for each in answer.results} == {
        group: ErrorCode.NONE,
        at_work: ErrorCode.NON_EMPTY_GROUP,
        unknown: ErrorCode.GROUP_ID_NOT_FOUND,
    }
    assert describe(wire, group).group_state == "Dead"
