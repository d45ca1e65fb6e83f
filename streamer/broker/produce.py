"""Produce: append each partition's batch; answer once the log is as safe as `acks` asks.

    acks = 0      no answer, ever
    acks = 1      once it is written
    acks = all    once it is flushed (`log.durability = fsync`), or written (page-cache)

A batch that was there already (a producer repeats what it heard no answer to) is
answered like new, with the offset it got before, and not before that one is flushed.

A batch of a transaction needs the transactional id in its request, and its partition added
to the transaction; the coordinator is asked when the producer has none open there.

Before this: `connection.py`. After: `log/partition.py` appends, `flusher.py` flushes.
"""

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from streamer.broker.api import Answer, Call, CloseConnection, Message
from streamer.broker.catalog import INTERNAL
from streamer.broker.security import Operation, topic as topic_resource, transactional_id
from streamer.broker.waiting import Waiting
from streamer.log.errors import Refused
from streamer.log.partition import Partition
from streamer.wire.batch import HEADER_SIZE, Fault, Header, read_header
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import ProduceResponse

if TYPE_CHECKING:
    from streamer.broker.core import Broker

ALL, LEADER, NOBODY = -1, 1, 0
KNOWS_ABORTABLE = 11
# What an older client would not try again; it does with this one, and nothing else.
TRY_AGAIN = ErrorCode.NOT_ENOUGH_REPLICAS

# What is not flushed yet: the partition, the last offset written there, the answer.
Written: TypeAlias = list[tuple[Partition, int, Message]]


def handle_produce(request: Message, call: Call) -> Answer:
    """Append what is in order; one refusal does not stop the others."""
    written: Written = []
    fault = None if request.transactional_id is None else _judge_transaction(request, call)
    response = ProduceResponse(
        topics=[
            ProduceResponse.Topic(
                name=topic.name,
                partitions=[
                    _append(topic.name, data, request, call, fault, written)
                    for data in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )
    if request.acks == NOBODY:
        # The client reads no answer to acks=0 and would take one for the answer to its
        # next request. Closing is the only way to tell it that a write failed.
        for topic in response.topics:
            for partition in topic.partitions:
                if partition.error_code:
                    raise CloseConnection(
                        f"wrote to {topic.name}-{partition.index} with acks=0 and was "
                        f"refused: {partition.error_message}"
                    )
        return None
    if request.acks == ALL and written:
        deadline = call.broker.clock.monotonic() + request.timeout_ms / 1000
        return Unflushed(call.broker, response, written, deadline)
    return response


def _append(
    topic: str,
    data: Message,
    request: Message,
    call: Call,
    fault: Fault | None,
    written: Written,
) -> Message:
    """`fault`: what is wrong with the request as a whole."""
    broker = call.broker
    if fault is not None:
        return _refusal(data.index, *fault)
    if request.acks not in (ALL, LEADER, NOBODY):
        return _refusal(
            data.index, ErrorCode.INVALID_REQUIRED_ACKS, "acks must be all, 1 or 0."
        )
    if not call.session.may(Operation.WRITE, topic_resource(topic)):
        return _refusal(
            data.index, ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Writing is not allowed."
        )
    partition = broker.catalog.partition(topic, data.index)
    if partition is None:
        return _refusal(
            data.index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "There is no such partition."
        )
    if topic in INTERNAL:
        return _refusal(
            data.index,
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"{topic} is written by the broker only.",
        )
    if broker.offline:
        return _refusal(data.index, ErrorCode.KAFKA_STORAGE_ERROR, broker.offline)
    try:
        appended = partition.append(
            data.records or b"",
            now_ms=broker.clock.now_ms(),
            produce_version=call.version,
            verify=_nameless
            if request.transactional_id is None
            else partial(_verify, request.transactional_id, partition, call),
        )
    except Refused as refused:
        broker.append_refused(partition, refused)
        return _refusal(data.index, refused.code, refused.message, refused.record_errors)
    broker.written(partition)
    answer = ProduceResponse.Partition(
        index=data.index,
        base_offset=appended.base_offset,
        log_append_time_ms=appended.log_append_time,
        log_start_offset=partition.log_start,
    )
    if partition.high_watermark <= appended.last_offset:
        written.append((partition, appended.last_offset, answer))
    return answer


# Transactions.


def _judge_transaction(request: Message, call: Call) -> Fault | None:
    """A transaction is written to by one producer, who may."""
    if not call.session.may(Operation.WRITE, transactional_id(request.transactional_id)):
        return Fault(
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Writing is not allowed."
        )
    headers = [
        read_header(data.records)
        for topic in request.topics
        for data in topic.partitions
        if data.records and len(data.records) >= HEADER_SIZE
    ]
    producers = {
        (header.producer_id, header.producer_epoch)
        for header in headers
        if header.is_transactional
    }
    if len(producers) > 1:
        return Fault(
            ErrorCode.INVALID_PRODUCER_ID_MAPPING, "It comes from more than one producer."
        )
    return None


def _nameless(header: Header, goes_on: bool) -> Fault:
    return Fault(
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        "The batch is transactional, the request names no transactional id.",
    )


def _verify(
    name: str, partition: Partition, call: Call, header: Header, goes_on: bool
) -> Fault | None:
    if goes_on:
        return None
    code = call.broker.transactions.verify(
        name, header.producer_id, header.producer_epoch, partition.topic, partition.index
    )
    match code:
        case ErrorCode.NONE:
            return None
        case ErrorCode.INVALID_TXN_STATE:
            if call.version >= KNOWS_ABORTABLE:
                code = ErrorCode.TRANSACTION_ABORTABLE
            return Fault(code, "The partition was not added to the transaction.")
        case ErrorCode.CONCURRENT_TRANSACTIONS | ErrorCode.COORDINATOR_NOT_AVAILABLE:
            return Fault(TRY_AGAIN, "The transaction before this one is not over yet.")
        case ErrorCode.INVALID_PRODUCER_EPOCH:
            return Fault(code, f"{name!r} has a newer producer.")
        case _:
            return Fault(code, f"{name!r} does not belong to this producer.")


def _refusal(
    index: int,
    code: ErrorCode,
    message: str,
    record_errors: tuple[tuple[int, str], ...] = (),
) -> Message:
    return ProduceResponse.Partition(
        index=index,
        error_code=code,
        error_message=message,
        base_offset=-1,
        record_errors=[
            ProduceResponse.RecordError(batch_index=position, message=why)
            for position, why in record_errors
        ],
    )


class Unflushed(Waiting):
    """A Produce that is written, and waits for the flush of what it wrote."""

    __slots__ = ("_broker", "_response", "_written", "deadline", "partitions")

    def __init__(
        self, broker: "Broker", response: Message, written: Written, deadline: float
    ) -> None:
        self._broker = broker
        self._response = response
        self._written = written
        self.partitions = {partition for partition, _, _ in written}
        self.deadline = deadline

    def look(self) -> Answer:
        self._written = [one for one in self._written if self._still_waits(*one)]
        return self if self._written else self._response

    def late(self) -> Answer:
        for _, _, answer in self._written:
            _fail(answer, ErrorCode.REQUEST_TIMED_OUT, "It is not flushed yet.")
        return self._response

    def _still_waits(self, partition: Partition, last_offset: int, answer: Message) -> bool:
        if partition.high_watermark > last_offset:
            return False
        if self._broker.catalog.partition(partition.topic, partition.index) != partition:
            _fail(answer, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "It was deleted.")
            return False
        if partition.offline or self._broker.offline:
            why = partition.offline or self._broker.offline or ""
            _fail(answer, ErrorCode.KAFKA_STORAGE_ERROR, why)
            return False
        return True


def _fail(answer: Message, code: ErrorCode, message: str) -> None:
    answer.error_code, answer.error_message, answer.base_offset = code, message, -1
