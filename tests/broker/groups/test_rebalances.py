"""From one generation to the next: who is waited for, who leads, who gets what."""

from __future__ import annotations

from dataclasses import replace

from support.groups import LIMITS, REBALANCE_MS, SESSION_MS, Play

from streamer.broker.groups.group import Group
from streamer.broker.groups.member import Leaver
from streamer.broker.groups.outcome import Assigned, Emptied
from streamer.broker.groups.states import State
from streamer.wire.error_codes import ErrorCode

SESSION, REBALANCE = SESSION_MS / 1000, REBALANCE_MS / 1000

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = State
FINE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
REBALANCING = ErrorCode.REBALANCE_IN_PROGRESS
GONE = ErrorCode.COORDINATOR_NOT_AVAILABLE
NOT_EMPTY = ErrorCode.NON_EMPTY_GROUP

# The first rebalance.


def delayed(delay_ms: int = 3_000) -> Play:
    return Play(replace(LIMITS, initial_delay_ms=delay_ms))


def test_the_first_member_of_an_empty_group_waits_for_others() -> None:
    play = delayed()
    first = play.join(version=3)

    play.wait(2.9)
    assert first.parked
    play.wait(0.1)
    assert first.joined.generation == 1


def test_the_first_delay_begins_anew_while_members_come() -> None:
    play = delayed()
    first = play.join(version=3)
    play.wait(2)
    play.join(version=3)

    play.wait(3.9)
    assert first.parked
    play.wait(0.1)
    assert len(first.joined.members) == 2


def test_the_first_delay_is_no_longer_than_the_rebalance_time_out() -> None:
    play = delayed()
    first = play.join(version=3, rebalance_ms=7_000)
    for _ in range(6):
        play.wait(1)
        play.join(version=3, rebalance_ms=7_000)
    assert first.parked

    play.wait(4)

    assert len(first.joined.members) == 7


def test_the_delay_is_for_an_empty_group_only() -> None:
    play = delayed()
    first = play.join(version=3)
    play.wait(3)
    play.share_out(first.joined.member_id)
    newcomer = play.join(version=3)

    play.join(first.joined.member_id)

    assert newcomer.joined.generation == 2


def test_a_group_that_is_left_while_it_waits_is_empty_again() -> None:
    play = delayed()
    (first,) = play.joining("a").values()
    (member,) = play.group.members

    assert play.leave(member) == FINE
    play.wait(3)

    assert first.error == UNKNOWN
    assert play.group.state is EMPTY
    assert play.group.generation == 1


# Rebalances.


def test_a_rebalance_ends_when_all_have_joined_again() -> None:
    play = Play()
    a, b = play.stable("a", "b")
    newcomer = play.join(version=3)
    assert play.heartbeat(a) == play.heartbeat(b) == REBALANCING

    requests = [play.join(a), play.join(b)]

    generations = [one.joined.generation for one in (newcomer, *requests)]
    assert generations == [2, 2, 2]
    assert play.group.leader == a


def test_who_does_not_join_in_time_is_out() -> None:
    play = Play()
    a, b = play.stable("a", "b")
    newcomer = play.join(version=3)
    play.join(b)
    for _ in range(11):
        play.wait(REBALANCE / 12)
        assert play.heartbeat(a, generation=1) == REBALANCING
    assert newcomer.parked

    play.wait(REBALANCE / 12)

    assert newcomer.joined.generation == 2
    assert newcomer.joined.leader == b, "the leader did not come"
    assert play.heartbeat(a, generation=1) == UNKNOWN


def test_a_static_member_that_does_not_join_in_time_stays() -> None:
    play = Play()
    a, b = play.completing("a", "b", static=True)
    play.share_out(a, b)
    again = play.join(a, instance="a", metadata=b"new")
    for _ in range(11):
        play.wait(REBALANCE / 12)
        assert play.heartbeat(b) == REBALANCING

    play.wait(REBALANCE / 12)

    assert [one.member_id for one in again.joined.members] == [a, b]


def test_a_rebalance_that_no_static_member_came_to_is_tried_again() -> None:
    play = Play()
    a, b = play.stable("a", "b", static=True)
    (c,) = play.joining("c").values()
    (newcomer,) = play.group.members.keys() - {a, b}
    assert play.leave(newcomer) == FINE
    assert c.error == UNKNOWN
    for _ in range(10):
        play.wait(REBALANCE / 8)
        assert play.heartbeat(a) == play.heartbeat(b) == REBALANCING

    again = play.join(b, instance="b")
    for _ in range(6):
        play.wait(REBALANCE / 8)
        play.heartbeat(a)

    assert again.joined.leader == b, "the leader is alive, but did not come"
    assert again.joined.generation == 2
    assert set(play.group.members) == {a, b}


def test_a_rebalance_that_cuts_another_short_has_all_its_time() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    play.wait(1)
    newcomer = play.join(version=3)
    for _ in range(11):
        play.wait(REBALANCE / 12)
        assert play.heartbeat(a) == play.heartbeat(b) == REBALANCING
    assert newcomer.parked

    play.wait(REBALANCE / 12)

    assert len(newcomer.joined.members) == 1


def test_a_member_that_falls_silent_is_out_and_the_others_are_called() -> None:
    play = Play()
    a, b = play.stable("a", "b")

    play.wait(SESSION - 1)
    assert play.heartbeat(a) == FINE
    play.wait(1)

    assert play.heartbeat(a) == REBALANCING
    assert play.heartbeat(b) == UNKNOWN


def test_a_commit_tells_that_a_member_is_alive() -> None:
    play = Play()
    (a,) = play.stable("a")

    for _ in range(5):
        play.wait(SESSION - 1)
        assert play.commit(a, generation=1) == FINE


def test_a_parked_member_need_not_be_heard() -> None:
    play = Play()
    a, b = play.stable("a", "b")
    waits = play.join(a)
    for _ in range(5):
        play.wait(SESSION - 1)
        assert play.heartbeat(b) == REBALANCING

    assert waits.parked
    play.join(b)
    assert waits.joined.generation == 2

    play.wait(SESSION - 1)
    assert play.heartbeat(a) == FINE


def test_a_new_member_is_parked_for_five_minutes_at_most() -> None:
    play = Play()
    (a,) = play.completing("a")
    play.share_out(a)
    long = {"rebalance_ms": 3_600_000}
    play.join(a, **long)  # type: ignore[arg-type]
    play.wait(0)
    play.share_out(a)
    newcomer = play.join(version=3)
    for _ in range(60):
        play.wait(5)
        play.heartbeat(a)

    assert newcomer.error == UNKNOWN


def test_a_chain_of_rebalances_loses_no_living_member() -> None:
    play = Play()
    a, b = play.stable("a", "b")
    for generation in range(2, 12, 2):
        newcomer = play.join(version=3)
        joined_a, joined_b = play.join(a), play.join(b)
        assert joined_a.joined.generation == joined_b.joined.generation == generation
        # The next one comes before the leader has said anything, and goes again.
        late = play.sync(b)
        assert play.leave(newcomer.joined.member_id) == FINE
        assert late.error == REBALANCING
        assert play.heartbeat(a) == REBALANCING
        joined_a, joined_b = play.join(a), play.join(b)
        play.share_out(a, b)


def test_when_the_leader_goes_another_member_leads() -> None:
    play = Play()
    a, b = play.stable("a", "b")

    assert play.leave(a) == FINE
    assert play.join(b).joined.leader == b


def test_when_all_have_left_the_group_is_empty_and_its_generation_counts_on() -> None:
    play = Play()
    a, b = play.stable("a", "b")

    assert play.group.leave([Leaver(a), Leaver(b)], now=play.now) == [FINE, FINE]
    play.settle()

    assert play.group.state is EMPTY
    assert play.group.generation == 2
    (store,) = play.stores
    assert isinstance(store, Emptied)
    assert store.snapshot.members == ()

    (again,) = play.completing("a")
    assert play.group.generation == 3
    assert play.group.leader == again


def test_each_who_leaves_is_answered_for_itself() -> None:
    play = Play()
    a, _ = play.completing("a", "b", static=True)
    leavers = [
        Leaver(a, "a"),
        Leaver("", "b"),
        Leaver("", "z"),
        Leaver("nobody"),
        Leaver(""),
    ]

    errors = play.group.leave(leavers, now=play.now)

    assert errors == [FINE, FINE, UNKNOWN, UNKNOWN, UNKNOWN]


def test_who_is_parked_and_leaves_elsewhere_is_told_so() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    sync = play.sync(b)
    assert play.leave(b) == FINE
    assert sync.error == UNKNOWN

    play.join()
    join = play.join(a)
    assert play.leave(a) == FINE
    assert join.error == UNKNOWN


# The assignment.


def test_everybody_gets_what_the_leader_hands_out_once_it_is_written_down() -> None:
    play = Play()
    a, b, c = play.completing("a", "b", "c")
    early = play.sync(b)
    leader = play.sync(a, {a: b"for a", b: b"for b", "stranger": b"for nobody"})
    late = play.sync(c)
    assert early.parked
    assert leader.parked
    assert late.parked

    (store,) = play.stores
    assert isinstance(store, Assigned)
    kept = {one.member_id: one.assignment for one in store.snapshot.members}
    assert kept == {a: b"for a", b: b"for b", c: b""}

    play.write()
    assert leader.synced.assignment == b"for a"
    assert early.synced.assignment == b"for b"
    assert late.synced.assignment == b""
    assert early.synced.protocol == "range"
    assert play.group.state is STABLE


def test_who_has_waited_for_it_is_expected_to_be_heard_again() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    play.sync(b)
    for _ in range(3):
        play.wait(SESSION / 2)
        assert play.heartbeat(a) == FINE
    play.sync(a, {a: b"x", b: b"y"})
    play.write()

    play.wait(SESSION)

    assert play.heartbeat(b) == UNKNOWN


def test_an_assignment_that_cannot_be_written_down_is_nobodys() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    requests = [play.sync(b), play.sync(a, {a: b"x", b: b"y"})]

    play.write(GONE)

    assert [one.error for one in requests] == [GONE, GONE]
    assert play.heartbeat(a) == REBALANCING
    again = play.join(a), play.join(b)
    assert [one.joined.generation for one in again] == [2, 2]


def test_what_is_written_down_too_late_is_not_handed_out() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    leader = play.sync(a, {a: b"x", b: b"y"})
    newcomer = play.join(version=3)
    assert leader.error == REBALANCING

    play.join(a)
    play.join(b)
    assert newcomer.joined.generation == 2
    follower = play.sync(b)
    play.write()

    assert follower.parked
    assert play.group.state is COMPLETING


def test_what_is_written_down_in_the_next_rebalance_is_not_handed_out() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    play.sync(a, {a: b"x", b: b"y"})
    play.join(version=3)

    play.write()

    assert play.group.state is PREPARING


def test_who_does_not_fetch_the_assignment_in_time_is_out() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    play.sync(a, {a: b"x", b: b"y"})
    play.write()
    for _ in range(11):
        play.wait(REBALANCE / 12)
        assert play.heartbeat(a) == play.heartbeat(b) == FINE

    play.wait(REBALANCE / 12)

    assert play.heartbeat(a) == REBALANCING
    assert play.heartbeat(b) == UNKNOWN


def test_a_leader_that_hands_out_nothing_in_time_is_out() -> None:
    play = Play()
    a, b = play.completing("a", "b")
    follower = play.sync(b)
    for _ in range(12):
        play.wait(REBALANCE / 12)
        play.heartbeat(a)

    assert follower.error == REBALANCING
    assert play.heartbeat(a) == UNKNOWN
    assert play.join(b).joined.leader == b


def test_when_all_have_fetched_it_nobody_is_waited_for() -> None:
    play = Play()
    a, b = play.stable("a", "b")
    for _ in range(20):
        play.wait(REBALANCE / 12)
        assert play.heartbeat(a) == play.heartbeat(b) == FINE


# What its members read.


def subscription(*topics: str) -> bytes:
    names = b"".join(len(name).to_bytes(2, "big") + name.encode() for name in topics)
    return (
        b"\0\1" + len(topics).to_bytes(4, "big") + names + b"\xff\xff\xff\xff" + b"\0" * 4
    )


def reads(group: Group) -> list[str]:
    return [topic for topic in ("a", "b", "c") if group.is_subscribed(topic)]


def test_it_is_known_what_the_members_of_a_generation_read() -> None:
    play = Play()
    play.join(version=3, metadata=subscription("a"))
    play.join(version=3, metadata=subscription("a", "b"))
    play.wait(0)

    assert reads(play.group) == ["a", "b"]


def test_nobody_reads_in_an_empty_group() -> None:
    play = Play()
    play.join(version=3, metadata=subscription("a"))
    play.wait(0)
    (member,) = play.group.members
    play.leave(member)

    assert reads(play.group) == []


def test_consumers_that_speak_in_riddles_might_read_anything() -> None:
    play = Play()
    play.join(version=3, metadata=b"?")
    play.wait(0)

    assert reads(play.group) == ["a", "b", "c"]


def test_what_are_no_consumers_read_nothing() -> None:
    play = Play()
    play.join(version=3, protocol_type="connect", metadata=subscription("a"))
    play.wait(0)

    assert reads(play.group) == []
    assert play.group.may_delete_offsets() == NOT_EMPTY
