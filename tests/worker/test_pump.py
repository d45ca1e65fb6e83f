"""The pump: what was fetched, by partition."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from hypothesis import given, strategies as st

from streamer.client.interface import TopicPartition
from streamer.worker.pump import by_partition


class Record:
    def __init__(self, at: tuple[str, int]) -> None:
        self.at = at

    def topic(self) -> str:
        return self.at[0]

    def partition(self) -> int:
        return self.at[1]


PLACES = st.tuples(st.sampled_from(["orders", "clicks"]), st.integers(0, 2))


@given(st.lists(PLACES, min_size=1, max_size=12))
def test_records_come_in_rows_of_one_partition_in_their_order(
    places: list[tuple[str, int]],
) -> None:
    found: list[Any] = [Record(at) for at in places]

    rows = by_partition(found)

    assert [at for at, _ in rows] == [TopicPartition(*at) for at, _ in groupby(places)]
    assert [record for _, row in rows for record in row] == found
    assert all((one.topic(), one.partition()) == at for at, row in rows for one in row)
