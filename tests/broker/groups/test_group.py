"""One consumer group: every request and every silence in every state; how members join.

What is right was taken from Apache Kafka 4.1's group coordinator, edge by edge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from support.groups import LIMITS, REBALANCE_MS, SESSION_MS, Play, Request

from streamer.broker.groups.deadlines import PROMISED_MAX, Deadlines
from streamer.broker.groups.states import NEXT, State
from streamer.wire.error_codes import ErrorCode

SESSION, REBALANCE = SESSION_MS / 1000, REBALANCE_MS / 1000

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = State
PARKED = "parked"
FINE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
FENCED = ErrorCode.FENCED_INSTANCE_ID
REBALANCING = ErrorCode.REBALANCE_IN_PROGRESS
OLD = ErrorCode.ILLEGAL_GENERATION
MISFIT = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
GONE = ErrorCode.COORDINATOR_NOT_AVAILABLE
NOT_EMPTY = ErrorCode.NON_EMPTY_GROUP

# The members of the group in each state: the leader, a follower, both static.
A, B = "a-1", "b-2"


def in_state(state: State) -> Play:
    """A group in that state, of two static members, called to join if it is preparing."""
    play = Play()
    if state is DEAD:
        play.group.delete()
    if state in (EMPTY, DEAD):
        return play
    assert play.completing("a", "b", static=True) == [A, B]
    if state is not COMPLETING:
        play.share_out(A, B)
    if state is PREPARING:
        play.join(client="c", version=3)
    assert play.group.state is state
    return play


# Each request, and each time that passes. A fenced member is the former self of B.
HAPPENS: dict[str, Callable[[Play], Request | ErrorCode | None]] = {
    "somebody old-fashioned joins": lambda play: play.join(version=3),
    "somebody new joins": lambda play: play.join(),
    "somebody new and static joins": lambda play: play.join(instance="z"),
    "somebody joins with an id never given": lambda play: play.join("nobody"),
    "somebody joins with another protocol": lambda play: play.join(
        protocols=("sticky",), version=3
    ),
    "somebody joins with another type": lambda play: play.join(
        protocol_type="connect", version=3
    ),
    "somebody joins without a protocol": lambda play: play.join(protocols=(), version=3),
    "the leader joins again": lambda play: play.join(A, instance="a"),
    "a follower joins again": lambda play: play.join(B, instance="b"),
    "a follower joins again, changed": lambda play: play.join(
        B, instance="b", metadata=b"new"
    ),
    "a fenced member joins": lambda play: play.join("b-old", instance="b"),
    "a static member comes back": lambda play: play.join(instance="b"),
    "a static member comes back changed": lambda play: play.join(
        instance="b", protocols=("sticky", "range")
    ),
    "the leader syncs": lambda play: play.sync(A, {A: b"all"}),
    "a follower syncs": lambda play: play.sync(B),
    "a follower syncs in an old generation": lambda play: play.sync(B, generation=0),
    "a follower syncs by another protocol": lambda play: play.sync(B, protocol="sticky"),
    "a fenced member syncs": lambda play: play.sync("b-old", instance="b"),
    "a member is alive": lambda play: play.heartbeat(B),
    "a member is alive in an old generation": lambda play: play.heartbeat(B, generation=0),
    "a fenced member is alive": lambda play: play.heartbeat("b-old", instance="b"),
    "a member leaves": lambda play: play.leave(B),
    "a member is sent away": lambda play: play.leave(instance="b"),
    "somebody leaves who is no member": lambda play: play.leave("nobody"),
    "a fenced member leaves": lambda play: play.leave("b-old", "b"),
    "a member commits": lambda play: play.commit(B, generation=1),
    "a member commits in an old generation": lambda play: play.commit(B, generation=0),
    "a fenced member commits": lambda play: play.commit(
        "b-old", instance="b", generation=1
    ),
    "somebody commits who is no member": lambda play: play.commit(),
    "a member commits in a transaction": lambda play: play.commit(
        B, generation=1, transactional=True
    ),
    "a member commits in an old transaction": lambda play: play.commit(
        B, generation=0, transactional=True
    ),
    "somebody commits in a transaction": lambda play: play.commit(transactional=True),
    "the group is to be deleted": lambda play: play.group.may_delete(),
    "its offsets are to be deleted": lambda play: play.group.may_delete_offsets(),
    "a session is over": lambda play: play.wait(SESSION),
    "nothing is heard for a long time": lambda play: play.wait(2 * (REBALANCE + SESSION)),
}

# What becomes of it in each state: the answer, and the state that follows if it is another.
TABLE = """
                                        Empty       Preparing   Completing  Stable      Dead
somebody old-fashioned joins            parked > P  parked      parked > P  parked > P  gone
somebody new joins                      id first    id first    id first    id first    gone
somebody new and static joins           parked > P  parked      parked > P  parked > P  gone
somebody joins with an id never given   unknown     unknown     unknown     unknown     gone
somebody joins with another protocol    parked > P  misfit      misfit      misfit      gone
somebody joins with another type        parked > P  misfit      misfit      misfit      gone
somebody joins without a protocol       misfit      misfit      misfit      misfit      gone
the leader joins again                  unknown     parked      fine        parked > P  gone
a follower joins again                  unknown     parked      fine        fine        gone
a follower joins again, changed         unknown     parked      parked > P  parked > P  gone
a fenced member joins                   unknown     fenced      fenced      fenced      gone
a static member comes back              parked > P  parked      parked > P  parked      gone
a static member comes back changed      parked > P  parked      parked > P  parked      gone
the leader syncs                        unknown     rebalance   parked      fine        gone
a follower syncs                        unknown     rebalance   parked      fine        gone
a follower syncs in an old generation   unknown     old         old         old         gone
a follower syncs by another protocol    unknown     misfit      misfit      misfit      gone
a fenced member syncs                   unknown     fenced      fenced      fenced      gone
a member is alive                       unknown     rebalance   fine        fine        gone
a member is alive in an old generation  unknown     old         old         old         gone
a fenced member is alive                unknown     fenced      fenced      fenced      gone
a member leaves                         unknown     fine        fine > P    fine > P    gone
a member is sent away                   unknown     fine        fine > P    fine > P    gone
somebody leaves who is no member        unknown     unknown     unknown     unknown     gone
a fenced member leaves                  unknown     fenced      fenced      fenced      gone
a member commits                        unknown     fine        rebalance   fine        gone
a member commits in an old generation   unknown     old         old         old         gone
a fenced member commits                 unknown     fenced      fenced      fenced      gone
somebody commits who is no member       fine        unknown     unknown     unknown     gone
a member commits in a transaction       unknown     fine        fine        fine        gone
a member commits in an old transaction  unknown     old         old         old         gone
somebody commits in a transaction       fine        fine        fine        fine        gone
the group is to be deleted              fine        occupied    occupied    occupied    none
its offsets are to be deleted           fine        fine        fine        fine        none
a session is over                       fine        fine > C    fine > E    fine > E    fine
nothing is heard for a long time        fine        fine > E    fine > E    fine > E    fine
"""

WORDS: dict[str, str | ErrorCode] = {
    "parked": PARKED,
    "fine": FINE,
    "unknown": UNKNOWN,
    "fenced": FENCED,
    "rebalance": REBALANCING,
    "old": OLD,
    "misfit": MISFIT,
    "id first": ErrorCode.MEMBER_ID_REQUIRED,
    "gone": GONE,
    "occupied": NOT_EMPTY,
    "none": ErrorCode.GROUP_ID_NOT_FOUND,
}


def cases() -> Iterator[tuple[str, State, str | ErrorCode, State]]:
    for line in TABLE.splitlines()[2:]:
        what, *cells = re.split(r"\s{2,}", line)
        for state, cell in zip(State, cells, strict=True):
            word, _, letter = cell.partition(" > ")
            after = next((one for one in State if one.name[0] == letter), state)
            yield what, state, WORDS[word], after


def test_the_table_is_complete() -> None:
    assert {(what, state) for what, state, *_ in cases()} == set(product(HAPPENS, State))


@pytest.mark.parametrize(("what", "state", "answer", "after"), [*cases()])
def test_each_request_in_each_state(
    what: str, state: State, answer: str | ErrorCode, after: State
) -> None:
    play = in_state(state)

    found = HAPPENS[what](play) or FINE

    if isinstance(found, Request):
        assert (PARKED if found.parked else found.error) == answer
    else:
        assert found == answer
    assert play.group.state is after


def test_no_state_leads_out_of_dead() -> None:
    assert not NEXT[DEAD]
    with pytest.raises(AssertionError):
        in_state(STABLE).group.delete()


# Joining.


def test_a_member_joins_with_the_id_it_was_given() -> None:
    play = Play()

    given = play.join(client="app")
    assert given.error == ErrorCode.MEMBER_ID_REQUIRED
    assert given.joined.member_id == "app-1"

    joined = play.join("app-1")
    play.wait(0)
    assert joined.joined.member_id == joined.joined.leader == "app-1"
    assert joined.joined.generation == 1
    assert joined.joined.protocol == "range"


def test_an_id_that_is_not_used_is_given_up() -> None:
    play = Play()
    play.join()
    assert not play.group.is_unused

    play.wait(SESSION)

    assert play.group.is_blank
    assert play.join("c-1").error == UNKNOWN


def test_a_rebalance_waits_for_those_who_were_given_an_id() -> None:
    play = Play()
    (a,) = play.stable("a")
    given = play.join().joined.member_id
    again = play.join(a)
    assert again.parked

    play.join(given)

    assert len(again.joined.members) == 2


def test_a_rebalance_does_not_wait_for_an_id_that_was_given_up() -> None:
    play = Play()
    (a,) = play.stable("a")
    play.join(session_ms=6_000)
    play.wait(1)
    again = play.join(a)

    play.wait(4.9)
    assert again.parked
    play.wait(0.1)
    assert len(again.joined.members) == 1


def test_who_leaves_before_joining_is_not_waited_for() -> None:
    play = Play()
    (a,) = play.stable("a")
    given = play.join().joined.member_id
    again = play.join(a)

    assert play.leave(given) == FINE

    assert again.joined.generation == 2


def test_who_leaves_before_joining_disturbs_nobody() -> None:
    play = Play()
    play.stable("a")
    given = play.join().joined.member_id

    assert play.leave(given) == FINE

    assert play.group.state is STABLE


def test_only_the_leader_is_told_of_the_members() -> None:
    play = Play()
    leader = play.join(version=3, client="a", metadata=b"first")
    follower = play.join(version=3, client="b", metadata=b"second", instance="static")
    play.wait(0)

    assert [(one.member_id, one.metadata) for one in leader.joined.members] == [
        ("a-1", b"first"),
        ("static-2", b"second"),
    ]
    assert leader.joined.members[1].instance_id == "static"
    assert follower.joined.members == ()
    assert follower.joined.leader == "a-1"


def test_each_member_is_told_what_was_told_before_if_the_answer_was_lost() -> None:
    play = Play()
    a, b = play.completing("a", "b")

    assert len(play.join(a).joined.members) == 2
    assert play.join(b).joined.members == ()
    assert play.join(b).joined.generation == 1


def test_a_follower_with_nothing_new_does_not_disturb_the_others() -> None:
    play = Play()
    _, b = play.stable("a", "b")

    again = play.join(b)

    assert again.joined.generation == 1
    assert play.group.state is STABLE
    assert play.sync(b).synced.assignment == b.encode()


def test_who_joins_again_elsewhere_is_answered_there() -> None:
    play = Play()
    (a,) = play.stable("a")
    play.join()
    first = play.join(a)
    second = play.join(a)

    assert first.error == REBALANCING
    assert second.parked


@pytest.mark.parametrize("timeout_ms", [5_999, 1_800_001])
def test_a_session_may_be_neither_too_short_nor_too_long(timeout_ms: int) -> None:
    assert not LIMITS.allow_session(timeout_ms)
    assert LIMITS.allow_session(6_000)
    assert LIMITS.allow_session(1_800_000)


# The vote.


def test_the_protocol_that_most_like_best_is_taken_among_those_that_all_know() -> None:
    play = Play()
    for protocols in (
        ("range", "robin", "sticky"),
        ("hot", "sticky", "range"),
        ("sticky", "range"),
    ):
        play.join(protocols=protocols, version=3)
    play.wait(0)

    assert play.group.protocol == "sticky"


def test_a_member_that_would_leave_no_common_protocol_is_refused() -> None:
    play = Play()
    play.join(protocols=("range", "sticky"), version=3)
    play.join(protocols=("sticky", "robin"), version=3)

    assert play.join(protocols=("range", "robin"), version=3).error == MISFIT
    assert play.join(protocols=("robin", "sticky"), version=3).parked


def test_ids_that_nobody_comes_back_with_do_not_pile_up() -> None:
    deadlines = Deadlines(0.0)

    for number in range(PROMISED_MAX + 1):
        deadlines.promise(f"m-{number}", SESSION_MS)

    assert len(deadlines.promised) == PROMISED_MAX
    assert "m-0" not in deadlines.promised
