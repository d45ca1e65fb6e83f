"""InitProducerId: each producer gets a number nobody had before.

Numbers are taken from blocks, and a block is written down before the first of it is
given out (`catalog.py`), so that none is given twice, whatever happens to us. Who has a
transactional id keeps its number: see `transactions/coordinator.py`.
"""

from streamer.broker.api import Call, Message
from streamer.broker.names import Producer
from streamer.broker.security import CLUSTER, Operation, transactional_id
from streamer.log.errors import Refused
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import InitProducerIdResponse

KNOWS_FENCED = 4


async def handle_init_producer_id(request: Message, call: Call) -> Message:
    if (request.producer_id < 0) != (request.producer_epoch < 0):
        return _refusal(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return await _init_transactional(request, call)
    if not call.session.may(Operation.IDEMPOTENT_WRITE, CLUSTER):
        return _refusal(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    try:
        call.broker.check_writable()
        producer_id = await call.broker.catalog.next_producer_id()
    except Refused as refused:
        return _refusal(refused.code)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


async def _init_transactional(request: Message, call: Call) -> Message:
    name = request.transactional_id
    if not call.session.may(Operation.WRITE, transactional_id(name)):
        return _refusal(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if not name:
        return _refusal(ErrorCode.INVALID_REQUEST)
    has = Producer(request.producer_id, request.producer_epoch)
    found = await call.broker.transactions.init(
        name, request.transaction_timeout_ms, expected=None if has.id < 0 else has
    )
    if isinstance(found, Producer):
        return InitProducerIdResponse(producer_id=found.id, producer_epoch=found.epoch)
    if found == ErrorCode.PRODUCER_FENCED and call.version < KNOWS_FENCED:
        found = ErrorCode.INVALID_PRODUCER_EPOCH
    return _refusal(found)


def _refusal(code: ErrorCode) -> Message:
    return InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1)
