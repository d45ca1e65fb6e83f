"""Groups that commit offsets: to a broker in this process, in few words.

A partition is written `orders-0`; a commit is a dict from partitions to offsets, and so is
what comes back. Transactions are always open here, unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock, patch

from support.core import Client, running_broker

from streamer.broker.core import Broker
from streamer.broker.groups.member import Join, Protocol, Sync
from streamer.broker.transactions.coordinator import TransactionCoordinator
from streamer.wire.api_keys import ApiKey
from streamer.wire.batch import Marker
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    TxnOffsetCommitRequest,
)

COMMIT, FETCH, DELETE, TXN_COMMIT = (
    ApiKey.OFFSET_COMMIT,
    ApiKey.OFFSET_FETCH,
    ApiKey.OFFSET_DELETE,
    ApiKey.TXN_OFFSET_COMMIT,
)
PRODUCER, EPOCH = 4000, 3
READS_ORDERS = b"\0\0" + b"\0\0\0\1" + b"\0\6orders" + b"\xff\xff\xff\xff"


@asynccontextmanager
async def started(
    path: Path, settings: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[Broker]:
    """A broker with two topics, whose producers are always in a transaction."""
    at_once = {"group.initial.rebalance.delay.ms": "0"}
    verify = Mock(return_value=ErrorCode.NONE)
    # Nobody keeps these transactions: they would be ended at the next start.
    with (
        patch.object(TransactionCoordinator, "verify", verify),
        patch.object(TransactionCoordinator, "load", AsyncMock()),
    ):
        async with running_broker(path, {**at_once, **(settings or {})}, **more) as broker:
            for name in ("orders", "payments"):
                if name not in broker.catalog.topics:
                    await broker.catalog.create(name, 2, {})
            yield broker


def coordinator(broker: Broker) -> Mock:
    """What the coordinator of transactions says, and what it was asked."""
    verify: Any = broker.transactions.verify
    assert isinstance(verify, Mock)
    return verify


def topics_of(request: type[Any], offsets: Mapping[str, int], metadata: str = "") -> Any:
    """A topic for each `orders-0`."""
    topics = []
    for place, offset in offsets.items():
        name, _, index = place.rpartition("-")
        partition = request.Partition(
            index=int(index), committed_offset=offset, committed_metadata=metadata
        )
        topics.append(request.Topic(name=name, partitions=[partition]))
    return topics


def codes(answer: Any) -> dict[str, ErrorCode]:
    return {
        f"{topic.name}-{partition.index}": ErrorCode(partition.error_code)
        for topic in answer.topics
        for partition in topic.partitions
    }


async def commit(
    client: Client,
    offsets: Mapping[str, int],
    *,
    version: int = 9,
    metadata: str = "",
    group_id: str = "shop",
    **more: Any,
) -> dict[str, ErrorCode]:
    topics = topics_of(OffsetCommitRequest, offsets, metadata)
    request = OffsetCommitRequest(group_id=group_id, topics=topics, **more)
    return codes(await client.ask(COMMIT, version, request))


async def txn_commit(
    client: Client,
    offsets: Mapping[str, int],
    *,
    version: int = 4,
    group_id: str = "shop",
    producer: int = PRODUCER,
    metadata: str = "",
    **more: Any,
) -> dict[str, ErrorCode]:
    request = TxnOffsetCommitRequest(
        transactional_id="till",
        group_id=group_id,
        producer_id=producer,
        producer_epoch=EPOCH,
        topics=topics_of(TxnOffsetCommitRequest, offsets, metadata),
        **more,
    )
    return codes(await client.ask(TXN_COMMIT, version, request))


async def end(broker: Broker, *, commit: bool, producer: int = PRODUCER) -> None:
    """End the producer's transaction, as its coordinator does."""
    partition = await broker.groups.log.partition(0)
    marker = Marker(commit=commit, coordinator_epoch=1)
    appended = partition.append_marker(
        producer, EPOCH, marker, now_ms=broker.clock.now_ms()
    )
    broker.written(partition)
    await broker.flushed(partition, appended.last_offset)
    broker.groups.finish(producer, 0, commit=commit)


async def fetched(
    client: Client, *places: str, stable: bool = False, group_id: str = "shop"
) -> dict[str, Any]:
    """By partition its offset, or what is wrong with it; without `places`, all."""
    asked = [place.rpartition("-") for place in places]
    wanted = OffsetFetchRequest.Group(
        group_id=group_id,
        topics=[
            OffsetFetchRequest.GroupTopic(name=name, partition_indexes=[int(index)])
            for name, _, index in asked
        ]
        or None,
    )
    request = OffsetFetchRequest(groups=[wanted], require_stable=stable)
    [answer] = (await client.ask(FETCH, 9, request)).groups
    assert answer.error_code == ErrorCode.NONE
    return {
        f"{topic.name}-{one.index}": ErrorCode(one.error_code) or one.committed_offset
        for topic in answer.topics
        for one in topic.partitions
    }


async def delete(
    client: Client, *places: str, group_id: str = "shop"
) -> ErrorCode | dict[str, ErrorCode]:
    topics = [
        OffsetDeleteRequest.Topic(
            name=name, partitions=[OffsetDeleteRequest.Partition(index=int(index))]
        )
        for name, _, index in (place.rpartition("-") for place in places)
    ]
    request = OffsetDeleteRequest(group_id=group_id, topics=topics)
    answer = await client.ask(DELETE, 0, request)
    return ErrorCode(answer.error_code) or codes(answer)


async def make_member(
    broker: Broker, *, synced: bool = True, protocol_type: str = "consumer"
) -> str:
    """Have one member in `shop`, in its first generation, that reads `orders`."""
    join = Join(
        member_id="",
        protocol_type=protocol_type,
        protocols=(Protocol("range", READS_ORDERS),),
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        knows_member_ids=False,
    )
    joined = await broker.groups.join("shop", join)
    if synced:
        sync = Sync(member_id=joined.member_id, generation=1, assignments={})
        assert (await broker.groups.sync("shop", sync)).error == ErrorCode.NONE
    return joined.member_id


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
