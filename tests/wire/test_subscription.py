"""What members of a consumer group say to each other: read where it can be, else None."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given, strategies as st

from streamer.wire.subscription import Assigned, assigned_partitions, subscribed_topics


def string(text: str) -> bytes:
    return pack(">h", len(text.encode())) + text.encode()


def subscription(version: int, *topics: str) -> bytes:
    """As Apache Kafka's ConsumerProtocolSubscription has it."""
    head = pack(">hi", version, len(topics)) + b"".join(map(string, topics))
    user_data = pack(">i", 3) + b"abc"
    owned = pack(">i", 1) + string("owned") + pack(">iii", 2, 0, 1)
    later = [owned, pack(">i", 5), string("rack")]
    return head + user_data + b"".join(later[:version])


def assignment(version: int, partitions: dict[str, list[int]]) -> bytes:
    topics = b"".join(
        string(topic) + pack(f">i{len(numbers)}i", len(numbers), *numbers)
        for topic, numbers in partitions.items()
    )
    return pack(">hi", version, len(partitions)) + topics + pack(">i", -1)


@pytest.mark.parametrize("version", [0, 1, 2, 3, 9])
def test_the_topics_are_read_in_every_version(version: int) -> None:
    assert subscribed_topics(subscription(version, "orders", "zażółć")) == (
        "orders",
        "zażółć",
    )
    assert subscribed_topics(subscription(version)) == ()


@pytest.mark.parametrize("version", [0, 1, 2, 3, 9])
def test_the_partitions_are_read_in_every_version(version: int) -> None:
    given = assignment(version, {"orders": [0, 7], "empty": []})

    assert assigned_partitions(given) == (Assigned("orders", (0, 7)), Assigned("empty", ()))


def test_no_bytes_are_no_partitions_but_no_subscription_either() -> None:
    assert assigned_partitions(b"") == ()
    assert subscribed_topics(b"") is None


@pytest.mark.parametrize(
    "data",
    [
        b"range",
        pack(">hi", -1, 0),
        pack(">hi", 0, -1),
        pack(">hi", 0, 2**31 - 1),
        pack(">hih", 0, 1, -1),
        pack(">hih", 0, 1, 5) + b"four",
        pack(">hih", 0, 1, 1) + b"\xff",
    ],
)
def test_what_is_something_else_is_none(data: bytes) -> None:
    assert subscribed_topics(data) is None
    assert assigned_partitions(data) is None


def test_what_is_cut_off_is_none() -> None:
    whole = assignment(0, {"orders": [1, 2]})[:-4]
    assert assigned_partitions(whole) is not None
    for end in range(1, len(whole)):
        assert assigned_partitions(whole[:end]) is None


@given(st.binary(max_size=64))
def test_no_bytes_do_any_harm(data: bytes) -> None:
    subscribed_topics(data)
    assigned_partitions(data)
