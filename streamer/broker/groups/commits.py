"""OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete: how far a group has come.

A commit is judged partition by partition, but by its group as a whole:

    1  may this client name the group, and each topic; are there such partitions
    2  does the group let this member commit (`group.py`), in this generation
    3  within a transaction: is it open, and are offsets of this group part of it
    4  is what shall be kept beside the offset small enough

What passes is one batch of the log, and answered once that is safe (`ledger.py`). Between
the questions 2 to 4 and the writing nothing is waited for: a rebalance or the end of the
transaction comes either before both or after both.

`simple` consumers, who only keep their offsets here, make a group of that name by their
first commit.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from streamer.broker.api import Call, Message
from streamer.broker.groups.offsets import Commit
from streamer.broker.names import Place, Producer
from streamer.broker.security import (
    Operation,
    group as group_resource,
    topic as topic_resource,
    transactional_id as transactional_id_resource,
)
from streamer.log.errors import Refused
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    OffsetCommitResponse,
    OffsetDeleteResponse,
    OffsetFetchResponse,
    TxnOffsetCommitResponse,
)

if TYPE_CHECKING:
    from streamer.broker.groups.coordinator import GroupCoordinator
    from streamer.broker.groups.group import Group

NO_OFFSET = -1
BY_BROKER = -1
"""A retention that the client leaves to us."""
# From here on the versions of the requests know an error.
COMMIT_KNOWS_MISSING_GROUPS = 9
TXN_COMMIT_KNOWS_ABORTABLE = 4
FETCH_OF_MANY_GROUPS = 8
FETCH_HAS_GROUP_ERRORS = 2

# Clients of TxnOffsetCommit look for the coordinator again and ask once more.
ASK_AGAIN = frozenset(
    {
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
    }
)
ABORTABLE = frozenset({ErrorCode.INVALID_TXN_STATE, ErrorCode.TRANSACTION_ABORTABLE})

# The partitions that a request asks for, and the code of each that is refused.
Asked: TypeAlias = dict[Place, Message]
Refusals: TypeAlias = dict[Place, ErrorCode]


# OffsetCommit


async def handle_offset_commit(request: Message, call: Call) -> Message:
    if not call.session.may(Operation.READ, group_resource(request.group_id)):
        refusals = _all(request, ErrorCode.GROUP_AUTHORIZATION_FAILED)
    else:
        asked, refusals = _sort(request, call)
        if asked:
            refusals |= await _commit(request, asked, call)
    return _answer(OffsetCommitResponse, request, refusals)


async def _commit(request: Message, asked: Asked, call: Call) -> Refusals:
    """Commit what may be; the code of each partition that may not."""
    groups = call.broker.groups
    try:
        await groups.ledger.make_room(request.group_id)
        _check_group(
            request,
            call,
            transactional=False,
            missing=ErrorCode.GROUP_ID_NOT_FOUND
            if call.version >= COMMIT_KNOWS_MISSING_GROUPS
            else ErrorCode.ILLEGAL_GENERATION,
        )
        commits, refusals = _commits(asked, call, request.retention_time_ms)
        if commits:
            await groups.ledger.commit(request.group_id, commits)
    except Refused as refused:
        return dict.fromkeys(asked, _code_for_groups(refused.code))
    return refusals


# TxnOffsetCommit


async def handle_txn_offset_commit(request: Message, call: Call) -> Message:
    may = call.session.may
    if not may(Operation.WRITE, transactional_id_resource(request.transactional_id)):
        refusals = _all(request, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    elif not may(Operation.READ, group_resource(request.group_id)):
        refusals = _all(request, ErrorCode.GROUP_AUTHORIZATION_FAILED)
    else:
        asked, refusals = _sort(request, call)
        if asked and not request.group_id:
            refusals |= dict.fromkeys(asked, ErrorCode.INVALID_GROUP_ID)
        elif asked:
            refusals |= await _hold(request, asked, call)
    return _answer(TxnOffsetCommitResponse, request, refusals)


async def _hold(request: Message, asked: Asked, call: Call) -> Refusals:
    """Keep what may be until the transaction ends; the code of each that may not."""
    ledger = call.broker.groups.ledger
    try:
        await ledger.make_room(request.group_id)
        _check_transaction(request, call)
        _check_group(
            request, call, transactional=True, missing=ErrorCode.ILLEGAL_GENERATION
        )
        commits, refusals = _commits(asked, call)
        if commits:
            producer = Producer(request.producer_id, request.producer_epoch)
            await ledger.commit(request.group_id, commits, producer=producer)
    except Refused as refused:
        return dict.fromkeys(asked, _code_for_groups(refused.code))
    return refusals


def _check_transaction(request: Message, call: Call) -> None:
    log = call.broker.groups.log
    code = call.broker.transactions.verify(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        log.topic,
        log.partition_of(request.group_id),
    )
    if code == ErrorCode.PRODUCER_FENCED:
        code = ErrorCode.INVALID_PRODUCER_EPOCH
    elif code in ASK_AGAIN:
        code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    elif code in ABORTABLE:
        knows = call.version >= TXN_COMMIT_KNOWS_ABORTABLE
        code = ErrorCode.TRANSACTION_ABORTABLE if knows else ErrorCode.INVALID_TXN_STATE
    if code:
        raise Refused(code, "Offsets of this group are no part of an open transaction.")


# What both kinds of commit ask.


def _sort(request: Message, call: Call) -> tuple[Asked, Refusals]:
    """The partitions that there are, and why the others cannot be had."""
    catalog = call.broker.catalog
    asked: Asked = {}
    refusals: Refusals = {}
    for topic in request.topics:
        allowed = call.session.may(Operation.READ, topic_resource(topic.name))
        for partition in topic.partitions:
            place = Place(topic.name, partition.index)
            if not allowed:
                refusals[place] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif catalog.partition(*place) is None:
                refusals[place] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                asked[place] = partition
    return asked, refusals


def _check_group(
    request: Message, call: Call, *, transactional: bool, missing: ErrorCode
) -> None:
    """Raise Refused if the group does not let this member commit."""
    groups = call.broker.groups
    group = groups.get(request.group_id)
    if group is None:
        if request.generation_id >= 0:
            raise Refused(missing, f"There is no group {request.group_id!r}.")
        return  # There will be one, with its first offset.
    code = group.may_commit(
        request.member_id,
        request.group_instance_id,
        request.generation_id,
        transactional=transactional,
        now=groups.now(),
    )
    if code:
        raise Refused(code, "The group does not let this member commit.")


def _commits(
    asked: Asked, call: Call, retention_ms: int = BY_BROKER
) -> tuple[dict[Place, Commit], Refusals]:
    """What to keep of each partition, and which have too much beside the offset."""
    now_ms = call.broker.clock.now_ms()
    most = call.broker.config.number("offset.metadata.max.bytes")
    commits: dict[Place, Commit] = {}
    refusals: Refusals = {}
    for place, one in asked.items():
        metadata = one.committed_metadata or ""
        if _length(metadata) > most:
            refusals[place] = ErrorCode.OFFSET_METADATA_TOO_LARGE
            continue
        commits[place] = Commit(
            offset=one.committed_offset,
            leader_epoch=one.committed_leader_epoch,
            metadata=metadata,
            time_ms=now_ms,
            expires_ms=None if retention_ms == BY_BROKER else now_ms + retention_ms,
        )
    return commits, refusals


def _length(metadata: str) -> int:
    """As Apache Kafka counts it: in Java's characters, whatever the setting is called."""
    return len(metadata.encode("utf-16-le")) // 2


def _code_for_groups(code: ErrorCode) -> ErrorCode:
    """What a client of a group understands: it looks for the coordinator and asks again."""
    if code == ErrorCode.KAFKA_STORAGE_ERROR:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    return code


def _all(request: Message, code: ErrorCode) -> Refusals:
    return {
        Place(topic.name, partition.index): code
        for topic in request.topics
        for partition in topic.partitions
    }


def _answer(response: type[Message], request: Message, refusals: Refusals) -> Message:
    """A code for each partition of the request, in its order."""
    return response(
        topics=[
            response.Topic(
                name=topic.name,
                partitions=[
                    response.Partition(
                        index=partition.index,
                        error_code=refusals.get(
                            Place(topic.name, partition.index), ErrorCode.NONE
                        ),
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


# OffsetFetch


def handle_offset_fetch(request: Message, call: Call) -> Message:
    """Tell what is committed: for all partitions of a group, where none are named."""
    if call.version >= FETCH_OF_MANY_GROUPS:
        groups = [_fetch(group, request, call) for group in request.groups]
        return OffsetFetchResponse(groups=groups)
    return _as_before(_fetch(request, request, call), request, call)


def _fetch(wanted: Message, request: Message, call: Call) -> Message:
    """One group's offsets."""
    answer = OffsetFetchResponse.Group(group_id=wanted.group_id)
    if not call.session.may(Operation.DESCRIBE, group_resource(wanted.group_id)):
        answer.error_code = ErrorCode.GROUP_AUTHORIZATION_FAILED
    elif not call.broker.groups.is_available:
        # "Nothing committed" would make its consumers start anew.
        answer.error_code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    else:
        fetch = _Fetch(wanted.group_id, call, require_stable=request.require_stable)
        answer.topics = list(fetch.all() if wanted.topics is None else fetch.of(wanted))
    return answer


class _Fetch:
    """What one request sees of one group."""

    def __init__(self, group_id: str, call: Call, *, require_stable: bool) -> None:
        self._offsets = call.broker.groups.ledger.of(group_id)
        self._session = call.session
        self._require_stable = require_stable

    def all(self) -> Iterator[Message]:
        found = defaultdict[str, list[int]](list)
        for topic, partition in sorted(self._offsets):
            found[topic].append(partition)
        for topic, indexes in found.items():
            if self._may_see(topic):
                yield self._topic(topic, indexes)

    def of(self, wanted: Message) -> Iterator[Message]:
        for topic in wanted.topics:
            yield self._topic(topic.name, topic.partition_indexes)

    def _may_see(self, topic: str) -> bool:
        return self._session.may(Operation.DESCRIBE, topic_resource(topic))

    def _topic(self, name: str, indexes: Iterable[int]) -> Message:
        tell = self._tell if self._may_see(name) else self._hide
        return OffsetFetchResponse.GroupTopic(
            name=name, partitions=[tell(Place(name, index)) for index in indexes]
        )

    def _tell(self, place: Place) -> Message:
        if self._require_stable and not self._offsets.stable(place):
            return _nothing(place.partition, ErrorCode.UNSTABLE_OFFSET_COMMIT)
        commit = self._offsets.get(place)
        if commit is None:
            return _nothing(place.partition)
        return OffsetFetchResponse.GroupPartition(
            index=place.partition,
            committed_offset=commit.offset,
            committed_leader_epoch=commit.leader_epoch,
            metadata=commit.metadata,
        )

    def _hide(self, place: Place) -> Message:
        return _nothing(place.partition, ErrorCode.TOPIC_AUTHORIZATION_FAILED)


def _nothing(index: int, code: ErrorCode = ErrorCode.NONE) -> Message:
    return OffsetFetchResponse.GroupPartition(
        index=index, committed_offset=NO_OFFSET, error_code=code
    )


def _as_before(group: Message, request: Message, call: Call) -> Message:
    """The answer in the shape of the versions that ask for one group only."""
    topics = group.topics
    if group.error_code and call.version < FETCH_HAS_GROUP_ERRORS:
        topics = [
            OffsetFetchResponse.GroupTopic(
                name=topic.name,
                partitions=[
                    _nothing(index, group.error_code) for index in topic.partition_indexes
                ],
            )
            for topic in request.topics
        ]
    return OffsetFetchResponse(
        error_code=group.error_code,
        topics=[
            OffsetFetchResponse.Topic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponse.Partition(
                        index=one.index,
                        committed_offset=one.committed_offset,
                        committed_leader_epoch=one.committed_leader_epoch,
                        metadata=one.metadata,
                        error_code=one.error_code,
                    )
                    for one in topic.partitions
                ],
            )
            for topic in topics
        ],
    )


# OffsetDelete


async def handle_offset_delete(request: Message, call: Call) -> Message:
    """Forget offsets; a topic that the group reads is not forgotten."""
    if not call.session.may(Operation.DELETE, group_resource(request.group_id)):
        return OffsetDeleteResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    asked, refusals = _sort(request, call)
    groups = call.broker.groups
    try:
        group = _group_to_delete_from(request.group_id, groups)
        read = {place for place in asked if group.is_subscribed(place.topic)}
        refusals |= dict.fromkeys(read, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC)
        await groups.ledger.delete(request.group_id, asked.keys() - read)
    except Refused as refused:
        return OffsetDeleteResponse(error_code=_code_for_groups(refused.code))
    return _answer(OffsetDeleteResponse, request, refusals)


def _group_to_delete_from(group_id: str, groups: "GroupCoordinator") -> "Group":
    if not group_id:
        raise Refused(ErrorCode.INVALID_GROUP_ID, "The group has no name.")
    if groups.log.problem is not None:
        raise Refused(ErrorCode.COORDINATOR_NOT_AVAILABLE, groups.log.problem)
    group = groups.get(group_id)
    if group is None:
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"There is no group {group_id!r}.")
    if code := group.may_delete_offsets():
        raise Refused(code, "The group does not let its offsets be deleted.")
    return group
