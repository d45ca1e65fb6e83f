"""Committed offsets are safe before they count, there after a restart, and end in time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.commits import (
    FETCH,
    PRODUCER,
    codes,
    commit,
    coordinator,
    delete,
    end,
    fetched,
    make_member,
    started,
    turns,
    txn_commit,
)
from support.core import Client
from support.disk import SimulatedDisk
from support.logs import TurnedClock

from streamer.broker.core import Broker
from streamer.broker.groups.member import Leaver
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DeleteTopicsRequest,
    OffsetFetchRequest,
)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with started(tmp_path) as running:
        yield running


# Topics that go


async def delete_topic(client: Client, name: str) -> None:
    request = DeleteTopicsRequest(topics=[DeleteTopicsRequest.Topic(name=name)])
    [answer] = (await client.ask(ApiKey.DELETE_TOPICS, 6, request)).topics
    assert answer.error_code == ErrorCode.NONE


async def test_a_deleted_topic_takes_its_offsets_with_it(broker: Broker) -> None:
    client = Client(broker)
    for group_id in ("shop", "other"):
        await commit(client, {"orders-0": 1, "payments-0": 2}, group_id=group_id)
    await txn_commit(client, {"orders-1": 3})

    await delete_topic(client, "orders")
    await broker.catalog.create("orders", 2, {})
    await end(broker, commit=True)

    for group_id in ("shop", "other"):
        assert await fetched(client, group_id=group_id) == {"payments-0": 2}


async def test_a_crash_after_the_deletion_of_a_topic_leaves_no_offsets(
    tmp_path: Path,
) -> None:
    async with started(tmp_path) as broker:
        await commit(Client(broker), {"orders-0": 1, "payments-0": 2})
        await broker.catalog.delete(broker.catalog.topics["orders"])

    for _ in range(2):
        async with started(tmp_path) as broker:
            assert "orders" in broker.catalog.topics  # made anew
            assert await fetched(Client(broker)) == {"payments-0": 2}


# Offsets that nobody needs any more

WEEK_MS = 7 * 24 * 3_600_000


async def group_states(broker: Broker) -> dict[str, str]:
    return {one.group_id: one.state.value for one in broker.groups}


async def test_offsets_of_simple_consumers_expire_and_then_their_group(
    tmp_path: Path,
) -> None:
    clock = TurnedClock()
    async with started(tmp_path, clock=clock) as broker:
        client = Client(broker)
        await commit(client, {"orders-0": 1})
        clock.now += WEEK_MS - 1
        await commit(client, {"orders-1": 2})

        await broker.groups.expire()
        assert await fetched(client) == {"orders-0": 1, "orders-1": 2}
        clock.now += 1
        await broker.groups.expire()
        assert await fetched(client) == {"orders-1": 2}
        clock.now += WEEK_MS
        await broker.groups.expire()
        assert await fetched(client) == {}
        assert await group_states(broker) == {}

    async with started(tmp_path, clock=clock) as broker:
        assert await group_states(broker) == {}


async def test_offsets_of_a_group_expire_a_week_after_its_last_member_left(
    tmp_path: Path,
) -> None:
    clock = TurnedClock()
    async with started(tmp_path, clock=clock) as broker:
        client = Client(broker)
        await commit(client, {"orders-0": 1})
        member = await make_member(broker)
        clock.now += WEEK_MS
        broker.groups.leave("shop", [Leaver(member)])
        await turns()

        clock.now += WEEK_MS - 1
        await broker.groups.expire()
        assert await fetched(client) == {"orders-0": 1}

    # A restart does not give it another week.
    async with started(tmp_path, clock=clock) as broker:
        clock.now += 1
        await broker.groups.expire()
        assert await fetched(Client(broker)) == {}
        assert await group_states(broker) == {}


@pytest.mark.parametrize(
    ("protocol_type", "kept"),
    [("consumer", {"orders-0": 1}), ("connect", {"orders-0": 1, "payments-0": 2})],
)
async def test_what_members_may_read_does_not_expire(
    tmp_path: Path, protocol_type: str, kept: dict[str, int]
) -> None:
    clock = TurnedClock()
    async with started(tmp_path, clock=clock) as broker:
        client = Client(broker)
        await commit(client, {"orders-0": 1, "payments-0": 2})
        await make_member(broker, protocol_type=protocol_type)
        clock.now += WEEK_MS

        await broker.groups.expire()

        assert await fetched(client) == kept


# Safe before it counts


async def held_up(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nothing that is written is flushed until the function is called."""
    partition = await broker.groups.log.partition(0)
    monkeypatch.setattr(broker, "written", lambda partition: None)

    def release() -> None:
        flush = partition.begin_flush()
        assert flush is not None
        flush.run()
        partition.flushed(flush)
        broker.watchers.moved(partition)

    return release


async def test_a_commit_is_neither_seen_nor_answered_before_it_is_safe(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = Client(broker), Client(broker)
    release = await held_up(broker, monkeypatch)

    asked = asyncio.create_task(commit(writer, {"orders-0": 1}))
    await turns()
    assert not asked.done()
    assert await fetched(reader) == {}
    assert broker.groups.ledger.has_any("shop")

    release()
    assert await asked == {"orders-0": ErrorCode.NONE}
    assert await fetched(reader) == {"orders-0": 1}


async def test_a_flush_makes_no_commit_safe_that_came_after_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Client(broker), Client(broker)
    release = await held_up(broker, monkeypatch)
    partition = await broker.groups.log.partition(0)

    asked = asyncio.create_task(commit(first, {"orders-0": 1}))
    await turns()
    flush = partition.begin_flush()
    later = asyncio.create_task(commit(second, {"orders-1": 2}))
    await turns()
    assert flush is not None
    flush.run()
    partition.flushed(flush)
    broker.watchers.moved(partition)

    assert await asked == {"orders-0": ErrorCode.NONE}
    assert not later.done()
    assert await fetched(Client(broker)) == {"orders-0": 1}
    release()
    assert await later == {"orders-1": ErrorCode.NONE}


async def test_a_transaction_that_ends_while_the_log_is_made_holds_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, create = asyncio.Event(), broker.catalog.create

    async def slowly(*arguments: Any) -> Any:
        await may_go_on.wait()
        return await create(*arguments)

    monkeypatch.setattr(broker.catalog, "create", slowly)
    asked = asyncio.create_task(txn_commit(Client(broker), {"orders-0": 1}))
    await turns()
    coordinator(broker).return_value = ErrorCode.INVALID_TXN_STATE
    may_go_on.set()

    assert await asked == {"orders-0": ErrorCode.TRANSACTION_ABORTABLE}


async def test_an_offset_is_unstable_from_the_moment_it_is_written(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = Client(broker), Client(broker)
    release = await held_up(broker, monkeypatch)

    asked = asyncio.create_task(txn_commit(writer, {"orders-0": 1}))
    await turns()

    assert not asked.done()
    assert await fetched(reader, "orders-0", stable=True) == {
        "orders-0": ErrorCode.UNSTABLE_OFFSET_COMMIT
    }
    release()
    assert await asked == {"orders-0": ErrorCode.NONE}


async def test_commits_apply_in_the_order_of_the_log_whoever_wakes_first(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [Client(broker) for _ in range(4)]
    release = await held_up(broker, monkeypatch)
    ledger = broker.groups.ledger
    tasks: list[asyncio.Task[Any]] = []
    for number, client in enumerate(clients[:3]):
        tasks.append(asyncio.create_task(commit(client, {"orders-0": number})))
        await turns()
    tasks.append(asyncio.create_task(delete(clients[3], "orders-0")))
    await turns()
    partition = await broker.groups.log.partition(0)
    broker.watchers._moves[partition].reverse()
    release()
    await asyncio.gather(*tasks)

    assert not ledger.has_any("shop")


async def test_what_cannot_be_written_is_not_committed(broker: Broker) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1})
    broker.go_offline("the disk is gone")

    refused = {"orders-0": ErrorCode.COORDINATOR_NOT_AVAILABLE}
    assert await commit(client, {"orders-0": 2}) == refused
    assert await txn_commit(client, {"orders-0": 2}) == refused
    assert await delete(client, "orders-0") == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert await fetched(client) == {"orders-0": 1}


async def test_offsets_that_cannot_be_read_are_not_none(broker: Broker) -> None:
    client = Client(broker)
    broker.groups.log.problem = "It is damaged."
    wanted = OffsetFetchRequest.Topic(name="orders", partition_indexes=[0])

    many = OffsetFetchRequest(groups=[OffsetFetchRequest.Group(group_id="shop")])
    [by_group] = (await client.ask(FETCH, 9, many)).groups
    one = OffsetFetchRequest(group_id="shop", topics=[wanted])
    at_the_top = await client.ask(FETCH, 2, one)
    by_partition = await client.ask(FETCH, 1, one)

    unavailable = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert by_group.error_code == at_the_top.error_code == unavailable
    assert codes(by_partition) == {"orders-0": unavailable}
    assert await commit(client, {"orders-0": 1}) == {"orders-0": unavailable}


# After a restart


async def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path) as broker:
        client = Client(broker)
        await commit(client, {"orders-0": 1, "orders-1": 2, "payments-0": 3})
        await txn_commit(client, {"orders-0": 10})
        await end(broker, commit=True)
        await txn_commit(client, {"orders-1": 20})
        await end(broker, commit=False)
        await delete(client, "payments-0")
        await txn_commit(client, {"payments-1": 40}, producer=PRODUCER + 1)
        before = broker.groups.ledger.of("shop")

    async with started(tmp_path) as broker:
        client = Client(broker)
        assert await fetched(client) == {"orders-0": 10, "orders-1": 2}
        assert {place: before.get(place) for place in before} == {
            place: broker.groups.ledger.of("shop").get(place) for place in before
        }
        assert await fetched(client, "payments-1", stable=True) == {
            "payments-1": ErrorCode.UNSTABLE_OFFSET_COMMIT
        }
        await end(broker, commit=True, producer=PRODUCER + 1)
        assert await fetched(client, "payments-1", stable=True) == {"payments-1": 40}


Offsets = dict[tuple[str, str], tuple[Any, bool]]


def all_offsets(broker: Broker) -> Offsets:
    """Of every group and partition what is committed, and whether it is stable."""
    ledger = broker.groups.ledger
    return {
        (group_id, f"{place.topic}-{place.partition}"): (
            ledger.of(group_id).get(place),
            ledger.of(group_id).stable(place),
        )
        for group_id in ledger
        for place in ledger.of(group_id).places()
    }


async def anything(broker: Broker, client: Client, random: Random) -> None:
    """One of all the things that change offsets."""
    places = random.sample(["orders-0", "orders-1", "payments-0"], random.randint(1, 3))
    offsets = dict.fromkeys(places, random.randrange(1000))
    group_id = random.choice(["shop", "other"])
    producer = PRODUCER + random.randrange(2)
    match random.randrange(5):
        case 0 | 1:
            await commit(client, offsets, group_id=group_id)
        case 2:
            await txn_commit(client, offsets, group_id=group_id, producer=producer)
        case 3:
            await end(broker, commit=random.random() < 0.7, producer=producer)
        case 4:
            await delete(client, *offsets, group_id=group_id)


@pytest.mark.parametrize("seed", range(25))
async def test_what_was_answered_survives_a_power_cut(seed: int) -> None:
    random, disk, path = Random(seed), SimulatedDisk(), Path("/data")
    async with started(path, disk=disk) as broker:
        client = Client(broker)
        for _ in range(random.randrange(30)):
            await anything(broker, client, random)
        before = all_offsets(broker)
        last = asyncio.create_task(anything(broker, client, random))
        await turns(random.randrange(8))
        answered, after_the_cut = last.done(), deepcopy(disk)
        await last
        after = all_offsets(broker)

    after_the_cut.crash(random)
    async with started(path, disk=after_the_cut) as broker:
        found = all_offsets(broker)

    assert found == after or (found == before and not answered)
