"""Flushing: the one place where the broker waits for the disk.

    append → flush(partition) → a thread syncs its files → the high watermark moves

At most one flush runs for a partition; all that is appended meanwhile is covered by
the next one, so a hundred producers share a sync (group commit). The partition says
what has to be synced and up to where that will be safe (`begin_flush`); the threads
do nothing but wait in the kernel; what follows from it is decided on the loop again.

A journal shared by all partitions would go in here, under `flush`, unseen by others.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable

from streamer.log.partition import Flush, Partition

THREADS = 8


class Flusher:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_flushed: Callable[[Partition], None],
        on_failed: Callable[[Partition, OSError], None],
    ) -> None:
        self._loop = loop
        self._on_flushed = on_flushed
        self._on_failed = on_failed
        self._jobs: queue.SimpleQueue[tuple[Partition, Flush] | None] = queue.SimpleQueue()
        self._done: deque[tuple[Partition, Flush, OSError | None]] = deque()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._closed = False

    def flush(self, partition: Partition) -> None:
        """See to it that what `partition` holds now gets flushed."""
        if self._closed:
            return
        job = partition.begin_flush()
        if job is None:  # nothing to do, or one is running and another will follow
            return
        self._running += 1
        if self._running > len(self._threads) and len(self._threads) < THREADS:
            self._start_thread()
        self._jobs.put((partition, job))

    def close(self) -> None:
        """End the threads; flushes that were begun are carried out first."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._finish()

    def _start_thread(self) -> None:
        name = f"flusher-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            partition, job = work
            error = None
            try:
                job.run()
            except OSError as caught:
                error = caught
            self._done.append((partition, job, error))
            try:
                self._loop.call_soon_threadsafe(self._finish)
            except RuntimeError:  # the loop has ended; close() finishes what is left
                pass

    def _finish(self) -> None:
        while self._done:
            partition, job, error = self._done.popleft()
            self._running -= 1
            if error is None:
                partition.flushed(job)
                self._on_flushed(partition)
                self.flush(partition)
            else:
                partition.flush_failed(job, error)
                self._on_failed(partition, error)
