"""One connection to a broker, spoken to message by message.

For what no client ever does: odd versions, several requests at once, wrong lengths.
Messages come from `streamer.wire`; frames and headers are put together here by hand,
so that a mistake in ours cannot hide itself.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from typing import Any

from support.server import split_address

from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    FetchRequest,
    ListOffsetsRequest,
    MetadataRequest,
    OffsetForLeaderEpochRequest,
    ProduceRequest,
    flexible_from,
    read_response,
    write_request,
)

PATIENCE_SECONDS = 10.0

# The versions tests use where the version is not the point.
PRODUCE, FETCH, METADATA = 9, 12, 9


class Closed(Exception):
    """The broker has closed the connection."""


class Wire:
    """A connection; answers are read in the order of the questions."""

    def __init__(self, address: str) -> None:
        self.socket = socket.create_connection(split_address(address), PATIENCE_SECONDS)
        self.asked: deque[tuple[ApiKey, int, int]] = deque()
        self.correlation = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, message: Any, version: int) -> Any:
        """Send a request and wait for its answer."""
        self.send(message, version)
        return self.receive()

    def send(self, message: Any, version: int) -> None:
        """Send a request; `receive` brings its answer."""
        key = key_of(message)
        self.correlation += 1
        self.asked.append((key, version, self.correlation))
        self.send_frame(
            request_header(key, version, self.correlation)
            + b"".join(bytes(chunk) for chunk in write_request(message, version))
        )

    def send_frame(self, frame: bytes) -> None:
        self.send_bytes(struct.pack(">i", len(frame)) + frame)

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, *, timeout: float = PATIENCE_SECONDS) -> Any:
        """The next answer, which must be the one to the oldest open question."""
        key, version, expected = self.asked.popleft()
        frame = self.receive_frame(timeout=timeout)
        (correlation,) = struct.unpack_from(">i", frame)
        assert correlation == expected, "answers came out of order"
        return read_response(key, version, frame, response_body(key, version))

    def receive_frame(self, *, timeout: float = PATIENCE_SECONDS) -> bytes:
        self.socket.settimeout(timeout)
        (size,) = struct.unpack(">i", self.receive_bytes(4))
        return self.receive_bytes(size)

    def receive_bytes(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            try:
                piece = self.socket.recv(size - len(found))
            except ConnectionResetError:
                raise Closed from None
            if not piece:
                raise Closed
            found += piece
        return bytes(found)

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes, not even an end, in this time."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        return False

    def is_closed(self) -> bool:
        """Whether the broker hangs up, without another word, soon."""
        self.socket.settimeout(PATIENCE_SECONDS)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


def key_of(message: Any) -> ApiKey:
    found: ApiKey = ApiKey(message.definition.api_key)
    return found


def request_header(key: int, version: int, correlation: int) -> bytes:
    client = b"raw"
    header = struct.pack(">hhih", key, version, correlation, len(client)) + client
    return header + (b"\0" if version >= flexible_from(key) else b"")


def response_body(key: int, version: int) -> int:
    """Where the body begins: behind the correlation id and, if any, the tags."""
    # ApiVersions is read by clients that do not yet know what the broker understands.
    return 5 if version >= flexible_from(key) and key != ApiKey.API_VERSIONS else 4


def produce_request(
    topic: str, records: bytes | None, *, partition: int = 0, acks: int = -1
) -> Any:
    part = ProduceRequest.Partition(index=partition, records=records)
    return ProduceRequest(
        acks=acks,
        timeout_ms=10_000,
        topics=[ProduceRequest.Topic(name=topic, partitions=[part])],
    )


def fetch_request(
    topic: str,
    offset: int,
    *,
    partition: int = 0,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 50_000_000,
    partition_max_bytes: int = 1_000_000,
    session_id: int = 0,
    session_epoch: int = -1,
    leader_epoch: int = -1,
    isolation: int = 0,
) -> Any:
    part = FetchRequest.Partition(
        index=partition,
        fetch_offset=offset,
        max_bytes=partition_max_bytes,
        current_leader_epoch=leader_epoch,
    )
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=isolation,
        session_id=session_id,
        session_epoch=session_epoch,
        topics=[FetchRequest.Topic(name=topic, partitions=[part])],
    )


def only_partition(response: Any) -> Any:
    """The one partition of a response about one topic."""
    (topic,) = response.topics
    (partition,) = topic.partitions
    return partition


def produce(
    wire: Wire, topic: str, records: bytes | None, *, version: int = PRODUCE, **wishes: Any
) -> Any:
    """Produce one batch; the answer about its partition."""
    return only_partition(wire.ask(produce_request(topic, records, **wishes), version))


def fetch(
    wire: Wire, topic: str, offset: int, *, version: int = FETCH, **wishes: Any
) -> Any:
    """Fetch from one partition; the answer about it."""
    return only_partition(wire.ask(fetch_request(topic, offset, **wishes), version))


def offsets(
    wire: Wire, topic: str, timestamp: int, *, version: int = 7, **wishes: int
) -> Any:
    """ListOffsets about one partition."""
    part = ListOffsetsRequest.Partition(
        index=wishes.get("partition", 0),
        timestamp=timestamp,
        current_leader_epoch=wishes.get("epoch", -1),
    )
    request = ListOffsetsRequest(
        isolation_level=wishes.get("isolation", 0),
        topics=[ListOffsetsRequest.Topic(name=topic, partitions=[part])],
    )
    return only_partition(wire.ask(request, version))


def epoch_end(
    wire: Wire, topic: str, epoch: int, *, current: int = -1, version: int = 4
) -> Any:
    """OffsetForLeaderEpoch about one partition."""
    part = OffsetForLeaderEpochRequest.Partition(
        index=0, leader_epoch=epoch, current_leader_epoch=current
    )
    topics = [OffsetForLeaderEpochRequest.Topic(name=topic, partitions=[part])]
    # A consumer: the default is a replica that debugs, which nobody lets read.
    return only_partition(
        wire.ask(OffsetForLeaderEpochRequest(replica_id=-1, topics=topics), version)
    )


def leader_epoch(wire: Wire, topic: str) -> int:
    """The current leader epoch of partition 0."""
    asked = MetadataRequest(topics=[MetadataRequest.Topic(name=topic)])
    (found,) = wire.ask(asked, METADATA).topics
    epoch: int = found.partitions[0].leader_epoch
    return epoch


def until_known(wire: Wire, topic: str, partitions: int = 1) -> None:
    """Wait until a fresh topic answers, as clients do by asking again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    passing = {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NOT_LEADER_OR_FOLLOWER}
    for number in range(partitions):
        while fetch(wire, topic, 0, partition=number).error_code in passing:
            assert time.monotonic() < deadline, f"{topic} never became readable"
