"""A transactional producer, request by request: each step is said and answered by itself.

It works on a connection of `support.core`, where the versions are ours to choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from support.batches import TRANSACTIONAL, batch
from support.core import Client
from support.raw import only_partition

from streamer.wire.api_keys import ApiKey
from streamer.wire.batch import read_headers
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    FetchRequest,
    InitProducerIdRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)
from streamer.wire.record import read_records

READ_COMMITTED = 1
Place = tuple[str, int]


@dataclass
class Teller:
    """One producer with a transactional id; `id` and `epoch` are what it was given."""

    client: Client
    name: str = "till"
    timeout_ms: int = 60_000
    id: int = -1
    epoch: int = -1
    sequences: dict[Place, int] = field(default_factory=dict)

    async def init(self, *, again: bool = False, version: int = 5) -> ErrorCode:
        """`again`: ask for a new epoch with the one it has (KIP-360)."""
        request = InitProducerIdRequest(
            transactional_id=self.name, transaction_timeout_ms=self.timeout_ms
        )
        if again:
            request.producer_id, request.producer_epoch = self.id, self.epoch
        answer = await self.client.ask(ApiKey.INIT_PRODUCER_ID, version, request)
        if not answer.error_code:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch
            self.sequences.clear()
        return ErrorCode(answer.error_code)

    async def add(self, *places: Place, version: int = 3) -> list[ErrorCode]:
        topics: dict[str, list[int]] = {}
        for topic, partition in places:
            topics.setdefault(topic, []).append(partition)
        request = AddPartitionsToTxnRequest(
            **self._who(),
            topics=[
                AddPartitionsToTxnRequest.Topic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
        )
        answer = await self.client.ask(ApiKey.ADD_PARTITIONS_TO_TXN, version, request)
        codes = {
            (topic.name, one.index): ErrorCode(one.error_code)
            for topic in answer.topics
            for one in topic.partitions
        }
        return [codes[place] for place in places]

    async def add_offsets(self, group: str = "g", *, version: int = 3) -> ErrorCode:
        request = AddOffsetsToTxnRequest(**self._who(), group_id=group)
        answer = await self.client.ask(ApiKey.ADD_OFFSETS_TO_TXN, version, request)
        return ErrorCode(answer.error_code)

    async def commit_offset(
        self, place: Place, offset: int, group: str = "g", *, version: int = 3
    ) -> ErrorCode:
        request = TxnOffsetCommitRequest(
            **self._who(),
            group_id=group,
            topics=[
                TxnOffsetCommitRequest.Topic(
                    name=place[0],
                    partitions=[
                        TxnOffsetCommitRequest.Partition(
                            index=place[1], committed_offset=offset, committed_metadata=""
                        )
                    ],
                )
            ],
        )
        answer = await self.client.ask(ApiKey.TXN_OFFSET_COMMIT, version, request)
        return ErrorCode(only_partition(answer).error_code)

    def batch(self, place: Place, values: Sequence[bytes], **header: int) -> bytes:
        """The next batch to this place, as its producer would number it."""
        sequence = self.sequences.get(place, 0)
        self.sequences[place] = sequence + len(values)
        usual: dict[str, Any] = {
            "attributes": TRANSACTIONAL,
            "producer_id": self.id,
            "producer_epoch": self.epoch,
            "base_sequence": sequence,
        }
        return batch(values, **(usual | header))

    async def send(
        self, place: Place, *values: bytes, version: int = 9, acks: int = -1, **header: int
    ) -> ErrorCode:
        batches = {place: self.batch(place, values, **header)}
        return (await self.send_batches(batches, version, acks=acks))[place]

    async def send_batches(
        self,
        batches: dict[Place, bytes],
        version: int = 9,
        *,
        acks: int = -1,
        named: bool = True,
    ) -> dict[Place, ErrorCode]:
        """`named`: whether the request says the transactional id."""
        request = ProduceRequest(
            transactional_id=self.name if named else None,
            acks=acks,
            timeout_ms=10_000,
            topics=[
                ProduceRequest.Topic(
                    name=topic,
                    partitions=[ProduceRequest.Partition(index=index, records=records)],
                )
                for (topic, index), records in batches.items()
            ],
        )
        answer = await self.client.ask(ApiKey.PRODUCE, version, request)
        return {
            (topic.name, one.index): ErrorCode(one.error_code)
            for topic in answer.topics
            for one in topic.partitions
        }

    async def end(self, *, commit: bool, version: int = 3) -> ErrorCode:
        request = EndTxnRequest(**self._who(), committed=commit)
        answer = await self.client.ask(ApiKey.END_TXN, version, request)
        return ErrorCode(answer.error_code)

    async def commit(self) -> ErrorCode:
        return await self.end(commit=True)

    async def abort(self) -> ErrorCode:
        return await self.end(commit=False)

    def _who(self) -> dict[str, Any]:
        return {
            "transactional_id": self.name,
            "producer_id": self.id,
            "producer_epoch": self.epoch,
        }


async def committed(client: Client, place: Place) -> list[bytes | None]:
    """What a reader of committed records gets from a partition, from its start.

    It does as consumers do: from an aborted transaction's first offset to its marker, what
    its producer wrote is left out.
    """
    found: list[bytes | None] = []
    offset = 0
    while True:
        answer = await _fetch(client, place, offset)
        assert not answer.error_code
        if offset >= answer.last_stable_offset:
            return found
        aborted = sorted(
            (one.first_offset, one.producer_id) for one in answer.aborted_transactions or ()
        )
        dropped: set[int] = set()
        for position, header in read_headers(answer.records):
            offset = header.last_offset + 1
            while aborted and aborted[0][0] < offset:
                dropped.add(aborted.pop(0)[1])
            if header.is_control:
                dropped.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in dropped):
                batch = memoryview(answer.records)[position : position + header.size]
                found += [record.value for record in read_records(batch)]


async def _fetch(client: Client, place: Place, offset: int) -> Any:
    partition = FetchRequest.Partition(
        index=place[1], fetch_offset=offset, max_bytes=10_000_000
    )
    request = FetchRequest(
        max_wait_ms=0,
        min_bytes=0,
        max_bytes=50_000_000,
        isolation_level=READ_COMMITTED,
        session_epoch=-1,
        topics=[FetchRequest.Topic(name=place[0], partitions=[partition])],
    )
    return only_partition(await client.ask(ApiKey.FETCH, 11, request))
