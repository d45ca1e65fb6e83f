"""Who reads what in a consumer group: members that come, go, die and come back.

librdkafka decides the assignment itself; what is seen here is that the broker carries
it, notices who is gone, and starts a rebalance when and only when it must.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
)
from conformance.conftest import MakeTopic
from support.clients import (
    Sent,
    member,
    owned,
    poll_until,
    produce,
    result,
    take,
    values,
)

Join = Callable[..., Consumer]

STRATEGIES = ("range", "roundrobin", "cooperative-sticky")


@pytest.fixture
def join(bootstrap: str, group: str) -> Iterator[Join]:
    """`join(topic)` gives one more member of this test's group; all leave at the end."""
    with ExitStack() as at_the_end:

        def make(*topics: str, **config: object) -> Consumer:
            consumer = member(bootstrap, group, *topics, **config)  # type: ignore[arg-type]
            at_the_end.callback(consumer.close)
            return consumer

        yield make


class Watch:
    """What a member has been told: each assignment and each revocation."""

    def __init__(self) -> None:
        self.assigned: list[set[int]] = []
        self.revoked: list[set[int]] = []

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_assign": lambda _, found: self.assigned.append(partitions(found)),
            "on_revoke": lambda _, found: self.revoked.append(partitions(found)),
        }


def partitions(found: list[TopicPartition]) -> set[int]:
    return {each.partition for each in found}


def shared(consumers: list[Consumer], count: int) -> Callable[[], bool]:
    """Whether these members own all partitions, none twice, as evenly as can be."""

    def check() -> bool:
        parts = [owned(consumer) for consumer in consumers]
        sizes = {len(part) for part in parts}
        return (
            sum(len(part) for part in parts) == count
            and set().union(*parts) == set(range(count))
            and max(sizes) - min(sizes) <= 1
        )

    return check


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_partitions_are_shared_among_one_two_and_three_members(
    make_topic: MakeTopic, join: Join, strategy: str
) -> None:
    topic = make_topic(partitions=6)

    members = []
    for _ in range(3):
        members.append(join(topic, partition_assignment_strategy=strategy))
        poll_until(shared(members, 6), *members)

    parts = sorted(sorted(owned(each)) for each in members)
    if strategy == "range":
        assert parts == [[0, 1], [2, 3], [4, 5]]
    elif strategy == "roundrobin":
        assert parts == [[0, 3], [1, 4], [2, 5]]
    else:
        assert [len(part) for part in parts] == [2, 2, 2]


def test_each_record_goes_to_one_member(
    bootstrap: str, make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    members = [join(topic), join(topic)]
    poll_until(shared(members, 4), *members)

    records = [Sent(value=b"%d" % number, partition=number % 4) for number in range(100)]
    produce(bootstrap, topic, records)
    found = [take(each, 50) for each in members]
    assert Counter(values(found[0] + found[1])) == Counter(each.value for each in records)
    for messages, each in zip(found, members, strict=True):
        assert {message.partition() for message in messages} == owned(each)


def test_who_leaves_is_replaced_at_once(make_topic: MakeTopic, join: Join) -> None:
    topic = make_topic(partitions=4)
    stays, leaves = join(topic), join(topic)
    poll_until(shared([stays, leaves], 4), stays, leaves)

    left = time.monotonic()
    leaves.close()
    poll_until(lambda: owned(stays) == {0, 1, 2, 3}, stays)
    assert time.monotonic() - left < 3, "a session of 45 s was not waited for"


DIES = """
import sys
from support.clients import member, owned, poll_until
consumer = member(sys.argv[1], sys.argv[2], sys.argv[3], session_timeout_ms=1_500)
poll_until(lambda: owned(consumer), consumer)
print("assigned", flush=True)
poll_until(lambda: False, consumer)
"""


def test_who_dies_is_missed_after_its_session(
    bootstrap: str, group: str, make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    dies = subprocess.Popen(
        [sys.executable, "-c", DIES, bootstrap, group, topic],
        stdout=subprocess.PIPE,
        cwd="tests",
    )
    assert dies.stdout is not None
    assert dies.stdout.readline() == b"assigned\n"
    stays = join(topic)
    poll_until(lambda: len(owned(stays)) == 2, stays)

    died = time.monotonic()
    dies.send_signal(signal.SIGKILL)
    dies.wait()
    dies.stdout.close()
    poll_until(lambda: owned(stays) == {0, 1, 2, 3}, stays)
    assert 0.8 < time.monotonic() - died < 5, "a session of 1.5 s was to be waited for"


def test_a_cooperative_member_keeps_what_it_need_not_give_away(
    bootstrap: str, make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    watch = Watch()
    wishes = {"partition_assignment_strategy": "cooperative-sticky"}
    first = join(topic, watch=watch.callbacks(), **wishes)
    poll_until(lambda: owned(first) == {0, 1, 2, 3}, first)

    second = join(topic, **wishes)
    poll_until(shared([first, second], 4), first, second)
    (given,) = watch.revoked
    assert given == owned(second)
    assert len(given) == 2


def test_an_eager_member_gives_all_away_and_gets_its_share(
    make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    watch = Watch()
    first = join(topic, watch=watch.callbacks())
    poll_until(lambda: owned(first) == {0, 1, 2, 3}, first)

    second = join(topic)
    poll_until(shared([first, second], 4), first, second)
    assert watch.revoked == [{0, 1, 2, 3}]
    assert watch.assigned == [{0, 1, 2, 3}, owned(first)]


def test_members_may_want_different_topics(make_topic: MakeTopic, join: Join) -> None:
    one, other = make_topic(partitions=2), make_topic(partitions=2)

    first, second = join(one), join(one, other)
    poll_until(
        lambda: (
            (
                topics_and_partitions(first) == {(one, 0)}
                and topics_and_partitions(second) == {(one, 1), (other, 0), (other, 1)}
            )
            or (
                topics_and_partitions(first) == {(one, 1)}
                and topics_and_partitions(second) == {(one, 0), (other, 0), (other, 1)}
            )
        ),
        first,
        second,
    )


def topics_and_partitions(consumer: Consumer) -> set[tuple[str, int]]:
    return {(each.topic, each.partition) for each in consumer.assignment()}


def test_a_new_subscription_is_a_new_assignment(make_topic: MakeTopic, join: Join) -> None:
    one, other = make_topic(), make_topic()
    consumer = join(one)
    poll_until(lambda: topics_and_partitions(consumer) == {(one, 0)}, consumer)

    consumer.subscribe([other])
    poll_until(lambda: topics_and_partitions(consumer) == {(other, 0)}, consumer)


def test_new_partitions_are_handed_out(
    admin: AdminClient, make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=2)
    members = [join(topic, topic_metadata_refresh_interval_ms=200) for _ in range(2)]
    poll_until(shared(members, 2), *members)

    result(admin.create_partitions([NewPartitions(topic, 4)])[topic])
    poll_until(shared(members, 4), *members)


def test_a_pattern_finds_topics_made_later(
    make_topic: MakeTopic, join: Join, group: str
) -> None:
    consumer = join(f"^{group}-.*", topic_metadata_refresh_interval_ms=200)
    first = make_topic(name=f"{group}-a")
    poll_until(lambda: topics_and_partitions(consumer) == {(first, 0)}, consumer)

    second = make_topic(name=f"{group}-b")
    both = {(first, 0), (second, 0)}
    poll_until(lambda: topics_and_partitions(consumer) == both, consumer)


def test_a_static_member_comes_back_to_what_it_had(
    make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    watch = Watch()
    stays = join(topic, watch=watch.callbacks(), group_instance_id="stays")
    restarts = join(topic, group_instance_id="restarts")
    poll_until(shared([stays, restarts], 4), stays, restarts)
    had, told = owned(restarts), len(watch.assigned)

    restarts.close()
    again = join(topic, group_instance_id="restarts")
    poll_until(lambda: owned(again), again, stays)
    poll_for(0.5, again, stays)
    assert owned(again) == had
    assert len(watch.assigned) == told, "the other member was disturbed"


def poll_for(seconds: float, *consumers: Consumer) -> None:
    """Let time pass, as members see it."""
    end = time.monotonic() + seconds
    poll_until(lambda: time.monotonic() > end, *consumers)


def test_a_static_member_is_missed_after_its_session(
    make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    wishes = {"session_timeout_ms": 1_500}
    stays = join(topic, group_instance_id="stays", **wishes)
    goes = join(topic, group_instance_id="goes", **wishes)
    poll_until(shared([stays, goes], 4), stays, goes)

    goes.close()
    closed = time.monotonic()
    poll_until(lambda: owned(stays) == {0, 1, 2, 3}, stays)
    assert 0.8 < time.monotonic() - closed < 5, "a session of 1.5 s was to be waited for"


def test_of_two_with_one_instance_id_the_first_is_fenced(
    make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=2)
    first = join(topic, group_instance_id="one")
    poll_until(lambda: owned(first) == {0, 1}, first)

    second = join(topic, group_instance_id="one")
    poll_until(lambda: owned(second) == {0, 1}, second)
    with pytest.raises(KafkaException) as fenced:
        poll_until(lambda: False, first)
    error = fenced.value.args[0]
    assert error.code() == KafkaError._FATAL
    assert "Static consumer fenced" in error.str()


def test_a_group_may_be_left_by_all_and_joined_again(
    bootstrap: str, topic: str, join: Join
) -> None:
    for number in range(3):
        consumer = join(topic)
        (report,) = produce(bootstrap, topic, [b"%d" % number])
        (message,) = take(consumer, 1)
        assert (message.offset(), report.offset()) == (number, number)
        consumer.commit(message=message, asynchronous=False)
        consumer.close()
