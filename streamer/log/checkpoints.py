"""The small text files of a log directory, as Kafka writes them.

recovery-point-offset-checkpoint   from where on a crash must be suspected
log-start-offset-checkpoint        what was deleted by DeleteRecords
cleaner-offset-checkpoint          up to where compaction has come
meta.properties                    whose directory this is
partition.metadata                 which topic a folder belongs to
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias
from uuid import UUID

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
CLEANED_TO = "cleaner-offset-checkpoint"
META = "meta.properties"
PARTITION_METADATA = "partition.metadata"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"

Offsets: TypeAlias = dict[tuple[str, int], int]
"""By topic and partition."""


class CheckpointDamaged(Exception):
    """Not what was written."""


class Meta(NamedTuple):
    cluster_id: str
    node_id: int
    directory_id: str


def write_offsets(offsets: Mapping[tuple[str, int], int]) -> bytes:
    lines = [
        f"{topic} {index} {offset}" for (topic, index), offset in sorted(offsets.items())
    ]
    return "\n".join(["0", str(len(lines)), *lines, ""]).encode()


def read_offsets(data: bytes) -> Offsets:
    found: Offsets = {}
    try:
        version, count, *lines = data.decode().splitlines()
        for line in lines:
            topic, index, offset = line.split(" ")
            found[topic, int(index)] = int(offset)
    except ValueError as error:
        raise CheckpointDamaged(str(error)) from None
    if version != "0" or count != str(len(found)):
        raise CheckpointDamaged(f"version {version}, {count} lines")
    return found


def write_meta(meta: Meta) -> bytes:
    return (
        "version=1\n"
        f"cluster.id={meta.cluster_id}\n"
        f"node.id={meta.node_id}\n"
        f"directory.id={meta.directory_id}\n"
    ).encode()


def read_meta(data: bytes) -> Meta:
    try:
        lines = [line for line in data.decode().splitlines() if "=" in line]
        found = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        return Meta(found["cluster.id"], int(found["node.id"]), found["directory.id"])
    except (ValueError, KeyError) as error:
        raise CheckpointDamaged(f"{error!r}") from None


def write_partition_metadata(topic_id: UUID) -> bytes:
    return f"version: 0\ntopic_id: {short_id(topic_id)}".encode()


def read_partition_metadata(data: bytes) -> UUID:
    try:
        fields = dict(line.split(": ", 1) for line in data.decode().splitlines())
        return UUID(bytes=urlsafe_b64decode(fields["topic_id"] + "=="))
    except (ValueError, KeyError) as error:
        raise CheckpointDamaged(f"{error!r}") from None


def short_id(uuid: UUID) -> str:
    """Kafka's way to write one: 22 letters, digits, - and _."""
    return urlsafe_b64encode(uuid.bytes).decode().rstrip("=")
