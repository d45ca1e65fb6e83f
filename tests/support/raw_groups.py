"""A member of a consumer group, message by message.

A `RawMember` has a connection of its own, since a JoinGroup that waits for others
holds up its connection. It remembers what a client would: its id and the generation.
Assignments are any bytes, since they pass through the broker. The subscription of a
member is well formed: Apache Kafka reads it, and a group with one that it cannot read
never gets ready.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from support.clients import new_name
from support.raw import PATIENCE_SECONDS, Wire

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)

# The versions tests use where the version is not the point.
JOIN, SYNC, HEARTBEAT, LEAVE = 9, 5, 4, 5
COMMIT, FETCH, DESCRIBE = 9, 9, 5


def subscription(*topics: str) -> bytes:
    """What a consumer tells its leader, version 0: topics, and nothing of its own."""
    names = b"".join(struct.pack(">h", len(name)) + name.encode() for name in topics)
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", -1)


class RawMember:
    """One who joins `group`; `instance` makes it a static member."""

    def __init__(
        self,
        address: str,
        group: str,
        *,
        instance: str | None = None,
        session_ms: int = 10_000,
        rebalance_ms: int = 10_000,
        protocols: Sequence[str] = ("range",),
        protocol_type: str = "consumer",
        topics: Sequence[str] = ("read",),
    ) -> None:
        self.wire = Wire(address)
        self.group, self.instance = group, instance
        self.session_ms, self.rebalance_ms = session_ms, rebalance_ms
        self.protocols, self.protocol_type = list(protocols), protocol_type
        self.metadata = subscription(*topics)
        self.id, self.generation = "", -1

    def close(self) -> None:
        """Hang up; the group learns of it when the session is over."""
        self.wire.socket.close()

    def join(self, *, version: int = JOIN) -> Any:
        """Join to the end: with the id that the broker asks to be repeated, too."""
        answer = self.ask_to_join(version=version)
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            answer = self.ask_to_join(version=version)
        return answer

    def ask_to_join(self, *, version: int = JOIN) -> Any:
        """One JoinGroup and its answer."""
        self.send_join(version=version)
        return self.joined()

    def send_join(self, *, version: int = JOIN) -> None:
        """Ask, and let others act meanwhile; `joined` brings the answer."""
        self.wire.send(self.join_request(), version)

    def join_request(self) -> Any:
        return JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=self.session_ms,
            rebalance_timeout_ms=self.rebalance_ms,
            member_id=self.id,
            group_instance_id=self.instance,
            protocol_type=self.protocol_type,
            protocols=[
                JoinGroupRequest.Protocol(name=name, metadata=self.metadata)
                for name in self.protocols
            ],
        )

    def joined(self) -> Any:
        answer = self.wire.receive()
        if answer.error_code in (ErrorCode.NONE, ErrorCode.MEMBER_ID_REQUIRED):
            self.id = answer.member_id
        if answer.error_code == ErrorCode.NONE:
            self.generation = answer.generation_id
        return answer

    def sync(
        self, assignments: Mapping[str, bytes] | None = None, *, version: int = SYNC
    ) -> Any:
        self.send_sync(assignments, version=version)
        return self.wire.receive()

    def send_sync(
        self, assignments: Mapping[str, bytes] | None = None, *, version: int = SYNC
    ) -> None:
        self.wire.send(self.sync_request(assignments), version)

    def sync_request(self, assignments: Mapping[str, bytes] | None = None) -> Any:
        return SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.id,
            group_instance_id=self.instance,
            protocol_type=self.protocol_type,
            protocol_name=self.protocols[0],
            assignments=[
                SyncGroupRequest.Assignment(member_id=member, assignment=assignment)
                for member, assignment in (assignments or {}).items()
            ],
        )

    def heartbeat(self, *, version: int = HEARTBEAT) -> int:
        asked = HeartbeatRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.id,
            group_instance_id=self.instance,
        )
        code: int = self.wire.ask(asked, version).error_code
        return code

    def leave(self, *, version: int = LEAVE) -> Any:
        if version < 3:
            asked = LeaveGroupRequest(group_id=self.group, member_id=self.id)
        else:
            member = LeaveGroupRequest.Member(
                member_id=self.id, group_instance_id=self.instance
            )
            asked = LeaveGroupRequest(group_id=self.group, members=[member])
        return self.wire.ask(asked, version)

    def commit(
        self, topic: str, offset: int, *, version: int = COMMIT, **wishes: Any
    ) -> int:
        """Commit an offset of one partition as this member; the error code."""
        who: dict[str, Any] = {
            "generation_id": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance,
        }
        return commit(self.wire, self.group, topic, offset, version, **(who | wishes))


def commit(
    wire: Wire,
    group: str,
    topic: str,
    offset: int,
    version: int = COMMIT,
    *,
    partition: int = 0,
    epoch: int = -1,
    metadata: str | None = "",
    **who: Any,
) -> int:
    """Commit an offset of one partition; without `who`, as nobody in the group."""
    part = OffsetCommitRequest.Partition(
        index=partition,
        committed_offset=offset,
        committed_leader_epoch=epoch,
        committed_metadata=metadata,
    )
    topics = [OffsetCommitRequest.Topic(name=topic, partitions=[part])]
    nobody: dict[str, Any] = {"generation_id": -1, "member_id": ""}
    answer = wire.ask(
        OffsetCommitRequest(group_id=group, topics=topics, **(nobody | who)), version
    )
    ((found,),) = [each.partitions for each in answer.topics]
    code: int = found.error_code
    return code


def committed(
    wire: Wire,
    group: str,
    topic: str,
    *,
    partition: int = 0,
    stable: bool = False,
    version: int = FETCH,
) -> Any:
    """What the group has committed of one partition: the answer about it."""
    if version < 8:
        plain = OffsetFetchRequest.Topic(name=topic, partition_indexes=[partition])
        asked = OffsetFetchRequest(group_id=group, topics=[plain], require_stable=stable)
        topics = wire.ask(asked, version).topics
    else:
        of_group = OffsetFetchRequest.GroupTopic(name=topic, partition_indexes=[partition])
        wanted = OffsetFetchRequest.Group(group_id=group, topics=[of_group])
        asked = OffsetFetchRequest(groups=[wanted], require_stable=stable)
        (found,) = wire.ask(asked, version).groups
        topics = found.topics
    ((answer,),) = [each.partitions for each in topics]
    return answer


def new_group(wire: Wire) -> str:
    """The name of a group that somebody looks after."""
    group = new_name("group")
    until_looked_after(wire, group)
    return group


def until_looked_after(wire: Wire, group: str) -> None:
    """Wait for the group's coordinator, as clients do before anything else."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    passing = {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
    while True:
        # Kafka makes the topic that keeps the groups when it is first asked this.
        asked = FindCoordinatorRequest(coordinator_keys=[group])
        (found,) = wire.ask(asked, 4).coordinators
        if not {found.error_code, describe(wire, group).error_code} & passing:
            return
        assert time.monotonic() < deadline, "nobody looks after groups"
        time.sleep(0.01)


def describe(wire: Wire, group: str, *, version: int = DESCRIBE) -> Any:
    (found,) = wire.ask(DescribeGroupsRequest(groups=[group]), version).groups
    return found


def stable_alone(one: RawMember) -> RawMember:
    """Make it the only member of a stable group."""
    assert one.join().error_code == ErrorCode.NONE
    assert one.sync({one.id: b"all"}).error_code == ErrorCode.NONE
    return one


def stable_pair(leader: RawMember, follower: RawMember) -> tuple[RawMember, RawMember]:
    """Make them the two members of a stable group, `leader` leading."""
    stable_alone(leader)
    if follower.instance is None:
        assert follower.ask_to_join().error_code == ErrorCode.MEMBER_ID_REQUIRED
    follower.send_join()
    until(leader, ErrorCode.REBALANCE_IN_PROGRESS)
    assert leader.ask_to_join().error_code == ErrorCode.NONE
    assert follower.joined().error_code == ErrorCode.NONE
    follower.send_sync()
    leader.sync({leader.id: b"one half", follower.id: b"other half"})
    assert follower.wire.receive().assignment == b"other half"
    return leader, follower


def until(one: RawMember, code: ErrorCode) -> None:
    """Send heartbeats until they are answered so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := one.heartbeat()) != code:
        assert time.monotonic() < deadline, f"still {found}"
        time.sleep(0.005)
