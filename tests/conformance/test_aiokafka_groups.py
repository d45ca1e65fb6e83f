"""Groups and transactions with aiokafka: JoinGroup 5, and version 0 of transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ProducerFenced
from conformance.conftest import MakeTopic
from support.clients import new_name

SECONDS = 15

Join = Callable[..., Awaitable[AIOKafkaConsumer]]


@pytest_asyncio.fixture
async def join(bootstrap: str, group: str) -> AsyncIterator[Join]:
    """`await join(topic)` gives one more member of this test's group."""
    async with AsyncExitStack() as at_the_end:

        async def make(*topics: str, **config: object) -> AIOKafkaConsumer:
            settings: dict[str, object] = {
                "bootstrap_servers": bootstrap,
                "group_id": group,
                "enable_auto_commit": False,
                "auto_offset_reset": "earliest",
                "heartbeat_interval_ms": 100,
            }
            consumer = AIOKafkaConsumer(*topics, **(settings | config))
            await consumer.start()
            at_the_end.push_async_callback(consumer.stop)
            return consumer

        yield make


async def send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def take(consumer: AIOKafkaConsumer, count: int) -> list[bytes]:
    async with asyncio.timeout(SECONDS):
        return [(await consumer.getone()).value for _ in range(count)]


async def shared(members: list[AIOKafkaConsumer], count: int) -> list[int]:
    """Wait until the members own all partitions, none twice; how many each has."""
    async with asyncio.timeout(SECONDS):
        while True:
            parts = [each.assignment() for each in members]
            if sum(map(len, parts)) == count == len(set().union(*parts)) and all(parts):
                return sorted(map(len, parts))
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "assignor",
    [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor],
)
async def test_partitions_are_shared_among_one_two_and_three_members(
    make_topic: MakeTopic, join: Join, assignor: type
) -> None:
    topic = make_topic(partitions=6)

    members = []
    for sizes in ([6], [3, 3], [2, 2, 2]):
        strategy = {"partition_assignment_strategy": (assignor,)}
        members.append(await join(topic, **strategy))
        assert await shared(members, 6) == sizes


async def test_who_leaves_is_replaced_at_once(make_topic: MakeTopic, join: Join) -> None:
    topic = make_topic(partitions=4)
    stays, leaves = await join(topic), await join(topic)
    await shared([stays, leaves], 4)

    async with asyncio.timeout(3):
        await leaves.stop()
        assert await shared([stays], 4) == [4]


async def test_a_static_member_comes_back_to_what_it_had(
    make_topic: MakeTopic, join: Join
) -> None:
    topic = make_topic(partitions=4)
    first = await join(topic, group_instance_id="a")
    other = await join(topic, group_instance_id="b")
    await shared([first, other], 4)
    had, kept = first.assignment(), other.assignment()

    await first.stop()
    again = await join(topic, group_instance_id="a")
    assert again.assignment() == had
    assert other.assignment() == kept


async def test_the_next_consumer_goes_on_where_the_last_one_committed(
    bootstrap: str, topic: str, join: Join
) -> None:
    await send(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = await join(topic)
    assert await take(consumer, 2) == [b"a", b"b"]
    await consumer.commit()
    partition = TopicPartition(topic, 0)
    assert await consumer.committed(partition) == 2
    await consumer.stop()

    assert await take(await join(topic), 1) == [b"c"]


async def test_groups_are_listed_and_described(
    bootstrap: str, group: str, topic: str, join: Join
) -> None:
    consumer = await join(topic)
    await consumer.commit({TopicPartition(topic, 0): 5})
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        assert (group, "consumer") in await admin.list_consumer_groups()
        offsets = await admin.list_consumer_group_offsets(group)
        assert {where.partition: each.offset for where, each in offsets.items()} == {0: 5}
        (answer,) = await admin.describe_consumer_groups([group])
        ((code, name, state, kind, protocol, members),) = [
            each[:6] for each in answer.groups
        ]
        assert (code, name, state, kind) == (0, group, "Stable", "consumer")
        assert protocol == "roundrobin", "its default"
        assert len(members) == 1
    finally:
        await admin.close()


# Transactions


async def committed_values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The first `count` values that somebody who waits for commits is shown."""
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed"
    ) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return await take(consumer, count)


async def test_what_is_committed_is_read_and_what_is_aborted_is_not(
    bootstrap: str, topic: str
) -> None:
    name = new_name("txn")
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=name
    ) as producer:
        for number in range(6):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"%d" % number, partition=0)
            if number % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()

    assert await committed_values(bootstrap, topic, 3) == [b"0", b"2", b"4"]


async def test_who_starts_again_under_the_same_name_fences_the_first(
    bootstrap: str, topic: str
) -> None:
    name = new_name("txn")
    zombie = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
    await zombie.start()
    await zombie.begin_transaction()
    await zombie.send_and_wait(topic, b"left open", partition=0)
    async with (
        AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name) as successor,
        successor.transaction(),
    ):
        await successor.send_and_wait(topic, b"of the second", partition=0)

    with pytest.raises(ProducerFenced):
        await zombie.commit_transaction()
    await zombie.stop()
    assert await committed_values(bootstrap, topic, 1) == [b"of the second"]


@pytest.mark.parametrize("commit", [True, False])
async def test_offsets_count_with_the_records_or_not_at_all(
    bootstrap: str, topic: str, group: str, join: Join, commit: bool
) -> None:
    await send(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = await join(topic)
    await take(consumer, 2)
    partition = TopicPartition(topic, 0)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=new_name("txn")
    ) as producer:
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({partition: 2}, group)
        if commit:
            await producer.commit_transaction()
        else:
            await producer.abort_transaction()

    await until_committed(consumer, partition, 2 if commit else None)


async def until_committed(
    consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int | None
) -> None:
    """A commit is answered once it is certain, a little before all can see it."""
    async with asyncio.timeout(SECONDS):
        while True:
            if await consumer.committed(partition) == offset:
                return
            await asyncio.sleep(0.01)
