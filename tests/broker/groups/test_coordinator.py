"""Groups as clients see them: over connections, with time passing, over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.core import Client, running_broker

from streamer.broker.core import Broker
from streamer.broker.groups.member import Leaver
from streamer.broker.security import Operation, Principal, Resource, ResourceType
from streamer.wire.api_keys import ApiKey
from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListGroupsRequest,
    OffsetCommitRequest,
    SyncGroupRequest,
)
from streamer.wire.record import Record
from streamer.wire.state_records import GroupMetadataValue, read_state

JOIN, SYNC, HEARTBEAT, LEAVE = 9, 5, 4, 5
SESSION_MS = 300
FINE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
GONE = ErrorCode.COORDINATOR_NOT_AVAILABLE
BARRED = ErrorCode.GROUP_AUTHORIZATION_FAILED


def start(path: Path, **settings: str) -> AbstractAsyncContextManager[Broker]:
    """A broker where sessions may be as short as tests are patient."""
    quick = {
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "100",
    }
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return running_broker(path / "data", quick | named)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with start(tmp_path) as running:
        yield running


@dataclass
class Member:
    """A consumer, as far as its group sees it."""

    client: Client
    group: str = "g"
    instance: str | None = None
    session_ms: int = SESSION_MS
    member_id: str = ""
    generation: int = -1
    assignment: bytes = b""

    def request(self) -> Any:
        return JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=self.session_ms,
            rebalance_timeout_ms=5_000,
            member_id=self.member_id,
            group_instance_id=self.instance,
            protocol_type="consumer",
            protocols=[JoinGroupRequest.Protocol(name="range", metadata=b"wishes")],
        )

    async def join(self) -> Any:
        """Join, once with no id and once with the one that was given."""
        joined = await self.client.ask(ApiKey.JOIN_GROUP, JOIN, self.request())
        if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = joined.member_id
            joined = await self.client.ask(ApiKey.JOIN_GROUP, JOIN, self.request())
        if not joined.error_code:
            self.member_id, self.generation = joined.member_id, joined.generation_id
        return joined

    async def sync(self, **assignments: bytes) -> int:
        request = SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.member_id,
            group_instance_id=self.instance,
            protocol_type="consumer",
            protocol_name="range",
            assignments=[
                SyncGroupRequest.Assignment(member_id=member_id, assignment=assignment)
                for member_id, assignment in assignments.items()
            ],
        )
        synced = await self.client.ask(ApiKey.SYNC_GROUP, SYNC, request)
        self.assignment = synced.assignment
        return int(synced.error_code)

    async def settle(self, assignment: bytes = b"all") -> None:
        """Be the only member, with everything to do."""
        joined = await self.join()
        assert joined.leader == self.member_id
        assert await self.sync(**{self.member_id: assignment}) == FINE

    async def heartbeat(self) -> int:
        request = HeartbeatRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.member_id,
            group_instance_id=self.instance,
        )
        return int((await self.client.ask(ApiKey.HEARTBEAT, HEARTBEAT, request)).error_code)

    async def leave(self) -> int:
        one = LeaveGroupRequest.Member(
            member_id=self.member_id, group_instance_id=self.instance
        )
        request = LeaveGroupRequest(group_id=self.group, members=[one])
        answer = await self.client.ask(ApiKey.LEAVE_GROUP, LEAVE, request)
        return int(answer.error_code or answer.members[0].error_code)


async def describe(client: Client, *groups: str, **more: Any) -> list[Any]:
    request = DescribeGroupsRequest(groups=list(groups), **more)
    found: list[Any] = (await client.ask(ApiKey.DESCRIBE_GROUPS, 5, request)).groups
    return found


async def state(client: Client, group: str = "g") -> str:
    (described,) = await describe(client, group)
    return str(described.group_state)


async def listed(client: Client, **filters: list[str]) -> dict[str, str]:
    answer = await client.ask(ApiKey.LIST_GROUPS, 5, ListGroupsRequest(**filters))
    assert not answer.error_code
    return {group.group_id: group.group_state for group in answer.groups}


async def delete(client: Client, group: str = "g") -> int:
    request = DeleteGroupsRequest(groups_names=[group])
    answer = await client.ask(ApiKey.DELETE_GROUPS, 2, request)
    return int(answer.results[0].error_code)


async def until(look: Callable[[], Awaitable[object]], expected: object) -> None:
    """Look again and again; only the broker knows when it will be so."""
    async with asyncio.timeout(5):
        found = await look()
        while found != expected:
            await asyncio.sleep(0.01)
            found = await look()


# Requests.


async def test_two_members_share_out_the_work(broker: Broker) -> None:
    first, second = Member(Client(broker)), Member(Client(broker))
    await first.settle()

    joining = asyncio.create_task(second.join())
    await until(first.heartbeat, ErrorCode.REBALANCE_IN_PROGRESS)
    leading, following = await asyncio.gather(first.join(), joining)

    assert leading.generation_id == following.generation_id == 2
    assert [one.metadata for one in leading.members] == [b"wishes", b"wishes"]
    work = {first.member_id: b"half", second.member_id: b"other half"}
    codes = await asyncio.gather(second.sync(), first.sync(**work))
    assert set(codes) == {FINE}
    assert first.assignment == b"half"
    assert second.assignment == b"other half"


@pytest.mark.parametrize("version", range(10))
async def test_a_member_joins_in_every_version(broker: Broker, version: int) -> None:
    client = Client(broker)
    request = Member(client).request()

    joined = await client.ask(ApiKey.JOIN_GROUP, version, request)
    if version >= 4:
        assert joined.error_code == ErrorCode.MEMBER_ID_REQUIRED
        assert joined.member_id.startswith("test-")
        request.member_id = joined.member_id
        joined = await client.ask(ApiKey.JOIN_GROUP, version, request)

    assert joined.error_code == FINE
    assert joined.generation_id == 1
    assert joined.protocol_name == "range"
    assert joined.leader == joined.member_id == joined.members[0].member_id


@pytest.mark.parametrize("version", range(10))
async def test_a_member_is_refused_in_every_version(broker: Broker, version: int) -> None:
    client = Client(broker)
    request = Member(client, member_id="nobody").request()

    joined = await client.ask(ApiKey.JOIN_GROUP, version, request)

    assert joined.error_code == UNKNOWN
    assert joined.member_id == "nobody"
    assert joined.generation_id == -1
    assert joined.protocol_name == (None if version >= 7 else "")


@pytest.mark.parametrize("version", range(6))
async def test_a_member_leaves_in_every_version(broker: Broker, version: int) -> None:
    member = Member(Client(broker))
    await member.settle()
    one = LeaveGroupRequest.Member(member_id=member.member_id)
    request = LeaveGroupRequest(group_id="g", members=[one])
    if version < 3:
        request = LeaveGroupRequest(group_id="g", member_id=member.member_id)

    answers = [
        await member.client.ask(ApiKey.LEAVE_GROUP, version, request) for _ in range(2)
    ]

    codes = [
        answer.members[0].error_code if version >= 3 else answer.error_code
        for answer in answers
    ]
    assert codes == [FINE, UNKNOWN]
    assert await state(member.client) == "Empty"


async def test_a_group_has_a_name(broker: Broker) -> None:
    nameless = Member(Client(broker), group="", member_id="m")

    joined = await nameless.join()
    assert joined.error_code == ErrorCode.INVALID_GROUP_ID
    assert joined.member_id == "m"
    assert await nameless.sync() == ErrorCode.INVALID_GROUP_ID
    assert await nameless.heartbeat() == ErrorCode.INVALID_GROUP_ID
    assert await nameless.leave() == ErrorCode.INVALID_GROUP_ID


@pytest.mark.parametrize("session_ms", [99, 1_800_001])
async def test_a_session_has_its_limits(broker: Broker, session_ms: int) -> None:
    member = Member(Client(broker), session_ms=session_ms)

    assert (await member.join()).error_code == ErrorCode.INVALID_SESSION_TIMEOUT
    assert await listed(member.client) == {}


async def test_a_sync_says_by_which_protocol_from_version_5_on(broker: Broker) -> None:
    member = Member(Client(broker))
    await member.settle()
    request = SyncGroupRequest(group_id="g", generation_id=1, member_id=member.member_id)

    codes = [
        (await member.client.ask(ApiKey.SYNC_GROUP, version, request)).error_code
        for version in range(6)
    ]

    assert codes == [FINE] * 5 + [ErrorCode.INCONSISTENT_GROUP_PROTOCOL]


async def test_nobody_is_known_in_a_group_that_is_not_there(broker: Broker) -> None:
    stranger = Member(Client(broker), member_id="m")

    assert (await stranger.join()).error_code == UNKNOWN
    assert await stranger.sync() == UNKNOWN
    assert await stranger.heartbeat() == UNKNOWN
    assert await stranger.leave() == UNKNOWN
    assert await listed(stranger.client) == {}


async def test_a_member_that_is_refused_leaves_no_group_behind(broker: Broker) -> None:
    client = Client(broker)
    request = Member(client).request()
    request.protocols = []

    joined = await client.ask(ApiKey.JOIN_GROUP, JOIN, request)

    assert joined.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert await listed(client) == {}


# Time.


async def test_a_member_that_is_not_heard_of_is_out(broker: Broker) -> None:
    member = Member(Client(broker), session_ms=100)
    await member.settle()

    await until(partial(state, Client(broker)), "Empty")
    assert await member.heartbeat() == UNKNOWN


async def test_a_member_that_is_heard_of_stays(broker: Broker) -> None:
    member = Member(Client(broker))
    await member.settle()

    for _ in range(10):
        await asyncio.sleep(SESSION_MS / 1000 / 4)
        assert await member.heartbeat() == FINE


async def test_the_first_member_waits_a_little_for_others(tmp_path: Path) -> None:
    async with start(tmp_path, group_initial_rebalance_delay_ms="150") as broker:
        members = [Member(Client(broker)) for _ in range(4)]

        joined = await asyncio.gather(*(member.join() for member in members))

        assert [one.generation_id for one in joined] == [1, 1, 1, 1]


# A restart.


async def test_after_a_restart_members_go_on_where_they_were(tmp_path: Path) -> None:
    async with start(tmp_path) as broker:
        dynamic = Member(Client(broker))
        await dynamic.settle(b"mine")
        static = Member(Client(broker), group="h", instance="one")
        await static.settle(b"ours")

    async with start(tmp_path) as broker:
        dynamic.client = static.client = Client(broker)
        assert await dynamic.heartbeat() == FINE
        assert await dynamic.sync() == FINE
        assert dynamic.assignment == b"mine"

        former, static.member_id = static.member_id, ""
        joined = await static.join()
        assert joined.generation_id == 1
        assert joined.skip_assignment
        assert static.member_id != former
        assert await static.sync() == FINE
        assert static.assignment == b"ours"


async def test_after_a_restart_a_member_that_does_not_come_back_is_out(
    tmp_path: Path,
) -> None:
    async with start(tmp_path) as broker:
        await Member(Client(broker), session_ms=100).settle()

    async with start(tmp_path) as broker:
        client = Client(broker)
        assert await state(client) == "Stable"
        await until(partial(state, client), "Empty")

    async with start(tmp_path) as broker:
        newcomer = Member(Client(broker))
        await newcomer.join()
        assert newcomer.generation == 3, "the generation counts on"


async def test_what_is_written_down_is_kafkas_own(broker: Broker) -> None:
    member = Member(Client(broker), instance="one")
    await member.settle(b"mine")

    (_, replayed) = list(broker.groups.log.replay())[-1]

    (record,) = replayed.records
    assert record.key == b"\0\2\0\1g"
    value = read_state(GroupMetadataValue, record.value or b"")
    assert (value.protocol_type, value.protocol, value.generation) == (
        "consumer",
        "range",
        1,
    )
    assert value.leader == member.member_id
    assert value.current_state_timestamp > 0
    (kept,) = value.members
    assert (kept.member_id, kept.group_instance_id) == (member.member_id, "one")
    assert (kept.client_id, kept.client_host) == ("test", "/127.0.0.1")
    assert (kept.session_timeout, kept.rebalance_timeout) == (SESSION_MS, 5_000)
    assert (kept.subscription, kept.assignment) == (b"wishes", b"mine")


async def test_a_log_that_cannot_be_read_makes_groups_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(tmp_path) as broker:
        await Member(Client(broker)).settle()
        await broker.groups.log.append("g", [Record(key=b"\0\2", value=b"")])

    async with start(tmp_path) as broker:
        assert "Consumer groups are not available" in caplog.text
        member = Member(Client(broker), member_id="m")
        assert (await member.join()).error_code == GONE
        assert await member.sync() == GONE
        assert await member.heartbeat() == GONE
        assert await member.leave() == GONE
        assert await delete(member.client) == GONE
        assert (await describe(member.client, "g"))[0].error_code == GONE
        answer = await member.client.ask(ApiKey.LIST_GROUPS, 5, ListGroupsRequest())
        assert answer.error_code == GONE


async def test_nothing_is_handed_out_that_cannot_be_written_down(broker: Broker) -> None:
    member = Member(Client(broker))
    await member.join()
    broker.go_offline("it was pulled out")

    assert await member.sync(**{member.member_id: b"mine"}) == GONE
    assert member.assignment == b""


async def test_who_waits_is_answered_when_the_broker_stops(tmp_path: Path) -> None:
    async with start(tmp_path) as broker:
        member = Member(Client(broker))
        await member.settle()
        newcomer = Client(broker)
        newcomer.send(ApiKey.JOIN_GROUP, 3, member.request())
        newcomer.send(ApiKey.JOIN_GROUP, 3, Member(newcomer).request())
        await asyncio.sleep(0)

    answer = await newcomer.answer()
    assert answer.error_code in (FINE, ErrorCode.NOT_COORDINATOR)


# Administration.


async def test_a_group_is_described_with_its_members(broker: Broker) -> None:
    member = Member(Client(broker), instance="one")
    await member.settle(b"mine")

    (group,) = await describe(member.client, "g", include_authorized_operations=True)

    assert (group.error_code, group.group_state) == (FINE, "Stable")
    assert (group.protocol_type, group.protocol_data) == ("consumer", "range")
    (found,) = group.members
    assert (found.member_id, found.group_instance_id) == (member.member_id, "one")
    assert (found.client_id, found.client_host) == ("test", "/127.0.0.1")
    assert (found.member_metadata, found.member_assignment) == (b"wishes", b"mine")
    allowed = {one for one in Operation if group.authorized_operations >> one & 1}
    assert {Operation.READ, Operation.DELETE, Operation.DESCRIBE} <= allowed


async def test_in_a_rebalance_members_are_told_with_what_they_still_have(
    broker: Broker,
) -> None:
    member = Member(Client(broker))
    await member.settle(b"mine")
    await member.join()

    (group,) = await describe(member.client, "g")

    assert group.group_state == "CompletingRebalance"
    assert group.protocol_data == ""
    assert group.members[0].member_metadata == b""
    assert group.members[0].member_assignment == b"mine"


async def test_a_group_that_is_not_there_is_dead(broker: Broker) -> None:
    client = Client(broker)
    for version in range(6):
        request = DescribeGroupsRequest(groups=["nowhere"])
        (group,) = (await client.ask(ApiKey.DESCRIBE_GROUPS, version, request)).groups
        assert (group.error_code, group.group_state) == (FINE, "Dead")


async def test_groups_are_listed_by_state_and_by_type(broker: Broker) -> None:
    client = Client(broker)
    await Member(client, group="busy").settle()
    left = Member(client, group="left")
    await left.settle()
    await left.leave()

    both = {"busy": "Stable", "left": "Empty"}
    assert await listed(client) == both
    assert await listed(client, states_filter=["stable", "Dead"]) == {"busy": "Stable"}
    assert await listed(client, states_filter=["EMPTY"]) == {"left": "Empty"}
    assert await listed(client, types_filter=["Classic"]) == both
    assert await listed(client, types_filter=["consumer"]) == {}


async def test_a_group_without_members_is_deleted_for_good(tmp_path: Path) -> None:
    async with start(tmp_path) as broker:
        member = Member(Client(broker))
        await member.settle()
        assert await delete(member.client) == ErrorCode.NON_EMPTY_GROUP

        await member.leave()
        assert await delete(member.client) == FINE
        assert await delete(member.client) == ErrorCode.GROUP_ID_NOT_FOUND
        assert await listed(member.client) == {}

    async with start(tmp_path) as broker:
        assert await listed(Client(broker)) == {}


async def test_a_group_that_is_deleted_as_it_empties_does_not_come_back(
    tmp_path: Path,
) -> None:
    async with start(tmp_path) as broker:
        member = Member(Client(broker))
        await member.settle()
        assert broker.groups.leave("g", [Leaver(member.member_id)]) == [FINE]
        # That it is empty is not written down yet, and must not be after the deletion.
        assert await broker.groups.delete("g") == FINE
        await asyncio.sleep(0.05)

    async with start(tmp_path) as broker:
        assert await listed(Client(broker)) == {}


async def test_a_group_of_a_deleted_name_is_a_new_one(tmp_path: Path) -> None:
    async with start(tmp_path) as broker:
        member = Member(Client(broker))
        await member.settle()
        await member.leave()
        assert await delete(member.client) == FINE
        again = Member(Client(broker), session_ms=10_000)
        await again.settle()
        assert again.generation == 1

    async with start(tmp_path) as broker:
        assert await state(Client(broker)) == "Stable"


async def test_a_group_that_nothing_is_left_of_is_forgotten_in_time(
    broker: Broker,
) -> None:
    member = Member(Client(broker))
    await member.settle()
    await broker.groups.expire()
    assert await listed(member.client) == {"g": "Stable"}

    await member.leave()
    await broker.groups.expire()

    assert await listed(member.client) == {}


async def test_who_may_not_name_a_group_is_told_so(broker: Broker) -> None:
    class NoGroups:
        def allows(self, who: Principal, what: Operation, on: Resource) -> bool:
            return on.type is not ResourceType.GROUP and on.name != "kafka-cluster"

    member = Member(Client(broker))
    await member.settle()
    member.client.connection.session.authorizer = NoGroups()

    assert (await member.join()).error_code == BARRED
    assert await member.sync() == BARRED
    assert await member.heartbeat() == BARRED
    assert await member.leave() == BARRED
    assert await delete(member.client) == BARRED
    assert (await describe(member.client, "g"))[0].error_code == BARRED
    assert await listed(member.client) == {}
    found = await member.client.ask(
        ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=["g"])
    )
    assert found.coordinators[0].error_code == BARRED


async def test_a_consumer_that_only_commits_makes_an_empty_group(broker: Broker) -> None:
    client = Client(broker)
    await broker.catalog.create("t", 1, {})
    place = OffsetCommitRequest.Partition(index=0, committed_offset=7)
    topic = OffsetCommitRequest.Topic(name="t", partitions=[place])
    request = OffsetCommitRequest(group_id="simple", topics=[topic])
    answer = await client.ask(ApiKey.OFFSET_COMMIT, 9, request)
    assert answer.topics[0].partitions[0].error_code == FINE

    assert await listed(client) == {"simple": "Empty"}
    (group,) = await describe(client, "simple")
    assert (group.group_state, group.protocol_type) == ("Empty", "")
    assert await delete(client, "simple") == FINE
    assert await listed(client) == {}


async def test_who_was_given_an_id_and_never_came_leaves_no_group_behind(
    broker: Broker,
) -> None:
    member = Member(Client(broker), session_ms=100)
    joined = await member.client.ask(ApiKey.JOIN_GROUP, JOIN, member.request())
    assert joined.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert await state(member.client) == "Empty"

    await until(lambda: state(member.client), "Dead")

    await broker.groups.expire()
    assert broker.groups.log.topic not in broker.catalog.topics


async def test_what_comes_late_of_a_deleted_group_does_not_stop_the_clock_of_the_next(
    tmp_path: Path,
) -> None:
    async with start(tmp_path, group_initial_rebalance_delay_ms="300") as broker:
        first, second = Member(Client(broker), session_ms=100), Client(broker)
        await first.join()
        broker.groups.leave("g", [Leaver(first.member_id)])
        await asyncio.sleep(0)  # That it is empty is being written down.
        deletion = asyncio.ensure_future(broker.groups.delete("g"))
        await asyncio.sleep(0)

        joined = await second.ask(ApiKey.JOIN_GROUP, 3, Member(second).request())

        assert await deletion == FINE
        assert joined.error_code == FINE
