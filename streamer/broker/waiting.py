"""Waiting for a partition to move: who waits, and who tells them.

A Produce with acks=all waits until what it wrote is flushed; a Fetch waits until
there is something to read. Both wait here, by subscription: nobody polls.

    moved(partition)  is called when its high watermark has moved, its log went
                      offline, or the topic is gone; it wakes all who wait for it

A waiter that wakes looks for itself whether that was what it waited for.
"""

import asyncio
from collections.abc import Iterable

from streamer.log.partition import Partition


class Watchers:
    def __init__(self) -> None:
        self._waiting: dict[Partition, set[asyncio.Future[bool]]] = {}

    def moved(self, partition: Partition) -> None:
        """Wake everybody who waits for `partition`."""
        for future in self._waiting.pop(partition, ()):
            if not future.done():
                future.set_result(True)

    async def wait(self, partitions: Iterable[Partition], seconds: float) -> bool:
        """Wait until one of `partitions` moves; False when the seconds are over first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        watched = list(partitions)
        for partition in watched:
            self._waiting.setdefault(partition, set()).add(future)
        timer = loop.call_later(seconds, _time_out, future)
        try:
            return await future
        finally:
            timer.cancel()
            for partition in watched:
                waiting = self._waiting.get(partition)
                if waiting is not None:
                    waiting.discard(future)
                    if not waiting:
                        del self._waiting[partition]


def _time_out(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
