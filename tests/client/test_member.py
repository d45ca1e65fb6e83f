"""A member of a group that lets go in its own time, against a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from support.clients import Sent, new_name, produce, wait_until

from streamer.client.confluent.admin import ConfluentAdmin
from streamer.client.confluent.member import ConfluentMember
from streamer.client.confluent.producer import ConfluentTransactionalProducer
from streamer.client.interface import (
    ClientError,
    Given,
    Message,
    MustAbort,
    NotAMember,
    Position,
    Taken,
    TopicPartition,
)

RECORDS = 100
SESSION_MS = 2000
DEADLINE_S = 15.0


class Bench:
    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.group = new_name("group")
        self.topic = new_name("topic")
        self.places = [TopicPartition(self.topic, number) for number in range(2)]
        self.admin = ConfluentAdmin(bootstrap)
        self.admin.create_topic(self.topic, partitions=2, replication=1, configs={})
        self.members: list[ConfluentMember] = []
        for place in self.places:
            records = [
                Sent(value=b"%d" % number, partition=place.partition)
                for number in range(RECORDS)
            ]
            produce(bootstrap, self.topic, records)

    def member(self, name: str, **settings: str | int) -> ConfluentMember:
        member = ConfluentMember(
            self.bootstrap,
            self.group,
            {
                "group.instance.id": name,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": SESSION_MS,
                **{key.replace("_", "."): value for key, value in settings.items()},
            },
        )
        member.subscribe([self.topic])
        self.members.append(member)
        return member

    def change(self, member: ConfluentMember, *others: ConfluentMember) -> Given | Taken:
        """The next thing that the group decides for it; the others take part meanwhile."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            member.consume(1000, 0.02)
            for other in others:
                other.consume(1000, 0.01)
            if changes := member.changes():
                (change,) = changes
                return change
        raise AssertionError("The group decides nothing.")

    def given(self, member: ConfluentMember, *others: ConfluentMember) -> Given:
        change = self.change(member, *others)
        assert isinstance(change, Given)
        return change


@pytest.fixture
def bench(bootstrap: str) -> Iterator[Bench]:
    bench = Bench(bootstrap)
    yield bench
    for member in bench.members:
        with suppress(ClientError):
            member.close()


def read(member: ConfluentMember, count: int) -> list[Message]:
    found: list[Message] = []

    def enough() -> bool:
        found.extend(member.consume(count, 0.05))
        return len(found) >= count

    wait_until(enough, f"{len(found)} of {count} records have come")
    return found


def quiet(member: ConfluentMember, seconds: float = 0.5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if member.consume(1000, 0.02):
            return False
    return True


def starting_at(places: list[TopicPartition], offset: int) -> dict[TopicPartition, int]:
    return dict.fromkeys(places, offset)


def test_nothing_is_read_before_it_is_asked_for(bench: Bench) -> None:
    member = bench.member("a")
    assert bench.given(member).partitions == tuple(bench.places)

    assert quiet(member)
    member.read(starting_at(bench.places, RECORDS - 1))

    assert [one.value() for one in read(member, 2)] == [b"99", b"99"]


def test_what_is_taken_stays_ours_until_we_let_go(bench: Bench) -> None:
    member = bench.member("a")
    bench.given(member)
    member.read(starting_at(bench.places, 0))
    read(member, 10)

    other = bench.member("b")
    change = bench.change(member, other)
    assert change == Taken(tuple(bench.places), lost=False)
    assert quiet(member), "what was taken is paused"
    member.commit({bench.places[1]: Position(7, "a note")})

    member.let_go()
    given = bench.given(other, member)
    assert other.committed(given.partitions) == {bench.places[1]: Position(7, "a note")}


def test_a_partition_that_comes_back_is_read_again(bench: Bench) -> None:
    member = bench.member("a")
    bench.given(member)
    member.read(starting_at(bench.places, 0))
    read(member, 2 * RECORDS)
    other = bench.member("b")
    bench.change(member, other)

    member.let_go()
    given = bench.given(member, other)
    member.read(starting_at(list(given.partitions), 50))

    assert [one.offset() for one in read(member, 50)] == list(range(50, 100))


def test_reading_anew_while_partitions_are_taken_holds_up_nobody(bench: Bench) -> None:
    member = bench.member("a")
    bench.given(member)
    member.read(starting_at(bench.places, 0))
    read(member, 10)
    other = bench.member("b")
    bench.change(member, other)

    member.read(starting_at(bench.places, 0))
    member.let_go()

    given = bench.given(member, other)
    member.read(starting_at(list(given.partitions), 99))
    assert [one.offset() for one in read(member, 1)] == [99]


def test_who_comes_back_within_its_session_gets_its_partitions_at_once(
    bench: Bench,
) -> None:
    bench.given(bench.member("a"))
    # It is gone without a word: closing a static member says nothing to the group.
    bench.members.pop().close()

    began = time.monotonic()
    given = bench.given(bench.member("a"))

    assert given.partitions == tuple(bench.places)
    assert time.monotonic() - began < SESSION_MS / 1000


def in_a_transaction(
    bench: Bench, membership: object, positions: dict[TopicPartition, Position]
) -> Callable[[], None]:
    producer = ConfluentTransactionalProducer(bench.bootstrap, new_name("txn"))
    producer.begin()

    def commit() -> None:
        try:
            producer.send_offsets(positions, membership)
        except ClientError:
            producer.abort()
            raise
        producer.commit()

    return commit


def test_positions_are_committed_as_who_we_were_when_partitions_were_given(
    bench: Bench,
) -> None:
    member = bench.member("a")
    before = bench.given(member)
    member.read(starting_at(bench.places, 0))
    other = bench.member("b")
    bench.change(member, other)
    member.let_go()
    now = bench.given(member, other)

    # In the meantime it is somebody else in the group, with one partition in place of two.
    positions = {bench.places[1]: Position(5)}
    with pytest.raises((NotAMember, MustAbort)):
        in_a_transaction(bench, before.membership, positions)()
    in_a_transaction(bench, now.membership, {bench.places[0]: Position(6)})()

    committed = member.committed(bench.places)
    assert committed == {bench.places[0]: Position(6)}


def test_asking_how_far_the_group_is_holds_up_nobody_who_reads(bench: Bench) -> None:
    member = bench.member("a")
    given = bench.given(member)
    member.read(starting_at(bench.places, RECORDS))
    producer = ConfluentTransactionalProducer(bench.bootstrap, new_name("txn"))
    producer.begin()
    producer.send_offsets({bench.places[0]: Position(5)}, given.membership)

    # The answer has to wait for the end of the transaction, and reading does not.
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(member.committed, bench.places)
        longest_s = 0.0
        for _ in range(200):
            began = time.monotonic()
            member.consume(1000, 0)
            longest_s = max(longest_s, time.monotonic() - began)
            time.sleep(0.005)
        assert not asked.done()
        producer.commit()

        assert longest_s < 0.5
        assert asked.result(DEADLINE_S) == {bench.places[0]: Position(5)}


def test_who_is_taken_for_somebody_else_loses_its_partitions_and_joins_again(
    bench: Bench,
) -> None:
    member = bench.member("a")
    bench.given(member)
    member.read(starting_at(bench.places, 0))
    other = bench.member("a")
    bench.given(other)
    other.close()

    assert bench.change(member) == Taken((), lost=True)

    given = bench.given(member)
    member.read(starting_at(list(given.partitions), 98))
    assert {one.offset() for one in read(member, 4)} == {98, 99}


def test_of_two_who_go_by_one_name_one_gives_up(bench: Bench) -> None:
    members = [bench.member("a"), bench.member("a")]
    ended: list[ConfluentMember] = []

    def one_has() -> bool:
        for member in members:
            try:
                member.consume(1, 0.02)
            except ClientError:
                ended.append(member)
        return bool(ended)

    wait_until(one_has, "both go on")
    (other,) = (member for member in members if member not in ended)
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        other.consume(1, 0.05)
