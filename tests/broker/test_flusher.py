"""The flusher: what one sync covers, where it is waited for, and how it ends."""

import asyncio
import threading
from typing import Any, cast

from streamer.broker.flusher import Flusher
from streamer.log.partition import Partition


class Job:
    """A flush that notes who carried it out, and fails if it is told to."""

    def __init__(self, of: "Log") -> None:
        self.of = of

    def run(self) -> None:
        self.of.let_go.wait(5)
        self.of.threads.append(threading.current_thread().name)
        if self.of.error is not None:
            raise self.of.error


class Log:
    """A partition, as far as a flusher knows it."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error = error
        self.let_go = threading.Event()
        self.let_go.set()
        self.threads: list[str] = []
        self.unflushed = 0
        self.running: Job | None = None
        self.offline: str | None = None

    def append(self, flusher: Flusher) -> None:
        self.unflushed += 1
        flusher.flush(cast(Partition, self))

    def begin_flush(self) -> Job | None:
        if self.offline or self.running is not None or not self.unflushed:
            return None
        self.unflushed, self.running = 0, Job(self)
        return self.running

    def flushed(self, job: Job) -> None:
        self.running = None

    flush_failed = cast(Any, lambda self, job, error: None)


class Told:
    """What a flusher has told, and a flusher that tells it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.flushed: list[Any] = []
        self.failed: list[Any] = []
        self.event = asyncio.Event()
        self._now, self.seconds = 0.0, seconds
        self.flusher = Flusher(
            asyncio.get_running_loop(),
            monotonic=self._monotonic,
            on_moved=self._on_moved,
            on_failed=self._on_failed,
        )

    def _monotonic(self) -> float:
        self._now += self.seconds
        return self._now

    def _on_moved(self, partition: Partition) -> None:
        self.flushed.append(partition)
        self.event.set()

    def _on_failed(self, partition: Partition, error: OSError) -> None:
        self.failed.append((partition, error))
        self.event.set()

    async def something(self) -> None:
        self.event.clear()
        async with asyncio.timeout(5):
            await self.event.wait()


async def test_a_sync_covers_all_before_it_and_the_next_what_came_meanwhile() -> None:
    told, log = Told(), Log()
    log.let_go.clear()
    for _ in range(10):
        log.append(told.flusher)
    await asyncio.sleep(0.01)
    for _ in range(10):
        log.append(told.flusher)

    log.let_go.set()
    while len(told.flushed) < 2:
        await told.something()

    assert len(log.threads) == 2
    assert log.unflushed == 0
    told.flusher.close()


async def test_a_failed_sync_is_told_and_no_other_follows() -> None:
    error = OSError(5, "Input/output error")
    told, log = Told(), Log(error)

    log.append(told.flusher)
    await told.something()
    log.append(told.flusher)
    await asyncio.sleep(0.01)

    assert told.failed == [(log, error)]
    assert len(log.threads) == 1
    told.flusher.close()


async def test_a_quick_disk_is_waited_for_on_the_spot_and_a_slow_one_in_threads() -> None:
    quick, slow = Told(), Told(seconds=0.01)
    for told in (quick, slow):
        log = Log()
        for _ in range(200):
            log.append(told.flusher)
            await told.something()
        told.flusher.close()
        told.flushed = [log]

    assert quick.flushed[0].threads[-1] == "MainThread"
    assert set(slow.flushed[0].threads) == {"flusher-0"}


async def test_one_slow_sync_gives_the_disk_back_to_the_threads_for_a_while() -> None:
    told, log = Told(), Log()
    for seconds, times in ((0.0, 200), (0.04, 1), (0.0, 50)):
        told.seconds = seconds
        for _ in range(times):
            log.append(told.flusher)
            await told.something()

    assert log.threads[200] == "MainThread", "it was quick until then"
    assert set(log.threads[201:]) == {"flusher-0"}
    told.flusher.close()


async def test_after_a_sync_the_loop_leaves_the_disk_to_threads_for_a_while() -> None:
    told, log = Told(seconds=0.0001), Log()

    for _ in range(400):
        log.append(told.flusher)
        await told.something()
    told.flusher.close()

    # Each look at this clock takes as long as a sync; three of them are a rest.
    assert log.threads[-100:].count("MainThread") == 50


async def test_a_flush_that_was_begun_is_carried_out_when_the_broker_stops() -> None:
    told, log = Told(), Log()
    log.append(told.flusher)
    await asyncio.sleep(0)

    told.flusher.close()
    log.append(told.flusher)
    await asyncio.sleep(0)

    assert told.flushed == [log]
    assert len(log.threads) == 1


async def test_who_waits_is_told_when_a_partition_goes_offline_before_its_flush() -> None:
    told, log = Told(), Log()

    log.append(told.flusher)
    log.offline = "the next write could not be taken back"
    await told.something()

    assert told.flushed == [log]
    told.flusher.close()
