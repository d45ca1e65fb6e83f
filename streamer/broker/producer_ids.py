"""InitProducerId: each idempotent producer gets a number nobody had before.

Numbers are taken from blocks, and a block is written down before the first of it is
given out (`catalog.py`), so that none is given twice, whatever happens to us.
"""

from streamer.broker.api import Call, Message
from streamer.broker.catalog import NotWritten
from streamer.broker.security import CLUSTER, Operation
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import InitProducerIdResponse


async def handle_init_producer_id(request: Message, call: Call) -> Message:
    if request.transactional_id is not None:
        # Transactions are not served: FindCoordinator says so first, in words.
        return _refusal(ErrorCode.INVALID_REQUEST)
    if (request.producer_id < 0) != (request.producer_epoch < 0):
        return _refusal(ErrorCode.INVALID_REQUEST)
    if not call.session.may(Operation.IDEMPOTENT_WRITE, CLUSTER):
        return _refusal(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    if call.broker.offline:
        return _refusal(ErrorCode.KAFKA_STORAGE_ERROR)
    try:
        producer_id = await call.broker.catalog.next_producer_id()
    except NotWritten:
        return _refusal(ErrorCode.KAFKA_STORAGE_ERROR)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


def _refusal(code: ErrorCode) -> Message:
    return InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1)
