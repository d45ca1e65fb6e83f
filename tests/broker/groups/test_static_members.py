"""Members that come back: static ones, and all of them after a restart; and full groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.groups import LIMITS, REBALANCE_MS, SESSION_MS, Play

from streamer.broker.groups.outcome import Replaced
from streamer.broker.groups.states import State
from streamer.wire.error_codes import ErrorCode

SESSION, REBALANCE = SESSION_MS / 1000, REBALANCE_MS / 1000

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = State
FINE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
FENCED = ErrorCode.FENCED_INSTANCE_ID
GONE = ErrorCode.COORDINATOR_NOT_AVAILABLE

# Static members.


def test_a_static_member_that_comes_back_goes_on_where_it_was() -> None:
    play = Play()
    _, b = play.stable("a", "b", static=True)

    back = play.join(instance="b")
    assert back.parked, "nobody may hear of it before it is written down"
    (store,) = play.stores
    assert isinstance(store, Replaced)
    play.write()

    assert back.joined.member_id != b
    assert back.joined.generation == 1
    assert play.sync(back.joined.member_id).synced.assignment == b.encode()
    assert play.heartbeat(b, instance="b") == FENCED
    assert play.heartbeat(b) == UNKNOWN
    assert play.group.state is STABLE


@pytest.mark.parametrize(("version", "skips"), [(9, True), (8, False)])
def test_a_leader_that_comes_back_does_not_assign_anew(
    version: int, *, skips: bool
) -> None:
    play = Play()
    a, _ = play.stable("a", "b", static=True)

    back = play.join(instance="a", version=version)
    play.write()

    joined = back.joined
    assert joined.skip_assignment is skips
    assert len(joined.members) == (2 if skips else 0)
    # An old client takes itself for a follower, and asks for its assignment only.
    assert joined.leader == (joined.member_id if skips else a)
    assert play.sync(joined.member_id).synced.assignment == a.encode()


def test_a_follower_that_comes_back_is_not_told_to_skip_anything() -> None:
    play = Play()
    play.stable("a", "b", static=True)

    back = play.join(instance="b")
    play.write()

    assert not back.joined.skip_assignment


def test_a_static_member_that_changes_the_vote_calls_all_to_join() -> None:
    play = Play()
    play.join(instance="a", protocols=("range", "sticky"))
    play.join(instance="b", protocols=("range", "sticky"))
    play.wait(0)
    play.share_out(*play.group.members)

    play.join(instance="b", protocols=("sticky",))

    assert play.group.state is PREPARING


def test_who_waits_under_the_former_id_is_fenced() -> None:
    play = Play()
    _, b = play.completing("a", "b", static=True)
    sync = play.sync(b, instance="b")
    back = play.join(instance="b")
    assert sync.error == FENCED

    once_more = play.join(instance="b")
    assert back.error == FENCED
    assert back.joined.member_id != b
    assert once_more.parked


def test_if_the_new_id_cannot_be_written_down_the_former_one_holds() -> None:
    play = Play()
    _, b = play.stable("a", "b", static=True)
    back = play.join(instance="b", session_ms=20_000, metadata=b"new")

    play.write(GONE)

    assert back.error == GONE
    assert play.heartbeat(b, instance="b") == FINE
    assert play.group.members[b].session_timeout_ms == SESSION_MS
    assert play.group.members[b].metadata("range") == b""


def test_a_member_that_came_back_into_a_rebalance_is_answered_by_it() -> None:
    play = Play()
    a, _ = play.stable("a", "b", static=True)
    back = play.join(instance="b")
    newcomer = play.join(instance="c")
    play.write()
    assert back.parked

    play.join(a, instance="a")

    assert back.joined.generation == newcomer.joined.generation == 2


def test_a_member_that_comes_back_before_it_has_synced_is_still_waited_for() -> None:
    play = Play()
    a, b = play.completing("a", "b", static=True)
    play.sync(a, {a: b"x", b: b"y"})
    play.write()
    back = play.join(instance="b")
    play.write()
    play.wait(SESSION - 1)
    play.heartbeat(a)
    assert play.sync(back.joined.member_id).synced.assignment == b"y"

    for _ in range(12):
        assert play.heartbeat(a) == play.heartbeat(back.joined.member_id) == FINE
        play.wait(REBALANCE / 12)


def test_a_static_member_that_dies_while_it_waits_is_missed_in_the_end() -> None:
    play = Play()
    a, b = play.completing("a", "b", static=True)
    waits = play.sync(b)
    for _ in range(3):
        play.wait(SESSION / 2)
        assert play.heartbeat(a) == FINE
    play.join(instance="c")
    assert waits.error == ErrorCode.REBALANCE_IN_PROGRESS

    play.wait(SESSION)

    assert set(play.group.members) == {"c-3"}


# A limit to its size.


def test_a_full_group_takes_nobody_in() -> None:
    play = Play(replace(LIMITS, members_max=2))
    a, b = play.stable("a", "b")

    refused = play.join(version=3)
    assert refused.error == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert refused.joined.member_id == ""
    assert play.join(b).joined.generation == 1
    assert play.group.state is STABLE

    assert play.join(a).parked
    assert play.join(version=3).parked, "the one who joins first has the place"
    assert play.join(b).error == ErrorCode.GROUP_MAX_SIZE_REACHED


def test_a_group_that_has_become_too_large_sends_the_last_away() -> None:
    play = Play()
    a, b, c = play.stable("a", "b", "c")
    snapshot = play.group.snapshot()

    small = Play(replace(LIMITS, members_max=2))
    small.group.restore(snapshot, now=small.now)

    assert small.group.state is PREPARING
    assert small.join(a).parked
    assert small.join(c).parked
    assert small.join(b).error == ErrorCode.GROUP_MAX_SIZE_REACHED
    small.wait(REBALANCE)
    assert set(small.group.members) == {a, c}


# A restart.


def restarted(play: Play) -> Play:
    again = Play(now=play.now)
    again.group.restore(play.group.snapshot(), now=play.now)
    again.settle()
    return again


def test_after_a_restart_members_go_on_as_if_nothing_had_happened() -> None:
    play = Play()
    a, b = play.stable("a", "b")

    again = restarted(play)

    assert again.heartbeat(a, generation=1) == FINE
    assert again.commit(b, generation=1) == FINE
    assert again.sync(b, generation=1).synced.assignment == b.encode()


def test_after_a_restart_who_does_not_come_back_is_out_in_time() -> None:
    play = Play()
    a, b = play.stable("a", "b")
    again = restarted(play)

    again.wait(SESSION - 1)
    assert again.heartbeat(a) == FINE
    again.wait(1)

    assert again.heartbeat(b) == UNKNOWN
    assert again.join(a).joined.generation == 2


def test_after_a_restart_a_static_member_has_its_place() -> None:
    play = Play()
    a, b = play.stable("a", "b", static=True)
    again = restarted(play)

    back = again.join(instance="b")
    again.write()

    assert back.joined.generation == 1
    assert again.sync(back.joined.member_id).synced.assignment == b.encode()
    assert again.heartbeat(a) == FINE


def test_after_a_restart_an_empty_group_counts_on() -> None:
    play = Play()
    (a,) = play.stable("a")
    play.leave(a)

    again = restarted(play)

    assert again.group.state is EMPTY
    again.completing("a")
    assert again.group.generation == 3
