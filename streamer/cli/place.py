"""Places in a topic, as people name them: for `consume -o` and `group seek --to`.

    beginning, end        the first record; the next one to come
    42, -10               an offset; the last ten of each partition
    @TIME                 the first record of that time or later

A place is a function that asks the broker: the same words mean another offset in each
partition. The end is where readers of committed records come to, unless it is asked
for otherwise: what a transaction has still to decide lies behind it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from streamer.client.interface import Admin, TopicPartition

BEGINNING = ("beginning", "start", "earliest")
END = ("end", "latest")


class Place(Protocol):
    def __call__(
        self, admin: Admin, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> dict[TopicPartition, int]: ...


def parse_place(text: str) -> Place:
    """The place that `text` names; ValueError if it is none."""
    if text in BEGINNING:
        return beginning
    if text in END:
        return end
    if text.startswith("@"):
        return at_time(text[1:])
    offset = int(text)
    return last(-offset) if text.startswith("-") else exactly(offset)


def beginning(
    admin: Admin, partitions: Sequence[TopicPartition], *, committed: bool = True
) -> dict[TopicPartition, int]:
    return admin.first_offsets(partitions)


def end(
    admin: Admin, partitions: Sequence[TopicPartition], *, committed: bool = True
) -> dict[TopicPartition, int]:
    return admin.end_offsets(partitions, committed=committed)


def at_time(text: str) -> Place:
    """The first record of that time or later. Without a zone it is local time."""
    if text.isdigit():
        timestamp_ms = int(text)
    else:
        timestamp_ms = int(datetime.fromisoformat(text).timestamp() * 1000)

    def find(
        admin: Admin, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> dict[TopicPartition, int]:
        return admin.offsets_at(partitions, timestamp_ms)

    return find


def last(count: int) -> Place:
    def find(
        admin: Admin, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> dict[TopicPartition, int]:
        first = admin.first_offsets(partitions)
        ends = admin.end_offsets(partitions, committed=committed)
        return {at: max(first[at], offset - count) for at, offset in ends.items()}

    return find


def exactly(offset: int) -> Place:
    def find(
        admin: Admin, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, offset)

    return find
