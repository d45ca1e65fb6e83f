"""`streamer group` against a running broker, and what it remarks on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cli.conftest import Streamer
from support.clients import member, new_name, owned, poll_until

from streamer.cli.group import held_back, remarks
from streamer.client.interface import Broker, Group, GroupMember, TopicPartition

Join = Callable[..., Any]


@pytest.fixture
def group() -> str:
    return new_name("group")


@pytest.fixture
def join(bootstrap: str, group: str, topic: str) -> Iterator[Join]:
    """`join(2)`: so many members, each with its share of two partitions."""
    consumers = []

    def do(count: int, **config: object) -> None:
        for number in range(count):
            name = f"client-{number}"
            consumers.append(
                member(bootstrap, group, topic, watch=None, client_id=name, **config)
            )
        poll_until(lambda: sum(map(len, map(owned, consumers))) == 2, *consumers)
        # An idle one has nothing to show for it; all are in when the last has joined.
        share = max(1, 2 // count)
        poll_until(lambda: max(map(len, map(owned, consumers))) == share, *consumers)

    yield do
    for each in consumers:
        each.close()


@pytest.fixture
def read(streamer: Streamer, topic: str, group: str) -> None:
    """The group has read three records of partition 0 and two of partition 1."""
    streamer("produce", topic, "-f", "%p %v", stdin="0 a\n0 b\n0 c\n1 d\n1 e\n")
    assert streamer("consume", topic, "-g", group, "-e").exit_code == 0


def described(streamer: Streamer, group: str) -> dict[str, Any]:
    result = streamer("group", "describe", group, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def committed(streamer: Streamer, group: str) -> dict[int, int]:
    rows = described(streamer, group)["partitions"]
    return {row["partition"]: row["committed"] for row in rows}


@pytest.mark.usefixtures("read")
def test_a_group_without_members_is_listed_with_its_state(
    streamer: Streamer, group: str
) -> None:
    rows = json.loads(streamer("group", "list", "-o", "json").stdout)

    (row,) = [row for row in rows if row["group"] == group]
    assert (row["state"], row["members"]) == ("Empty", 0)
    assert group in streamer("group", "list").stdout


@pytest.mark.usefixtures("read")
def test_a_description_tells_how_far_each_partition_is(
    streamer: Streamer, topic: str, group: str
) -> None:
    streamer("produce", topic, "-p", "1", stdin="f\ng\n")

    found = described(streamer, group)

    assert [
        (row["topic"], row["partition"], row["committed"], row["end"], row["lag"])
        for row in found["partitions"]
    ] == [(topic, 0, 3, 3, 0), (topic, 1, 2, 4, 2)]
    assert (found["state"], found["lag"], found["members"]) == ("Empty", 2, [])


def test_a_description_tells_who_reads_what(
    streamer: Streamer, group: str, join: Join
) -> None:
    join(2)

    result = streamer("group", "describe", group)
    found = described(streamer, group)

    assert result.stdout.startswith(f"group {group}: Stable, 2 members, range, coordinator")
    assert [row["client"] for row in found["partitions"]] in (
        ["client-0", "client-1"],
        ["client-1", "client-0"],
    )
    assert {row["host"] for row in found["partitions"]} == {"127.0.0.1"}
    assert len({row["member"] for row in found["partitions"]}) == 2
    assert ":0: no committed offset" in result.stderr
    assert found["remarks"] == result.stderr.splitlines()


def test_a_static_member_is_shown_with_its_name(
    streamer: Streamer, group: str, join: Join
) -> None:
    join(1, group_instance_id="kitchen")

    assert {row["instance"] for row in described(streamer, group)["partitions"]} == {
        "kitchen"
    }


def group_of(*shares: int, state: str = "Stable") -> Group:
    members = tuple(
        GroupMember(
            f"m{number}",
            None,
            "client",
            "host",
            tuple(TopicPartition(f"t{number}", index) for index in range(share)),
        )
        for number, share in enumerate(shares)
    )
    return Group("g", state, "classic", "range", Broker(1, "host", 9092), members)


def said_of(group: Group, committed: dict[TopicPartition, int], end: int = 10) -> list[str]:
    assigned = {at: 0 for each in group.members for at in each.partitions}
    ends = dict.fromkeys(assigned | committed, end)
    return list(remarks(group, assigned | committed, ends))


def test_a_member_without_a_partition_is_named() -> None:
    assert said_of(group_of(1, 0), {}) == ["m1 at host is idle: it has no partition"]


@pytest.mark.parametrize(
    ("shares", "uneven"), [((2, 2), False), ((2, 1), False), ((4, 3, 1), True)]
)
def test_an_uneven_split_is_named(shares: tuple[int, ...], uneven: bool) -> None:
    expected = ["an uneven split: m0 has 4 partitions, m2 has 1"] if uneven else []

    assert said_of(group_of(*shares), {}) == expected


def test_a_partition_that_nobody_reads_is_named_once_the_group_is_stable() -> None:
    left = {TopicPartition("t9", 0): 5}

    assert said_of(group_of(1), left) == ["t9:0: no member reads it"]
    assert said_of(group_of(1, state="PreparingRebalance"), left) == []


def test_offsets_of_what_is_no_more_are_named() -> None:
    beyond, gone = TopicPartition("t0", 0), TopicPartition("t1", 0)

    found = list(remarks(group_of(1), {beyond: 7, gone: 7}, {beyond: 5}))

    assert found == [
        "t0:0: committed behind its end; has the topic been made anew?",
        "t1:0: there is no such partition any more",
    ]


def test_readers_held_back_by_a_transaction_are_named() -> None:
    at, free = TopicPartition("t", 0), TopicPartition("t", 1)

    (found,) = held_back({at: 9, free: 4}, {at: 5, free: 4})

    assert found.startswith("t:0: an open transaction holds back readers")


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize(
    ("place", "after"),
    [
        ("start", {0: 0, 1: 0}),
        ("end", {0: 3, 1: 2}),
        ("1", {0: 1, 1: 1}),
        ("-1", {0: 2, 1: 1}),
        ("99", {0: 3, 1: 2}),
        ("@0", {0: 0, 1: 0}),
        ("@2100-01-01", {0: 3, 1: 2}),
    ],
)
def test_a_group_is_moved_to_another_place(
    streamer: Streamer, topic: str, group: str, place: str, after: dict[int, int]
) -> None:
    result = streamer("group", "seek", group, "--to", place, "-t", topic, "-o", "json")

    assert result.exit_code == 0, result.stderr
    assert [
        (row["topic"], row["partition"], row["before"], row["after"])
        for row in json.loads(result.stdout)
    ] == [(topic, 0, 3, after[0]), (topic, 1, 2, after[1])]
    assert committed(streamer, group) == after


@pytest.mark.usefixtures("read")
def test_one_partition_is_moved_and_the_other_stays(
    streamer: Streamer, topic: str, group: str
) -> None:
    streamer("group", "seek", group, "--to", "start", "-t", f"{topic}:1")

    assert committed(streamer, group) == {0: 3, 1: 0}
    assert streamer("consume", topic, "-g", group, "-e").stdout == "d\ne\n"


@pytest.mark.usefixtures("read")
def test_a_dry_run_shows_what_would_change(
    streamer: Streamer, topic: str, group: str
) -> None:
    result = streamer("group", "seek", group, "--to", "start", "-t", topic, "--dry-run")

    assert "BEFORE  AFTER" in result.stdout
    assert "nothing was changed" in result.stderr
    assert committed(streamer, group) == {0: 3, 1: 2}


def test_a_group_with_members_is_not_moved(
    streamer: Streamer, topic: str, group: str, join: Join
) -> None:
    join(1)

    result = streamer("group", "seek", group, "--to", "start", "-t", topic)
    dry = streamer("group", "seek", group, "--to", "start", "-t", topic, "--dry-run")

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Group {group!r} has members: client-0 at 127.0.0.1." in result.stderr
    assert "-> Stop them first" in result.stderr
    assert dry.exit_code == 0
    assert "has members" in dry.stderr


def test_a_group_may_be_given_a_place_before_it_first_reads(
    streamer: Streamer, topic: str, group: str
) -> None:
    streamer("produce", topic, "-p", "0", stdin="a\nb\n")

    result = streamer("group", "seek", group, "--to", "1", "-t", f"{topic}:0")

    assert result.exit_code == 0, result.stderr
    assert streamer("consume", topic, "-g", group, "-e").stdout == "b\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "nowhere", "-t", "t"),
        ("--to", "@1:@2", "-t", "t"),
        ("--to", "start"),
        ("-t", "t"),
        ("--to", "start", "-t", "t:x"),
    ],
    ids=" ".join,
)
def test_a_seek_without_a_place_is_a_usage_error(
    streamer: Streamer, words: tuple[str, ...]
) -> None:
    assert streamer("group", "seek", "g", *words).exit_code == 2


def test_a_partition_that_does_not_exist_is_named(streamer: Streamer, topic: str) -> None:
    result = streamer("group", "seek", "g", "--to", "start", "-t", f"{topic}:7")

    assert result.exit_code == 1
    assert f"{topic} has no partition 7" in result.stderr


@pytest.mark.usefixtures("read")
def test_a_group_is_deleted_with_its_offsets(streamer: Streamer, group: str) -> None:
    refused = streamer("group", "delete", group, stdin="n\n")
    assert refused.exit_code == 1
    assert described(streamer, group)

    assert streamer("group", "delete", group, "--yes").exit_code == 0

    assert group not in streamer("group", "list").stdout


def test_a_group_with_members_is_not_deleted(
    streamer: Streamer, group: str, join: Join
) -> None:
    join(1)

    result = streamer("group", "delete", group, "--yes")

    assert result.exit_code == 1
    assert "has members: client-0" in result.stderr


@pytest.mark.parametrize("command", [["describe"], ["delete", "--yes"]])
def test_an_unknown_group_is_named_with_the_way_out(
    streamer: Streamer, command: list[str]
) -> None:
    result = streamer("group", *command, "no-such-group")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: There is no group 'no-such-group' at ")
    assert "-> `streamer group list`" in result.stderr
