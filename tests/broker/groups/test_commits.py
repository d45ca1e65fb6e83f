"""OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete: what is taken and told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.commits import (
    COMMIT,
    EPOCH,
    FETCH,
    PRODUCER,
    commit,
    coordinator,
    delete,
    end,
    fetched,
    make_member,
    started,
    txn_commit,
)
from support.core import Client

from streamer.broker.core import Broker
from streamer.broker.security import (
    Operation,
    Principal,
    Resource,
    group,
    topic,
    transactional_id as txn_id,
)
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    OffsetCommitRequest,
    OffsetFetchRequest,
)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with started(tmp_path) as running:
        yield running


# Simple consumers


@pytest.mark.parametrize("version", range(2, 10))
async def test_what_is_committed_is_fetched(broker: Broker, version: int) -> None:
    client = Client(broker)

    assert await commit(client, {"orders-0": 42, "payments-1": 7}, version=version) == {
        "orders-0": ErrorCode.NONE,
        "payments-1": ErrorCode.NONE,
    }

    assert await fetched(client) == {"orders-0": 42, "payments-1": 7}
    assert await fetched(client, "orders-1", "orders-0") == {"orders-1": -1, "orders-0": 42}
    assert await fetched(client, group_id="other") == {}


@pytest.mark.parametrize("version", range(1, 8))
async def test_one_group_is_asked_for_in_old_versions(broker: Broker, version: int) -> None:
    client = Client(broker)
    await commit(client, {"orders-1": 42}, metadata="here")
    wanted = OffsetFetchRequest.Topic(name="orders", partition_indexes=[0, 1])

    answer = await client.ask(
        FETCH, version, OffsetFetchRequest(group_id="shop", topics=[wanted])
    )

    [found] = answer.topics
    assert answer.error_code == ErrorCode.NONE
    assert [
        (one.index, one.committed_offset, one.metadata) for one in found.partitions
    ] == [
        (0, -1, ""),
        (1, 42, "here"),
    ]
    if version >= 2:
        everything = OffsetFetchRequest(group_id="shop", topics=None)
        [all_of_it] = (await client.ask(FETCH, version, everything)).topics
        assert [one.index for one in all_of_it.partitions] == [1]


async def test_leader_epoch_and_metadata_come_back(broker: Broker) -> None:
    client = Client(broker)
    place = OffsetCommitRequest.Partition(
        index=0, committed_offset=5, committed_leader_epoch=3, committed_metadata="größe"
    )
    bare = OffsetCommitRequest.Partition(
        index=1, committed_offset=6, committed_metadata=None
    )
    topics = [OffsetCommitRequest.Topic(name="orders", partitions=[place, bare])]
    await client.ask(COMMIT, 9, OffsetCommitRequest(group_id="shop", topics=topics))

    request = OffsetFetchRequest(
        groups=[OffsetFetchRequest.Group(group_id="shop", topics=None)]
    )
    [answer] = (await client.ask(FETCH, 9, request)).groups

    [orders] = answer.topics
    assert [
        (one.committed_offset, one.committed_leader_epoch, one.metadata)
        for one in orders.partitions
    ] == [(5, 3, "größe"), (6, -1, "")]


async def test_several_groups_are_fetched_at_once(broker: Broker) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1}, group_id="a")
    await commit(client, {"orders-0": 2}, group_id="b")
    groups = [OffsetFetchRequest.Group(group_id=name, topics=None) for name in "abc"]

    answer = await client.ask(FETCH, 8, OffsetFetchRequest(groups=groups))

    assert [(one.group_id, len(one.topics)) for one in answer.groups] == [
        ("a", 1),
        ("b", 1),
        ("c", 0),
    ]


async def test_each_partition_is_judged_by_itself(broker: Broker) -> None:
    client = Client(broker)

    assert await commit(client, {"orders-0": 1, "orders-9": 1, "missing-0": 1}) == {
        "orders-0": ErrorCode.NONE,
        "orders-9": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        "missing-0": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert await fetched(client) == {"orders-0": 1}


@pytest.mark.parametrize("fits", ["größe", "😀😀x"])
async def test_metadata_has_a_limit_in_characters_of_java(
    tmp_path: Path, fits: str
) -> None:
    settings = {"offset.metadata.max.bytes": "5"}
    too_large = {"orders-0": ErrorCode.OFFSET_METADATA_TOO_LARGE}
    async with started(tmp_path, settings=settings) as broker:
        client = Client(broker)

        taken = await commit(client, {"orders-0": 1}, metadata=fits)
        too_long = await commit(client, {"orders-0": 2}, metadata=fits + "x")
        in_transaction = await txn_commit(client, {"orders-0": 3}, metadata=fits + "x")

        assert taken == {"orders-0": ErrorCode.NONE}
        assert too_long == in_transaction == too_large
        assert await fetched(client, stable=True) == {"orders-0": 1}


async def test_one_commit_is_one_batch(broker: Broker) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1, "orders-1": 2, "payments-0": 3})

    [(_, batch)] = broker.groups.log.replay()

    assert len(batch.records) == 3


async def test_an_old_client_says_how_long_its_offset_is_kept(broker: Broker) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1}, version=4, retention_time_ms=1000)

    [place] = offsets = broker.groups.ledger.of("shop")
    found = offsets.get(place)

    assert found is not None
    assert found.expires_ms == found.time_ms + 1000


# Members


async def test_a_member_commits_in_its_generation_only(broker: Broker) -> None:
    client = Client(broker)
    member = await make_member(broker)

    async def tried(member_id: str, generation: int, version: int = 9) -> ErrorCode:
        answer = await commit(
            client,
            {"orders-0": 1},
            member_id=member_id,
            generation_id=generation,
            version=version,
        )
        return answer["orders-0"]

    assert await tried(member, 1) == ErrorCode.NONE
    assert await tried(member, 0) == ErrorCode.ILLEGAL_GENERATION
    assert await tried(member, 2) == ErrorCode.ILLEGAL_GENERATION
    assert await tried("somebody", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await tried("", -1) == ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize(
    ("version", "code"),
    [(8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)],
)
async def test_a_member_of_no_group_is_told_so(
    broker: Broker, version: int, code: ErrorCode
) -> None:
    client = Client(broker)

    answer = await commit(
        client,
        {"orders-0": 1, "orders-9": 1},
        member_id="m",
        generation_id=1,
        version=version,
    )

    assert answer == {"orders-0": code, "orders-9": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    assert broker.groups.get("shop") is None


async def test_while_assignments_are_made_nobody_commits_but_in_transactions(
    broker: Broker,
) -> None:
    client = Client(broker)
    me: Any = {"member_id": await make_member(broker, synced=False), "generation_id": 1}

    assert await commit(client, {"orders-0": 1}, **me) == {
        "orders-0": ErrorCode.REBALANCE_IN_PROGRESS
    }
    assert await txn_commit(client, {"orders-0": 1}, **me) == {"orders-0": ErrorCode.NONE}


# Transactions


async def test_offsets_of_a_transaction_are_seen_when_it_is_committed(
    broker: Broker,
) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1})

    assert await txn_commit(client, {"orders-0": 9}) == {"orders-0": ErrorCode.NONE}
    coordinator(broker).assert_called_once_with(
        "till", PRODUCER, EPOCH, "__consumer_offsets", 0
    )

    unstable = {"orders-0": ErrorCode.UNSTABLE_OFFSET_COMMIT, "orders-1": -1}
    assert await fetched(client, "orders-0") == {"orders-0": 1}
    assert await fetched(client, "orders-0", "orders-1", stable=True) == unstable
    await end(broker, commit=True)
    assert await fetched(client, "orders-0", stable=True) == {"orders-0": 9}


async def test_offsets_of_an_aborted_transaction_vanish(broker: Broker) -> None:
    client = Client(broker)
    await txn_commit(client, {"orders-0": 9})

    await end(broker, commit=False)

    assert await fetched(client, "orders-0", stable=True) == {"orders-0": -1}
    assert not broker.groups.ledger.has_any("shop")


async def test_transactions_end_each_for_itself(broker: Broker) -> None:
    client = Client(broker)
    await txn_commit(client, {"orders-0": 1, "orders-1": 1})
    await txn_commit(client, {"orders-1": 2}, producer=PRODUCER + 1)
    await txn_commit(client, {"orders-0": 3}, group_id="other")

    await end(broker, commit=True)

    assert await fetched(client) == {"orders-0": 1, "orders-1": 1}
    assert await fetched(client, "orders-1", stable=True) == {
        "orders-1": ErrorCode.UNSTABLE_OFFSET_COMMIT
    }
    assert await fetched(client, group_id="other") == {"orders-0": 3}


async def test_a_marker_counts_in_its_own_partition_only(tmp_path: Path) -> None:
    async with started(tmp_path, {"offsets.topic.num.partitions": "4"}) as broker:
        client, log = Client(broker), broker.groups.log
        assert log.partition_of("shop") != log.partition_of("other")
        for group_id in ("shop", "other"):
            await txn_commit(client, {"orders-0": 1}, group_id=group_id)

        broker.groups.finish(PRODUCER, log.partition_of("shop"), commit=True)
        assert await fetched(client) == {"orders-0": 1}
        assert await fetched(client, group_id="other") == {}

        broker.groups.finish(PRODUCER, log.partition_of("other"), commit=True)
        assert await fetched(client, group_id="other") == {"orders-0": 1}


@pytest.mark.parametrize(
    ("verdict", "version", "code"),
    [
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, 0, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (ErrorCode.INVALID_PRODUCER_EPOCH, 4, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.PRODUCER_FENCED, 4, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.CONCURRENT_TRANSACTIONS, 4, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.INVALID_TXN_STATE, 3, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.TRANSACTION_ABORTABLE, 3, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.INVALID_TXN_STATE, 4, ErrorCode.TRANSACTION_ABORTABLE),
    ],
)
async def test_a_transaction_that_is_not_open_holds_nothing(
    broker: Broker, verdict: ErrorCode, version: int, code: ErrorCode
) -> None:
    client = Client(broker)
    coordinator(broker).return_value = verdict

    assert await txn_commit(client, {"orders-0": 1}, version=version) == {"orders-0": code}
    assert not broker.groups.ledger.has_any("shop")


async def test_a_transaction_of_a_former_owner_is_refused(broker: Broker) -> None:
    client = Client(broker)
    member = await make_member(broker)

    async def tried(member_id: str, generation: int, group_id: str = "shop") -> ErrorCode:
        answer = await txn_commit(
            client,
            {"orders-0": 1},
            member_id=member_id,
            generation_id=generation,
            group_id=group_id,
        )
        return answer["orders-0"]

    assert await tried(member, 0) == ErrorCode.ILLEGAL_GENERATION
    assert await tried("somebody", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await tried(member, 1, "missing") == ErrorCode.ILLEGAL_GENERATION
    assert await tried(member, 1, "") == ErrorCode.INVALID_GROUP_ID
    assert await tried(member, 1) == ErrorCode.NONE
    # Old clients cannot say who they are.
    assert await tried("", -1) == ErrorCode.NONE


# OffsetDelete


async def test_deleted_offsets_are_gone(broker: Broker) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1, "orders-1": 2})

    assert await delete(client, "orders-0", "payments-0", "missing-0") == {
        "orders-0": ErrorCode.NONE,
        "payments-0": ErrorCode.NONE,
        "missing-0": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert await fetched(client) == {"orders-1": 2}


async def test_a_topic_that_is_read_keeps_its_offsets(broker: Broker) -> None:
    client = Client(broker)
    await commit(client, {"orders-0": 1, "payments-0": 2})
    await make_member(broker)

    assert await delete(client, "orders-0", "payments-0") == {
        "orders-0": ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC,
        "payments-0": ErrorCode.NONE,
    }
    assert await fetched(client) == {"orders-0": 1}


@pytest.mark.parametrize(
    ("group_id", "code"),
    [("", ErrorCode.INVALID_GROUP_ID), ("shop", ErrorCode.GROUP_ID_NOT_FOUND)],
)
async def test_there_must_be_a_group_to_delete_from(
    broker: Broker, group_id: str, code: ErrorCode
) -> None:
    assert await delete(Client(broker), "orders-0", group_id=group_id) == code
    assert await delete(Client(broker), "missing-0", group_id=group_id) == code


# Who may


class Forbids:
    def __init__(self, operation: Operation, on: Resource) -> None:
        self._forbidden = operation, on

    def allows(self, principal: Principal, operation: Operation, on: Resource) -> bool:
        return (operation, on) != self._forbidden


def without(broker: Broker, operation: Operation, on: Resource) -> Client:
    client = Client(broker)
    client.connection.session.authorizer = Forbids(operation, on)
    return client


async def fetch_codes(client: Client, group_id: str = "shop") -> Any:
    wanted = OffsetFetchRequest.Group(group_id=group_id, topics=None)
    return (await client.ask(FETCH, 9, OffsetFetchRequest(groups=[wanted]))).groups[0]


async def test_a_group_is_read_by_those_who_may(broker: Broker) -> None:
    forbidden = {"orders-0": ErrorCode.GROUP_AUTHORIZATION_FAILED}
    reader = without(broker, Operation.READ, group("shop"))
    deleter = without(broker, Operation.DELETE, group("shop"))
    describer = without(broker, Operation.DESCRIBE, group("shop"))

    assert await commit(reader, {"orders-0": 1}) == forbidden
    assert await txn_commit(reader, {"orders-0": 1}) == forbidden
    assert await delete(deleter, "orders-0") == ErrorCode.GROUP_AUTHORIZATION_FAILED
    answer = await fetch_codes(describer)
    assert answer.error_code == ErrorCode.GROUP_AUTHORIZATION_FAILED


async def test_a_topic_is_read_by_those_who_may(broker: Broker) -> None:
    both = {"orders-0": 1, "payments-0": 2}
    half = {"orders-0": ErrorCode.TOPIC_AUTHORIZATION_FAILED, "payments-0": ErrorCode.NONE}
    client = Client(broker)
    reader = without(broker, Operation.READ, topic("orders"))
    describer = without(broker, Operation.DESCRIBE, topic("orders"))
    await commit(client, both)

    assert await commit(reader, both) == half
    assert await txn_commit(reader, both) == half
    assert await delete(reader, *both) == half
    assert await fetched(client) == {"orders-0": 1}
    await commit(client, both)
    assert await fetched(describer, "orders-0") == {
        "orders-0": ErrorCode.TOPIC_AUTHORIZATION_FAILED
    }
    assert await fetched(describer) == {"payments-0": 2}


async def test_a_transaction_is_used_by_those_who_may(broker: Broker) -> None:
    client = without(broker, Operation.WRITE, txn_id("till"))

    assert await txn_commit(client, {"orders-0": 1}) == {
        "orders-0": ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    }
