"""Arrays for which there is no room as lists: they are read, and refused, as lists are."""

import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from wire.dense import EVERY_REQUEST, LARGE, LETTERS, dense
from wire.strategies import read, written

from streamer.wire.definition import Field
from streamer.wire.messages import (
    CreateTopicsRequest,
    DescribeConfigsRequest,
    DescribeLogDirsRequest,
    FetchRequest,
    FindCoordinatorRequest,
    Malformed,
    MetadataRequest,
    MetadataResponse,
    ProduceRequest,
)
from streamer.wire.reader import compile_reader
from streamer.wire.rows import Rows, heaviest_element

NAMES = [f"{cls.__name__}-v{version}" for cls, version in EVERY_REQUEST]


def many_topics(count: int = 1000) -> MetadataRequest:
    return MetadataRequest(
        topics=[MetadataRequest.Topic(name=f"topic-{n}") for n in range(count)]
    )


@pytest.mark.parametrize("counts", [(1, 300), (300, 1), (20, 20)], ids=str)
@pytest.mark.parametrize(("cls", "version"), EVERY_REQUEST, ids=NAMES)
def test_rows_equal_the_list_that_was_written_and_are_written_as_it_was(
    cls: Any, version: int, counts: tuple[int, ...]
) -> None:
    request = dense(cls, version, LARGE, *counts)
    data = written(request, version)

    found = read(cls, version, data)

    assert found == request
    assert request == found
    assert found == read(cls, version, memoryview(bytearray(data)))
    assert written(found, version) == data


@pytest.mark.parametrize(("cls", "version"), EVERY_REQUEST, ids=NAMES)
def test_many_elements_are_rows_at_every_depth(cls: Any, version: int) -> None:
    found = read(cls, version, written(dense(cls, version, LARGE, 500, 1), version))

    arrays = [f for f in cls.fields if f.array and version in f.versions]
    for field in arrays:
        rows = getattr(found, field.name)
        assert type(rows) is Rows
        for inner in field.fields:
            if inner.array and version in inner.versions:
                assert type(getattr(next(iter(rows)), inner.name)) is Rows


@pytest.mark.parametrize(
    ("request_", "version", "name"),
    [
        (FindCoordinatorRequest(coordinator_keys=[f"k{n}" for n in range(500)]), 4, "keys"),
        (
            DescribeLogDirsRequest(
                topics=[
                    DescribeLogDirsRequest.Topic(
                        name="orders", partitions=list(range(1000, 2000))
                    )
                ]
            ),
            1,
            "topics",
        ),
    ],
    ids=["strings", "numbers"],
)
def test_strings_and_numbers_may_be_rows_too(
    request_: Any, version: int, name: str
) -> None:
    found = read(type(request_), version, written(request_, version))

    array = (
        found.coordinator_keys if name == "keys" else next(iter(found.topics)).partitions
    )
    assert type(array) is Rows
    assert found == request_


def test_rows_can_be_gone_through_again_and_by_two_at_once() -> None:
    asked = many_topics()
    rows = read(MetadataRequest, 9, written(asked, 9)).topics

    assert list(rows) == asked.topics
    assert [(a.name, b.name) for a, b in zip(rows, rows, strict=True)] == [
        (topic.name, topic.name) for topic in asked.topics
    ]


def test_rows_are_equal_to_lists_and_rows_of_the_same_and_to_nothing_else() -> None:
    asked = many_topics()
    rows = read(MetadataRequest, 9, written(asked, 9)).topics
    fewer = read(MetadataRequest, 9, written(many_topics(999), 9)).topics

    assert rows == asked.topics
    assert asked.topics == rows
    assert rows == read(MetadataRequest, 9, written(asked, 9)).topics
    assert rows not in (fewer, asked.topics[1:], [*asked.topics[1:], None], 1000, None)
    assert (len(rows), bool(rows), repr(rows)) == (1000, True, "<1000 rows>")
    with pytest.raises(TypeError, match="unhashable"):
        hash(rows)


@pytest.mark.parametrize("counts", [(1, 300), (300, 1), (20, 20)], ids=str)
@pytest.mark.parametrize(("cls", "version"), EVERY_REQUEST, ids=NAMES)
def test_rows_that_are_cut_off_are_malformed_at_once(
    cls: Any, version: int, counts: tuple[int, ...]
) -> None:
    data = written(dense(cls, version, LETTERS, *counts), version)

    for end in {len(data) * part // 8 for part in range(8)} - {len(data)}:
        with pytest.raises(Malformed):
            read(cls, version, data[:end])


@pytest.mark.parametrize(
    ("request_", "version", "sound", "damaged", "problem"),
    [
        (many_topics(), 9, b"topic-999", b"topic-\xff99", "no text"),
        (many_topics(), 9, b"\x0atopic-999", b"\x00topic-999", "name is null"),
        (many_topics(), 1, b"\x00\x09topic-999", b"\x7f\xfftopic-999", "name claims 32767"),
        (many_topics(), 9, b"topic-999\x00", b"topic-999\x7f", "cut off|does not fit"),
        (
            CreateTopicsRequest(
                topics=[
                    CreateTopicsRequest.Topic(
                        name=f"topic-{n}",
                        configs=[CreateTopicsRequest.Config(name=f"config-{n}", value="")],
                    )
                    for n in range(1000)
                ]
            ),
            5,
            b"config-999",
            b"config-\xff99",
            "no text",
        ),
        (
            DescribeConfigsRequest(
                resources=[
                    DescribeConfigsRequest.Resource(configuration_keys=[f"key-{n}"])
                    for n in range(1000)
                ]
            ),
            4,
            b"\x08key-999",
            b"\x00key-999",
            "configuration_keys is null",
        ),
    ],
    ids=["text", "null", "length", "tags", "text two deep", "null two deep"],
)
def test_a_damaged_element_deep_in_rows_is_malformed_at_once(
    request_: Any, version: int, sound: bytes, damaged: bytes, problem: str
) -> None:
    data = written(request_, version)
    assert data.count(sound) == 1

    with pytest.raises(Malformed, match=problem):
        read(type(request_), version, data.replace(sound, damaged))


@pytest.mark.parametrize(("cls", "version"), EVERY_REQUEST, ids=NAMES)
def test_elements_take_no_more_than_they_are_charged(cls: Any, version: int) -> None:
    crab = "\N{CRAB}"
    data = written(dense(cls, version, {**LARGE, "string": crab}, 200, 2), version)
    read_lists = compile_reader(cls, version, bounded=False)
    read_lists(data, 0, len(data))

    tracemalloc.start()
    message = read_lists(data, 0, len(data))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    text = len(crab.encode()) * data.count(crab.encode()) + 2 * data.count(b"xy")
    assert message
    assert taken <= charged(cls.fields, version, 200, 2) + text + 1000


def charged(fields: tuple[Field, ...], version: int, *counts: int) -> int:
    """What is charged for all arrays of `dense`."""
    count, *inside = counts or (1,)
    return sum(
        count * (heaviest_element(f, version) + charged(f.fields, version, *inside))
        for f in fields
        if f.array and version in f.versions
    )


def test_what_clients_ask_most_is_read_into_lists() -> None:
    records = bytes(1000)
    produced = ProduceRequest.Topic(
        name="orders",
        partitions=[ProduceRequest.Partition(index=n, records=records) for n in range(4)],
    )
    fetched = FetchRequest.Topic(
        name="orders", partitions=[FetchRequest.Partition(index=n) for n in range(4)]
    )

    produce = read(ProduceRequest, 9, written(ProduceRequest(topics=[produced]), 9))
    fetch = read(FetchRequest, 12, written(FetchRequest(topics=[fetched]), 12))

    assert type(produce.topics) is type(produce.topics[0].partitions) is list
    assert type(fetch.topics) is type(fetch.topics[0].partitions) is list


def test_responses_are_read_into_lists() -> None:
    topic = MetadataResponse.Topic(topic_id=UUID(int=1))
    response = MetadataResponse(topics=[topic] * 1000)

    assert type(read(MetadataResponse, 12, written(response, 12)).topics) is list
