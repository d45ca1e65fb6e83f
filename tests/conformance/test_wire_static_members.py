"""Members with a name of their own, who come back to what they had, message by message."""

from __future__ import annotations

import pytest
from conformance.conftest import MakeMember
from support.raw_groups import stable_alone, stable_pair, until

from streamer.wire.error_codes import ErrorCode

# So long that a wait for it shows.
HALF_A_MINUTE = 30_000


def test_a_static_member_that_comes_back_changes_nothing(member: MakeMember) -> None:
    leader, follower = stable_pair(member(instance="a"), member(instance="b"))

    again = member(instance="b")
    answer = again.ask_to_join()
    assert (answer.error_code, answer.generation_id) == (ErrorCode.NONE, 2)
    assert answer.leader == leader.id
    assert again.id != follower.id
    assert again.sync().assignment == b"other half"
    assert leader.heartbeat() == ErrorCode.NONE


@pytest.mark.parametrize("version", [5, 8, 9])
def test_a_static_leader_that_comes_back_is_told_to_keep_the_assignment(
    member: MakeMember, version: int
) -> None:
    leader, follower = stable_pair(member(instance="a"), member(instance="b"))

    again = member(instance="a")
    answer = again.ask_to_join(version=version)
    assert (answer.error_code, answer.generation_id) == (ErrorCode.NONE, 2)
    if version >= 9:
        assert (answer.leader, answer.skip_assignment) == (again.id, True)
        assert {each.group_instance_id for each in answer.members} == {"a", "b"}
    else:
        assert (answer.leader, answer.members) == (leader.id, [])
    assert again.sync().assignment == b"one half"
    assert follower.heartbeat() == ErrorCode.NONE


def test_a_static_member_that_comes_back_for_other_topics_changes_nothing(
    member: MakeMember,
) -> None:
    leader, _ = stable_pair(member(instance="a"), member(instance="b"))

    again = member(instance="b", topics=["other"])
    assert again.ask_to_join().generation_id == 2
    assert leader.heartbeat() == ErrorCode.NONE


def test_a_static_member_that_comes_back_with_another_protocol_starts_a_rebalance(
    member: MakeMember,
) -> None:
    both = ["range", "sticky"]
    leader, _ = stable_pair(
        member(instance="a", protocols=both), member(instance="b", protocols=both)
    )

    again = member(instance="b", protocols=["sticky"])
    again.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    leader.ask_to_join()
    answer = again.joined()
    assert (answer.generation_id, answer.protocol_name) == (3, "sticky")


def test_the_id_that_was_replaced_is_fenced_everywhere(
    log: str, member: MakeMember
) -> None:
    _, old = stable_pair(member(instance="a"), member(instance="b"))
    assert member(instance="b").ask_to_join().error_code == ErrorCode.NONE

    fenced = ErrorCode.FENCED_INSTANCE_ID
    assert old.heartbeat() == fenced
    assert old.ask_to_join().error_code == fenced
    assert old.sync().error_code == fenced
    assert old.commit(log, 1) == fenced
    assert old.leave().members[0].error_code == fenced
    old.instance = None
    assert old.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_join_that_waits_is_fenced_too(member: MakeMember) -> None:
    stable_alone(member(instance="a"))
    old = member(instance="b")
    old.send_join()
    assert old.wire.is_silent(0.1)
    member(instance="b").send_join()

    assert old.joined().error_code == ErrorCode.FENCED_INSTANCE_ID


def test_an_instance_nobody_knows_is_an_unknown_member(member: MakeMember) -> None:
    one = stable_alone(member())

    one.instance = "made up"
    assert one.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_static_members_stay_in_the_group_when_they_miss_a_rebalance(
    member: MakeMember,
) -> None:
    away = member(instance="away", rebalance_ms=300, session_ms=HALF_A_MINUTE)
    stable_alone(away)
    other = member(instance="other", rebalance_ms=300)
    answer = other.ask_to_join()

    assert answer.error_code == ErrorCode.NONE
    assert answer.leader == other.id, "a leader must be there"
    assert {each.group_instance_id for each in answer.members} == {"away", "other"}
    assert away.heartbeat() == ErrorCode.ILLEGAL_GENERATION
