"""AddPartitionsToTxn, AddOffsetsToTxn, EndTxn; and what administrators ask of transactions.

DescribeTransactions and ListTransactions tell what the coordinator knows, DescribeProducers
what partitions know; where the two disagree for good, WriteTxnMarkers ends a transaction by
hand. A retry of a request is answered as the request was.

InitProducerId is in `broker/producer_ids.py`, TxnOffsetCommit in `groups/commits.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import groupby

from streamer.broker.api import Call, Message
from streamer.broker.names import Place, Producer
from streamer.broker.security import (
    CLUSTER,
    Operation,
    group as group_resource,
    topic as topic_resource,
    transactional_id as transactional_id_resource,
)
from streamer.broker.transactions.pattern import InvalidPattern, matching
from streamer.broker.transactions.transaction import Phase, Transaction
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnResponse,
    DescribeProducersResponse,
    DescribeTransactionsResponse,
    EndTxnResponse,
    ListTransactionsResponse,
    WriteTxnMarkersResponse,
)

# Older clients know a fenced producer only by its epoch; the same version for all three.
KNOWS_FENCED = 2


def _error(name: str, call: Call, operation: Operation) -> ErrorCode:
    """What stands in the way of any request about this id."""
    if not call.session.may(operation, transactional_id_resource(name)):
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    return ErrorCode.NONE if name else ErrorCode.INVALID_REQUEST


def _told(code: ErrorCode, call: Call) -> ErrorCode:
    if code == ErrorCode.PRODUCER_FENCED and call.version < KNOWS_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return code


def _producer(request: Message) -> Producer:
    return Producer(request.producer_id, request.producer_epoch)


# AddPartitionsToTxn


async def handle_add_partitions_to_txn(request: Message, call: Call) -> Message:
    name = request.transactional_id
    places = {
        Place(topic.name, partition): ErrorCode.NONE
        for topic in request.topics
        for partition in topic.partitions
    }
    code = _error(name, call, Operation.WRITE)
    if not code:
        missing = {place: _missing(place, call) for place in places}
        if any(missing.values()):
            # All or none: what is added by mistake would hold up its readers.
            codes = {
                place: code or ErrorCode.OPERATION_NOT_ATTEMPTED
                for place, code in missing.items()
            }
            return _added(request, codes)
        code = await call.broker.transactions.add_partitions(
            name, _producer(request), set(places)
        )
    return _added(request, dict.fromkeys(places, _told(code, call)))


def _missing(place: Place, call: Call) -> ErrorCode:
    topic = call.broker.catalog.topics.get(place.topic)
    allowed = call.session.may(Operation.WRITE, topic_resource(place.topic))
    if not allowed or (topic is not None and topic.is_internal):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    if topic is None or topic.partition(place.partition) is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return ErrorCode.NONE


def _added(request: Message, codes: dict[Place, ErrorCode]) -> Message:
    response = AddPartitionsToTxnResponse
    return response(
        topics=[
            response.Topic(
                name=topic.name,
                partitions=[
                    response.Partition(
                        index=index, error_code=codes[Place(topic.name, index)]
                    )
                    for index in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


# AddOffsetsToTxn, EndTxn


async def handle_add_offsets_to_txn(request: Message, call: Call) -> Message:
    name = request.transactional_id
    code = _error(name, call, Operation.WRITE)
    if not code and not call.session.may(Operation.READ, group_resource(request.group_id)):
        code = ErrorCode.GROUP_AUTHORIZATION_FAILED
    if not code:
        offsets = call.broker.groups.log
        place = Place(offsets.topic, offsets.partition_of(request.group_id))
        code = await call.broker.transactions.add_partitions(
            name, _producer(request), {place}
        )
    return AddOffsetsToTxnResponse(error_code=_told(code, call))


async def handle_end_txn(request: Message, call: Call) -> Message:
    name = request.transactional_id
    code = _error(name, call, Operation.WRITE)
    if not code:
        code = await call.broker.transactions.end(
            name, _producer(request), commit=request.committed
        )
    return EndTxnResponse(error_code=_told(code, call))


# WriteTxnMarkers


async def handle_write_txn_markers(request: Message, call: Call) -> Message:
    response = WriteTxnMarkersResponse
    markers = await asyncio.gather(*[_write(marker, call) for marker in request.markers])
    return response(
        markers=[
            response.Marker(
                producer_id=marker.producer_id,
                topics=[
                    response.Topic(
                        name=topic.name,
                        partitions=[
                            response.Partition(
                                index=index, error_code=codes[Place(topic.name, index)]
                            )
                            for index in topic.partition_indexes
                        ],
                    )
                    for topic in marker.topics
                ],
            )
            for marker, codes in zip(request.markers, markers, strict=True)
        ]
    )


async def _write(marker: Message, call: Call) -> dict[Place, ErrorCode]:
    places = [
        Place(topic.name, index)
        for topic in marker.topics
        for index in topic.partition_indexes
    ]
    if not call.session.may(Operation.ALTER, CLUSTER):
        return dict.fromkeys(places, ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    if marker.producer_id < 0 or marker.producer_epoch < 0:
        return dict.fromkeys(places, ErrorCode.INVALID_REQUEST)
    return await call.broker.transactions.markers.write_each(
        dict.fromkeys(places),
        _producer(marker),
        commit=marker.transaction_result,
        coordinator_epoch=marker.coordinator_epoch,
    )


# DescribeProducers


def handle_describe_producers(request: Message, call: Call) -> Message:
    response = DescribeProducersResponse
    return response(
        topics=[
            response.Topic(
                name=topic.name,
                partitions=[
                    _describe_partition(topic.name, index, call)
                    for index in topic.partition_indexes
                ],
            )
            for topic in request.topics
        ]
    )


def _describe_partition(topic: str, index: int, call: Call) -> Message:
    response = DescribeProducersResponse
    if not call.session.may(Operation.READ, topic_resource(topic)):
        return response.Partition(
            index=index,
            error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            error_message="Reading is not allowed.",
        )
    partition = call.broker.catalog.partition(topic, index)
    if partition is None:
        return response.Partition(
            index=index,
            error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            error_message="There is no such partition.",
        )
    return response.Partition(
        index=index,
        active_producers=[
            response.Producer(
                producer_id=producer_id,
                producer_epoch=state.epoch,
                last_sequence=state.last_sequence,
                last_timestamp=state.heard_ms,
                coordinator_epoch=state.coordinator_epoch,
                current_txn_start_offset=state.transaction_start,
            )
            for producer_id, state in partition.producer_states().items()
        ],
    )


# DescribeTransactions, ListTransactions


def handle_describe_transactions(request: Message, call: Call) -> Message:
    return DescribeTransactionsResponse(
        transaction_states=[_describe(name, call) for name in request.transactional_ids]
    )


def _describe(name: str, call: Call) -> Message:
    coordinator = call.broker.transactions
    code = _error(name, call, Operation.DESCRIBE)
    if not code and not coordinator.is_available:
        code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    transaction = coordinator.get(name)
    if not code and transaction is None:
        code = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    if code or transaction is None:
        return DescribeTransactionsResponse.Transaction(
            error_code=code, transactional_id=name
        )
    return DescribeTransactionsResponse.Transaction(
        transactional_id=name,
        transaction_state=transaction.phase.title,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_start_time_ms=transaction.started_ms,
        producer_id=transaction.producer_id,
        producer_epoch=transaction.epoch,
        topics=_topics(transaction, call),
    )


def _topics(transaction: Transaction, call: Call) -> list[Message]:
    """Where the transaction has written to, as far as that may be known."""
    return [
        DescribeTransactionsResponse.Topic(
            name=name, partitions=[place.partition for place in places]
        )
        for name, places in groupby(sorted(transaction.partitions), lambda one: one.topic)
        if call.session.may(Operation.DESCRIBE, topic_resource(name))
    ]


async def handle_list_transactions(request: Message, call: Call) -> Message:
    coordinator = call.broker.transactions
    if not coordinator.is_available:
        return ListTransactionsResponse(error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE)
    try:
        found = await _matching(request, call)
    except InvalidPattern:
        return ListTransactionsResponse(error_code=ErrorCode.INVALID_REGULAR_EXPRESSION)
    titles = {phase.title for phase in Phase}
    return ListTransactionsResponse(
        unknown_state_filters=[one for one in request.state_filters if one not in titles],
        transaction_states=[
            ListTransactionsResponse.Transaction(
                transactional_id=transaction.transactional_id,
                producer_id=transaction.producer_id,
                transaction_state=transaction.phase.title,
            )
            for transaction in found
            if _is_listed(transaction, request, call)
        ],
    )


async def _matching(request: Message, call: Call) -> list[Transaction]:
    """Those whose id is as the client wants it."""
    pattern, known = request.transactional_id_pattern, list(call.broker.transactions)
    if not pattern:
        return known
    names = [transaction.transactional_id for transaction in known]
    wanted = await call.broker.in_thread(partial(matching, pattern, names))
    return [one for one in known if one.transactional_id in wanted]


def _is_listed(transaction: Transaction, request: Message, call: Call) -> bool:
    states, producers = request.state_filters, request.producer_id_filters
    if states and transaction.phase.title not in states:
        return False
    if producers and transaction.producer_id not in producers:
        return False
    age_ms = call.broker.clock.now_ms() - transaction.started_ms
    if request.duration_filter >= 0 and age_ms <= request.duration_filter:
        return False
    name = transactional_id_resource(transaction.transactional_id)
    return call.session.may(Operation.DESCRIBE, name)
