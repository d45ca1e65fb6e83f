"""ListOffsets, OffsetForLeaderEpoch, DeleteRecords: where a partition begins and ends.

Special timestamps of ListOffsets:

    -1  the end: the high watermark, or the last stable offset for committed records only
    -2  the start            -4  the start on this disk, which is the same
    -3  the newest record
"""

from streamer.broker.api import Answer, Call, Message
from streamer.broker.security import Operation, topic as topic_resource
from streamer.log.errors import CorruptLog, OffsetOutOfRange
from streamer.log.partition import Partition
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DeleteRecordsResponse,
    ListOffsetsResponse,
    OffsetForLeaderEpochResponse,
)

END, START, NEWEST, LOCAL_START = -1, -2, -3, -4
READ_COMMITTED = 1
HIGH_WATERMARK = -1


def find(
    topic: str, index: int, operation: Operation, call: Call
) -> tuple[Partition, ErrorCode] | tuple[None, ErrorCode]:
    """The partition and NONE, or None and why this client cannot have it."""
    if not call.session.may(operation, topic_resource(topic)):
        return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
    partition = call.broker.catalog.partition(topic, index)
    if partition is None:
        return None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return partition, ErrorCode.NONE


def epoch_error(partition: Partition, epoch: int) -> ErrorCode:
    """What is wrong with the leader epoch that a client believes in, if anything."""
    if epoch < 0 or epoch == partition.leader_epoch:
        return ErrorCode.NONE
    if epoch < partition.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    return ErrorCode.UNKNOWN_LEADER_EPOCH


# ListOffsets


def handle_list_offsets(request: Message, call: Call) -> Message:
    committed_only = request.isolation_level == READ_COMMITTED
    return ListOffsetsResponse(
        topics=[
            ListOffsetsResponse.Topic(
                name=topic.name,
                partitions=[
                    _list_one(topic.name, ask, call, committed_only=committed_only)
                    for ask in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _list_one(topic: str, ask: Message, call: Call, *, committed_only: bool) -> Message:
    answer = ListOffsetsResponse.Partition(index=ask.index)
    partition, code = find(topic, ask.index, Operation.DESCRIBE, call)
    if partition is not None:
        code = epoch_error(partition, ask.current_leader_epoch)
    if partition is None or code:
        answer.error_code = code
        return answer
    up_to = partition.last_stable if committed_only else partition.high_watermark
    try:
        found = _position(partition, ask.timestamp, up_to)
    except (CorruptLog, OSError) as error:
        call.broker.read_failed(partition, error)
        answer.error_code = ErrorCode.KAFKA_STORAGE_ERROR
        return answer
    if found is not None:
        answer.offset, answer.timestamp, answer.leader_epoch = found
    return answer


def _position(
    partition: Partition, timestamp: int, up_to: int
) -> tuple[int, int, int] | None:
    """Offset, timestamp and leader epoch of what was asked for, if there is any."""
    if timestamp == END:
        return up_to, -1, partition.leader_epoch
    if timestamp in (START, LOCAL_START):
        return partition.log_start, -1, partition.epoch_at(partition.log_start)
    if timestamp == NEWEST:
        return partition.max_timestamp(up_to)
    return partition.offset_for_timestamp(timestamp, up_to)


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


def handle_delete_records(request: Message, call: Call) -> Answer:
    """Move the start of partitions forward; answered once that is written down."""
    response = DeleteRecordsResponse(
        topics=[
            DeleteRecordsResponse.Topic(
                name=topic.name,
                partitions=[_delete_one(topic.name, ask, call) for ask in topic.partitions],
            )
            for topic in request.topics
        ]
    )
    return _answer_when_written(response, call)


async def _answer_when_written(response: Message, call: Call) -> Message:
    if await call.broker.save_log_starts():
        for topic in response.topics:
            for answer in topic.partitions:
                answer.error_code = answer.error_code or ErrorCode.KAFKA_STORAGE_ERROR
                answer.low_watermark = -1
    return response


def _delete_one(topic: str, ask: Message, call: Call) -> Message:
    answer = DeleteRecordsResponse.Partition(index=ask.index, low_watermark=-1)
    partition, answer.error_code = find(topic, ask.index, Operation.DELETE, call)
    if partition is None:
        return answer
    if call.broker.offline:
        answer.error_code = ErrorCode.KAFKA_STORAGE_ERROR
        return answer
    offset = partition.high_watermark if ask.offset == HIGH_WATERMARK else ask.offset
    try:
        answer.low_watermark = partition.delete_records(offset)
    except OffsetOutOfRange:
        answer.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
    except (CorruptLog, OSError) as error:
        call.broker.read_failed(partition, error)
        answer.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    return answer
