"""Fetch: whole batches from each partition asked for, or a wait until there are enough.

    what is there is enough, or time is up, or a partition is in error    answer
    else                                                                  wait for more

Records are read up to the high watermark (up to the last stable offset, for readers of
committed records only), as bytes: nobody looks at a record here. What lies in memory is
read on the loop; what has to come from the disk is read in a thread, so that a reader of
old data holds up nobody. The first batch goes out even if it is larger than what was
asked for: a reader must be able to get past it.

There are no fetch sessions: every answer declines one, and clients then name all their
partitions each time.

Before this: `connection.py`. After: `log/partition.py` finds and reads.
"""

from functools import partial
from typing import TypeAlias

from streamer.broker.api import Answer, Call, Message
from streamer.broker.offsets import epoch_error
from streamer.broker.security import Operation, topic as topic_resource
from streamer.log.errors import CorruptLog, OffsetOutOfRange
from streamer.log.partition import Partition
from streamer.log.reading import ReadPlan, ReadResult
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import FetchResponse

READ_COMMITTED = 1
NO_SESSION = 0
FULL_FETCHES = (0, -1)

# What came of a plan: batches, nothing without waiting, or a fault.
Found: TypeAlias = ReadResult | CorruptLog | OSError | None


def handle_fetch(request: Message, call: Call) -> Answer:
    if request.session_epoch not in FULL_FETCHES:
        return FetchResponse(error_code=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
    fetch = Fetch(request, call)
    if fetch.read_now() and fetch.is_enough():
        return fetch.response()
    return fetch.wait_and_read()


class Wanted:
    """One partition that a Fetch asks for, and what was found there so far."""

    __slots__ = ("answer", "ask", "partition", "topic")

    def __init__(self, topic: str, ask: Message, partition: Partition | None) -> None:
        self.topic = topic
        self.ask = ask
        self.partition = partition
        self.answer = FetchResponse.Partition(
            index=ask.index, high_watermark=-1, records=b""
        )


class Fetch:
    """One request: the partitions it wants, read again when they have grown."""

    def __init__(self, request: Message, call: Call) -> None:
        self._request = request
        self._call = call
        self._budget = min(request.max_bytes, call.broker.config.number("fetch.max.bytes"))
        self._committed_only = request.isolation_level == READ_COMMITTED
        self._deadline = call.broker.clock.monotonic() + request.max_wait_ms / 1000
        self._wanted = [
            Wanted(topic.name, ask, call.broker.catalog.partition(topic.name, ask.index))
            for topic in request.topics
            for ask in topic.partitions
        ]
        self._cold: list[Wanted] = []
        self._size = 0
        self._visible_before = 0
        self._failed = False

    def is_enough(self) -> bool:
        return (
            self._failed
            or self._size >= self._request.min_bytes
            or self._request.max_wait_ms <= 0
            or not self._wanted
        )

    def response(self) -> Message:
        topics: dict[str, list[Message]] = {}
        for wanted in self._wanted:
            topics.setdefault(wanted.topic, []).append(wanted.answer)
        return FetchResponse(
            session_id=NO_SESSION,
            topics=[
                FetchResponse.Topic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
        )

    async def wait_and_read(self) -> Message:
        """Read what was not in memory, wait for more, until it is enough or time is up."""
        while True:
            await self._read_cold()
            if self.is_enough() or not await self._has_grown():
                return self.response()
            self.read_now()

    async def _has_grown(self) -> bool:
        """Wait until the partitions have grown by what is missing; False if time is up."""
        broker = self._call.broker
        missing = self._request.min_bytes - self._size
        while self._visible() - self._visible_before < missing:
            if any(map(self._error, self._wanted)):
                break
            remaining = self._deadline - broker.clock.monotonic()
            if not await broker.watchers.wait(self._partitions(), remaining):
                return False
        return True

    def _partitions(self) -> list[Partition]:
        return [one.partition for one in self._wanted if one.partition is not None]

    def _visible(self) -> int:
        return sum(partition.visible_size for partition in self._partitions())

    # Reading.

    def read_now(self) -> bool:
        """Read what lies in memory; False if there is more, on the disk."""
        self._size = 0
        self._cold = []
        self._visible_before = self._visible()
        for wanted in self._wanted:
            plan = self._plan(wanted)
            if plan is not None and not self._keep(wanted, _run(plan, wait=False)):
                self._cold.append(wanted)
        return not self._cold

    async def _read_cold(self) -> None:
        in_thread = self._call.broker.in_thread
        for wanted in self._cold:
            plan = self._plan(wanted)
            if plan is not None:
                self._keep(wanted, await in_thread(partial(_run, plan, wait=True)))
        self._cold = []

    def _plan(self, wanted: Wanted) -> ReadPlan | None:
        """What to read of a partition; None where there is nothing, or an error."""
        answer, ask, partition = wanted.answer, wanted.ask, wanted.partition
        answer.records = b""
        error = self._error(wanted)
        if error is not None or partition is None:
            self._fail(wanted, error or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return None
        up_to = partition.last_stable if self._committed_only else partition.high_watermark
        answer.high_watermark = partition.high_watermark
        answer.last_stable_offset = partition.last_stable
        answer.log_start_offset = partition.log_start
        answer.aborted_transactions = [] if self._committed_only else None
        if up_to <= ask.fetch_offset <= partition.end:
            return None
        room = min(ask.max_bytes, self._budget - self._size)
        if room <= 0 and self._size > 0:
            return None
        try:
            return partition.plan_read(
                ask.fetch_offset, room, up_to=up_to, minimum_one=self._size == 0
            )
        except OffsetOutOfRange:
            self._fail(wanted, ErrorCode.OFFSET_OUT_OF_RANGE)
            return None

    def _error(self, wanted: Wanted) -> ErrorCode | None:
        call, partition = self._call, wanted.partition
        if not call.session.may(Operation.READ, topic_resource(wanted.topic)):
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        # The topic may have been deleted, or made anew, while this request waited.
        if (
            partition is None
            or call.broker.catalog.partition(wanted.topic, partition.index) is not partition
        ):
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return epoch_error(partition, wanted.ask.current_leader_epoch)

    def _keep(self, wanted: Wanted, found: Found) -> bool:
        """Take what was found into the answer; False if that needs waiting."""
        partition = wanted.partition
        assert partition is not None
        if found is None:
            return False
        if isinstance(found, Exception):
            self._call.broker.read_failed(partition, found)
            self._fail(
                wanted,
                ErrorCode.CORRUPT_MESSAGE
                if isinstance(found, CorruptLog)
                else ErrorCode.KAFKA_STORAGE_ERROR,
            )
            return True
        wanted.answer.records = found.data
        self._size += len(found.data)
        partition.remember(found)
        if self._committed_only and found.data:
            wanted.answer.aborted_transactions = [
                FetchResponse.Aborted(producer_id=producer_id, first_offset=first_offset)
                for producer_id, first_offset in partition.aborted_between(
                    wanted.ask.fetch_offset, found.next_offset
                )
            ]
        return True

    def _fail(self, wanted: Wanted, code: ErrorCode) -> None:
        wanted.answer.error_code = code
        self._failed = True


def _run(plan: ReadPlan, *, wait: bool) -> Found:
    """Carry out a plan, maybe in a thread; a fault of the disk is a finding, too."""
    try:
        return plan.run(wait=wait)
    except (CorruptLog, OSError) as error:
        return error
