"""Which offsets a partition has, and which record a moment falls on."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from support.clients import (
    DEADLINE_SECONDS,
    Sent,
    assigned,
    code_of,
    create_topic,
    new_name,
    produce,
    result,
)

Spec: Any = OffsetSpec  # its methods carry no types

START = 1_700_000_000_000
# Not in order on purpose: a producer's clock may jump.
STAMPS = [START + step for step in (0, 10, 20, 20, 50, 40, 90, 60, 100)]


@pytest.fixture(params=[1, 3, 100], ids=["batches of 1", "batches of 3", "one batch"])
def stamped(bootstrap: str, topic: str, request: pytest.FixtureRequest) -> str:
    """A topic whose nine records carry STAMPS."""
    records = [Sent(value=b"x", timestamp=stamp) for stamp in STAMPS]
    produce(bootstrap, topic, records, batch_num_messages=request.param, linger_ms=20)
    return topic


def offset_at(admin: AdminClient, topic: str, spec: Any) -> tuple[int, int]:
    (future,) = admin.list_offsets({TopicPartition(topic, 0): spec}).values()
    found = result(future)
    return found.offset, found.timestamp


@pytest.mark.parametrize("moment", range(START - 5, START + 106, 5))
def test_a_moment_falls_on_the_first_record_not_before_it(
    admin: AdminClient, module_topic: str, moment: int
) -> None:
    expected = next(
        ((offset, stamp) for offset, stamp in enumerate(STAMPS) if stamp >= moment),
        (-1, -1),
    )

    assert offset_at(admin, module_topic, Spec.for_timestamp(moment)) == expected


@pytest.fixture(scope="module")
def module_topic(bootstrap: str, admin: AdminClient) -> str:
    """STAMPS in batches of two, shared by the many moments asked about."""
    topic = create_topic(admin)
    records = [Sent(value=b"x", timestamp=stamp) for stamp in STAMPS]
    produce(bootstrap, topic, records, batch_num_messages=2, linger_ms=20)
    return topic


def test_exactness_does_not_depend_on_batches(admin: AdminClient, stamped: str) -> None:
    found = [
        offset_at(admin, stamped, Spec.for_timestamp(START + step))[0]
        for step in (15, 45, 55, 100, 101)
    ]

    assert found == [2, 4, 6, 8, -1]


def test_earliest_latest_and_the_greatest_timestamp(
    admin: AdminClient, stamped: str
) -> None:
    assert offset_at(admin, stamped, Spec.earliest())[0] == 0
    assert offset_at(admin, stamped, Spec.latest())[0] == len(STAMPS)
    assert offset_at(admin, stamped, Spec.max_timestamp()) == (8, START + 100)


def test_the_greatest_timestamp_need_not_be_the_last(
    bootstrap: str, admin: AdminClient, topic: str
) -> None:
    records = [Sent(value=b"x", timestamp=START + step) for step in (5, 70, 30, 70, 1)]
    produce(bootstrap, topic, records, linger_ms=20)

    assert offset_at(admin, topic, Spec.max_timestamp()) == (1, START + 70)


def test_an_empty_partition_has_no_moments(admin: AdminClient, topic: str) -> None:
    assert offset_at(admin, topic, Spec.earliest())[0] == 0
    assert offset_at(admin, topic, Spec.latest())[0] == 0
    assert offset_at(admin, topic, Spec.max_timestamp()) == (-1, -1)
    assert offset_at(admin, topic, Spec.for_timestamp(0)) == (-1, -1)


def test_a_client_asking_for_a_moment_after_the_end_gets_the_end(
    bootstrap: str, stamped: str
) -> None:
    consumer = assigned(bootstrap, stamped)
    asked = TopicPartition(stamped, 0, START + 101)
    (found,) = consumer.offsets_for_times([asked], timeout=DEADLINE_SECONDS)

    assert found.offset == OFFSET_END
    consumer.close()


def test_the_start_of_the_log_moves_with_deleted_records(
    admin: AdminClient, stamped: str
) -> None:
    target = TopicPartition(stamped, 0, 5)
    assert result(admin.delete_records([target])[target]).low_watermark == 5

    assert offset_at(admin, stamped, Spec.earliest())[0] == 5
    assert offset_at(admin, stamped, Spec.for_timestamp(START))[0] == 5
    assert offset_at(admin, stamped, Spec.latest())[0] == len(STAMPS)


def test_all_records_can_be_deleted(admin: AdminClient, stamped: str) -> None:
    target = TopicPartition(stamped, 0, OFFSET_END)
    assert result(admin.delete_records([target])[target]).low_watermark == len(STAMPS)

    assert offset_at(admin, stamped, Spec.earliest())[0] == len(STAMPS)
    assert offset_at(admin, stamped, Spec.for_timestamp(START)) == (-1, -1)


def test_records_beyond_the_end_cannot_be_deleted(admin: AdminClient, stamped: str) -> None:
    target = TopicPartition(stamped, 0, len(STAMPS) + 1)

    assert code_of(admin.delete_records([target])[target]) == KafkaError.OFFSET_OUT_OF_RANGE


def test_deleting_up_to_an_offset_already_gone_changes_nothing(
    admin: AdminClient, stamped: str
) -> None:
    for offset, start in ((6, 6), (2, 6)):
        target = TopicPartition(stamped, 0, offset)
        assert result(admin.delete_records([target])[target]).low_watermark == start


def test_offsets_of_an_unknown_topic_are_an_error(admin: AdminClient) -> None:
    (future,) = admin.list_offsets(
        {TopicPartition(new_name("missing"), 0): Spec.latest()}
    ).values()

    assert code_of(future) != 0
