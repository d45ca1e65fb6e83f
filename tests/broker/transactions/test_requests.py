"""The requests of transactions, as frames; what is told of what, and in which version."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from support.batches import batch
from support.core import Client, running_broker
from support.raw_transactions import Place, Teller, committed

from streamer.broker.core import Broker
from streamer.broker.transactions import coordinator, requests
from streamer.log.partition import Partition
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    FindCoordinatorRequest,
    InitProducerIdRequest,
    ListTransactionsRequest,
    OffsetFetchRequest,
    WriteTxnMarkersRequest,
)

OK = ErrorCode.NONE
FENCED = ErrorCode.PRODUCER_FENCED
STALE = ErrorCode.INVALID_PRODUCER_EPOCH
WRONG = ErrorCode.INVALID_TXN_STATE
UNKNOWN = ErrorCode.INVALID_PRODUCER_ID_MAPPING
MISSING = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

A, B = ("a", 0), ("a", 1)


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """With a topic `a` of two partitions."""
    await broker.catalog.create("a", 2, {})
    return broker


@pytest.fixture
async def teller(client: Client) -> Teller:
    teller = Teller(client)
    assert await teller.init() == OK
    return teller


def partition_of(broker: Broker, place: Place = A) -> Partition:
    found = broker.catalog.partition(*place)
    assert found is not None
    return found


async def settle(broker: Broker) -> None:
    """Wait until what is prepared is completed."""
    entries = broker.transactions._entries.values()
    await asyncio.gather(*[one.completion for one in entries if one.completion])


# A whole transaction


async def test_what_is_committed_is_seen_and_what_is_aborted_is_not(
    broker: Broker, teller: Teller
) -> None:
    for number, commit in enumerate((True, False, True)):
        assert await teller.add(A, B) == [OK, OK]
        assert await teller.send(A, b"a%d" % number) == OK
        assert await teller.send(B, b"b%d" % number) == OK
        assert await teller.end(commit=commit) == OK
    await settle(broker)

    assert await committed(teller.client, A) == [b"a0", b"a2"]
    assert await committed(teller.client, B) == [b"b0", b"b2"]


async def test_until_it_ends_nobody_sees_it_nor_what_comes_behind_it(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    await teller.send(A, b"open")
    partition_of(broker).append(batch([b"plain"]), now_ms=broker.clock.now_ms())
    broker.written(partition_of(broker))
    await broker.flushed(partition_of(broker), 1)
    assert await committed(teller.client, A) == []

    await teller.commit()
    await settle(broker)

    assert await committed(teller.client, A) == [b"open", b"plain"]


async def offset_of(client: Client, *, stable: bool = False) -> tuple[int, int]:
    request = OffsetFetchRequest(
        groups=[
            OffsetFetchRequest.Group(
                group_id="g",
                topics=[OffsetFetchRequest.Topic(name="a", partition_indexes=[0])],
            )
        ],
        require_stable=stable,
    )
    [group] = (await client.ask(ApiKey.OFFSET_FETCH, 8, request)).groups
    [topic] = group.topics
    [partition] = topic.partitions
    return partition.error_code, partition.committed_offset


async def test_offsets_count_once_the_transaction_is_committed(
    broker: Broker, teller: Teller
) -> None:
    for offset, commit in ((3, True), (4, False)):
        assert await teller.add_offsets() == OK
        assert await teller.commit_offset(A, offset) == OK
        unstable = ErrorCode.UNSTABLE_OFFSET_COMMIT
        assert (await offset_of(teller.client, stable=True))[0] == unstable
        assert await teller.end(commit=commit) == OK
        await settle(broker)

        assert await offset_of(teller.client, stable=True) == (OK, 3)


async def test_offsets_of_a_group_that_was_not_added_are_refused(teller: Teller) -> None:
    assert await teller.commit_offset(A, 3) == WRONG
    await teller.add(A)
    assert await teller.commit_offset(A, 3) == WRONG
    assert await teller.commit_offset(A, 3, version=4) == ErrorCode.TRANSACTION_ABORTABLE


# InitProducerId


@pytest.mark.parametrize("version", range(6))
async def test_each_who_asks_fences_the_one_before(client: Client, version: int) -> None:
    first, second = Teller(client), Teller(client)
    assert await first.init(version=version) == OK
    assert await second.init(version=version) == OK
    assert (second.id, second.epoch) == (first.id, first.epoch + 1)

    assert await first.add(A) == [FENCED]
    assert await first.add_offsets() == FENCED
    assert await first.commit() == FENCED
    # Older clients know it by another name.
    assert await first.add(A, version=1) == [STALE]
    assert await first.add_offsets(version=1) == STALE
    assert await first.end(commit=True, version=1) == STALE


async def test_who_takes_over_waits_for_the_abort_of_what_went_on(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    await teller.send(A, b"never")

    heir = Teller(teller.client)
    assert await heir.init() == OK

    assert (heir.id, heir.epoch) == (teller.id, teller.epoch + 2)
    assert partition_of(broker).last_stable == partition_of(broker).end
    assert await committed(teller.client, A) == []
    assert await teller.send(A, b"late") == STALE


@pytest.mark.parametrize(("version", "code"), [(3, STALE), (4, FENCED)])
async def test_who_was_fenced_does_not_get_a_new_epoch(
    teller: Teller, version: int, code: ErrorCode
) -> None:
    await Teller(teller.client).init()

    assert await teller.init(again=True, version=version) == code


async def test_after_a_lost_batch_the_producer_goes_on_with_a_new_epoch(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    teller.sequences[A] = 3
    lost = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    await teller.send(A, b"0", base_sequence=0)
    assert await teller.send(A, b"3", base_sequence=3) == lost
    assert await teller.abort() == OK

    assert await teller.init(again=True) == OK
    assert teller.epoch == 1
    await teller.add(A)
    assert await teller.send(A, b"again") == OK
    assert await teller.commit() == OK
    await settle(broker)

    assert await committed(teller.client, A) == [b"again"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"transactional_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"transaction_timeout_ms": 0}, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        ({"transaction_timeout_ms": -1}, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        ({"transaction_timeout_ms": 900_001}, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        ({"producer_id": 1}, ErrorCode.INVALID_REQUEST),
        ({"producer_epoch": 1}, ErrorCode.INVALID_REQUEST),
    ],
)
async def test_what_init_refuses(
    broker: Broker, client: Client, asked: dict[str, Any], code: ErrorCode
) -> None:
    usual = {"transactional_id": "till", "transaction_timeout_ms": 900_000}

    answer = await client.ask(
        ApiKey.INIT_PRODUCER_ID, 5, InitProducerIdRequest(**(usual | asked))
    )

    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (code, -1, -1)
    assert list(broker.transactions) == []


# AddPartitionsToTxn


async def test_one_partition_that_is_not_there_keeps_all_others_out(
    broker: Broker, teller: Teller
) -> None:
    await broker.catalog.create("__consumer_offsets", 1, {})

    assert await teller.add(A, ("a", 7), ("nope", 0), ("__consumer_offsets", 0)) == [
        ErrorCode.OPERATION_NOT_ATTEMPTED,
        MISSING,
        MISSING,
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ]
    assert await teller.send(A, b"v") == WRONG


@pytest.mark.parametrize("name", ["", "unknown"])
async def test_nothing_is_done_for_an_id_that_is_none(teller: Teller, name: str) -> None:
    teller.name = name
    code = UNKNOWN if name else ErrorCode.INVALID_REQUEST

    assert await teller.add(A) == [code]
    assert await teller.add_offsets() == code
    assert await teller.commit() == code


# Produce


async def test_only_partitions_that_were_added_are_written_to(teller: Teller) -> None:
    assert await teller.send(A, b"v") == WRONG
    await teller.add(A)
    assert await teller.send(B, b"v") == WRONG
    assert await teller.send(B, b"v", version=11) == ErrorCode.TRANSACTION_ABORTABLE

    teller.sequences.clear()
    assert await teller.send(A, b"v") == OK


async def test_only_the_holder_of_the_id_writes(teller: Teller) -> None:
    await teller.add(A)

    assert await teller.send(A, b"v", producer_epoch=teller.epoch + 1) == STALE
    assert await teller.send(A, b"v", producer_id=teller.id + 1) == UNKNOWN
    teller.name = "other"
    assert await teller.send(A, b"v") == UNKNOWN


async def test_a_repeated_batch_is_the_same_batch_even_when_the_transaction_is_over(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    again = {A: teller.batch(A, [b"v"])}
    for _ in range(2):
        assert await teller.send_batches(again) == {A: OK}
    await teller.commit()
    await settle(broker)

    assert await teller.send_batches(again) == {A: OK}
    assert await committed(teller.client, A) == [b"v"]


async def test_a_batch_of_a_transaction_needs_its_id_in_the_request(
    teller: Teller,
) -> None:
    await teller.add(A)
    assert await teller.send(A, b"v") == OK

    answers = await teller.send_batches({A: teller.batch(A, [b"v"])}, named=False)

    assert answers == {A: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED}


async def test_one_request_has_one_producer(broker: Broker, teller: Teller) -> None:
    await teller.add(A, B)
    other = teller.batch(B, [b"v"], producer_id=teller.id + 1)

    answers = await teller.send_batches({A: teller.batch(A, [b"v"]), B: other})

    assert answers == {A: UNKNOWN, B: UNKNOWN}
    assert partition_of(broker).end == 0


async def test_what_is_no_part_of_the_transaction_does_not_get_into_it(
    teller: Teller,
) -> None:
    await teller.add(A)
    assert await teller.send(A, b"v") == OK

    assert await teller.send(A, b"plain", attributes=0) == WRONG


# EndTxn


async def test_every_retry_is_answered_as_the_request_was(
    teller: Teller,
) -> None:
    assert await teller.commit() == await teller.abort() == WRONG
    for commit in (True, False):
        await teller.add(A)
        assert await teller.add(A) == [OK]
        for _ in range(3):
            assert await teller.end(commit=commit) == OK
        assert await teller.end(commit=not commit) == WRONG


async def test_the_next_transaction_waits_for_the_markers_of_this_one(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    await teller.send(A, b"1")
    other = Teller(Client(broker), id=teller.id, epoch=teller.epoch)

    await teller.commit()
    assert await other.add(B) == [OK]

    assert partition_of(broker).last_stable == partition_of(broker).end == 2


async def test_who_waits_in_vain_for_markers_is_told_to_ask_again(
    broker: Broker, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "PATIENCE_SECONDS", 0.05)
    await teller.add(A, B)
    await teller.send(A, b"1")
    partition_of(broker, B).offline = "a test says so"

    assert await teller.commit() == OK
    busy = ErrorCode.CONCURRENT_TRANSACTIONS
    assert await teller.add(A) == [busy]
    assert await teller.init() == busy
    assert await teller.commit() == busy
    assert await teller.end(commit=False) == WRONG

    partition_of(broker, B).offline = None
    await broker.transactions.abort_late()
    await settle(broker)
    assert await teller.add(B) == [OK]
    # Each has got its marker, and has got it once.
    assert partition_of(broker, A).end == 2
    assert partition_of(broker, B).end == 1


async def test_a_deleted_topic_needs_no_marker(broker: Broker, teller: Teller) -> None:
    await teller.add(A, ("t", 0))
    await teller.send(("t", 0), b"kept")
    await teller.send(A, b"gone")
    for partition in await broker.catalog.delete(broker.catalog.topics["a"]):
        broker.watchers.moved(partition)

    assert await teller.commit() == OK
    await settle(broker)

    assert await committed(teller.client, ("t", 0)) == [b"kept"]


async def test_nothing_is_committed_that_may_be_lost(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    await teller.send(A, b"v")
    partition = partition_of(broker)
    partition.append(
        teller.batch(A, [b"unsafe"]),
        now_ms=broker.clock.now_ms(),
        verify=lambda header, goes_on: None,
    )
    partition.offline = "a test says so"

    assert await teller.commit() == ErrorCode.COORDINATOR_NOT_AVAILABLE
    partition.offline = None
    assert await teller.commit() == OK


# Time


async def test_what_takes_too_long_is_aborted_and_its_producer_fenced(
    broker: Broker, client: Client
) -> None:
    slow, quick = Teller(client, "slow", timeout_ms=1), Teller(client, "quick")
    for teller in (slow, quick):
        await teller.init()
        await teller.add(A)
        assert await teller.send(A, teller.name.encode()) == OK
    await asyncio.sleep(0.005)

    await broker.transactions.abort_late()
    await settle(broker)

    assert await slow.commit() == FENCED
    assert await slow.send(A, b"late") == STALE
    assert await quick.commit() == OK
    await settle(broker)
    assert await committed(client, A) == [b"quick"]
    assert await slow.init(again=True) == OK


async def test_an_id_that_nobody_uses_is_forgotten(tmp_path: Path) -> None:
    settings = {"transactional.id.expiration.ms": "1"}
    async with running_broker(tmp_path, settings) as broker:
        await broker.catalog.create("a", 2, {})
        busy, idle = Teller(Client(broker), "busy"), Teller(Client(broker), "idle")
        await busy.init()
        await busy.add(A)
        await idle.init()
        await asyncio.sleep(0.005)

        await broker.transactions.expire()

        assert [one.transactional_id for one in broker.transactions] == ["busy"]
        assert await idle.add(A) == [UNKNOWN]
    async with running_broker(tmp_path) as broker:
        idle.client = Client(broker)
        assert await idle.add(A) == [UNKNOWN]
        assert await idle.init() == OK
        assert idle.epoch == 0


# Administrators


async def test_find_coordinator_names_this_broker_for_every_id(client: Client) -> None:
    old = await client.ask(
        ApiKey.FIND_COORDINATOR, 2, FindCoordinatorRequest(key="till", key_type=1)
    )
    new = await client.ask(
        ApiKey.FIND_COORDINATOR,
        4,
        FindCoordinatorRequest(coordinator_keys=["till", "x"], key_type=1),
    )

    assert (old.error_code, old.port) == (OK, 9092)
    assert [(one.error_code, one.node_id) for one in new.coordinators] == [(OK, 1)] * 2


async def describe(client: Client, *names: str) -> Any:
    request = DescribeTransactionsRequest(transactional_ids=list(names))
    answer = await client.ask(ApiKey.DESCRIBE_TRANSACTIONS, 0, request)
    return answer.transaction_states


async def test_a_transaction_is_described_as_it_stands(
    broker: Broker, teller: Teller
) -> None:
    [empty] = await describe(teller.client, "till")
    assert (empty.transaction_state, empty.transaction_start_time_ms) == ("Empty", -1)
    assert empty.topics == []

    before = broker.clock.now_ms()
    await teller.add(A, B)
    [ongoing] = await describe(teller.client, "till")

    assert ongoing.transaction_state == "Ongoing"
    assert ongoing.transaction_timeout_ms == 60_000
    assert before <= ongoing.transaction_start_time_ms <= broker.clock.now_ms()
    assert (ongoing.producer_id, ongoing.producer_epoch) == (teller.id, teller.epoch)
    assert [(one.name, one.partitions) for one in ongoing.topics] == [("a", [0, 1])]

    codes = [one.error_code for one in await describe(teller.client, "nobody", "")]
    assert codes == [ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, ErrorCode.INVALID_REQUEST]


async def test_transactions_are_listed_by_state_producer_and_duration(
    broker: Broker, client: Client
) -> None:
    first, second = Teller(client, "first"), Teller(client, "second")
    await first.init()
    await second.init()
    await second.add(A)
    await asyncio.sleep(0.005)

    async def listed(**filters: Any) -> list[str]:
        answer = await client.ask(
            ApiKey.LIST_TRANSACTIONS, 1, ListTransactionsRequest(**filters)
        )
        assert answer.unknown_state_filters == [
            one for one in filters.get("state_filters", []) if one == "Nonsense"
        ]
        return [one.transactional_id for one in answer.transaction_states]

    assert await listed() == ["first", "second"]
    assert await listed(state_filters=["Ongoing", "Nonsense", "Dead"]) == ["second"]
    assert await listed(producer_id_filters=[first.id, 99]) == ["first"]
    assert await listed(duration_filter=3_600_000, state_filters=["Ongoing"]) == []
    assert await listed(duration_filter=1, state_filters=["Ongoing"]) == ["second"]


async def test_transactions_are_listed_by_a_pattern(broker: Broker, client: Client) -> None:
    for name in ("shop-1", "shop-2", "till-1"):
        await Teller(client, name).init()

    async def listed(pattern: str | None, **filters: Any) -> tuple[int, list[str]]:
        asked = ListTransactionsRequest(transactional_id_pattern=pattern, **filters)
        answer = await client.ask(ApiKey.LIST_TRANSACTIONS, 2, asked)
        names = [one.transactional_id for one in answer.transaction_states]
        return answer.error_code, names

    everyone = OK, ["shop-1", "shop-2", "till-1"]
    assert await listed(None) == await listed("") == await listed(".*") == everyone
    assert await listed("shop-.") == (OK, ["shop-1", "shop-2"])
    assert await listed("shop") == (OK, [])
    assert await listed("shop-.", state_filters=["Ongoing"]) == (OK, [])
    assert await listed("shop-(") == (ErrorCode.INVALID_REGULAR_EXPRESSION, [])


async def test_the_loop_goes_on_while_a_pattern_is_held_against_ids(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def slow(pattern: str, names: list[str]) -> set[str]:
        assert goes_on.wait(10), "the loop stands still"
        return set(names)

    monkeypatch.setattr(requests, "matching", slow)
    asked = ListTransactionsRequest(transactional_id_pattern=".*")
    client.send(ApiKey.LIST_TRANSACTIONS, 2, asked)

    await Teller(Client(broker), "shop").init()
    goes_on.set()

    assert (await client.answer()).error_code == OK


async def producers_of(client: Client, *places: Place) -> list[Any]:
    request = DescribeProducersRequest(
        topics=[
            DescribeProducersRequest.Topic(name=topic, partition_indexes=[index])
            for topic, index in places
        ]
    )
    answer = await client.ask(ApiKey.DESCRIBE_PRODUCERS, 0, request)
    return [topic.partitions[0] for topic in answer.topics]


async def test_a_partition_tells_who_has_a_transaction_open_there(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A)
    await teller.send(A, b"0", b"1")

    [found, none, missing] = await producers_of(teller.client, A, B, ("a", 9))

    [producer] = found.active_producers
    assert (producer.producer_id, producer.producer_epoch) == (teller.id, teller.epoch)
    assert (producer.last_sequence, producer.current_txn_start_offset) == (1, 0)
    assert producer.coordinator_epoch == -1
    assert (none.error_code, none.active_producers) == (OK, [])
    assert missing.error_code == MISSING

    await teller.commit()
    await settle(broker)
    [after] = await producers_of(teller.client, A)
    [producer] = after.active_producers
    assert producer.current_txn_start_offset == -1
    assert producer.coordinator_epoch == broker.catalog.starts


async def write_marker(
    client: Client, teller: Teller, *places: Place, coordinator_epoch: int = 0
) -> list[ErrorCode]:
    marker = WriteTxnMarkersRequest.Marker(
        producer_id=teller.id,
        producer_epoch=teller.epoch,
        transaction_result=False,
        coordinator_epoch=coordinator_epoch,
        topics=[
            WriteTxnMarkersRequest.Topic(name=topic, partition_indexes=[index])
            for topic, index in places
        ],
    )
    answer = await client.ask(
        ApiKey.WRITE_TXN_MARKERS, 1, WriteTxnMarkersRequest(markers=[marker])
    )
    [written] = answer.markers
    return [ErrorCode(topic.partitions[0].error_code) for topic in written.topics]


async def test_an_administrator_ends_a_transaction_by_hand(
    broker: Broker, teller: Teller
) -> None:
    await teller.add(A, B)
    await teller.send(A, b"a")
    await teller.send(B, b"b")

    codes = await write_marker(
        teller.client, teller, A, ("a", 9), coordinator_epoch=2**31 - 1
    )

    assert codes == [OK, MISSING]
    assert partition_of(broker).last_stable == 2
    # The coordinator goes on all the same, whatever number the marker had.
    assert await teller.commit() == OK
    await settle(broker)
    assert await committed(teller.client, A) == []
    assert await committed(teller.client, B) == [b"b"]
    await teller.add(A)
    await teller.send(A, b"next")
    assert await teller.commit() == OK
    await settle(broker)
    assert await committed(teller.client, A) == [b"next"]


async def test_markers_of_who_is_fenced_are_refused(broker: Broker, teller: Teller) -> None:
    await teller.init()
    await teller.add(A)
    await teller.send(A, b"a")
    old = Teller(teller.client, id=teller.id, epoch=teller.epoch - 1)
    nobody = Teller(teller.client)

    assert await write_marker(teller.client, old, A) == [STALE]
    assert await write_marker(teller.client, nobody, A) == [ErrorCode.INVALID_REQUEST]
    await teller.commit()
    await settle(broker)
    fenced = ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert await write_marker(teller.client, teller, A, coordinator_epoch=0) == [fenced]
