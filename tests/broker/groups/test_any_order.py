"""Members that come, go, fall silent and come back, in any order, and what always holds:

one leads, the generation never falls, no request is left without its one answer, nobody
who does all it should is forgotten, and a group that nobody is in any more becomes empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.groups import LIMITS, REBALANCE_MS, SESSION_MS, Play, Request

from streamer.broker.groups.member import Joined
from streamer.broker.groups.states import State
from streamer.wire.error_codes import ErrorCode

STEP = 1.0
"""A client is heard of so often; its session is ten times as long."""
PROTOCOLS = [("range", "sticky"), ("sticky", "range"), ("range",), ("sticky", "robin")]


@dataclass(eq=False)
class Client:
    """Does what a consumer does: joins, syncs, tells that it is alive, joins again."""

    play: Play
    requests: list[Request]
    instance: str | None
    version: int
    protocols: tuple[str, ...]
    metadata: bytes = b""
    member_id: str = ""
    generation: int = -1
    protocol: str | None = None
    assignment: bytes | None = None
    asked: Request | None = None
    fenced: bool = False
    """Another has come with its instance id: it is to stop."""

    def join(self) -> None:
        self.generation, self.protocol, self.assignment = -1, None, None
        self._ask(
            self.play.join(
                self.member_id,
                instance=self.instance,
                protocols=self.protocols,
                metadata=self.metadata,
                version=self.version,
            )
        )

    def live(self) -> None:
        """Take what was answered, and go on, until it has to wait."""
        while self.asked is not None and not self.asked.parked and not self.fenced:
            asked, self.asked = self.asked, None
            if asked.error == ErrorCode.FENCED_INSTANCE_ID:
                self.fenced = True
            elif asked.error == ErrorCode.INCONSISTENT_GROUP_PROTOCOL:
                assert self.generation == -1
            elif asked.error == ErrorCode.MEMBER_ID_REQUIRED:
                self.member_id = asked.joined.member_id
                self.join()
            elif asked.error in (
                ErrorCode.REBALANCE_IN_PROGRESS,
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
            ) or self._is_forgotten(asked.error):
                self.join()
            else:
                assert asked.error == ErrorCode.NONE, "it did all it should"
                self._go_on(asked)

    def _go_on(self, asked: Request) -> None:
        if self.protocol is not None:
            self.assignment = asked.synced.assignment
            return
        joined = asked.joined
        self.member_id, self.generation = joined.member_id, joined.generation
        self.protocol = joined.protocol
        leads = joined.leader == self.member_id and not joined.skip_assignment
        work = {one.member_id: one.member_id.encode() for one in joined.members}
        self._ask(self.play.sync(self.member_id, work if leads else {}))

    def heartbeat(self) -> None:
        if self.generation < 0 or self.fenced:
            return
        error = self.play.heartbeat(
            self.member_id, generation=self.generation, instance=self.instance
        )
        if error == ErrorCode.FENCED_INSTANCE_ID:
            self.fenced = True
        elif self._is_forgotten(error) or (
            error == ErrorCode.REBALANCE_IN_PROGRESS and self.asked is None
        ):
            self.join()
        else:
            assert error in (ErrorCode.NONE, ErrorCode.REBALANCE_IN_PROGRESS)

    def _is_forgotten(self, error: ErrorCode) -> bool:
        """Whether another had taken its place, and is gone in turn; begin anew then."""
        if self.instance is None or error != ErrorCode.UNKNOWN_MEMBER_ID:
            return False
        self.member_id = ""
        return True

    def _ask(self, request: Request) -> None:
        self.asked = request
        self.requests.append(request)


class Group(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.play = Play(replace(LIMITS, initial_delay_ms=500))
        self.requests: list[Request] = []
        self.clients: list[Client] = []
        self.generation = 0
        self.protocols: dict[int, str | None] = {}

    # What members do.

    @precondition(lambda self: len(self.clients) < 6)
    @rule(
        instance=st.sampled_from([None, None, "x", "y"]),
        version=st.sampled_from([3, 8, 9]),
        protocols=st.sampled_from(PROTOCOLS),
    )
    def come(self, instance: str | None, version: int, protocols: tuple[str, ...]) -> None:
        client = Client(self.play, self.requests, instance, version, protocols)
        self.clients.append(client)
        client.join()
        self.everybody_goes_on()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.clients.remove(client)
        if client.member_id and not client.fenced:
            self.play.leave(client.member_id, client.instance)
        self.everybody_goes_on()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def fall_silent(self, data: st.DataObject) -> None:
        self.clients.remove(data.draw(st.sampled_from(self.clients)))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), metadata=st.binary(max_size=1))
    def subscribe(self, data: st.DataObject, metadata: bytes) -> None:
        client = data.draw(st.sampled_from(self.clients))
        client.metadata = metadata
        if client.asked is None and client.generation >= 0 and not client.fenced:
            client.join()
        self.everybody_goes_on()

    # What happens beside.

    @rule()
    def write(self) -> None:
        self.play.write()
        self.everybody_goes_on()

    @rule()
    def write_in_vain(self) -> None:
        self.play.write(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        self.everybody_goes_on()

    @rule(steps=st.sampled_from([1, 2, 11, 70]))
    def wait(self, steps: int) -> None:
        for _ in range(steps):
            self.play.wait(STEP)
            self.play.write()
            self.everybody_goes_on()
            for client in self.clients:
                client.heartbeat()
            self.everybody_goes_on()

    def everybody_goes_on(self) -> None:
        for _ in range(100):
            busy = [
                client
                for client in self.clients
                if client.asked is not None and not client.asked.parked
            ]
            if not busy:
                return
            for client in busy:
                client.live()

    # What always holds. That nothing is answered twice, `Play` sees to.

    @invariant()
    def the_generation_never_falls(self) -> None:
        assert self.play.group.generation >= self.generation
        self.generation = self.play.group.generation

    @invariant()
    def one_leads(self) -> None:
        group = self.play.group
        assert (group.leader is None) == (not group.members)
        assert group.leader is None or group.leader in group.members
        leaders = [
            request.joined.member_id
            for request in self.requests
            if isinstance(request.answer, Joined)
            and request.joined.members
            and request.joined.generation == group.generation
        ]
        assert len({self._instance(leader) for leader in leaders}) <= 1

    def _instance(self, member_id: str) -> str:
        """Who it is: a static member keeps leading under its new id."""
        return member_id.partition("-")[0] if member_id[0] in "xy" else member_id

    @invariant()
    def all_of_a_generation_agree_on_the_protocol(self) -> None:
        for client in self.clients:
            if client.protocol is not None and not client.fenced:
                agreed = self.protocols.setdefault(client.generation, client.protocol)
                assert client.protocol == agreed
                assert client.protocol in client.protocols

    @invariant()
    def everybody_has_its_own_work(self) -> None:
        for client in self.clients:
            if client.assignment and client.instance is None:
                assert client.assignment == client.member_id.encode()

    @invariant()
    def a_deadline_is_set_while_anybody_is_in_it(self) -> None:
        group = self.play.group
        assert group.is_unused or group.next_deadline() is not None

    def teardown(self) -> None:
        self.clients.clear()
        for _ in range(3):
            self.play.write()
            self.play.wait((2 * SESSION_MS + REBALANCE_MS) / 1000)
        self.play.wait(300)
        assert self.play.group.state is State.EMPTY
        assert not [request for request in self.requests if request.parked]


TestAnyOrder = Group.TestCase
TestAnyOrder.settings = settings(
    max_examples=150, stateful_step_count=30, report_multiple_bugs=False, deadline=None
)
