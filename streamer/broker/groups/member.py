"""A member of a consumer group, and what members and their group say to each other.

Time-outs are in milliseconds, as clients give them; points in time are in seconds, on the
clock that `group.py` is given.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, TypeAlias

from streamer.wire.error_codes import ErrorCode

Token: TypeAlias = object
"""Stands for a request that is parked; whoever gave it knows what it means."""


class Protocol(NamedTuple):
    """A way of sharing out the work, and what a member tells the leader about itself."""

    name: str
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A JoinGroup."""

    member_id: str
    protocol_type: str
    protocols: tuple[Protocol, ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    instance_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    reason: str | None = None
    knows_member_ids: bool = True
    """Whether it comes back with the id that it is given first (version 4)."""
    knows_skipping: bool = True
    """Whether a leader may be told to leave the assignment as it is (version 9)."""


class Listed(NamedTuple):
    """A member, as the leader is told of it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


class Joined(NamedTuple):
    """The answer to a JoinGroup."""

    error: ErrorCode = ErrorCode.NONE
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    member_id: str = ""
    members: tuple[Listed, ...] = ()
    skip_assignment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """A SyncGroup; only the leader's has assignments, by member id."""

    member_id: str
    generation: int
    instance_id: str | None = None
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: dict[str, bytes]


class Synced(NamedTuple):
    """The answer to a SyncGroup."""

    error: ErrorCode = ErrorCode.NONE
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


class Leaver(NamedTuple):
    """Who leaves, or is sent away: with an instance id alone, whoever goes by it."""

    member_id: str
    instance_id: str | None = None
    reason: str | None = None


class Kept(NamedTuple):
    """A member, as it is written down."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    subscription: bytes
    assignment: bytes


@dataclass(slots=True, kw_only=True)
class Member:
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: tuple[Protocol, ...]
    """The one it likes best comes first."""
    assignment: bytes = b""
    join: Token | None = None
    """Its JoinGroup, while that is parked."""
    sync: Token | None = None
    """Its SyncGroup, while that is parked."""
    is_new: bool = False
    """Whether it has not been in any generation yet."""
    expires: float = inf
    """When its session ends, if nothing is heard of it."""

    @classmethod
    def of(cls, join: Join, member_id: str) -> "Member":
        return cls(
            member_id=member_id,
            instance_id=join.instance_id,
            client_id=join.client_id,
            client_host=join.client_host,
            session_timeout_ms=join.session_timeout_ms,
            rebalance_timeout_ms=join.rebalance_timeout_ms,
            protocols=join.protocols,
            is_new=True,
        )

    @classmethod
    def from_kept(cls, kept: Kept, protocol: str) -> "Member":
        return cls(
            member_id=kept.member_id,
            instance_id=kept.instance_id,
            client_id=kept.client_id,
            client_host=kept.client_host,
            session_timeout_ms=kept.session_timeout_ms,
            rebalance_timeout_ms=kept.rebalance_timeout_ms,
            protocols=(Protocol(protocol, kept.subscription),),
            assignment=kept.assignment,
        )

    def kept(self, protocol: str, assignment: bytes) -> Kept:
        return Kept(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.session_timeout_ms,
            self.rebalance_timeout_ms,
            self.metadata(protocol),
            assignment,
        )

    @property
    def is_static(self) -> bool:
        return self.instance_id is not None

    @property
    def need_not_be_heard(self) -> bool:
        """Whether it waits for us, and so cannot be expected to say anything.

        A new member is, all the same: it may be gone and have come back under another
        id, and nothing but time tells.
        """
        return not self.is_new and (self.join is not None or self.sync is not None)

    def knows(self, protocol: str) -> bool:
        return any(protocol == one.name for one in self.protocols)

    def metadata(self, protocol: str) -> bytes:
        return next(one.metadata for one in self.protocols if one.name == protocol)

    def vote(self, candidates: Collection[str]) -> str:
        """The one of `candidates` it likes best; it knows them all."""
        return next(one.name for one in self.protocols if one.name in candidates)
