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
from streamer.broker.offsets import epoch_error, find
from streamer.broker.security import Operation
from streamer.broker.waiting import Waiting
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
    return Fetch(request, call).read()


class Wanted:
    """One partition that a Fetch asks for, and what was found there so far."""

    __slots__ = ("ask", "error", "found", "partition", "topic")

    def __init__(self, topic: str, ask: Message, call: Call) -> None:
        self.topic = topic
        self.ask = ask
        partition, error = find(topic, ask.index, Operation.READ, call)
        if partition is not None:
            error = epoch_error(partition, ask.current_leader_epoch)
        self.partition: Partition | None = partition
        self.error = error
        self.found: ReadResult | None = None


class Fetch(Waiting):
    """One request: the partitions it wants, read again when they have grown."""

    __slots__ = (
        "_budget",
        "_call",
        "_committed_only",
        "_is_late",
        "_min_bytes",
        "_request",
        "_size",
        "_visible_before",
        "_wanted",
        "deadline",
        "partitions",
    )

    def __init__(self, request: Message, call: Call) -> None:
        self._request = request
        self._call = call
        self._budget = self._min_bytes = 0
        self._is_late = False
        self._committed_only = request.isolation_level == READ_COMMITTED
        self._size = 0
        self._visible_before = 0
        self._wanted = [
            Wanted(topic.name, ask, call)
            for topic in request.topics
            for ask in topic.partitions
        ]
        self.partitions = [
            one.partition for one in self._wanted if one.partition is not None
        ]
        self.deadline = call.broker.clock.monotonic() + request.max_wait_ms / 1000

    # Waiting.

    def look(self) -> Answer:
        """Read again once the partitions have grown by what is missing."""
        missing = self._min_bytes - self._size
        if self._is_deleted() or self._visible() - self._visible_before >= missing:
            return self.read()
        return self

    def late(self) -> Answer:
        self._is_late = True
        return self.read()

    def _is_deleted(self) -> bool:
        """Whether a topic was deleted, or made anew, while this request waited."""
        partition_of = self._call.broker.catalog.partition
        for wanted in self._wanted:
            partition = wanted.partition
            # What is deleted goes offline first, so that nobody else need be looked up.
            if (
                partition is not None
                and partition.offline
                and partition_of(wanted.topic, partition.index) is not partition
            ):
                wanted.error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return any(one.error for one in self._wanted)

    def _visible(self) -> int:
        return sum([partition.visible_size for partition in self.partitions])

    def _answer(self) -> Answer:
        """The answer if it is enough, else wait on."""
        enough = (
            self._is_late
            or self._size >= self._min_bytes
            or sum(map(self._counts, self._wanted)) >= self._min_bytes
            or self._request.max_wait_ms <= 0
            or not self._wanted
            or any(one.error for one in self._wanted)
        )
        if enough:
            return self._response()
        # It is read again when there is more. Until then, others need the memory.
        for wanted in self._wanted:
            wanted.found = None
        return self

    def _counts(self, wanted: Wanted) -> int:
        """What a partition adds to the bytes asked for. Only whole batches are given, so
        one that has more counts as full, though it is not to the last byte."""
        partition, found = wanted.partition, wanted.found
        if partition is None or found is None:
            return 0
        if found.next_offset < self._up_to(partition):
            return max(len(found.data), int(wanted.ask.max_bytes))
        return len(found.data)

    def _up_to(self, partition: Partition) -> int:
        return partition.last_stable if self._committed_only else partition.high_watermark

    # Reading.

    def read(self) -> Answer:
        """Read all that lies in memory; what does not is read in a thread."""
        self._size = 0
        self._set_bounds()
        self._visible_before = self._visible()
        cold = [wanted for wanted in self._wanted if not self._read(wanted)]
        return self._read_cold(cold) if cold else self._answer()

    def _set_bounds(self) -> None:
        broker, request = self._call.broker, self._request
        self._budget = min(
            request.max_bytes, broker.config.number("fetch.max.bytes"), broker.unread.room
        )
        self._min_bytes = min(request.min_bytes, self._budget)

    async def _read_cold(self, cold: list[Wanted]) -> Answer:
        most = self._size + sum(max(0, wanted.ask.max_bytes) for wanted in cold)
        with self._call.broker.unread.kept_free(min(most, self._budget)):
            for wanted in cold:
                plan = self._plan(wanted)
                if plan is not None:
                    in_thread = self._call.broker.in_thread
                    self._keep(wanted, await in_thread(partial(_run, plan, wait=True)))
            answer = self._answer()
        # Whatever came meanwhile has woken nobody.
        return self.look() if answer is self else answer

    def _read(self, wanted: Wanted) -> bool:
        plan = self._plan(wanted)
        return plan is None or self._keep(wanted, _run(plan, wait=False))

    def _plan(self, wanted: Wanted) -> ReadPlan | None:
        """What to read of a partition; None where there is nothing, or an error."""
        partition, ask = wanted.partition, wanted.ask
        wanted.found = None
        if partition is None or wanted.error:
            return None
        up_to = self._up_to(partition)
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
            wanted.error = ErrorCode.OFFSET_OUT_OF_RANGE
        except (CorruptLog, OSError) as error:
            self._keep(wanted, error)
        return None

    def _keep(self, wanted: Wanted, found: Found) -> bool:
        """Take what was found into the answer; False if that needs waiting."""
        partition = wanted.partition
        if found is None or partition is None:
            return False
        if isinstance(found, ReadResult):
            wanted.found = found
            self._size += len(found.data)
            partition.remember(found)
        else:
            self._call.broker.read_failed(partition, found)
            corrupt = isinstance(found, CorruptLog)
            wanted.error = (
                ErrorCode.CORRUPT_MESSAGE if corrupt else ErrorCode.KAFKA_STORAGE_ERROR
            )
        return True

    # The answer.

    def _response(self) -> Message:
        topics: dict[str, list[Message]] = {}
        for wanted in self._wanted:
            topics.setdefault(wanted.topic, []).append(self._partition(wanted))
        return FetchResponse(
            session_id=NO_SESSION,
            topics=[
                FetchResponse.Topic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
        )

    def _partition(self, wanted: Wanted) -> Message:
        partition, found = wanted.partition, wanted.found
        if partition is None:
            return FetchResponse.Partition(
                index=wanted.ask.index,
                error_code=wanted.error,
                high_watermark=-1,
                records=b"",
            )
        return FetchResponse.Partition(
            index=wanted.ask.index,
            error_code=wanted.error,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.last_stable,
            log_start_offset=partition.log_start,
            aborted_transactions=self._aborted(partition, wanted),
            records=b"" if found is None else found.data,
        )

    def _aborted(self, partition: Partition, wanted: Wanted) -> list[Message] | None:
        """The aborted transactions among what was read, for those who want none of them."""
        if not self._committed_only:
            return None
        if wanted.found is None:
            return []
        first, behind = wanted.ask.fetch_offset, wanted.found.next_offset
        return [
            FetchResponse.Aborted(producer_id=producer_id, first_offset=first_offset)
            for producer_id, first_offset in partition.aborted_between(first, behind)
        ]


def _run(plan: ReadPlan, *, wait: bool) -> Found:
    """Carry out a plan, maybe in a thread; a fault of the disk is a finding, too."""
    try:
        return plan.run(wait=wait)
    except (CorruptLog, OSError) as error:
        return error
