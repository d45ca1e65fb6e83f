"""The records of `__consumer_offsets`: Apache Kafka's own, so that its tools read them.

    key: group, topic, partition    value: the committed offset      version 1 and 3
    key: group                      value: the group, its members    version 2 and 3

A key with no value, a tombstone, takes back what was said before. The first two bytes of a
key are its version, which tells one kind from the other; the layouts are in
`wire/schema/state`. What an old client wants to end at a time of its own is written as
version 1 of the value, the only one with room for that.

`offsets.py` and `group.py` know what the values mean, `ledger.py` writes and replays them.
"""

from typing import Any, NamedTuple

from streamer.broker.groups.offsets import Commit
from streamer.broker.names import Place
from streamer.wire.record import Record
from streamer.wire.state_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
    UnsupportedVersion,
    read_group_key,
    read_state,
    write_state,
)

OFFSET_KEY, GROUP_KEY = 1, 2
OFFSET_VALUE, OFFSET_VALUE_THAT_EXPIRES = 3, 1
GROUP_VALUE = 3
NEVER = -1

Message = Any


class OffsetEntry(NamedTuple):
    """A record of an offset; without `commit` it is a tombstone."""

    group_id: str
    place: Place
    commit: Commit | None
    at: int


class GroupEntry(NamedTuple):
    """A record of a group; without `value` (a GroupMetadataValue) it is a tombstone."""

    group_id: str
    value: Message | None


def offset_record(
    group_id: str, place: Place, commit: Commit | None, now_ms: int
) -> Record:
    key = OffsetCommitKey(group=group_id, topic=place.topic, partition=place.partition)
    return Record(
        timestamp=now_ms,
        key=write_state(key, OFFSET_KEY),
        value=None if commit is None else _offset_value(commit),
    )


def _offset_value(commit: Commit) -> bytes:
    value = OffsetCommitValue(
        offset=commit.offset,
        leader_epoch=commit.leader_epoch,
        metadata=commit.metadata,
        commit_timestamp=commit.time_ms,
        expire_timestamp=NEVER if commit.expires_ms is None else commit.expires_ms,
    )
    expires = commit.expires_ms is not None
    return write_state(value, OFFSET_VALUE_THAT_EXPIRES if expires else OFFSET_VALUE)


def group_record(group_id: str, value: Message | None, now_ms: int) -> Record:
    return Record(
        timestamp=now_ms,
        key=write_state(GroupMetadataKey(group=group_id), GROUP_KEY),
        value=None if value is None else write_state(value, GROUP_VALUE),
    )


def read(record: Record) -> OffsetEntry | GroupEntry | None:
    """What a record says; None for a kind that only later brokers write.

    Raises Malformed or UnsupportedVersion.
    """
    try:
        key = read_group_key(record.key or b"")
    except UnsupportedVersion:
        return None
    value = record.value
    if isinstance(key, GroupMetadataKey):
        return GroupEntry(key.group, value and read_state(GroupMetadataValue, value))
    place = Place(key.topic, key.partition)
    return OffsetEntry(key.group, place, _commit(record), record.offset)


def _commit(record: Record) -> Commit | None:
    if record.value is None:
        return None
    value = read_state(OffsetCommitValue, record.value)
    return Commit(
        offset=value.offset,
        leader_epoch=value.leader_epoch,
        metadata=value.metadata,
        time_ms=value.commit_timestamp,
        expires_ms=None if value.expire_timestamp == NEVER else value.expire_timestamp,
        at=record.offset,
    )
