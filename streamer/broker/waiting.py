"""Waiting for a partition to move: who waits, and who tells them.

A Produce with acks=all waits until what it wrote is flushed; a Fetch waits until there is
something to read. Their handlers answer with a `Waiting`, which knows what it waits for:

    look()   a partition has moved: the answer, or the same Waiting if it is not yet time
    late()   the deadline has come: the answer all the same

`Watchers.moved` is called when a high watermark has moved, a log went offline, or a topic
is gone. Nobody polls, and no task is made for a wait: there are thousands of them a second.
Handlers that are coroutines anyway await `next_move` instead (`Broker.flushed`).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any

from streamer.log.partition import Partition


class Waiting(ABC):
    """A request that cannot be answered yet."""

    __slots__ = ()

    partitions: Collection[Partition]
    deadline: float
    """On the monotonic clock."""

    @abstractmethod
    def look(self) -> Any: ...

    @abstractmethod
    def late(self) -> Any: ...


class Watch:
    """One who waits; `wake(in_time)` is called until `cancel` is."""

    __slots__ = ("_partitions", "_timer", "_watchers", "wake")

    def __init__(
        self,
        watchers: "Watchers",
        waiting: Waiting,
        seconds: float,
        wake: Callable[[bool], None],
    ) -> None:
        self.wake = wake
        self._watchers = watchers
        self._partitions = waiting.partitions
        self._timer = asyncio.get_running_loop().call_later(seconds, wake, False)
        for partition in self._partitions:
            watchers.watching.setdefault(partition, set()).add(self)

    def cancel(self) -> None:
        self._timer.cancel()
        watching = self._watchers.watching
        for partition in self._partitions:
            others = watching.get(partition)
            if others is not None:
                others.discard(self)
                if not others:
                    del watching[partition]


class Watchers:
    """All who wait, by the partitions they wait for."""

    def __init__(self) -> None:
        self.watching: dict[Partition, set[Watch]] = {}
        self._moves: dict[Partition, list[asyncio.Future[None]]] = {}

    def watch(
        self, waiting: Waiting, seconds: float, wake: Callable[[bool], None]
    ) -> Watch:
        """Call `wake(True)` whenever a partition moves, `wake(False)` when time is up."""
        return Watch(self, waiting, max(0.0, seconds), wake)

    def next_move(self, partition: Partition) -> asyncio.Future[None]:
        """Done when `partition` moves; those who asked first go on first."""
        move: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._moves.setdefault(partition, []).append(move)
        return move

    def wake_all(self) -> None:
        """The broker has stopped: nothing will move any more."""
        for partition in list(self._moves):
            self._go_on(partition)

    def moved(self, partition: Partition) -> None:
        self._go_on(partition)
        watching = self.watching.get(partition)
        if watching is not None:
            for watch in list(watching):
                watch.wake(True)

    def _go_on(self, partition: Partition) -> None:
        for move in self._moves.pop(partition, ()):
            if not move.done():  # nobody has given up on it
                move.set_result(None)
