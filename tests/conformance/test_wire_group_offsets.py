"""OffsetCommit, OffsetFetch and OffsetDelete: every version, every refusal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.conftest import MakeTopic
from support.clients import new_name
from support.raw import Wire, until_known
from support.raw_groups import RawMember, commit, committed, new_group

from streamer.wire.error_codes import ErrorCode
from streamer.wire.messages import (
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
)

NOTHING = (-1, -1, "", ErrorCode.NONE)


@pytest.fixture
def member(bootstrap: str, group: str, log: str) -> Iterator[RawMember]:
    """The one member of a stable group that reads `log`."""
    one = RawMember(bootstrap, group, topics=[log])
    assert one.join().error_code == ErrorCode.NONE
    assert one.sync({one.id: b"all"}).error_code == ErrorCode.NONE
    yield one
    one.close()


def told(answer: object) -> tuple[object, ...]:
    """Offset, leader epoch, metadata and error of one partition."""
    names = ("committed_offset", "committed_leader_epoch", "metadata", "error_code")
    return tuple(getattr(answer, name) for name in names)


@pytest.mark.parametrize("version", range(2, 10))
def test_every_version_commits(wire: Wire, group: str, log: str, version: int) -> None:
    epoch = 3 if version >= 6 else -1
    code = commit(wire, group, log, 7, version, epoch=epoch, metadata="read")

    assert code == ErrorCode.NONE
    assert told(committed(wire, group, log)) == (7, epoch, "read", ErrorCode.NONE)


@pytest.mark.parametrize("version", range(1, 10))
def test_every_version_fetches(wire: Wire, group: str, log: str, version: int) -> None:
    assert told(committed(wire, group, log, version=version)) == NOTHING
    commit(wire, group, log, 7, epoch=3, metadata="read")

    epoch = 3 if version >= 5 else -1
    found = committed(wire, group, log, version=version)
    assert told(found) == (7, epoch, "read", ErrorCode.NONE)


@pytest.mark.parametrize("version", range(2, 10))
def test_no_topics_means_all_that_the_group_has(
    wire: Wire, group: str, make_topic: MakeTopic, version: int
) -> None:
    one, other = make_topic(partitions=2), make_topic()
    wanted = {(one, 0): 1, (one, 1): 2, (other, 0): 3}
    for (topic, partition), offset in wanted.items():
        until_known(wire, topic, partition + 1)
        assert commit(wire, group, topic, offset, partition=partition) == ErrorCode.NONE

    if version < 8:
        answer = wire.ask(OffsetFetchRequest(group_id=group, topics=None), version)
    else:
        asked = OffsetFetchRequest.Group(group_id=group, topics=None)
        (answer,) = wire.ask(OffsetFetchRequest(groups=[asked]), version).groups
    assert answer.error_code == ErrorCode.NONE
    assert {
        (topic.name, each.index): each.committed_offset
        for topic in answer.topics
        for each in topic.partitions
    } == wanted


@pytest.mark.parametrize("version", [8, 9])
def test_several_groups_are_asked_at_once(
    wire: Wire, group: str, log: str, version: int
) -> None:
    other, unknown = new_group(wire), new_name("group")
    commit(wire, group, log, 1)
    commit(wire, other, log, 2)

    asked = [
        OffsetFetchRequest.Group(group_id=name, topics=None)
        for name in (group, other, unknown)
    ]
    answer = wire.ask(OffsetFetchRequest(groups=asked), version)
    assert {
        each.group_id: [
            partition.committed_offset
            for topic in each.topics
            for partition in topic.partitions
        ]
        for each in answer.groups
    } == {group: [1], other: [2], unknown: []}
    assert {each.error_code for each in answer.groups} == {ErrorCode.NONE}


def test_what_never_was_has_no_offset(wire: Wire, group: str, log: str) -> None:
    assert told(committed(wire, group, log)) == NOTHING
    assert told(committed(wire, group, log, partition=99)) == NOTHING
    assert told(committed(wire, group, "no-such-topic")) == NOTHING
    assert told(committed(wire, "", log)) == NOTHING


@pytest.mark.parametrize("stable", [False, True])
def test_offsets_without_transactions_are_stable(
    wire: Wire, group: str, log: str, stable: bool
) -> None:
    commit(wire, group, log, 7)

    assert committed(wire, group, log, stable=stable).committed_offset == 7


@pytest.mark.parametrize(("length", "code"), [(4096, 0), (4097, 12)])
def test_metadata_has_a_limit(
    wire: Wire, group: str, log: str, length: int, code: int
) -> None:
    assert commit(wire, group, log, 7, metadata="x" * length) == code

    found = committed(wire, group, log)
    assert len(found.metadata) == (0 if code else length)


def test_no_metadata_is_empty_metadata(wire: Wire, group: str, log: str) -> None:
    assert commit(wire, group, log, 7, metadata=None) == ErrorCode.NONE
    assert told(committed(wire, group, log)) == (7, -1, "", ErrorCode.NONE)


def test_a_partition_that_does_not_exist_is_refused_alone(
    wire: Wire, group: str, log: str
) -> None:
    parts = [
        OffsetCommitRequest.Partition(
            index=index, committed_offset=1, committed_metadata=None
        )
        for index in (0, 7)
    ]
    nowhere = OffsetCommitRequest.Partition(
        index=0, committed_offset=1, committed_metadata=None
    )
    topics = [
        OffsetCommitRequest.Topic(name=log, partitions=parts),
        OffsetCommitRequest.Topic(name="no-such-topic", partitions=[nowhere]),
    ]
    asked = OffsetCommitRequest(group_id=group, member_id="", topics=topics)

    answer = wire.ask(asked, 8)
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert {
        (topic.name, each.index): each.error_code
        for topic in answer.topics
        for each in topic.partitions
    } == {(log, 0): 0, (log, 7): unknown, ("no-such-topic", 0): unknown}
    assert committed(wire, group, log).committed_offset == 1


def test_only_members_commit_for_a_group_at_work(
    wire: Wire, group: str, log: str, member: RawMember
) -> None:
    assert member.commit(log, 1) == ErrorCode.NONE

    refused = ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(wire, group, log, 2) == refused
    assert member.commit(log, 2, member_id="made up") == refused
    assert member.commit(log, 2, member_id="") == refused
    assert member.commit(log, 2, group_instance_id="made up") == refused
    for generation in (0, 2, -1):
        code = member.commit(log, 2, generation_id=generation)
        assert code == ErrorCode.ILLEGAL_GENERATION
    assert committed(wire, group, log).committed_offset == 1


def test_a_generation_that_is_over_may_not_commit(
    wire: Wire, group: str, log: str, member: RawMember
) -> None:
    old = member.generation
    assert member.join().generation_id == old + 1
    assert member.sync({member.id: b"all"}).error_code == ErrorCode.NONE

    code = member.commit(log, 2, generation_id=old)
    assert code == ErrorCode.ILLEGAL_GENERATION
    assert member.commit(log, 3) == ErrorCode.NONE
    assert committed(wire, group, log).committed_offset == 3


def test_nobody_commits_before_the_sync(log: str, member: RawMember) -> None:
    member.join()

    assert member.commit(log, 1) == ErrorCode.REBALANCE_IN_PROGRESS
    member.sync({member.id: b"all"})
    assert member.commit(log, 1) == ErrorCode.NONE


def test_members_commit_while_others_join(
    bootstrap: str, group: str, log: str, member: RawMember
) -> None:
    second = RawMember(bootstrap, group)
    second.ask_to_join()
    second.send_join()
    while member.heartbeat() != ErrorCode.REBALANCE_IN_PROGRESS:
        pass

    assert member.commit(log, 1) == ErrorCode.NONE
    second.close()


@pytest.mark.parametrize("version", range(2, 10))
def test_a_group_nobody_made_takes_offsets_but_no_generation(
    wire: Wire, group: str, log: str, version: int
) -> None:
    code = commit(wire, group, log, 1, version, generation_id=1, member_id="made up")
    old = version < 9
    assert code == (ErrorCode.ILLEGAL_GENERATION if old else ErrorCode.GROUP_ID_NOT_FOUND)
    assert commit(wire, group, log, 1, version) == ErrorCode.NONE


def test_offsets_of_a_group_that_was_left_may_be_set_by_anyone(
    wire: Wire, group: str, log: str, member: RawMember
) -> None:
    member.commit(log, 1)
    member.leave()

    assert committed(wire, group, log).committed_offset == 1
    assert commit(wire, group, log, 5) == ErrorCode.NONE
    assert committed(wire, group, log).committed_offset == 5
    assert member.commit(log, 6) == ErrorCode.UNKNOWN_MEMBER_ID


def test_offsets_may_be_kept_under_no_name_at_all(wire: Wire, log: str) -> None:
    assert commit(wire, "", log, 1) == ErrorCode.NONE
    assert committed(wire, "", log).committed_offset == 1


# OffsetDelete


def delete(wire: Wire, group: str, topic: str, *partitions: int) -> object:
    parts = [OffsetDeleteRequest.Partition(index=index) for index in partitions]
    topics = [OffsetDeleteRequest.Topic(name=topic, partitions=parts)]
    answer = wire.ask(OffsetDeleteRequest(group_id=group, topics=topics), 0)
    if answer.error_code:
        assert answer.topics == []
        return answer.error_code
    ((found,),) = [each.partitions for each in answer.topics]
    return found.error_code


def test_offsets_of_a_group_are_deleted(wire: Wire, group: str, log: str) -> None:
    commit(wire, group, log, 7)

    assert delete(wire, group, log, 0) == ErrorCode.NONE
    assert told(committed(wire, group, log)) == NOTHING


def test_offsets_of_topics_that_the_group_reads_are_not_deleted(
    wire: Wire, group: str, log: str, make_topic: MakeTopic, member: RawMember
) -> None:
    other = make_topic()
    until_known(wire, other)
    assert member.commit(log, 7) == member.commit(other, 7) == ErrorCode.NONE

    assert delete(wire, group, log, 0) == ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
    assert delete(wire, group, other, 0) == ErrorCode.NONE
    assert committed(wire, group, log).committed_offset == 7
    assert told(committed(wire, group, other)) == NOTHING


def test_offsets_of_a_group_of_another_kind_are_not_deleted_while_it_works(
    bootstrap: str, wire: Wire, group: str, log: str
) -> None:
    worker = RawMember(bootstrap, group, protocol_type="connect")
    worker.join()
    worker.sync({worker.id: b"all"})
    worker.commit(log, 7)

    assert delete(wire, group, log, 0) == ErrorCode.NON_EMPTY_GROUP
    worker.leave()
    assert delete(wire, group, log, 0) == ErrorCode.NONE
    worker.close()


def test_offsets_that_are_not_there_may_be_deleted(
    wire: Wire, group: str, log: str
) -> None:
    assert delete(wire, group, log, 0) == ErrorCode.GROUP_ID_NOT_FOUND
    commit(wire, group, log, 7)

    assert delete(wire, group, log, 7) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert delete(wire, group, "no-such-topic", 0) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assert delete(wire, group, log, 0) == ErrorCode.NONE
