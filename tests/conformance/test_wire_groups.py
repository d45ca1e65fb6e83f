"""Groups message by message: the handshake, every refusal, every wait.

The codes by their numbers in the protocol: 22 ILLEGAL_GENERATION, 23
INCONSISTENT_GROUP_PROTOCOL, 24 INVALID_GROUP_ID, 25 UNKNOWN_MEMBER_ID, 26
INVALID_SESSION_TIMEOUT, 27 REBALANCE_IN_PROGRESS, 79 MEMBER_ID_REQUIRED, 81
GROUP_MAX_SIZE_REACHED, 82 FENCED_INSTANCE_ID.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from conformance.conftest import MakeMember
from support.raw import Wire
from support.raw_groups import (
    RawMember,
    describe,
    new_group,
    stable_alone,
    stable_pair,
    subscription,
    until,
)

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    LeaveGroupRequest,
)

# So long that a wait for it shows.
HALF_A_MINUTE = 30_000

# `group.max.size`, which the brokers of tests are given.
GROUP_MAX_SIZE = 20


# Joining


@pytest.mark.parametrize("version", range(4, 10))
def test_a_member_without_an_id_is_given_one_to_come_back_with(
    member: MakeMember, version: int
) -> None:
    one = member()

    answer = one.ask_to_join(version=version)
    assert answer.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert answer.member_id.startswith("raw-"), "the client's id, then something unique"
    assert (answer.generation_id, answer.leader, answer.members) == (-1, "", [])

    again = one.ask_to_join(version=version)
    assert (again.error_code, again.member_id) == (ErrorCode.NONE, answer.member_id)


@pytest.mark.parametrize("version", range(4))
def test_old_clients_join_without_asking_for_an_id(
    member: MakeMember, version: int
) -> None:
    one = member()
    answer = one.ask_to_join(version=version)

    assert answer.error_code == ErrorCode.NONE
    assert (answer.member_id, answer.generation_id) == (one.id, 1)
    assert one.id.startswith("raw-")


@pytest.mark.parametrize("version", range(5, 10))
def test_a_static_member_joins_at_once(member: MakeMember, version: int) -> None:
    one = member(instance="one")
    answer = one.ask_to_join(version=version)

    assert answer.error_code == ErrorCode.NONE
    assert one.id.startswith("one-")
    assert [each.group_instance_id for each in answer.members] == ["one"]


@pytest.mark.parametrize("version", range(10))
def test_the_leader_is_told_what_everyone_wants(member: MakeMember, version: int) -> None:
    one = member(protocols=["sticky", "range"])
    answer = one.join(version=version)

    assert answer.error_code == ErrorCode.NONE
    assert answer.leader == answer.member_id == one.id
    assert (answer.generation_id, answer.protocol_name) == (1, "sticky")
    if version >= 7:
        assert answer.protocol_type == "consumer"
    if version >= 9:
        assert answer.skip_assignment is False
    (told,) = answer.members
    assert (told.member_id, told.metadata) == (one.id, one.metadata)


def test_a_follower_is_told_who_leads_and_nothing_more(member: MakeMember) -> None:
    leader, follower = member(), member()
    stable_alone(leader)
    follower.ask_to_join()
    follower.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)

    to_leader, to_follower = leader.ask_to_join(), follower.joined()
    assert {to_leader.leader, to_follower.leader} == {leader.id}
    assert (to_leader.generation_id, to_follower.generation_id) == (2, 2)
    assert to_follower.members == []
    assert {each.member_id for each in to_leader.members} == {leader.id, follower.id}


def test_the_protocol_that_most_prefer_among_those_all_know_is_taken(
    member: MakeMember,
) -> None:
    one = member(protocols=["sticky", "range", "roundrobin"])
    two = member(protocols=["roundrobin", "range"])
    three = member(protocols=["roundrobin", "range"])
    stable_alone(one)
    for each in (two, three):
        each.ask_to_join()
        each.send_join()
    until(one, ErrorCode.REBALANCE_IN_PROGRESS)
    wait_for_members(one, 3)
    one.send_join()

    answers = [each.joined() for each in (one, two, three)]
    assert [answer.protocol_name for answer in answers] == ["roundrobin"] * 3


def wait_for_members(one: RawMember, count: int) -> None:
    """Until the broker has seen that many of the group."""
    deadline = time.monotonic() + 10
    while len(describe(one.wire, one.group).members) < count:
        assert time.monotonic() < deadline, "they never came"


def test_who_shares_no_protocol_with_the_others_is_refused(member: MakeMember) -> None:
    stable_alone(member(protocols=["range"]))

    for wishes in ({"protocols": ["sticky"]}, {"protocol_type": "connect"}):
        answer = member(**wishes).ask_to_join()
        assert answer.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


@pytest.mark.parametrize("wishes", [{"protocols": []}, {"protocol_type": ""}])
def test_who_names_no_protocol_is_refused(
    member: MakeMember, wishes: dict[str, Any]
) -> None:
    code = member(**wishes).ask_to_join().error_code

    assert code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_group_needs_a_name(member: MakeMember) -> None:
    one = member(group="")

    assert one.ask_to_join().error_code == ErrorCode.INVALID_GROUP_ID
    one.id, one.generation = "somebody", 1
    assert one.heartbeat() == ErrorCode.INVALID_GROUP_ID
    assert one.sync().error_code == ErrorCode.INVALID_GROUP_ID
    assert one.leave().error_code == ErrorCode.INVALID_GROUP_ID


@pytest.mark.parametrize("session_ms", [0, -1, 1, 1_800_001])
def test_a_session_too_short_or_too_long_is_refused(
    member: MakeMember, session_ms: int
) -> None:
    code = member(session_ms=session_ms).ask_to_join().error_code

    assert code == ErrorCode.INVALID_SESSION_TIMEOUT


def test_an_id_that_was_never_given_out_is_refused(member: MakeMember) -> None:
    stranger = member()
    stranger.id = "raw-made-up"
    assert stranger.ask_to_join().error_code == ErrorCode.UNKNOWN_MEMBER_ID

    stable_alone(member())
    assert stranger.ask_to_join().error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_full_group_takes_nobody_else(member: MakeMember) -> None:
    leader = stable_alone(member())
    others = [member() for _ in range(GROUP_MAX_SIZE - 1)]
    for each in others:
        each.ask_to_join()
        each.send_join()
    wait_for_members(leader, GROUP_MAX_SIZE)
    assert len(leader.ask_to_join().members) == GROUP_MAX_SIZE

    code = member().ask_to_join().error_code
    assert code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert {each.joined().error_code for each in others} == {ErrorCode.NONE}


# Joining again


def test_a_follower_that_changes_nothing_is_answered_at_once(member: MakeMember) -> None:
    leader, follower = stable_pair(member(), member())

    answer = follower.ask_to_join()
    assert (answer.error_code, answer.generation_id) == (ErrorCode.NONE, 2)
    assert leader.heartbeat() == ErrorCode.NONE


def test_a_follower_that_wants_something_else_starts_a_rebalance(
    member: MakeMember,
) -> None:
    leader, follower = stable_pair(member(), member())

    follower.metadata = subscription("other")
    follower.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    told = leader.ask_to_join()
    assert follower.joined().generation_id == 3
    assert subscription("other") in {each.metadata for each in told.members}


def test_a_leader_that_joins_again_starts_a_rebalance(member: MakeMember) -> None:
    leader, follower = stable_pair(member(), member())

    leader.send_join()
    until(follower, ErrorCode.REBALANCE_IN_PROGRESS)
    assert follower.ask_to_join().generation_id == 3
    assert leader.joined().generation_id == 3


def test_who_joins_while_others_sync_starts_another_rebalance(member: MakeMember) -> None:
    one, two = member(), member()
    one.join()
    two.ask_to_join()
    two.send_join()
    until(one, ErrorCode.REBALANCE_IN_PROGRESS)

    assert one.sync({one.id: b"all"}).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert one.ask_to_join().generation_id == 2
    assert two.joined().generation_id == 2


def test_who_does_not_join_again_in_time_is_dropped(member: MakeMember) -> None:
    slow, quick = member(rebalance_ms=400), member(rebalance_ms=400)
    stable_alone(slow)
    quick.ask_to_join()
    started = time.monotonic()

    answer = quick.ask_to_join()
    assert time.monotonic() - started > 0.3
    assert [each.member_id for each in answer.members] == [quick.id]
    assert slow.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_never_syncs_is_dropped(member: MakeMember) -> None:
    leader, follower = member(rebalance_ms=400), member(rebalance_ms=400)
    stable_alone(leader)
    follower.ask_to_join()
    follower.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    leader.ask_to_join()
    follower.joined()

    leader.sync({leader.id: b"one", follower.id: b"other"})
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    assert follower.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert len(leader.ask_to_join().members) == 1


def test_an_id_that_is_not_used_in_time_is_forgotten(member: MakeMember) -> None:
    one = member(session_ms=300)
    assert one.ask_to_join().error_code == ErrorCode.MEMBER_ID_REQUIRED
    time.sleep(0.6)

    assert one.ask_to_join().error_code == ErrorCode.UNKNOWN_MEMBER_ID


# Syncing


@pytest.mark.parametrize("version", range(6))
def test_each_gets_the_bytes_the_leader_meant_for_it(
    member: MakeMember, version: int
) -> None:
    one = member()
    one.join()
    answer = one.sync({one.id: b"\0\1anything", "nobody": b"lost"}, version=version)

    assert (answer.error_code, answer.assignment) == (ErrorCode.NONE, b"\0\1anything")
    if version >= 5:
        assert (answer.protocol_type, answer.protocol_name) == ("consumer", "range")


def test_followers_wait_for_the_leader(member: MakeMember) -> None:
    leader, follower = member(), member()
    stable_alone(leader)
    follower.ask_to_join()
    follower.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    leader.ask_to_join()
    follower.joined()

    follower.send_sync()
    assert follower.wire.is_silent(0.1)
    assert leader.sync({leader.id: b"all"}).assignment == b"all"
    answer = follower.wire.receive()
    assert (answer.error_code, answer.assignment) == (ErrorCode.NONE, b"")


def test_a_sync_in_a_stable_group_brings_the_assignment_again(member: MakeMember) -> None:
    leader, follower = stable_pair(member(), member())

    assert follower.sync().assignment == b"other half"
    assert leader.sync({leader.id: b"changed"}).assignment == b"one half"


def test_a_sync_of_another_generation_protocol_or_member_is_refused(
    member: MakeMember,
) -> None:
    one = stable_alone(member())

    one.generation += 1
    assert one.sync().error_code == ErrorCode.ILLEGAL_GENERATION
    one.generation -= 2
    assert one.sync().error_code == ErrorCode.ILLEGAL_GENERATION
    one.generation += 1
    one.protocols = ["sticky"]
    assert one.sync().error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    one.protocols, one.protocol_type = ["range"], "connect"
    assert one.sync().error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    one.protocol_type, one.id = "consumer", "raw-made-up"
    assert one.sync().error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_waiting_sync_is_told_of_the_next_rebalance(member: MakeMember) -> None:
    leader, follower, third = member(), member(), member()
    stable_alone(leader)
    follower.ask_to_join()
    follower.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    leader.ask_to_join()
    follower.joined()
    follower.send_sync()
    third.ask_to_join()
    third.send_join()

    answer = follower.wire.receive()
    assert (answer.error_code, answer.assignment) == (ErrorCode.REBALANCE_IN_PROGRESS, b"")


# Heartbeats and leaving


def test_heartbeats_of_every_version_keep_a_member_alive(
    wire: Wire, member: MakeMember
) -> None:
    members = [
        stable_alone(member(group=new_group(wire), session_ms=400)) for _ in range(5)
    ]

    end = time.monotonic() + 1
    while time.monotonic() < end:
        for version, one in enumerate(members):
            assert one.heartbeat(version=version) == ErrorCode.NONE
        time.sleep(0.1)


def test_without_heartbeats_a_member_is_gone_after_its_session(
    wire: Wire, group: str, member: MakeMember
) -> None:
    stable_alone(member(session_ms=400))

    time.sleep(0.2)
    assert describe(wire, group).group_state == "Stable"
    time.sleep(0.5)
    assert describe(wire, group).group_state == "Empty"


def test_commits_keep_a_member_alive(log: str, member: MakeMember) -> None:
    one = stable_alone(member(session_ms=400))

    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert one.commit(log, 1) == ErrorCode.NONE
        time.sleep(0.1)
    assert one.heartbeat() == ErrorCode.NONE


def test_who_waits_in_a_rebalance_is_alive(member: MakeMember) -> None:
    waits = member(session_ms=300, rebalance_ms=1_000)
    slow = stable_alone(member(session_ms=HALF_A_MINUTE, rebalance_ms=1_000))
    waits.ask_to_join()

    answer = waits.ask_to_join()  # for as long as the other does not come
    assert (answer.error_code, answer.leader) == (ErrorCode.NONE, waits.id)
    assert slow.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_heartbeat_of_another_generation_or_member_is_refused(
    member: MakeMember,
) -> None:
    one = member()
    one.id, one.generation = "raw-made-up", 1
    assert one.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID, "there is no such group"

    one.id, one.generation = "", -1
    stable_alone(one)
    one.generation = 2
    assert one.heartbeat() == ErrorCode.ILLEGAL_GENERATION
    one.generation, one.id = 1, "raw-made-up"
    assert one.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_heartbeats_before_the_sync_are_taken(member: MakeMember) -> None:
    one = member()
    one.join()

    assert one.heartbeat() == ErrorCode.NONE
    assert one.sync({one.id: b"all"}).error_code == ErrorCode.NONE


@pytest.mark.parametrize("version", range(6))
def test_who_leaves_is_out_at_once(member: MakeMember, version: int) -> None:
    leader, follower = stable_pair(member(), member())

    answer = follower.leave(version=version)
    assert answer.error_code == ErrorCode.NONE
    if version >= 3:
        assert [(each.member_id, each.error_code) for each in answer.members] == [
            (follower.id, ErrorCode.NONE)
        ]
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    assert leader.ask_to_join().generation_id == 3
    assert follower.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize("version", range(6))
def test_who_is_no_member_cannot_leave(member: MakeMember, version: int) -> None:
    stable_alone(member())
    stranger = member()
    stranger.id = "raw-made-up"

    answer = stranger.leave(version=version)
    if version < 3:
        assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    else:
        assert answer.error_code == ErrorCode.NONE
        assert [each.error_code for each in answer.members] == [ErrorCode.UNKNOWN_MEMBER_ID]


def test_several_leave_in_one_request(wire: Wire, group: str, member: MakeMember) -> None:
    one = member(instance="one")
    two = member(instance="two")
    stable_pair(one, two)
    asked = [
        LeaveGroupRequest.Member(member_id="", group_instance_id="one"),
        LeaveGroupRequest.Member(member_id="", group_instance_id="nobody"),
        LeaveGroupRequest.Member(member_id="made up", group_instance_id="two"),
        LeaveGroupRequest.Member(member_id=two.id, group_instance_id=None),
    ]

    answer = wire.ask(LeaveGroupRequest(group_id=group, members=asked), 5)
    assert answer.error_code == ErrorCode.NONE
    assert [each.error_code for each in answer.members] == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_INSTANCE_ID,
        ErrorCode.NONE,
    ]
    assert describe(wire, group).group_state == "Empty"


def test_an_id_not_yet_used_may_be_given_back(member: MakeMember) -> None:
    one = member()
    one.ask_to_join()

    assert one.leave().members[0].error_code == ErrorCode.NONE
    assert one.ask_to_join().error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_the_generation_goes_on_where_an_empty_group_is_joined_again(
    member: MakeMember,
) -> None:
    stable_alone(member()).leave()

    one = member()
    assert one.join().generation_id == 3, "to leave was a generation too"
