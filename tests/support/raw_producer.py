"""A transactional producer on a connection to any broker, message by message.

It remembers what a client would: its id and epoch, and the next sequence of each
partition. Nothing is begun or ended unless the test says so. Where Apache Kafka
answers CONCURRENT_TRANSACTIONS for as long as it completes the transaction before,
the request is sent again, as clients do; a broker may as well wait.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from support.batches import TRANSACTIONAL, batch
from support.clients import new_name, now_ms
from support.raw import PATIENCE_SECONDS, Wire, only_partition

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    EndTxnRequest,
    FindCoordinatorRequest,
    InitProducerIdRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)

# The versions tests use where the version is not the point.
INIT, ADD, ADD_OFFSETS, END, COMMIT_OFFSETS, PRODUCE = 4, 3, 3, 3, 3, 9

TRANSACTION = 1  # the kind of a coordinator's key

PASSING = {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.CONCURRENT_TRANSACTIONS,
}


class RawProducer:
    """One who writes in transactions under `name`."""

    def __init__(self, wire: Wire, name: str | None = None) -> None:
        self.wire, self.name = wire, name or new_name("txn")
        self.id, self.epoch = -1, -1
        self.sequences: dict[tuple[str, int], int] = defaultdict(int)

    def started(self, *, timeout_ms: int = 60_000) -> RawProducer:
        """Itself, with an id and an epoch of its own."""
        assert self.init(timeout_ms=timeout_ms).error_code == ErrorCode.NONE
        return self

    def init(self, *, timeout_ms: int = 60_000, version: int = INIT, **pair: int) -> Any:
        """InitProducerId; with `producer_id` and `producer_epoch` it goes on from them."""
        if self.name:
            self.find_coordinator()
        asked = InitProducerIdRequest(
            transactional_id=self.name, transaction_timeout_ms=timeout_ms, **pair
        )
        answer = patiently(lambda: self.wire.ask(asked, version))
        if answer.error_code == ErrorCode.NONE:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch
            self.sequences.clear()
        return answer

    def find_coordinator(self) -> None:
        # Kafka makes the topic that keeps the transactions when it is first asked this.
        asked = FindCoordinatorRequest(key_type=TRANSACTION, coordinator_keys=[self.name])
        patiently(lambda: self.wire.ask(asked, 4).coordinators[0])

    def add(self, topic: str, *partitions: int, version: int = ADD, **other: Any) -> int:
        """AddPartitionsToTxn for partitions that all get the same answer."""
        wanted = {topic: partitions or (0,)}
        (code,) = set(self.add_all(wanted, version=version, **other).values())
        return code

    def add_all(
        self, wanted: dict[str, tuple[int, ...]], *, version: int = ADD, **other: Any
    ) -> dict[tuple[str, int], int]:
        """AddPartitionsToTxn; the error code of each partition."""
        topics = [
            AddPartitionsToTxnRequest.Topic(name=topic, partitions=list(partitions))
            for topic, partitions in wanted.items()
        ]
        asked = AddPartitionsToTxnRequest(**(self.who() | other), topics=topics)
        found: dict[tuple[str, int], int] = {}

        def done() -> bool:
            found.update(
                ((topic.name, each.index), each.error_code)
                for topic in self.wire.ask(asked, version).topics
                for each in topic.partitions
            )
            return not PASSING & set(found.values())

        until(done, "the partitions are not added")
        return found

    def add_offsets(self, group: str, *, version: int = ADD_OFFSETS, **other: Any) -> int:
        asked = AddOffsetsToTxnRequest(**(self.who() | other), group_id=group)
        code: int = patiently(lambda: self.wire.ask(asked, version)).error_code
        return code

    def send(
        self,
        topic: str,
        *values: bytes,
        partition: int = 0,
        version: int = PRODUCE,
        attributes: int = TRANSACTIONAL,
        **other: Any,
    ) -> Any:
        """Produce one batch in the transaction; the answer about its partition."""
        where = topic, partition
        records = batch(
            values or [b"x"],
            timestamp=now_ms(),  # as markers; in a log, weeks apart are two segments
            attributes=attributes,
            producer_id=other.get("producer_id", self.id),
            producer_epoch=other.get("producer_epoch", self.epoch),
            base_sequence=self.sequences[where],
        )
        part = ProduceRequest.Partition(index=partition, records=records)
        asked = ProduceRequest(
            transactional_id=other.get("transactional_id", self.name),
            acks=-1,
            timeout_ms=10_000,
            topics=[ProduceRequest.Topic(name=topic, partitions=[part])],
        )
        answer = only_partition(self.wire.ask(asked, version))
        if answer.error_code == ErrorCode.NONE:
            self.sequences[where] += len(values) or 1
        return answer

    def write(self, topic: str, *values: bytes, partition: int = 0) -> int:
        """Add the partition and produce to it; the offset of the first record."""
        assert self.add(topic, partition) == ErrorCode.NONE
        answer = self.send(topic, *values, partition=partition)
        assert answer.error_code == ErrorCode.NONE
        offset: int = answer.base_offset
        return offset

    def commit_offset(
        self,
        group: str,
        topic: str,
        offset: int,
        *,
        version: int = COMMIT_OFFSETS,
        metadata: str | None = "",
        **other: Any,
    ) -> int:
        """TxnOffsetCommit of one partition; the error code."""
        part = TxnOffsetCommitRequest.Partition(
            index=0, committed_offset=offset, committed_metadata=metadata
        )
        asked = TxnOffsetCommitRequest(
            **(self.who() | other),
            group_id=group,
            topics=[TxnOffsetCommitRequest.Topic(name=topic, partitions=[part])],
        )
        answer = patiently(lambda: only_partition(self.wire.ask(asked, version)))
        code: int = answer.error_code
        return code

    def end(self, *, commit: bool, version: int = END, **other: Any) -> int:
        """EndTxn, and again until it is no longer said to be under way."""
        asked = EndTxnRequest(**(self.who() | other), committed=commit)
        code: int = patiently(lambda: self.wire.ask(asked, version)).error_code
        return code

    def finish(self, *, commit: bool) -> None:
        """End the transaction and wait until all its partitions know."""
        assert self.end(commit=commit) == ErrorCode.NONE
        wanted = "CompleteCommit" if commit else "CompleteAbort"
        until(lambda: self.described().transaction_state == wanted, f"no {wanted}")

    def described(self) -> Any:
        return describe(self.wire, self.name)

    def who(self) -> dict[str, Any]:
        return {
            "transactional_id": self.name,
            "producer_id": self.id,
            "producer_epoch": self.epoch,
        }


def patiently(ask: Callable[[], Any]) -> Any:
    """The first answer that does not say "later"."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (answer := ask()).error_code in PASSING:
        assert time.monotonic() < deadline, f"still {answer}"
        time.sleep(0.005)
    return answer


def until(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.005)


def describe(wire: Wire, name: str) -> Any:
    """What the coordinator says of a transactional id."""
    asked = DescribeTransactionsRequest(transactional_ids=[name])
    return patiently(lambda: wire.ask(asked, 0).transaction_states[0])


def producers(wire: Wire, topic: str, partition: int = 0) -> Any:
    """What the partition says of its producers."""
    wanted = DescribeProducersRequest.Topic(name=topic, partition_indexes=[partition])
    return only_partition(wire.ask(DescribeProducersRequest(topics=[wanted]), 0))
