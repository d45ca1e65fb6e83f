"""Transactions message by message: who may do what, and when.

The codes by their numbers in the protocol: 3 UNKNOWN_TOPIC_OR_PARTITION, 42
INVALID_REQUEST, 47 INVALID_PRODUCER_EPOCH, 48 INVALID_TXN_STATE, 49
INVALID_PRODUCER_ID_MAPPING, 50 INVALID_TRANSACTION_TIMEOUT, 53
TRANSACTIONAL_ID_AUTHORIZATION_FAILED, 55 OPERATION_NOT_ATTEMPTED, 90 PRODUCER_FENCED,
120 TRANSACTION_ABORTABLE. What older versions do not know they are told as 47 or 48.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from conformance.conftest import MakeTopic
from support.clients import new_name, result
from support.raw import Wire, fetch, until_known
from support.raw_groups import RawMember, commit, committed
from support.raw_producer import RawProducer, until

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import DeleteGroupsRequest

# The first versions that know PRODUCER_FENCED.
FENCED_FROM = {"init": 4, "add": 2, "add_offsets": 2, "end": 2}


def fenced(request: str, version: int) -> ErrorCode:
    """What a producer is told at this version when another has taken over."""
    if version >= FENCED_FROM[request]:
        return ErrorCode.PRODUCER_FENCED
    return ErrorCode.INVALID_PRODUCER_EPOCH


@pytest.fixture
def producer(wire: Wire) -> RawProducer:
    return RawProducer(wire).started()


def end_of(wire: Wire, log: str) -> tuple[int, int]:
    """Last stable offset and high watermark."""
    found = fetch(wire, log, 0, isolation=1)
    return found.last_stable_offset, found.high_watermark


# InitProducerId


@pytest.mark.parametrize("version", range(6))
def test_a_name_keeps_its_id_and_each_start_raises_the_epoch(
    wire: Wire, version: int
) -> None:
    name = new_name("txn")
    first, second = RawProducer(wire, name), RawProducer(wire, name)

    assert first.init(version=version).error_code == ErrorCode.NONE
    assert second.init(version=version).error_code == ErrorCode.NONE
    assert (first.epoch, second.epoch) == (0, 1)
    assert first.id == second.id >= 0


def test_every_name_has_an_id_of_its_own(wire: Wire) -> None:
    found = [RawProducer(wire).started() for _ in range(3)]

    assert len({each.id for each in found}) == 3


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_a_timeout_must_be_within_limits(wire: Wire, timeout_ms: int) -> None:
    code = RawProducer(wire).init(timeout_ms=timeout_ms).error_code

    assert code == ErrorCode.INVALID_TRANSACTION_TIMEOUT


def test_a_name_may_not_be_empty(wire: Wire) -> None:
    producer = RawProducer(wire).started()
    producer.name = ""

    assert producer.init().error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_producer_may_raise_its_own_epoch(producer: RawProducer, version: int) -> None:
    pair = {"producer_id": producer.id, "producer_epoch": producer.epoch}

    for _ in range(2):  # the second is the first sent again
        answer = producer.init(version=version, **pair)
        assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (
            ErrorCode.NONE,
            pair["producer_id"],
            1,
        )


@pytest.mark.parametrize("version", [3, 4, 5])
def test_who_was_overtaken_may_not_raise_its_epoch(
    wire: Wire, producer: RawProducer, version: int
) -> None:
    for _ in range(2):
        RawProducer(wire, producer.name).started()

    pair = {"producer_id": producer.id, "producer_epoch": producer.epoch}
    refused = fenced("init", version)
    assert producer.init(version=version, **pair).error_code == refused
    strange = {"producer_id": producer.id + 1_000_000, "producer_epoch": 2}
    assert producer.init(version=version, **strange).error_code == refused


@pytest.mark.parametrize("pair", [(5, -1), (-1, 5)])
def test_an_id_without_an_epoch_is_no_request(
    producer: RawProducer, pair: tuple[int, int]
) -> None:
    answer = producer.init(producer_id=pair[0], producer_epoch=pair[1])

    assert answer.error_code == ErrorCode.INVALID_REQUEST


# AddPartitionsToTxn and AddOffsetsToTxn


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added(producer: RawProducer, log: str, version: int) -> None:
    for _ in range(2):  # once more changes nothing
        assert producer.add(log, version=version) == ErrorCode.NONE

    found = producer.described()
    assert (found.transaction_state, found.topics[0].name) == ("Ongoing", log)
    producer.finish(commit=False)


@pytest.mark.parametrize("version", range(5))
def test_groups_are_added(producer: RawProducer, group: str, version: int) -> None:
    assert producer.add_offsets(group, version=version) == ErrorCode.NONE

    found = producer.described()
    assert found.transaction_state == "Ongoing"
    assert [topic.name for topic in found.topics] == ["__consumer_offsets"]
    producer.finish(commit=False)


def test_with_one_unknown_partition_none_is_added(producer: RawProducer, log: str) -> None:
    found = producer.add_all({log: (0, 7), "no-such-topic": (0,)})

    assert found == {
        (log, 0): ErrorCode.OPERATION_NOT_ATTEMPTED,
        (log, 7): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("no-such-topic", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert producer.described().transaction_state == "Empty"


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added_by_the_producer_alone(
    producer: RawProducer, log: str, version: int
) -> None:
    def add(**other: Any) -> int:
        return producer.add(log, version=version, **other)

    assert_only_the_producer_may(add, producer, fenced("add", version))


@pytest.mark.parametrize("version", range(5))
def test_groups_are_added_by_the_producer_alone(
    producer: RawProducer, group: str, version: int
) -> None:
    def add(**other: Any) -> int:
        return producer.add_offsets(group, version=version, **other)

    assert_only_the_producer_may(add, producer, fenced("add_offsets", version))


@pytest.mark.parametrize("version", range(5))
def test_transactions_are_ended_by_the_producer_alone(
    producer: RawProducer, log: str, version: int
) -> None:
    producer.write(log)

    def end(**other: Any) -> int:
        return producer.end(commit=True, version=version, **other)

    assert_only_the_producer_may(end, producer, fenced("end", version))
    assert producer.described().transaction_state == "Ongoing"
    producer.finish(commit=False)


def assert_only_the_producer_may(act: Any, producer: RawProducer, epoch: int) -> None:
    """Other names, ids and epochs than the producer's are refused."""
    unknown = ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert act(transactional_id="made-up-name") == unknown
    assert act(producer_id=producer.id + 1_000_000) == unknown
    for other in (producer.epoch + 1, producer.epoch - 1):
        assert act(producer_epoch=other) == epoch
    assert act(transactional_id="") == ErrorCode.INVALID_REQUEST


# Produce


def test_only_partitions_that_were_added_are_written_to(
    wire: Wire, producer: RawProducer, log: str, make_topic: MakeTopic
) -> None:
    other = make_topic()
    until_known(wire, other)
    producer.write(log)

    for version in (7, 8, 9, 10):
        code = producer.send(other, version=version).error_code
        assert code == ErrorCode.INVALID_TXN_STATE
    code = producer.send(other, version=11).error_code
    assert code == ErrorCode.TRANSACTION_ABORTABLE
    assert end_of(wire, other) == (0, 0)
    producer.finish(commit=True)


def test_nothing_is_written_after_the_end(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    producer.write(log)
    producer.finish(commit=True)

    assert producer.send(log).error_code == ErrorCode.INVALID_TXN_STATE
    assert end_of(wire, log) == (2, 2)


def test_transactional_records_need_a_name(producer: RawProducer, log: str) -> None:
    producer.add(log)

    code = producer.send(log, transactional_id=None).error_code
    assert code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    producer.finish(commit=False)


def test_another_epoch_or_id_may_not_write(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    producer.add(log)

    refused = producer.send(log, producer_epoch=producer.epoch + 1).error_code
    assert refused == ErrorCode.INVALID_PRODUCER_EPOCH
    refused = producer.send(log, producer_id=producer.id + 1_000_000).error_code
    assert refused == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert end_of(wire, log) == (0, 0)
    producer.finish(commit=False)


def test_within_a_transaction_there_is_nothing_outside_of_it(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    producer.write(log)

    answer = producer.send(log, attributes=0, transactional_id=None)
    assert answer.error_code == ErrorCode.INVALID_TXN_STATE
    producer.finish(commit=False)


def test_a_batch_sent_again_is_kept_once(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    offset = producer.write(log, b"a", b"b")

    producer.sequences.clear()
    again = producer.send(log, b"a", b"b")
    assert (again.error_code, again.base_offset) == (ErrorCode.NONE, offset)
    assert end_of(wire, log) == (0, 2)
    producer.finish(commit=True)


# EndTxn


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("commit", [True, False])
def test_the_same_end_may_come_again_and_no_other(
    producer: RawProducer, log: str, commit: bool, version: int
) -> None:
    producer.write(log)
    producer.finish(commit=commit)

    assert producer.end(commit=commit, version=version) == ErrorCode.NONE
    code = producer.end(commit=not commit, version=version)
    assert code == ErrorCode.INVALID_TXN_STATE


@pytest.mark.parametrize("commit", [True, False])
def test_there_is_no_end_without_a_beginning(producer: RawProducer, commit: bool) -> None:
    assert producer.end(commit=commit) == ErrorCode.INVALID_TXN_STATE


def test_a_transaction_may_end_with_nothing_written(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    producer.add(log)
    producer.finish(commit=True)

    assert end_of(wire, log) == (1, 1), "the marker is written all the same"


def test_transactions_follow_each_other_at_once(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    for number in range(20):
        assert producer.write(log) == number * 2
        assert producer.end(commit=number % 3 != 0) == ErrorCode.NONE

    until(lambda: end_of(wire, log) == (40, 40), "a marker is missing")


# Fencing


def test_a_new_start_aborts_what_was_open_and_fences_who_wrote_it(
    wire: Wire, producer: RawProducer, log: str, group: str
) -> None:
    producer.write(log)
    successor = RawProducer(wire, producer.name).started()

    assert successor.epoch > producer.epoch
    assert end_of(wire, log) == (2, 2)
    (aborted,) = fetch(wire, log, 0, isolation=1).aborted_transactions
    assert (aborted.producer_id, aborted.first_offset) == (producer.id, 0)

    assert producer.send(log).error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    for version in range(4):
        assert producer.add(log, version=version) == fenced("add", version)
    for version in range(5):
        code = producer.add_offsets(group, version=version)
        assert code == fenced("add_offsets", version)
        code = producer.end(commit=True, version=version)
        assert code == fenced("end", version)
        code = producer.commit_offset(group, log, 1, version=version)
        assert code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert successor.write(log) == 2
    successor.finish(commit=True)


def test_a_transaction_left_open_is_aborted_in_time(wire: Wire, log: str) -> None:
    producer = RawProducer(wire).started(timeout_ms=300)
    began = time.monotonic()
    producer.write(log)

    assert end_of(wire, log) == (0, 1)
    until(lambda: end_of(wire, log) == (2, 2), "it was never aborted")
    assert time.monotonic() - began > 0.25
    assert producer.described().transaction_state == "CompleteAbort"
    for version in range(5):
        code = producer.end(commit=True, version=version)
        assert code == fenced("end", version)
    assert producer.send(log).error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert producer.init().error_code == ErrorCode.NONE
    assert producer.write(log) == 2
    producer.finish(commit=True)


def test_whose_time_was_up_may_go_on_with_a_new_epoch(wire: Wire, log: str) -> None:
    producer = RawProducer(wire).started(timeout_ms=300)
    producer.write(log)
    until(lambda: end_of(wire, log) == (2, 2), "it was never aborted")

    answer = producer.init(producer_id=producer.id, producer_epoch=producer.epoch)
    assert (answer.error_code, answer.producer_epoch) == (ErrorCode.NONE, 1)
    assert producer.write(log) == 2
    producer.finish(commit=True)


def test_a_producer_may_give_up_its_own_transaction_by_a_new_epoch(
    wire: Wire, producer: RawProducer, log: str
) -> None:
    producer.write(log)

    answer = producer.init(producer_id=producer.id, producer_epoch=producer.epoch)
    assert (answer.error_code, answer.producer_epoch) == (ErrorCode.NONE, 1)
    assert len(fetch(wire, log, 0, isolation=1).aborted_transactions) == 1
    assert end_of(wire, log) == (2, 2)


def test_a_topic_may_be_deleted_within_a_transaction(
    wire: Wire, admin: AdminClient, producer: RawProducer, log: str, make_topic: MakeTopic
) -> None:
    gone = make_topic()
    until_known(wire, gone)
    producer.write(gone)
    producer.write(log)

    result(admin.delete_topics([gone])[gone])
    producer.finish(commit=True)
    assert end_of(wire, log) == (2, 2)


# TxnOffsetCommit


@pytest.mark.parametrize("version", range(5))
def test_offsets_count_once_the_transaction_commits(
    wire: Wire, producer: RawProducer, group: str, log: str, version: int
) -> None:
    commit(wire, group, log, 1)
    producer.add_offsets(group)
    code = producer.commit_offset(group, log, 5, version=version, metadata="in txn")
    assert code == ErrorCode.NONE

    assert committed(wire, group, log).committed_offset == 1
    producer.finish(commit=True)
    found = committed(wire, group, log)
    assert (found.committed_offset, found.metadata) == (5, "in txn")


def test_offsets_vanish_when_the_transaction_aborts(
    wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    commit(wire, group, log, 1)
    producer.add_offsets(group)
    producer.commit_offset(group, log, 5)
    producer.finish(commit=False)

    assert committed(wire, group, log, stable=True).committed_offset == 1


@pytest.mark.parametrize("version", [7, 8, 9])
def test_who_wants_stable_offsets_is_told_to_wait(
    wire: Wire, producer: RawProducer, group: str, log: str, version: int
) -> None:
    commit(wire, group, log, 1)
    producer.add_offsets(group)
    producer.commit_offset(group, log, 5)

    found = committed(wire, group, log, stable=True, version=version)
    assert found.error_code == ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert found.committed_offset == -1
    assert committed(wire, group, log, version=version).committed_offset == 1
    producer.finish(commit=True)
    found = committed(wire, group, log, stable=True, version=version)
    assert (found.error_code, found.committed_offset) == (ErrorCode.NONE, 5)


def test_of_several_commits_in_a_transaction_the_last_counts(
    wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    producer.add_offsets(group)
    for offset in (5, 9, 7):
        producer.commit_offset(group, log, offset)
    producer.finish(commit=True)

    assert committed(wire, group, log).committed_offset == 7


def test_of_a_commit_within_a_transaction_and_one_outside_the_later_counts(
    wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    producer.add_offsets(group)
    producer.commit_offset(group, log, 5)
    assert commit(wire, group, log, 3) == ErrorCode.NONE

    producer.finish(commit=True)
    assert committed(wire, group, log).committed_offset == 3


def test_of_two_transactions_the_later_commit_counts_whichever_ends_first(
    wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    other = RawProducer(wire).started()
    for each, offset in ((producer, 5), (other, 9)):
        each.add_offsets(group)
        each.commit_offset(group, log, offset)

    other.finish(commit=True)
    assert committed(wire, group, log).committed_offset == 9
    found = committed(wire, group, log, stable=True)
    assert found.error_code == ErrorCode.UNSTABLE_OFFSET_COMMIT
    producer.finish(commit=True)
    assert committed(wire, group, log, stable=True).committed_offset == 9


def test_offsets_of_a_group_that_was_deleted_do_not_come_back(
    wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    producer.add_offsets(group)
    producer.commit_offset(group, log, 5)

    (deleted,) = wire.ask(DeleteGroupsRequest(groups_names=[group]), 2).results
    assert deleted.error_code == ErrorCode.NONE
    producer.finish(commit=True)
    assert committed(wire, group, log, stable=True).committed_offset == -1


def test_a_group_that_was_not_added_takes_no_offsets(
    wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    producer.add(log)

    for version in range(4):
        code = producer.commit_offset(group, log, 5, version=version)
        assert code == ErrorCode.INVALID_TXN_STATE
    code = producer.commit_offset(group, log, 5, version=4)
    assert code == ErrorCode.TRANSACTION_ABORTABLE
    producer.finish(commit=True)
    assert committed(wire, group, log).committed_offset == -1


def test_a_member_of_another_generation_commits_nothing(
    bootstrap: str, wire: Wire, producer: RawProducer, group: str, log: str
) -> None:
    worker = RawMember(bootstrap, group, instance="one")
    worker.join()
    worker.sync({worker.id: b"all"})
    producer.add_offsets(group)
    member: dict[str, Any] = {
        "generation_id": 1,
        "member_id": worker.id,
        "group_instance_id": "one",
    }

    def attempt(**other: Any) -> int:
        return producer.commit_offset(group, log, 5, **(member | other))

    assert attempt() == ErrorCode.NONE
    assert attempt(generation_id=0) == ErrorCode.ILLEGAL_GENERATION
    assert attempt(generation_id=2) == ErrorCode.ILLEGAL_GENERATION
    assert attempt(member_id="made up", group_instance_id=None) == (
        ErrorCode.UNKNOWN_MEMBER_ID
    )
    assert attempt(member_id="made up") == ErrorCode.FENCED_INSTANCE_ID
    assert attempt(group_instance_id="made up") == ErrorCode.UNKNOWN_MEMBER_ID
    assert attempt(generation_id=-1, member_id="", group_instance_id=None) == (
        ErrorCode.NONE
    ), "older clients name no member"
    producer.finish(commit=True)
    worker.close()


def test_a_group_nobody_made_has_no_generation(
    producer: RawProducer, group: str, log: str
) -> None:
    producer.add_offsets(group)

    code = producer.commit_offset(group, log, 5, generation_id=1, member_id="made up")
    assert code == ErrorCode.ILLEGAL_GENERATION
    assert producer.commit_offset(group, log, 5) == ErrorCode.NONE
    producer.finish(commit=True)


def test_offsets_are_refused_like_any_others(
    producer: RawProducer, group: str, log: str
) -> None:
    producer.add_offsets(group)

    code = producer.commit_offset(group, log, 5, metadata="x" * 4097)
    assert code == ErrorCode.OFFSET_METADATA_TOO_LARGE
    code = producer.commit_offset(group, "no-such-topic", 5)
    assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    code = producer.commit_offset(group, log, 5, producer_id=producer.id + 1_000_000)
    assert code == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    code = producer.commit_offset(group, log, 5, producer_epoch=producer.epoch + 1)
    assert code == ErrorCode.INVALID_PRODUCER_EPOCH
    code = producer.commit_offset(group, log, 5, transactional_id="made-up-name")
    assert code == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    producer.finish(commit=False)
