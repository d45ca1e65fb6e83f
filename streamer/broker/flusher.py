"""Flushing: the one place where the broker waits for the disk.

    append → flush(partition) → its files are synced → the high watermark moves

The partition says what has to be synced and up to where that will be safe (`begin_flush`).
At most one flush runs for a partition; all that is appended meanwhile is covered by the
next one, so a hundred producers share a sync (group commit).

Syncs run in up to eight threads, which do nothing but wait in the kernel. But handing a
sync to a thread and back costs more than the sync itself where the disk is quick, as most
are today. So when one partition alone is to be flushed, nothing else is under way, and the
disk has been quick of late, the loop waits for it on the spot; but not for more than a
quarter of its time, or else requests would queue up behind syncs that could be shared. One
slow sync, and the threads have it again, until they have found the disk quick for a while.

A journal shared by all partitions would go in here, under `flush`, unseen by others.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable

from streamer.log.flushing import Flush
from streamer.log.partition import Partition

THREADS = 8
# The loop may wait this long itself: about what it costs to have a thread do so.
QUICK_SECONDS = 0.0004
# And afterwards it goes without for so many times as long.
REST = 3
# How much the latest sync counts in what is expected of the next one.
WEIGHT = 0.05


class Flusher:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        monotonic: Callable[[], float],
        on_moved: Callable[[Partition], None],
        on_failed: Callable[[Partition, OSError], None],
    ) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._on_moved = on_moved
        self._on_failed = on_failed
        self._asked: dict[Partition, None] = {}
        self._jobs: queue.SimpleQueue[tuple[Partition, Flush] | None] = queue.SimpleQueue()
        self._done: deque[tuple[Partition, Flush, float, OSError | None]] = deque()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._expected_seconds = 1.0
        self._rests_until = 0.0
        self._closed = False

    def flush(self, partition: Partition) -> None:
        """See to it that what `partition` holds now gets flushed."""
        # All that arrives in one turn of the loop is looked at together, at its end.
        if not self._asked:
            self._loop.call_soon(self._begin)
        self._asked[partition] = None

    def close(self) -> None:
        """End the threads; flushes that were begun are carried out first."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._finish()

    def _begin(self) -> None:
        asked, self._asked = self._asked, {}
        if self._closed:
            return
        here = (
            len(asked) == 1
            and self._running == 0
            and self._expected_seconds < QUICK_SECONDS
            and self._monotonic() >= self._rests_until
        )
        for partition in asked:
            if (job := partition.begin_flush()) is None:
                # Nothing to do, or one is running and another will follow. If there will
                # be no other, who waits for it has to be told.
                if partition.offline is not None:
                    self._on_moved(partition)
                continue
            if here:
                self._running += 1
                took = self._work(partition, job)
                self._rests_until = self._monotonic() + REST * took
                self._finish()
            else:
                self._hand_over(partition, job)

    def _hand_over(self, partition: Partition, job: Flush) -> None:
        self._running += 1
        if self._running > len(self._threads) and len(self._threads) < THREADS:
            thread = threading.Thread(
                target=self._work_on, name=f"flusher-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._jobs.put((partition, job))

    def _work_on(self) -> None:
        """A thread's life."""
        while (work := self._jobs.get()) is not None:
            self._work(*work)
            try:
                self._loop.call_soon_threadsafe(self._finish)
            except RuntimeError:  # the loop has ended; close() finishes what is left
                pass

    def _work(self, partition: Partition, job: Flush) -> float:
        error = None
        began = self._monotonic()
        try:
            job.run()
        except OSError as caught:
            error = caught
        seconds = self._monotonic() - began
        self._done.append((partition, job, seconds, error))
        return seconds

    def _finish(self) -> None:
        """What follows from a sync, on the loop."""
        while self._done:
            partition, job, seconds, error = self._done.popleft()
            self._running -= 1
            self._expect(seconds)
            if error is None:
                partition.flushed(job)
                self._on_moved(partition)
                # What came while it was synced; once closed, the partition sees to it.
                if not self._closed and (more := partition.begin_flush()) is not None:
                    self._hand_over(partition, more)
            else:
                partition.flush_failed(job, error)
                self._on_failed(partition, error)

    def _expect(self, seconds: float) -> None:
        if seconds > 10 * QUICK_SECONDS:
            self._expected_seconds = seconds
        else:
            self._expected_seconds += WEIGHT * (seconds - self._expected_seconds)
