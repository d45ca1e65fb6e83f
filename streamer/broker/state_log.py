"""What a coordinator remembers: records of an internal topic, durable before they count.

    decided in memory → append → flushed → what was decided holds, and is answered

A `StateLog` is one such topic, `__consumer_offsets` or `__transaction_state`. It is made
when something is first written there, and compacted, so that the latest record of each key
stays. All that one group or one transactional id writes goes to one partition, in order;
with a single partition, which is the default, one sync serves all who wait.

At start the coordinators read it again (`replay`), before anybody can connect. A log that
cannot be read ends no broker: its coordinator is not available, and says why (`problem`).
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from streamer.broker.catalog import NotWritten, TopicExists
from streamer.broker.names import Producer
from streamer.log.errors import CorruptLog, Refused
from streamer.log.partition import Appended, Partition
from streamer.wire.batch import Header, Marker, read_headers, read_marker
from streamer.wire.record import CorruptRecords, Record, read_records, write_batch

if TYPE_CHECKING:
    from streamer.broker.core import Broker

REPLAY_BYTES = 1 << 20
# When what is written without hurry is synced, if nothing else has seen to it.
UNHURRIED_SECONDS = 0.05


class Replayed(NamedTuple):
    """A batch, as it was written: records, or the end of a transaction."""

    header: Header
    records: list[Record]
    marker: Marker | None


class StateLog:
    def __init__(
        self, broker: "Broker", topic: str, *, partitions: int, configs: Mapping[str, str]
    ) -> None:
        self._broker = broker
        self._partitions = partitions
        self._configs = {"cleanup.policy": "compact", **configs}
        self.topic = topic
        self.problem: str | None = None
        """Why it cannot be used, if so."""

    @property
    def count(self) -> int:
        """How many partitions it has, or would have."""
        topic = self._broker.catalog.topics.get(self.topic)
        return len(topic.partitions) if topic is not None else self._partitions

    def partition_of(self, key: str) -> int:
        """Where Apache Kafka would put it, too: its tools look there."""
        return abs(_java_hash(key)) % self.count

    async def partition(self, index: int) -> Partition:
        """The partition itself, made if need be. Raises NotWritten."""
        catalog = self._broker.catalog
        if self.topic not in catalog.topics:
            try:
                await catalog.create(self.topic, self._partitions, self._configs)
            except TopicExists:
                pass  # Somebody else needed it at the same time.
        partition = catalog.partition(self.topic, index)
        if partition is None:
            raise NotWritten(f"{self.topic} has no partition {index}.")
        return partition

    async def append(
        self,
        key: str,
        records: Sequence[Record],
        *,
        producer: Producer | None = None,
        on_appended: Callable[[int], None] | None = None,
    ) -> None:
        """Write `records` as one batch; return once they are safe. Raises NotWritten.

        `producer`: they count once its transaction is committed. `on_appended` is told the
        offset of the first one, at once and so in the order of the log.
        """
        partition, appended = await self._append(key, records, producer)
        self._broker.written(partition)
        if on_appended is not None:
            on_appended(appended.base_offset)
        await self._broker.flushed(partition, appended.last_offset)

    async def append_unhurried(self, key: str, records: Sequence[Record]) -> None:
        """Write `records`, and return before they are safe: what is written next makes them
        so, or a moment does. For what could be found out again. Raises NotWritten."""
        partition, _ = await self._append(key, records, None)
        asyncio.get_running_loop().call_later(
            UNHURRIED_SECONDS, self._broker.written, partition
        )

    async def _append(
        self, key: str, records: Sequence[Record], producer: Producer | None
    ) -> tuple[Partition, Appended]:
        if self.problem is not None:
            raise NotWritten(self.problem)
        if self._broker.offline is not None:
            raise NotWritten(self._broker.offline)
        partition = await self.partition(self.partition_of(key))
        producer_id, epoch = producer or (-1, -1)
        batch = write_batch(
            records,
            producer_id=producer_id,
            producer_epoch=epoch,
            # Coordinators do not count: what they write is never sent twice.
            base_sequence=-1 if producer is None else 0,
            transactional=producer is not None,
        )
        try:
            appended = partition.append_own(batch, now_ms=self._broker.clock.now_ms())
        except Refused as refused:
            self._broker.append_refused(partition, refused)
            raise NotWritten(refused.message) from refused
        return partition, appended

    # Start.

    def replay(self) -> Iterator[tuple[int, Replayed]]:
        """All batches, each with the number of its partition. Ends early, and says so in
        `problem`, where the log cannot be read."""
        topic = self._broker.catalog.topics.get(self.topic)
        for partition in topic.partitions if topic is not None else ():
            try:
                for replayed in _read_all(partition):
                    yield partition.index, replayed
            except (CorruptLog, CorruptRecords, OSError) as error:
                self.problem = f"{partition.path} cannot be read: {error}"
                return


def _read_all(partition: Partition) -> Iterator[Replayed]:
    offset = partition.log_start
    while offset < partition.end:
        plan = partition.plan_read(
            offset, REPLAY_BYTES, up_to=partition.end, minimum_one=True
        )
        result = plan.run()
        if result is None or result.next_offset == offset:
            return  # Compaction has left nothing more.
        data = memoryview(result.data)
        for position, header in read_headers(data):
            batch = data[position : position + header.size]
            if header.is_control:
                yield Replayed(header, [], read_marker(batch))
            else:
                yield Replayed(header, list(read_records(batch)), None)
        partition.remember(result)
        offset = result.next_offset


def _java_hash(text: str) -> int:
    """Java's `String.hashCode`, an int32; the one number without a positive twin is 0."""
    units = text.encode("utf-16-be", "surrogatepass")
    value = 0
    for at in range(0, len(units), 2):
        value = (31 * value + (units[at] << 8 | units[at + 1])) & 0xFFFFFFFF
    signed = value - (1 << 32) if value & 0x80000000 else value
    return 0 if signed == -(1 << 31) else signed
