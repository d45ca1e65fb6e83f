"""ListOffsets, OffsetForLeaderEpoch, DeleteRecords: where a partition begins and ends.

Special timestamps of ListOffsets:

    -1  the end: the high watermark, or the last stable offset for committed records only
    -2  the start            -4  the start on this disk, which is the same
    -3  the newest record

A record by its time is searched on the loop as far as the log lies in memory, else in a
thread.
"""

from typing import TYPE_CHECKING

from streamer.broker.api import Answer, Call, Message
from streamer.broker.catalog import INTERNAL, NotWritten
from streamer.broker.security import Operation, topic as topic_resource
from streamer.log.errors import CorruptLog, NotInMemory, OffsetOutOfRange, Refused
from streamer.log.lookup import TimestampFound, TimestampPlan
from streamer.log.partition import Partition
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DeleteRecordsResponse,
    ListOffsetsResponse,
    OffsetForLeaderEpochResponse,
)

if TYPE_CHECKING:
    from streamer.broker.core import Broker

END, START, NEWEST, LOCAL_START = -1, -2, -3, -4
# Each timestamp with a meaning of its own came with a version; others have none yet.
SINCE = {END: 1, START: 1, NEWEST: 7, LOCAL_START: 8}
NEVER = 1 << 15
READ_COMMITTED = 1


def find(
    topic: str, index: int, operation: Operation, call: Call
) -> tuple[Partition, ErrorCode] | tuple[None, ErrorCode]:
    """The partition and NONE, or None and why this client cannot have it."""
    if not call.session.may(operation, topic_resource(topic)):
        return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
    partition = call.broker.catalog.partition(topic, index)
    if partition is None:
        return None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if partition.unreadable:
        # What it says of its start and end is not true.
        return None, ErrorCode.KAFKA_STORAGE_ERROR
    return partition, ErrorCode.NONE


def epoch_error(partition: Partition, epoch: int) -> ErrorCode:
    """What is wrong with the leader epoch that a client believes in, if anything."""
    if epoch < 0 or epoch == partition.leader_epoch:
        return ErrorCode.NONE
    if epoch < partition.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    return ErrorCode.UNKNOWN_LEADER_EPOCH


# ListOffsets


def handle_list_offsets(request: Message, call: Call) -> Answer:
    committed_only = request.isolation_level == READ_COMMITTED
    cold: list[Search] = []
    response = ListOffsetsResponse(
        topics=[
            ListOffsetsResponse.Topic(
                name=topic.name,
                partitions=[
                    _list_one(topic.name, ask, call, cold, committed_only=committed_only)
                    for ask in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )
    return _answer_when_found(response, cold) if cold else response


async def _answer_when_found(response: Message, cold: list["Search"]) -> Message:
    for search in cold:
        await search.in_thread()
    return response


def _list_one(
    topic: str, ask: Message, call: Call, cold: list["Search"], *, committed_only: bool
) -> Message:
    answer = ListOffsetsResponse.Partition(index=ask.index)
    partition, code = find(topic, ask.index, Operation.DESCRIBE, call)
    if partition is not None:
        code = epoch_error(partition, ask.current_leader_epoch)
    if ask.timestamp < 0 and call.version < SINCE.get(ask.timestamp, NEVER):
        code = ErrorCode.UNSUPPORTED_VERSION
    if partition is None or code:
        answer.error_code = code
        return answer
    up_to = partition.last_stable if committed_only else partition.high_watermark
    if ask.timestamp == END:
        answer.offset, answer.leader_epoch = up_to, partition.leader_epoch
    elif ask.timestamp in (START, LOCAL_START):
        answer.offset = partition.log_start
        answer.leader_epoch = partition.epoch_at(partition.log_start)
    else:
        search = Search(partition, ask.timestamp, up_to, answer, call.broker)
        if not search.in_memory():
            cold.append(search)
    return answer


class Search:
    """For a record by its time, and the answer that it goes into."""

    __slots__ = ("_answer", "_broker", "_partition", "_plan", "_steps")

    def __init__(
        self,
        partition: Partition,
        timestamp: int,
        up_to: int,
        answer: Message,
        broker: "Broker",
    ) -> None:
        self._partition = partition
        self._answer = answer
        self._broker = broker
        self._plan: TimestampPlan | None = None
        self._steps = (
            partition.search_newest(up_to)
            if timestamp == NEWEST
            else partition.search_timestamp(timestamp, up_to)
        )

    def in_memory(self) -> bool:
        """Search what lies in memory; False if the rest needs the disk."""
        try:
            for plan in self._steps:
                self._plan = plan
                self._keep(plan.run(wait=False))
        except NotInMemory:
            return False
        except (CorruptLog, OSError) as error:
            self._failed(error)
        return True

    async def in_thread(self) -> None:
        """Go on from there, where waiting holds up nobody."""
        try:
            while self._plan is not None:
                self._keep(await self._broker.in_thread(self._plan.run))
                self._plan = next(self._steps, None)
        except (CorruptLog, OSError) as error:
            self._failed(error)

    def _keep(self, found: TimestampFound | None) -> None:
        if found is not None:
            answer = self._answer
            answer.offset, answer.timestamp, answer.leader_epoch = found

    def _failed(self, error: CorruptLog | OSError) -> None:
        self._broker.read_failed(self._partition, error)
        self._answer.error_code = ErrorCode.KAFKA_STORAGE_ERROR
        self._answer.offset = self._answer.timestamp = -1


# OffsetForLeaderEpoch


def handle_offset_for_leader_epoch(request: Message, call: Call) -> Message:
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderEpochResponse.Topic(
                name=topic.name,
                partitions=[_epoch_end(topic.name, ask, call) for ask in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _epoch_end(topic: str, ask: Message, call: Call) -> Message:
    answer = OffsetForLeaderEpochResponse.Partition(index=ask.index)
    partition, code = find(topic, ask.index, Operation.DESCRIBE, call)
    if partition is not None:
        code = epoch_error(partition, ask.current_leader_epoch)
    if partition is None or code:
        answer.error_code = code
    else:
        answer.leader_epoch, answer.end_offset = partition.epoch_end(ask.leader_epoch)
    return answer


# DeleteRecords


async def handle_delete_records(request: Message, call: Call) -> Message:
    """Move the start of partitions forward; answered once that is written down."""
    starts: dict[Partition, int] = {}
    response = DeleteRecordsResponse(
        topics=[
            DeleteRecordsResponse.Topic(
                name=topic.name,
                partitions=[
                    _to_delete(topic.name, ask, call, starts) for ask in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )
    try:
        if starts:
            await call.broker.delete_records(starts)
    except NotWritten as error:
        for topic in response.topics:
            for answer in topic.partitions:
                answer.error_code = answer.error_code or error.code
                answer.low_watermark = -1
    return response


def _to_delete(
    topic: str, ask: Message, call: Call, starts: dict[Partition, int]
) -> Message:
    """Note in `starts` where a partition shall start; its answer, if all goes well."""
    answer = DeleteRecordsResponse.Partition(index=ask.index, low_watermark=-1)
    partition, answer.error_code = find(topic, ask.index, Operation.DELETE, call)
    if partition is None:
        return answer
    try:
        call.broker.check_writable()
        if topic in INTERNAL:
            answer.error_code = ErrorCode.INVALID_TOPIC_EXCEPTION
        elif not partition.config.delete:
            answer.error_code = ErrorCode.POLICY_VIOLATION
        else:
            start = partition.start_once_deleted(ask.offset)
            starts[partition] = max(start, starts.get(partition, 0))
            answer.low_watermark = start
    except OffsetOutOfRange:
        answer.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
    except Refused as refused:
        answer.error_code = refused.code
    return answer
