"""What a coordinator writes: safe before it counts, and there again after a restart."""

import asyncio
from pathlib import Path

import pytest
from support.core import running_broker

from streamer.broker.catalog import NotWritten
from streamer.broker.core import Broker
from streamer.broker.names import Producer
from streamer.broker.state_log import StateLog
from streamer.log.disk import RealDisk
from streamer.wire.batch import Marker
from streamer.wire.record import Record

TOPIC = "__consumer_offsets"


def state_log(broker: Broker, partitions: int = 1) -> StateLog:
    return StateLog(broker, TOPIC, partitions=partitions, configs={})


def record(key: bytes, value: bytes | None) -> Record:
    return Record(timestamp=1_700_000_000_000, key=key, value=value)


async def test_what_was_appended_is_replayed_after_a_restart(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        log = state_log(broker)
        await log.append("shop", [record(b"a", b"1"), record(b"b", None)])
        await log.append("shop", [record(b"a", b"2")], producer=Producer(7, 3))
        partition = await log.partition(0)
        partition.append_marker(
            7, 3, Marker(commit=True, coordinator_epoch=1), now_ms=broker.clock.now_ms()
        )

    async with running_broker(tmp_path) as broker:
        replayed = [one for _, one in state_log(broker).replay()]

    assert [[(r.offset, r.key, r.value) for r in one.records] for one in replayed] == [
        [(0, b"a", b"1"), (1, b"b", None)],
        [(2, b"a", b"2")],
        [],
    ]
    assert [(one.header.producer_id, one.header.producer_epoch) for one in replayed] == [
        (-1, -1),
        (7, 3),
        (7, 3),
    ]
    assert replayed[2].marker == Marker(commit=True, coordinator_epoch=1)


async def test_the_topic_is_compacted_and_made_at_the_first_write(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        log = state_log(broker, partitions=3)
        assert list(log.replay()) == []
        assert TOPIC not in broker.catalog.topics

        await asyncio.gather(*(log.append(k, [record(b"k", b"v")]) for k in ("a", "b")))

        topic = broker.catalog.topics[TOPIC]
        assert len(topic.partitions) == 3
        assert topic.config.compact


async def test_append_returns_once_the_record_is_below_the_high_watermark(
    tmp_path: Path,
) -> None:
    async with running_broker(tmp_path) as broker:
        log = state_log(broker)
        partition = await log.partition(0)
        seen: list[tuple[int, int]] = []

        await log.append(
            "shop",
            [record(b"a", b"1")],
            on_appended=lambda offset: seen.append((offset, partition.high_watermark)),
        )

        assert seen == [(0, 0)]  # told before it was safe
        assert partition.high_watermark == 1


async def test_what_is_written_without_hurry_is_safe_a_moment_later(
    tmp_path: Path,
) -> None:
    async with running_broker(tmp_path) as broker:
        log = state_log(broker)
        partition = await log.partition(0)

        await log.append_unhurried("shop", [record(b"a", b"1")])

        assert (partition.end, partition.high_watermark) == (1, 0)
        async with asyncio.timeout(5):
            await broker.flushed(partition, 0)


async def test_writers_go_on_in_the_order_of_the_log(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        log = state_log(broker)
        await log.partition(0)
        went_on: list[int] = []

        async def write(number: int) -> None:
            await log.append("shop", [record(b"a", b"%d" % number)])
            went_on.append(number)

        await asyncio.gather(*map(write, range(20)))

    assert went_on == list(range(20))


class DiskWithoutSync(RealDisk):
    """Every sync of a log file fails."""

    def sync_file(self, path: Path) -> None:
        if path.suffix == ".log":
            raise OSError(5, "Input/output error")
        super().sync_file(path)


async def test_a_failed_sync_is_an_error_for_the_writer(tmp_path: Path) -> None:
    async with running_broker(tmp_path, disk=DiskWithoutSync()) as broker:
        log = state_log(broker)

        with pytest.raises(NotWritten, match="Input/output"):
            await log.append("shop", [record(b"a", b"1")])
        with pytest.raises(NotWritten):
            await log.append("shop", [record(b"a", b"2")])


async def test_a_log_that_cannot_be_read_says_so_and_takes_no_more(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        log = state_log(broker)
        for value in (b"1", b"2"):
            await log.append("shop", [record(b"a", value * 50)])
        [segment] = (await log.partition(0)).path.glob("*.log")
    damaged = bytearray(segment.read_bytes())
    damaged[100] ^= 1
    segment.write_bytes(damaged)

    async with running_broker(tmp_path) as broker:
        log = state_log(broker)
        assert list(log.replay()) == []
        assert log.problem is not None
        assert str(segment.parent) in log.problem
        with pytest.raises(NotWritten, match="cannot be read"):
            await log.append("shop", [record(b"a", b"3")])


@pytest.mark.parametrize(
    ("key", "partition"),
    [("shop", 12), ("", 0), ("polygenelubricants", 0), ("größe😀", 14)],
)
async def test_a_key_is_where_apache_kafka_would_put_it(
    key: str, partition: int, tmp_path: Path
) -> None:
    async with running_broker(tmp_path) as broker:
        assert state_log(broker, partitions=50).partition_of(key) == partition
