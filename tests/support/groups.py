"""A consumer group played through by hand: its clock, its members, its log.

Nothing here waits. Time passes when the test says so, what is to be written down is written
when the test says so, and every answer is kept by the request it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from streamer.broker.groups.group import Group
from streamer.broker.groups.member import Join, Joined, Leaver, Protocol, Sync, Synced
from streamer.broker.groups.outcome import Store
from streamer.broker.groups.states import Limits
from streamer.wire.error_codes import ErrorCode

SESSION_MS = 10_000
REBALANCE_MS = 60_000
LIMITS = Limits(
    session_timeout_min_ms=6_000,
    session_timeout_max_ms=1_800_000,
    members_max=1_000,
    initial_delay_ms=0,
)


@dataclass(eq=False, slots=True)
class Request:
    """A JoinGroup or SyncGroup, and its answer, once there is one."""

    answer: Joined | Synced | None = None

    @property
    def parked(self) -> bool:
        return self.answer is None

    @property
    def error(self) -> ErrorCode:
        assert self.answer is not None, "it is parked"
        return self.answer.error

    @property
    def joined(self) -> Joined:
        assert isinstance(self.answer, Joined)
        return self.answer

    @property
    def synced(self) -> Synced:
        assert isinstance(self.answer, Synced)
        return self.answer


@dataclass(slots=True)
class Play:
    limits: Limits = LIMITS
    now: float = 1000.0
    stores: list[Store] = field(default_factory=list)
    """What is to be written down, and is not yet."""
    news: list[str] = field(default_factory=list)
    group: Group = field(init=False)

    def __post_init__(self) -> None:
        numbers = count(1)
        self.group = Group("g", self.limits, lambda: str(next(numbers)), now=self.now)

    # Requests.

    def join(
        self,
        member_id: str = "",
        *,
        instance: str | None = None,
        client: str = "c",
        protocols: tuple[str, ...] = ("range",),
        metadata: bytes = b"",
        protocol_type: str = "consumer",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        version: int = 9,
    ) -> Request:
        request = Request()
        join = Join(
            member_id=member_id,
            instance_id=instance,
            client_id=client,
            protocol_type=protocol_type,
            protocols=tuple(Protocol(name, metadata) for name in protocols),
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            knows_member_ids=version >= 4,
            knows_skipping=version >= 9,
        )
        self.group.join(join, request, now=self.now)
        self.settle()
        return request

    def sync(
        self,
        member_id: str,
        assignments: dict[str, bytes] | None = None,
        *,
        generation: int | None = None,
        instance: str | None = None,
        protocol_type: str | None = "consumer",
        protocol: str | None = None,
    ) -> Request:
        request = Request()
        sync = Sync(
            member_id=member_id,
            generation=self.group.generation if generation is None else generation,
            instance_id=instance,
            protocol_type=protocol_type,
            protocol=protocol,
            assignments=assignments or {},
        )
        self.group.sync(sync, request, now=self.now)
        self.settle()
        return request

    def heartbeat(
        self, member_id: str, *, generation: int | None = None, instance: str | None = None
    ) -> ErrorCode:
        generation = self.group.generation if generation is None else generation
        error = self.group.heartbeat(member_id, instance, generation, now=self.now)
        self.settle()
        return error

    def leave(self, member_id: str = "", instance: str | None = None) -> ErrorCode:
        (error,) = self.group.leave([Leaver(member_id, instance)], now=self.now)
        self.settle()
        return error

    def commit(
        self,
        member_id: str = "",
        *,
        generation: int = -1,
        instance: str | None = None,
        transactional: bool = False,
    ) -> ErrorCode:
        return self.group.may_commit(
            member_id, instance, generation, transactional=transactional, now=self.now
        )

    # What happens beside.

    def wait(self, seconds: float) -> None:
        """Let time pass, and the timer go off whenever it should."""
        end = self.now + seconds
        while (deadline := self.group.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.group.tick(now=self.now)
            self.settle()
        self.now = end

    def write(self, error: ErrorCode = ErrorCode.NONE) -> None:
        """Have all that is to be written down be so, or not."""
        while self.stores:
            self.group.stored(self.stores.pop(0), error, now=self.now)
            self.settle()

    def settle(self) -> None:
        ready = self.group.take()
        for token, answer in ready.answers:
            assert isinstance(token, Request)
            assert token.answer is None, "answered twice"
            token.answer = answer
        self.stores += ready.to_store
        self.news += ready.news

    # Whole stretches.

    def joining(self, *names: str, static: bool = False) -> dict[str, Request]:
        """So many have asked to join, and none is answered yet, unless all are there."""
        return {
            name: self.join(instance=name if static else None, client=name, version=3)
            for name in names
        }

    def completing(self, *names: str, static: bool = False) -> list[str]:
        """All have joined; the member ids, the leader's first."""
        requests = self.joining(*names, static=static)
        self.wait(0)
        return [request.joined.member_id for request in requests.values()]

    def stable(self, *names: str, static: bool = False) -> list[str]:
        """All have their assignment, which is their own id."""
        members = self.completing(*names, static=static)
        self.share_out(*members)
        return members

    def share_out(self, leader: str, *followers: str) -> None:
        everybody = {member: member.encode() for member in (leader, *followers)}
        requests = [self.sync(leader, everybody), *map(self.sync, followers)]
        self.write()
        assert [request.error for request in requests] == [0] * len(requests)
