"""What groups and transactions are after `kill -9` of the broker and a new start.

The file has a broker of its own, to kill it once, in the midst of several groups and
transactions; each test looks at one of them afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from support.batches import headers
from support.broker import start_streamer
from support.clients import create_topic
from support.kafka import start_kafka
from support.raw import Wire, fetch, until_known
from support.raw_groups import (
    RawMember,
    commit,
    committed,
    describe,
    new_group,
    stable_alone,
    stable_pair,
    until_looked_after,
)
from support.raw_producer import RawProducer, until
from support.server import PROMPT, Server

from streamer.wire.error_codes import ErrorCode

COMMITTED = 1  # the isolation level


@dataclass(slots=True, kw_only=True)
class Before:
    """Who was at work when the broker was killed."""

    address: str  # where it is now
    left: str  # a group without members
    static: tuple[RawMember, RawMember]
    dynamic: RawMember
    open: RawProducer  # in the midst of a transaction
    slow: RawProducer  # the same, with little time
    ended: RawProducer  # was just told that its transaction is committed


def start(against: str, directory: Path) -> Server:
    if against == "kafka":
        return start_kafka(directory)
    return start_streamer(directory, settings=PROMPT)


@pytest.fixture(scope="module")
def before(against: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    directory = tmp_path_factory.mktemp("killed")
    first = start(against, directory)
    admin = AdminClient({"bootstrap.servers": first.address})
    for name in ("open", "slow", "ended", "read"):
        create_topic(admin, name=name)
    with Wire(first.address) as wire:
        found = at_work(first.address, wire)
        first.kill()

    with start(against, directory) as second, Wire(second.address) as wire:
        found.address = second.address
        for each in (found.open, found.slow, found.ended):
            each.wire = wire
            each.find_coordinator()
            until_known(wire, each.name)
        for member in (*found.static, found.dynamic):
            member.close()
            member.wire = Wire(second.address)
            until_looked_after(wire, member.group)
        until_looked_after(wire, found.left)
        yield found
        for member in (*found.static, found.dynamic):
            member.close()


def at_work(address: str, wire: Wire) -> Before:
    """Set everybody to work."""
    for name in ("open", "slow", "ended", "read"):
        until_known(wire, name)
    left = new_group(wire)
    commit(wire, left, "read", 3, epoch=0, metadata="kept")
    static = pair(address, new_group(wire))
    dynamic = stable_alone(RawMember(address, new_group(wire)))
    dynamic.commit("read", 7)

    producers = [RawProducer(wire, name) for name in ("open", "slow", "ended")]
    for producer, timeout_ms in zip(producers, (60_000, 2_000, 60_000), strict=True):
        producer.started(timeout_ms=timeout_ms)
        producer.write(producer.name, b"first")
        producer.add_offsets(left)
    producers[0].commit_offset(left, "open", 11)
    producers[1].commit_offset(left, "slow", 12)
    producers[2].commit_offset(left, "ended", 13)
    assert producers[2].end(commit=True) == ErrorCode.NONE
    return Before(
        address=address,
        left=left,
        static=static,
        dynamic=dynamic,
        open=producers[0],
        slow=producers[1],
        ended=producers[2],
    )


def pair(address: str, group: str) -> tuple[RawMember, RawMember]:
    """Two static members, whose sessions last longer than all of this."""
    one, other = (
        RawMember(address, group, instance=name, session_ms=60_000) for name in "ab"
    )
    return stable_pair(one, other)


@pytest.fixture
def wire(before: Before) -> Iterator[Wire]:
    with Wire(before.address) as connection:
        yield connection


def test_offsets_are_still_there(wire: Wire, before: Before) -> None:
    found = committed(wire, before.left, "read")
    assert (found.committed_offset, found.metadata) == (3, "kept")
    assert found.committed_leader_epoch == 0
    assert committed(wire, before.dynamic.group, "read").committed_offset == 7
    assert describe(wire, before.left).group_state == "Empty"


def test_a_committed_transaction_is_whole(wire: Wire, before: Before) -> None:
    until(
        lambda: fetch(wire, "ended", 0, isolation=COMMITTED).last_stable_offset >= 2,
        "its marker is missing",
    )
    found = fetch(wire, "ended", 0, isolation=COMMITTED)
    # The marker may be there twice, when it was written but not yet noted down.
    assert [each.record_count for each in headers(found.records)][:2] == [1, 1]
    assert found.last_stable_offset == found.high_watermark
    assert found.aborted_transactions == []
    until(
        lambda: committed(wire, before.left, "ended", stable=True).committed_offset == 13,
        "its offsets are missing",
    )
    until(
        lambda: before.ended.described().transaction_state == "CompleteCommit",
        "it was never completed",
    )
    assert before.ended.end(commit=True) == ErrorCode.NONE


def test_an_open_transaction_goes_on(wire: Wire, before: Before) -> None:
    producer = before.open
    assert producer.described().transaction_state == "Ongoing"
    assert fetch(wire, "open", 0, isolation=COMMITTED).last_stable_offset == 0
    found = committed(wire, before.left, "open", stable=True)
    assert found.error_code == ErrorCode.UNSTABLE_OFFSET_COMMIT

    assert producer.send("open", b"second").base_offset == 1
    producer.finish(commit=True)
    found = fetch(wire, "open", 0, isolation=COMMITTED)
    assert (found.last_stable_offset, found.aborted_transactions) == (3, [])
    assert committed(wire, before.left, "open", stable=True).committed_offset == 11


def test_a_transaction_whose_time_is_over_is_aborted(wire: Wire, before: Before) -> None:
    until(
        lambda: fetch(wire, "slow", 0, isolation=COMMITTED).last_stable_offset == 2,
        "it is still open",
    )
    (aborted,) = fetch(wire, "slow", 0, isolation=COMMITTED).aborted_transactions
    assert (aborted.producer_id, aborted.first_offset) == (before.slow.id, 0)
    until(
        lambda: committed(wire, before.left, "slow", stable=True).committed_offset == -1,
        "its offsets are still open",
    )
    assert before.slow.end(commit=True) == ErrorCode.PRODUCER_FENCED


def test_a_name_keeps_its_id_and_goes_on_counting(wire: Wire, before: Before) -> None:
    again = RawProducer(wire, before.ended.name).started()

    assert again.id == before.ended.id
    assert again.epoch == before.ended.epoch + 1


def test_new_ids_were_never_used_before(wire: Wire, before: Before) -> None:
    fresh = RawProducer(wire).started()

    assert fresh.id > max(before.open.id, before.slow.id, before.ended.id)


def test_static_members_come_back_to_what_they_had(before: Before) -> None:
    for old, expected in zip(before.static, (b"one half", b"other half"), strict=True):
        again = RawMember(before.address, old.group, instance=old.instance)
        answer = again.join()
        assert (answer.error_code, answer.generation_id) == (ErrorCode.NONE, 2)
        assert again.sync().assignment == expected
        again.close()


def test_a_generation_is_never_given_out_again(before: Before) -> None:
    member = before.dynamic
    if member.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID:
        member.id = ""
    had = member.generation

    answer = member.join()
    assert answer.error_code == ErrorCode.NONE
    assert answer.generation_id > had
    assert member.commit("read", 8, generation_id=had) in (
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.REBALANCE_IN_PROGRESS,
    )


def test_nothing_hangs_in_the_end(wire: Wire, before: Before) -> None:
    deadline = time.monotonic() + 20
    for topic in ("open", "slow", "ended"):
        while True:
            found = fetch(wire, topic, 0, isolation=COMMITTED)
            if found.last_stable_offset == found.high_watermark:
                break
            assert time.monotonic() < deadline, f"{topic} hangs"
