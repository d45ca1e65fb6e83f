"""The catalogue: changes that meet, changes that fail, and what a restart finds."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.batches import batch
from support.core import running_broker
from support.disk import SimulatedDisk

from streamer.broker.catalog import (
    PRODUCER_ID_BLOCK,
    Catalog,
    NotWritten,
    TopicExists,
    TopicGone,
    TopicHasGrown,
    invalid_name,
)
from streamer.broker.core import Broker
from streamer.log.partition import Partition

DATA = Path("/data")


class LateDisk:
    """Syncs of the journal end late, and the latest of them first."""

    def __init__(self, catalog: Catalog) -> None:
        self._waiting: list[asyncio.Event] = []
        catalog._in_thread = self.in_thread

    async def in_thread(self, job: Callable[[], None]) -> None:
        job()
        event = asyncio.Event()
        self._waiting.append(event)
        await event.wait()

    async def all(self, *changes: Awaitable[Any]) -> list[Any]:
        """What comes of changes that are begun at once."""
        together = asyncio.gather(*changes, return_exceptions=True)
        while not together.done():
            for _ in range(5):
                await asyncio.sleep(0)
            if self._waiting:
                self._waiting.pop().set()
        return together.result()


def fill(partition: Partition, count: int) -> None:
    for _ in range(count):
        partition.append(batch([b"v"], timestamp=0), now_ms=0)
    flush = partition.begin_flush()
    assert flush is not None
    flush.run()
    partition.flushed(flush)


def described(broker: Broker) -> dict[str, tuple[object, ...]]:
    return {
        name: (topic.id, topic.overrides, [one.offline for one in topic.partitions])
        for name, topic in broker.catalog.topics.items()
    }


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "ü", "a/b", "a" * 250, "a\n"])
def test_some_names_are_no_names_for_topics(name: str) -> None:
    assert invalid_name(name)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "a" * 249])
def test_all_other_names_are(name: str) -> None:
    assert invalid_name(name) is None


async def test_changes_that_meet_leave_what_a_restart_finds() -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        catalog = broker.catalog
        topic = await catalog.create("t", 1, {})
        late = LateDisk(catalog)

        results = await late.all(
            catalog.add_partitions(topic, 7),
            catalog.alter_topic(topic, lambda now: {**now, "retention.ms": "1"}),
            catalog.alter_topic(topic, lambda now: {**now, "segment.ms": "2"}),
            catalog.alter_broker("", lambda now: {**now, "log.retention.ms": "3"}),
            catalog.alter_broker("1", lambda now: {**now, "log.roll.ms": "4"}),
        )
        assert results == [None] * 5
        before = described(broker)
    async with running_broker(DATA, disk=disk) as broker:
        assert described(broker) == before
        assert before["t"][1:] == ({"retention.ms": "1", "segment.ms": "2"}, [None] * 7)
        assert broker.config.number("log.retention.ms") == 3
        assert broker.config.number("log.roll.ms") == 4


async def test_the_smaller_of_two_numbers_of_partitions_changes_nothing(
    broker: Broker,
) -> None:
    topic = broker.catalog.topics["t"]
    late = LateDisk(broker.catalog)

    results = await late.all(
        broker.catalog.add_partitions(topic, 7),
        broker.catalog.add_partitions(topic, 5),
    )

    assert isinstance(results[1], TopicHasGrown)
    assert len(topic.partitions) == 7


async def test_a_topic_made_anew_while_the_old_one_is_deleted_is_not_deleted(
    broker: Broker,
) -> None:
    old = broker.catalog.topics["t"]
    late = LateDisk(broker.catalog)

    _, new = await late.all(broker.catalog.delete(old), broker.catalog.create("t", 1, {}))

    assert broker.catalog.topics["t"] is new
    assert new.partitions[0].offline is None
    assert new.partitions[0].path.exists()
    assert list(broker.directory.partitions()) == new.partitions


async def test_a_deleted_topic_does_not_come_back_by_changes_that_were_under_way(
    broker: Broker,
) -> None:
    topic = broker.catalog.topics["t"]
    late = LateDisk(broker.catalog)

    results = await late.all(
        broker.catalog.delete(topic),
        broker.catalog.add_partitions(topic, 2),
        broker.catalog.alter_topic(topic, lambda now: {"retention.ms": "1"}),
        broker.catalog.delete(topic),
    )

    assert [type(one) for one in results] == [list, *[TopicGone] * 3]
    assert broker.catalog.topics == {}
    assert broker.catalog.by_id(topic.id) is None


async def test_of_two_who_create_a_topic_one_does(broker: Broker) -> None:
    late = LateDisk(broker.catalog)

    results = await late.all(
        broker.catalog.create("u", 1, {}),
        broker.catalog.create("u", 2, {}),
    )

    assert isinstance(results[1], TopicExists)
    assert len(broker.catalog.topics["u"].partitions) == 1


async def test_what_the_disk_does_not_take_has_not_happened() -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        topic = await broker.catalog.create("t", 1, {})
        before = described(broker)

        disk.fail("write", errno.ENOSPC, name="catalog")
        for change in (
            lambda: broker.catalog.create("u", 1, {}),
            lambda: broker.catalog.add_partitions(topic, 2),
            lambda: broker.catalog.alter_topic(topic, lambda now: {"retention.ms": "1"}),
            lambda: broker.catalog.alter_broker("", lambda now: {"log.roll.ms": "1"}),
            lambda: broker.catalog.delete(topic),
            broker.catalog.next_producer_id,
        ):
            with pytest.raises(NotWritten):
                await change()

        assert described(broker) == before
        assert broker.config.number("log.roll.ms") != 1


async def test_changes_that_wait_for_their_turn_at_a_stop_are_not_begun() -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        topic = await broker.catalog.create("t", 1, {})
        before = described(broker)
        # The first has its turn, and is at the disk when the broker stops.
        first = asyncio.create_task(broker.catalog.alter_topic(topic, lambda now: now))
        others = [
            asyncio.create_task(change)
            for change in (
                broker.catalog.create("u", 1, {}),
                broker.catalog.add_partitions(topic, 2),
                broker.catalog.alter_broker("", lambda now: {"log.roll.ms": "1"}),
                broker.catalog.delete(topic),
                broker.catalog.next_producer_id(),
            )
        ]
        await asyncio.sleep(0)

    await first
    found = await asyncio.gather(*others, return_exceptions=True)
    assert [type(one) for one in found] == [NotWritten] * len(others)
    assert "The broker has stopped." in str(found[0])
    assert not [name for name in disk.list(DATA) if name.startswith("u-")]
    async with running_broker(DATA, disk=disk) as broker:
        assert described(broker) == before


async def test_what_is_noted_for_a_change_at_a_stop_is_noted_and_the_change_is_not() -> (
    None
):
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        old = await broker.catalog.create("t", 1, {})
        fill(old.partitions[0], 5)
        await broker.checkpoint()
        await broker.catalog.delete(old)
        # That the old one is gone is being noted, before the new one is written down.
        change = asyncio.create_task(broker.catalog.create("t", 1, {}))
        await asyncio.sleep(0)

    with pytest.raises(NotWritten, match="has stopped"):
        await change
    async with running_broker(DATA, disk=disk) as broker:
        assert described(broker) == {}


async def test_who_waits_to_note_something_at_a_stop_notes_nothing() -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        topic = await broker.catalog.create("t", 1, {})
        gone = await broker.catalog.create("gone", 1, {})
        for partition in (*topic.partitions, *gone.partitions):
            fill(partition, 5)
        await broker.checkpoint()
        await broker.catalog.delete(gone)
        changes = [
            asyncio.create_task(change)
            for change in (
                broker.delete_records({topic.partitions[0]: 2}),
                broker.delete_records({topic.partitions[0]: 3}),
                broker.catalog.create("gone", 1, {}),
            )
        ]
        await asyncio.sleep(0)

    _, *others = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(one) for one in others] == [NotWritten, NotWritten]
    async with running_broker(DATA, disk=disk) as broker:
        assert list(broker.catalog.topics) == ["t"]


async def test_after_a_failed_sync_no_change_that_waits_tries_another() -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        disk.fail("sync", errno.EIO, name="catalog")
        changes = [broker.catalog.create(name, 1, {}) for name in ("a", "b")]
        first, second = await asyncio.gather(*changes, return_exceptions=True)

        assert "failed" in str(first)
        assert isinstance(second, NotWritten)
        assert "offline" in str(second)


async def test_producer_ids_are_never_given_twice() -> None:
    disk = SimulatedDisk()
    given: list[int] = []
    for _ in range(2):
        async with running_broker(DATA, disk=disk) as broker:
            late = LateDisk(broker.catalog)
            given += await late.all(
                *[broker.catalog.next_producer_id() for _ in range(PRODUCER_ID_BLOCK + 5)]
            )

    assert len(set(given)) == len(given)


async def test_a_deletion_that_a_crash_cut_short_is_finished_by_the_next_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        topic = await broker.catalog.create("t", 2, {})
        await broker.catalog.create("kept", 1, {})
        # kill -9 once the deletion is written down, and nothing else is done.
        broker.directory.delete_partition = lambda partition: None  # type: ignore[method-assign]
        await broker.catalog.delete(topic)
        assert disk.exists(DATA / "t-1")

    async with running_broker(DATA, disk=disk) as broker:
        assert list(broker.catalog.topics) == ["kept"]
        await broker.checkpoint()
        left = [name for name in disk.list(DATA) if name.startswith(("t-", "kept-"))]
        assert left == ["kept-0"]
    assert "set aside" not in caplog.text


async def test_a_topic_is_deleted_though_its_folders_cannot_be_moved_away_yet() -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        topic = await broker.catalog.create("t", 2, {})
        disk.fail("rename", errno.EIO, name="t-0")
        await broker.catalog.delete(topic)
        assert list(broker.directory.partitions()) == []
        disk.heal()

    async with running_broker(DATA, disk=disk) as broker:
        await broker.checkpoint()
        assert [name for name in disk.list(DATA) if name.startswith("t-")] == []


async def test_a_topic_made_anew_does_not_inherit_what_was_deleted_from_the_old_one() -> (
    None
):
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        old = await broker.catalog.create("t", 1, {})
        fill(old.partitions[0], 5)
        await broker.checkpoint()
        await broker.delete_records({old.partitions[0]: 2})
        await broker.catalog.delete(old)
        new = await broker.catalog.create("t", 1, {})
        fill(new.partitions[0], 3)
        killed = disk.files()

    disk = SimulatedDisk()
    for path, data in killed.items():
        disk.replace(path, data)
    async with running_broker(DATA, disk=disk) as broker:
        partition = broker.catalog.topics["t"].partitions[0]
        assert (partition.log_start, partition.end) == (0, 3)


async def test_the_starts_are_counted_and_strangers_are_set_aside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = SimulatedDisk()
    async with running_broker(DATA, disk=disk) as broker:
        await broker.catalog.create("t", 1, {})
        assert broker.catalog.starts == 1
    disk.make_dir(DATA / "stranger-0")

    async with running_broker(DATA, disk=disk) as broker:
        assert broker.catalog.starts == 2
        assert list(broker.catalog.topics) == ["t"]
    assert "stranger-0" in caplog.text
    assert not disk.exists(DATA / "stranger-0")
