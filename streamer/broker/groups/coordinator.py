"""All consumer groups: their timers, their parked requests, and what is written of them.

    a request → the group decides (`group.py`) → written down, where need be → answered

A JoinGroup or SyncGroup that is parked is a future here: the group knows it as a token,
and says when it is answered. Each group has one timer, for the nearest of its deadlines.

There is a group where there are members or committed offsets. At start all are as they
were written down: generation, members and assignments, so that a member which asks again
goes on as if nothing had happened, and one that does not is out after its session time-out.
Whoever was waiting for an answer asks again.

`requests.py` and `commits.py` have the requests, `ledger.py` the offsets.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from streamer.broker.catalog import NotWritten
from streamer.broker.groups.group import CONSUMER, Group
from streamer.broker.groups.ledger import Ledger
from streamer.broker.groups.member import Join, Joined, Kept, Leaver, Sync, Synced
from streamer.broker.groups.outcome import Snapshot, Store
from streamer.broker.groups.records import group_record
from streamer.broker.groups.states import Limits, State
from streamer.broker.names import Place
from streamer.broker.state_log import StateLog
from streamer.wire.error_codes import ErrorCode
from streamer.wire.state_records import GroupMetadataValue, Malformed, UnsupportedVersion

if TYPE_CHECKING:
    from streamer.broker.core import Broker

log = logging.getLogger(__name__)

TOPIC = "__consumer_offsets"
UNKNOWN = -1


class GroupCoordinator:
    def __init__(self, broker: "Broker") -> None:
        config = broker.config
        self._broker = broker
        self._clock = broker.clock
        self._loop = asyncio.get_running_loop()
        self._groups: dict[str, Group] = {}
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self.limits = Limits(
            session_timeout_min_ms=config.number("group.min.session.timeout.ms"),
            session_timeout_max_ms=config.number("group.max.session.timeout.ms"),
            members_max=config.number("group.max.size"),
            initial_delay_ms=config.number("group.initial.rebalance.delay.ms"),
        )
        self.log = StateLog(
            broker,
            TOPIC,
            partitions=config.number("offsets.topic.num.partitions"),
            configs={"segment.bytes": config.text("offsets.topic.segment.bytes")},
        )
        self.ledger = Ledger(self.log, broker.clock)

    @property
    def is_available(self) -> bool:
        return self.log.problem is None

    def now(self) -> float:
        return self._clock.monotonic()

    # Which groups there are.

    def __iter__(self) -> Iterator[Group]:
        for group_id in {*self._groups, *self.ledger}:
            yield self.get_or_create(group_id)

    def get(self, group_id: str) -> Group | None:
        group = self._groups.get(group_id)
        if group is None and self.ledger.has_any(group_id):
            return self.get_or_create(group_id)
        return group

    def get_or_create(self, group_id: str) -> Group:
        group = self._groups.get(group_id)
        if group is None:
            group = Group(group_id, self.limits, _unique, now=self.now())
            self._groups[group_id] = group
        return group

    def _forget_if_blank(self, group: Group) -> None:
        """Who asks under a new name and never comes back should leave no trace."""
        is_ours = self._groups.get(group.group_id) is group
        if is_ours and group.is_blank and not self.ledger.has_any(group.group_id):
            self._forget(group)

    def _forget(self, group: Group) -> None:
        del self._groups[group.group_id]
        _, timer = self._timers.pop(group.group_id, (inf, None))
        if timer is not None:
            timer.cancel()

    # What members ask.

    async def join(self, group_id: str, join: Join) -> Joined:
        if join.member_id and self.get(group_id) is None:
            return Joined(ErrorCode.UNKNOWN_MEMBER_ID, member_id=join.member_id)
        group = self.get_or_create(group_id)
        answer: asyncio.Future[Joined] = self._loop.create_future()
        group.join(join, answer, now=self.now())
        self._see_to(group)
        self._forget_if_blank(group)
        return await answer

    async def sync(self, group_id: str, sync: Sync) -> Synced:
        group = self.get(group_id)
        if group is None:
            return Synced(ErrorCode.UNKNOWN_MEMBER_ID)
        answer: asyncio.Future[Synced] = self._loop.create_future()
        group.sync(sync, answer, now=self.now())
        self._see_to(group)
        return await answer

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode:
        group = self.get(group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = group.heartbeat(member_id, instance_id, generation, now=self.now())
        self._arm(group)
        return error

    def leave(self, group_id: str, leavers: Sequence[Leaver]) -> list[ErrorCode]:
        group = self.get(group_id)
        if group is None:
            return [ErrorCode.UNKNOWN_MEMBER_ID] * len(leavers)
        errors = group.leave(leavers, now=self.now())
        self._see_to(group)
        self._forget_if_blank(group)
        return errors

    async def delete(self, group_id: str) -> ErrorCode:
        """Forget a group that has no members, with its offsets."""
        group = self.get(group_id)
        if group is None:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if error := group.may_delete():
            return error
        # From now on the name stands for a new group; what that writes comes later.
        self._forget(group)
        try:
            await self.ledger.delete_group(group_id, self._record(group_id, None))
        except NotWritten as failure:
            self._groups.setdefault(group_id, group)
            self._arm(group)
            log.warning("Group %s could not be deleted: %s", group_id, failure)
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        group.delete()
        return ErrorCode.NONE

    def finish(self, producer_id: int, partition_index: int, commit: bool) -> None:
        """A transaction is over: its marker is safe in this partition of the log."""
        self.ledger.finish(producer_id, partition_index, commit=commit)

    # What a group brings about.

    def _see_to(self, group: Group) -> None:
        """Answer, write down and wait, as the group says."""
        ready = group.take()
        for news in ready.news:
            log.info("Group %s %s", group.group_id, news)
        for token, answer in ready.answers:
            assert isinstance(token, asyncio.Future)
            if not token.done():  # the broker is not stopping
                token.set_result(answer)
        for store in ready.to_store:
            task = self._loop.create_task(self._store(group, store))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
        self._arm(group)

    async def _store(self, group: Group, store: Store) -> None:
        """Write down what the group wants, and tell it."""
        if self._groups.get(group.group_id) is not group:
            return  # It was deleted, and must not come back.
        error = ErrorCode.NONE
        try:
            record = self._record(group.group_id, self._value(store.snapshot))
            await self.log.append(group.group_id, [record])
        except NotWritten as failure:
            log.warning(
                "Generation %d of group %s could not be written down: %s",
                store.snapshot.generation,
                group.group_id,
                failure,
            )
            error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        group.stored(store, error, now=self.now())
        self._see_to(group)

    def _arm(self, group: Group) -> None:
        """Have the timer go off in time. Too early does no harm: it is set again then."""
        if self._groups.get(group.group_id) is not group:
            return  # It was deleted; the timer is that of the one after it.
        deadline = group.next_deadline()
        armed, timer = self._timers.get(group.group_id, (inf, None))
        if deadline is None or armed <= deadline:
            return
        if timer is not None:
            timer.cancel()
        seconds = max(0.0, deadline - self.now())
        self._timers[group.group_id] = (
            deadline,
            self._loop.call_later(seconds, self._tick, group),
        )

    def _tick(self, group: Group) -> None:
        del self._timers[group.group_id]
        group.tick(now=self.now())
        self._see_to(group)
        self._forget_if_blank(group)

    # Writing down, and reading again.

    def _record(self, group_id: str, value: Any) -> Any:
        return group_record(group_id, value, self._clock.now_ms())

    def _value(self, snapshot: Snapshot) -> Any:
        ago = self.now() - snapshot.since
        return GroupMetadataValue(
            protocol_type=snapshot.protocol_type or "",
            generation=snapshot.generation,
            protocol=snapshot.protocol,
            leader=snapshot.leader,
            current_state_timestamp=self._clock.now_ms() - round(1000 * ago),
            members=[
                GroupMetadataValue.Member(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout=member.rebalance_timeout_ms,
                    session_timeout=member.session_timeout_ms,
                    subscription=member.subscription,
                    assignment=member.assignment,
                )
                for member in snapshot.members
            ],
        )

    def _snapshot(self, value: Any) -> Snapshot:
        since_ms = value.current_state_timestamp
        ago = 0.0 if since_ms == UNKNOWN else (self._clock.now_ms() - since_ms) / 1000
        return Snapshot(
            generation=value.generation,
            protocol_type=value.protocol_type or None,
            protocol=value.protocol,
            leader=value.leader,
            members=tuple(_kept(member) for member in value.members),
            since=self.now() - ago,
        )

    def load(self) -> None:
        """Be what was written down. To be called before anybody can connect, and before
        `TransactionCoordinator.load`, which tells us how what we hold has ended."""
        values: dict[str, Any] = {}
        try:
            for index, replayed in self.log.replay():
                values.update(self.ledger.replay(index, replayed))
        except (Malformed, UnsupportedVersion) as error:
            self.log.problem = f"{self.log.topic} holds what is none of ours: {error}"
        if self.log.problem is not None:
            log.error(
                "Consumer groups are not available: %s\n"
                "  -> `streamer log verify` shows what is damaged. Topics are served all "
                "the same.",
                self.log.problem,
            )
            return
        for group_id, value in values.items():
            if value is not None:
                group = self.get_or_create(group_id)
                group.restore(self._snapshot(value), now=self.now())
                self._see_to(group)

    def close(self) -> None:
        """Let nobody wait any longer: the broker stops."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for group in self._groups.values():
            for member in group.members.values():
                for token, answer in (
                    (member.join, Joined(ErrorCode.NOT_COORDINATOR)),
                    (member.sync, Synced(ErrorCode.NOT_COORDINATOR)),
                ):
                    if isinstance(token, asyncio.Future) and not token.done():
                        token.set_result(answer)
        # What is being written down comes back to no group, and sets no timer.
        self._groups.clear()

    # Housekeeping.

    async def forget_topic(self, name: str) -> None:
        """It was deleted, and with it how far anybody had come."""
        await self._forget_topics(lambda topic: topic == name)

    async def forget_missing_topics(self) -> None:
        """At start: a crash may have come between the deletion of a topic and this."""
        there = self._broker.catalog.topics
        await self._forget_topics(lambda topic: topic not in there)

    async def _forget_topics(self, gone: Callable[[str], bool]) -> None:
        try:
            await self.ledger.forget_topics(gone)
        except NotWritten as failure:
            log.warning(
                "Committed offsets of a deleted topic are still there: %s\n"
                "  -> The next start tries again; `streamer group seek` sets them.",
                failure,
            )

    async def expire(self) -> None:
        """Forget offsets that were kept long enough, and groups that nothing is left of."""
        if not self.is_available:
            return
        retention_ms = 60_000 * self._broker.config.number("offsets.retention.minutes")
        now_ms = self._clock.now_ms()
        for group in list(self):
            if self._groups.get(group.group_id) is not group:
                continue  # It was deleted meanwhile.
            if places := self._expired(group, now_ms, retention_ms):
                try:
                    await self.ledger.delete(group.group_id, places)
                except NotWritten as failure:
                    log.warning("Expired offsets are kept for now: %s", failure)
                    return
                log.info("Group %s: %d offsets expired.", group.group_id, len(places))
            if group.is_unused and not self.ledger.has_any(group.group_id):
                await self.delete(group.group_id)

    def _expired(self, group: Group, now_ms: int, retention_ms: int) -> list[Place]:
        """The offsets of a group that nobody needs any more."""
        knows_its_topics = group.state is State.STABLE and group.protocol_type == CONSUMER
        if group.state is not State.EMPTY and not knows_its_topics:
            return []
        return self.ledger.of(group.group_id).expired(
            now_ms,
            retention_ms,
            since_ms=self._empty_since(group, now_ms),
            subscribed=group.is_subscribed,
        )

    def _empty_since(self, group: Group, now_ms: int) -> int | None:
        """When its last member left, if it had any."""
        if group.state is not State.EMPTY or group.protocol_type is None:
            return None
        return now_ms - round(1000 * (self.now() - group.since))


def _unique() -> str:
    return str(uuid4())


def _kept(member: Any) -> Kept:
    timeout_ms = member.session_timeout
    return Kept(
        member_id=member.member_id,
        instance_id=member.group_instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        session_timeout_ms=timeout_ms,
        rebalance_timeout_ms=timeout_ms
        if member.rebalance_timeout == UNKNOWN
        else member.rebalance_timeout,
        subscription=member.subscription,
        assignment=member.assignment,
    )
