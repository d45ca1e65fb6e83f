"""One consumer group of the classic protocol: a pure state machine.

The members share out the work themselves. The group only sees to it that all agree on who
is in it, one generation after the other:

    Empty                nobody is in it; it may still have committed offsets
    PreparingRebalance   members are called to join; their JoinGroups are parked
    CompletingRebalance  all who came are told; the leader works out who does what, and
                         the SyncGroups of the others are parked until it has
    Stable               each has its assignment, and only heartbeats come
    Dead                 it was deleted

A rebalance begins when a member comes, goes, falls silent or wants something else. It waits
until all have joined again, but no longer than the longest rebalance time-out: who has not
come by then is out, unless static, for whom the session time-out alone counts. The first
rebalance of an empty group waits a little, since members seldom come alone.

An assignment is written down before anybody hears of it, so that a restarted broker does
not know less than its members.

Nothing here waits or asks the time. Each call is given `now`; what it brought about is
fetched with `take`: answers to requests that were parked, by their tokens, and what must
be written down, of which `stored` has to be told. `next_deadline` says when to `tick`.

`members.py` knows who is in the group, `member.py` has the messages, `deadlines.py` says
how long is waited for whom, `outcome.py` has what comes of it; `coordinator.py` brings the
requests, and does the waiting.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from streamer.broker.groups.deadlines import Deadlines
from streamer.broker.groups.member import (
    Join,
    Joined,
    Leaver,
    Member,
    Sync,
    Synced,
    Token,
)
from streamer.broker.groups.members import Members
from streamer.broker.groups.outcome import (
    Assigned,
    Emptied,
    Ready,
    Replaced,
    Snapshot,
    Store,
)
from streamer.broker.groups.states import NEXT, Limits, State
from streamer.wire.error_codes import ErrorCode

CONSUMER = "consumer"
# A new member's JoinGroup is parked no longer: its client may have given up on it and come
# back under another id, which we cannot see while nothing is read from that connection.
NEW_MEMBER_MS = 300_000
# A rebalance that nobody came to is tried again after this time at the earliest.
SECOND_CHANCE_MS = 1000


class Group:
    def __init__(
        self,
        group_id: str,
        limits: Limits,
        unique: Callable[[], str],
        *,
        now: float,
    ) -> None:
        """`unique` makes the part of a member id that nobody has had before."""
        self.group_id = group_id
        self.state = State.EMPTY
        self.since = now
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.members = Members()
        self._limits = limits
        self._unique = unique
        # What its members read, as far as we understand what they say.
        self._subscribed: frozenset[str] | None = None
        self._deadlines = Deadlines(now)
        self._ready = Ready()

    # What others ask of it.

    @property
    def leader(self) -> str | None:
        return self.members.leader

    @property
    def is_unused(self) -> bool:
        """Whether nobody is in it or about to come, so that only its offsets count."""
        return self.state is State.EMPTY and not self._deadlines.promised

    @property
    def is_blank(self) -> bool:
        """Whether it has never been more than a name."""
        return self.is_unused and self.generation == 0

    def is_subscribed(self, topic: str) -> bool:
        """Whether it reads `topic`; a consumer group that we do not understand might."""
        if self._subscribed is None:
            return self.protocol_type == CONSUMER
        return topic in self._subscribed

    def take(self) -> Ready:
        """What has come about since the last time."""
        ready, self._ready = self._ready, Ready()
        return ready

    def next_deadline(self) -> float | None:
        """When `tick` is to be called next."""
        return self._deadlines.next

    # JoinGroup.

    def join(self, join: Join, token: Token, *, now: float) -> None:
        self._deadlines.now = now
        if not self._has_room_for(join.member_id):
            self._deadlines.promised.pop(join.member_id, None)
            if join.member_id in self.members:
                self._remove(self.members[join.member_id])
            self._ready.refuse(token, ErrorCode.GROUP_MAX_SIZE_REACHED)
        elif self.state is State.DEAD:
            self._ready.refuse(token, ErrorCode.COORDINATOR_NOT_AVAILABLE, join.member_id)
        elif not self._supports(join):
            self._ready.refuse(token, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, join.member_id)
        elif not join.member_id:
            self._join_unknown(join, token)
        elif join.member_id in self._deadlines.promised and join.instance_id is None:
            self._add(join, join.member_id, token)
        elif error := self.members.error(join.member_id, join.instance_id):
            self._ready.refuse(token, error, join.member_id)
        else:
            self._join_again(self.members[join.member_id], join, token)

    def _join_unknown(self, join: Join, token: Token) -> None:
        """Somebody comes whom we have given no id yet, or who has forgotten it."""
        member_id = f"{join.instance_id or join.client_id}-{self._unique()}"
        if join.instance_id is not None:
            before = self.members.of_instance(join.instance_id)
            if before is None:
                self._add(join, member_id, token)
            else:
                self._replace(before, join, member_id, token)
        elif join.knows_member_ids:
            # A client that gives up on this request and asks again would otherwise leave a
            # member behind each time, for which the rebalance would have to wait.
            self._deadlines.promise(member_id, join.session_timeout_ms)
            self._ready.refuse(token, ErrorCode.MEMBER_ID_REQUIRED, member_id)
        else:
            self._add(join, member_id, token)

    def _join_again(self, member: Member, join: Join, token: Token) -> None:
        calm = self.state in (State.COMPLETING, State.STABLE)
        unchanged = member.protocols == join.protocols
        # A leader joins again in calm if it sees a reason that we do not: new partitions.
        presses = self.state is State.STABLE and member.member_id == self.leader
        if calm and unchanged and not presses:
            # The answer to its JoinGroup was lost on the way.
            self._ready.answer(token, self._joined(member))
        else:
            self._park_join(member, join, token)
            self._rebalance(f"{member.member_id} joins again", join.reason)

    def _has_room_for(self, member_id: str) -> bool:
        most = self._limits.members_max
        if self.state in (State.EMPTY, State.DEAD):
            return True
        if self.state is State.PREPARING:
            # Those who came count: if too many are in it, the last to come are sent away.
            member = self.members.get(member_id)
            if member is not None and member.join is not None:
                return True
            return self.members.joined_count < most
        return member_id in self.members or len(self.members) < most

    def _supports(self, join: Join) -> bool:
        """Whether the members would still have a protocol in common."""
        if self.state is State.EMPTY:
            return bool(join.protocol_type and join.protocols)
        agrees = join.protocol_type == self.protocol_type
        return agrees and self.members.all_know_one_of(join.protocols)

    def _add(self, join: Join, member_id: str, token: Token) -> None:
        self._deadlines.promised.pop(member_id, None)
        if not self.members:
            self.protocol_type = join.protocol_type
        member = Member.of(join, member_id)
        member.join = token
        member.expires = self._deadlines.after(NEW_MEMBER_MS)
        self.members.add(member)
        self._deadlines.somebody_came()
        self._rebalance(f"{member_id} joins", join.reason)

    def _replace(self, before: Member, join: Join, member_id: str, token: Token) -> None:
        """A static member has come back: it takes the place of its former self."""
        leader_before = self.leader
        after = self._rename(before, member_id)
        former = replace(after, member_id=before.member_id)
        self._hear(after)
        self._park_join(after, join, token)
        if self.state is State.COMPLETING:
            # The leader may hand out work to the id it had before.
            self._prepare(f"static member {after.member_id} comes back", join.reason)
        elif self.state is not State.STABLE:
            self._complete_if_all_joined()
        elif self.members.elect_protocol() != self.protocol:
            self._rebalance(f"{after.member_id} wants another protocol", join.reason)
        else:
            joined = self._joined(after)
            if not join.knows_skipping:
                # Told that it leads it would assign anew, and nobody would ask for it.
                joined = joined._replace(leader=leader_before or "", members=())
            elif after.member_id == self.leader:
                joined = joined._replace(skip_assignment=True)
            self._ready.store(Replaced(self.snapshot(), former, joined, token))

    def _rename(self, member: Member, member_id: str) -> Member:
        """The static member under another id; who still waits under this one is out."""
        self._ready.dismiss(member, ErrorCode.FENCED_INSTANCE_ID, member.member_id)
        self._deadlines.renamed(member.member_id, member_id)
        return self.members.rename(member, member_id)

    def _park_join(self, member: Member, join: Join, token: Token) -> None:
        if member.join is not None:
            self._ready.supersede(member.join, Joined)
        member.join = token
        member.protocols = join.protocols
        member.session_timeout_ms = join.session_timeout_ms
        member.rebalance_timeout_ms = join.rebalance_timeout_ms

    # SyncGroup.

    def sync(self, sync: Sync, token: Token, *, now: float) -> None:
        self._deadlines.now = now
        if error := self._sync_error(sync):
            self._ready.answer(token, Synced(error))
            return
        member = self.members[sync.member_id]
        self._deadlines.synced(sync.member_id)
        if self.state is State.STABLE:
            self._ready.answer(token, self._synced(member))
            return
        if member.sync is not None:
            self._ready.supersede(member.sync, Synced)
        member.sync = token
        if sync.member_id == self.leader:
            self._ready.store(Assigned(self.snapshot(sync.assignments)))

    def _sync_error(self, sync: Sync) -> ErrorCode:
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if error := self.members.error(sync.member_id, sync.instance_id):
            return error
        if sync.generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if (sync.protocol_type or self.protocol_type) != self.protocol_type or (
            sync.protocol or self.protocol
        ) != self.protocol:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if self.state is State.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    # Heartbeat, LeaveGroup, OffsetCommit, OffsetDelete, DeleteGroups.

    def heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, *, now: float
    ) -> ErrorCode:
        self._deadlines.now = now
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if error := self.members.error(member_id, instance_id):
            return error
        if generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        self._hear(self.members[member_id])
        if self.state is State.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def leave(self, leavers: Sequence[Leaver], *, now: float) -> list[ErrorCode]:
        """What became of each of `leavers`."""
        self._deadlines.now = now
        if self.state is State.DEAD:
            return [ErrorCode.COORDINATOR_NOT_AVAILABLE] * len(leavers)
        before = list(self.members)
        errors = [self._leave(leaver) for leaver in leavers]
        gone = [member_id for member_id in before if member_id not in self.members]
        if gone:
            self._rebalance(f"{', '.join(gone)} left", leavers[0].reason)
        elif ErrorCode.NONE in errors:
            # Whom it was waiting for will not come.
            self._complete_if_all_joined()
        return errors

    def _leave(self, leaver: Leaver) -> ErrorCode:
        member_id = leaver.member_id
        if not member_id:
            # An administrator sends away whoever goes by that instance id.
            member = self.members.of_instance(leaver.instance_id or "")
            if member is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            member_id = member.member_id
        elif self._deadlines.promised.pop(member_id, None) is not None:
            return ErrorCode.NONE
        elif error := self.members.error(member_id, leaver.instance_id):
            return error
        self._remove(self.members[member_id])
        return ErrorCode.NONE

    def may_commit(
        self,
        member_id: str,
        instance_id: str | None,
        generation: int,
        *,
        transactional: bool = False,
        now: float,
    ) -> ErrorCode:
        """Whether this member may commit offsets; it is alive, if so.

        Who gives no generation is no member. It may commit while nobody is in the group;
        within a transaction always, since old clients cannot say who they are there.
        """
        self._deadlines.now = now
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if generation < 0 and self.state is State.EMPTY:
            return ErrorCode.NONE
        if generation >= 0 or member_id or instance_id is not None:
            if error := self.members.error(member_id, instance_id):
                return error
            if generation != self.generation:
                return ErrorCode.ILLEGAL_GENERATION
        elif not transactional:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if transactional:
            return ErrorCode.NONE
        self._hear(self.members[member_id])
        if self.state is State.COMPLETING:
            # It knows the generation, but not yet whether the partition is still its own.
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def may_delete_offsets(self) -> ErrorCode:
        """Whether offsets of topics that it does not read may be deleted."""
        if self.state is State.DEAD:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if self.state is not State.EMPTY and self.protocol_type != CONSUMER:
            return ErrorCode.NON_EMPTY_GROUP
        return ErrorCode.NONE

    def may_delete(self) -> ErrorCode:
        if self.state is State.DEAD:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if self.state is not State.EMPTY:
            return ErrorCode.NON_EMPTY_GROUP
        return ErrorCode.NONE

    def delete(self) -> None:
        """It is gone: who still holds on to it is sent to look for it again."""
        self._deadlines.promised.clear()
        self._to(State.DEAD)

    # Writing down, and reading again.

    def stored(self, store: Store, error: ErrorCode, *, now: float) -> None:
        """`store` has been written down, or could not be."""
        self._deadlines.now = now
        # Much may have happened meanwhile; then it is of no interest any more.
        current = store.snapshot.generation == self.generation
        if isinstance(store, Assigned) and current and self.state is State.COMPLETING:
            self._assigned(store, error)
        elif isinstance(store, Replaced) and current and self.state is State.STABLE:
            self._replaced(store, error)

    def _assigned(self, store: Assigned, error: ErrorCode) -> None:
        if error:
            self._release_syncs(error)
            self._rebalance("the assignment could not be written down", None)
            return
        for kept in store.snapshot.members:
            self.members[kept.member_id].assignment = kept.assignment
        for member in self.members.values():
            if member.sync is not None:
                self._ready.answer(member.sync, self._synced(member))
                member.sync = None
                self._hear(member)
        self._to(State.STABLE)

    def _replaced(self, store: Replaced, error: ErrorCode) -> None:
        member = self.members.get(store.joined.member_id)
        if member is None or member.join is not store.token:
            return  # It has left again, or been replaced in turn.
        member.join = None
        if error:
            self._ready.refuse(store.token, error)
            renamed = self._rename(member, store.before.member_id)
            renamed.protocols = store.before.protocols
            renamed.session_timeout_ms = store.before.session_timeout_ms
            renamed.rebalance_timeout_ms = store.before.rebalance_timeout_ms
            self._hear(renamed)
        else:
            self._ready.answer(store.token, store.joined)

    def restore(self, snapshot: Snapshot, *, now: float) -> None:
        """Be what was written down; its members have their session time-out to be heard."""
        self._deadlines.now = now
        self.generation = snapshot.generation
        self.protocol_type = snapshot.protocol_type
        self.protocol = snapshot.protocol
        for kept in snapshot.members:
            member = Member.from_kept(kept, snapshot.protocol or "")
            self.members.add(member)
            self._hear(member)
        if snapshot.leader in self.members:
            self.members.leader = snapshot.leader
        self.state = State.STABLE if self.members else State.EMPTY
        self.since = snapshot.since
        self._see_what_is_read()
        if len(self.members) > self._limits.members_max:
            self._prepare("it has more members than group.max.size allows", None)

    def snapshot(self, assignments: dict[str, bytes] | None = None) -> Snapshot:
        """The group as it is, or as it will be with these assignments."""
        return Snapshot(
            self.generation,
            self.protocol_type,
            self.protocol,
            self.leader,
            self.members.kept(self.protocol or "", assignments),
            self.since,
        )

    # Time.

    def tick(self, *, now: float) -> None:
        """See to everything whose time has come."""
        self._deadlines.now = now
        if self._deadlines.join <= now:
            self._join_time_is_up()
        if self._deadlines.sync <= now:
            self._sync_time_is_up()
        if self._deadlines.drop_late_promises():
            self._complete_if_none_is_missing()
        for member in list(self.members.values()):
            if member.expires <= now and self.members.get(member.member_id) is member:
                self._session_is_over(member)
        self._deadlines.look_again(member.expires for member in self.members.values())

    def _join_time_is_up(self) -> None:
        if not self._deadlines.wait_for_more(self._limits.initial_delay_ms):
            self._complete_join()

    def _sync_time_is_up(self) -> None:
        late = sorted(self._deadlines.unsynced)
        for member_id in late:
            self._remove(self.members[member_id])
        self._prepare(f"{', '.join(late)} did not fetch the assignment in time", None)

    def _session_is_over(self, member: Member) -> None:
        if member.need_not_be_heard:
            # It is heard of when it gets its answer.
            member.expires = inf
            return
        self._remove(member)
        if self.state is State.PREPARING:
            self._complete_if_none_is_missing()
        else:
            self._prepare(f"{member.member_id} was not heard of in time", None)

    def _hear(self, member: Member) -> None:
        member.expires = self._deadlines.after(member.session_timeout_ms)

    # The rebalance.

    def _rebalance(self, why: str, reason: str | None) -> None:
        """Begin one, or get on with the one under way."""
        if self.state is State.PREPARING:
            self._complete_if_all_joined()
        else:
            self._prepare(why, reason)

    def _prepare(self, why: str, reason: str | None) -> None:
        """Call all members to join."""
        said = f" ({reason})" if reason else ""
        self._ready.tell(f"rebalances after generation {self.generation}: {why}{said}.")
        if self.state is State.COMPLETING:
            self._release_syncs(ErrorCode.REBALANCE_IN_PROGRESS)
        self._deadlines.wait_for_no_sync()
        first = self.state is State.EMPTY
        self._to(State.PREPARING)
        if first:
            self._deadlines.wait_for_first(
                self._limits.initial_delay_ms, self.members.rebalance_timeout_ms
            )
        elif self._all_joined:
            self._complete_join()
        else:
            self._deadlines.wait_for_all(self.members.rebalance_timeout_ms)

    @property
    def _all_joined(self) -> bool:
        return not self._deadlines.promised and self.members.have_all_joined

    def _complete_if_all_joined(self) -> None:
        """Somebody came, or asked to go. The first delay is waited out: more may come."""
        if not self._deadlines.waits_for_first:
            self._complete_if_none_is_missing()

    def _complete_if_none_is_missing(self) -> None:
        if self.state is State.PREPARING and self._all_joined:
            self._complete_join()

    def _complete_join(self) -> None:
        """Those who came make up the next generation."""
        self._deadlines.wait_no_longer()
        for member in list(self.members.values()):
            if member.join is None and not member.is_static:
                self._remove(member)
        if self.members and not self.members.elect_leader():
            # Static members, none of whom came: they have until their sessions end.
            self._deadlines.wait_for_all(
                max(self.members.rebalance_timeout_ms, SECOND_CHANCE_MS)
            )
            return
        self.generation += 1
        self.protocol = self.members.elect_protocol()
        self._see_what_is_read()
        if not self.members:
            self._to(State.EMPTY)
            self._ready.tell(f"is empty in generation {self.generation}.")
            self._ready.store(Emptied(self.snapshot()))
            return
        self._to(State.COMPLETING)
        self._ready.tell(
            f"has {len(self.members)} members in generation {self.generation}."
        )
        for member in self.members.values():
            if member.join is not None:
                self._ready.answer(member.join, self._joined(member))
                member.join = None
            member.is_new = False
            self._hear(member)
        self._deadlines.wait_for_syncs(self.members, self.members.rebalance_timeout_ms)

    def _see_what_is_read(self) -> None:
        consumers = self.protocol_type == CONSUMER
        self._subscribed = self.members.subscribed(self.protocol) if consumers else None

    def _remove(self, member: Member) -> None:
        self._ready.dismiss(member, ErrorCode.UNKNOWN_MEMBER_ID, "")
        self.members.remove(member)
        self._deadlines.unsynced.discard(member.member_id)

    # Answers.

    def _joined(self, member: Member) -> Joined:
        """The present generation, as this member is told of it."""
        leads = member.member_id == self.leader
        return Joined(
            generation=self.generation,
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            leader=self.leader or "",
            member_id=member.member_id,
            members=self.members.listed(self.protocol or "") if leads else (),
        )

    def _synced(self, member: Member) -> Synced:
        return Synced(
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            assignment=member.assignment,
        )

    def _release_syncs(self, error: ErrorCode) -> None:
        """Nobody gets an assignment in this generation."""
        for member in self.members.values():
            member.assignment = b""
            if member.sync is not None:
                self._ready.answer(member.sync, Synced(error))
                member.sync = None
                self._hear(member)

    def _to(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state} cannot become {state}"
        self.state = state
        self.since = self._deadlines.now
