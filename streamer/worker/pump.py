"""Pump: fetches records and hands them to the feeds, no faster than they are handled.

The consumer has one owner at a time: it does one thing at a time, and the loop would stand
still while a thread is in a call. While there is data, the loop itself takes what has
arrived, between the batches that agents handle; when there is none, a thread waits for the
first record and wakes the loop. So a record costs no hand-over between threads, and an
idle worker costs nothing.

What agents have not begun stays small: the pump waits until somebody is hungry, and a
partition whose lane is full is paused, while the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from streamer.client.interface import Message, NotAMember, Position, TopicPartition
from streamer.conf import AT_MOST_ONCE

if TYPE_CHECKING:
    from streamer.worker.worker import Worker

log = logging.getLogger(__name__)

BATCH = 1000
# Longer than that the consumer is not left alone: it must take part in its group.
WAIT_S = 0.2
BRIEFLY_S = 0.02
ROOM_S = 0.02
# So often it looks where partitions end, for pages that show it.
LOOK_S = 0.1


class Pump:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._at_most_once = worker.conf.guarantee == AT_MOST_ONCE
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="poll")
        self._hungry = asyncio.Event()
        self._paused: set[TopicPartition] = set()
        # Held while records are fetched and handed out, and by whoever else calls the
        # consumer. Whoever changes what is read needs it for another reason too: else
        # records fetched before that would come to lanes opened after it.
        self.owned = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        # Nothing more had arrived when it last looked.
        self.dry = False
        self.turned_at = time.monotonic()
        # First offset and end of what is read, as they were a moment ago.
        self.watermarks: Mapping[TopicPartition, tuple[int, int]] = {}
        self._looked_at = 0.0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pump")
        self._task.add_done_callback(self._worker.ended)

    async def stop(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.remove_done_callback(self._worker.ended)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._threads.shutdown(wait=True)

    def hungry(self) -> None:
        """An actor has nothing to do."""
        self._hungry.set()
        self._worker.transaction.touched()

    def forget_paused(self) -> None:
        """Partitions were assigned anew; none is paused."""
        self._paused.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        member = self._worker.member
        while True:
            async with self.owned:
                found = member.consume(BATCH, 0)
                if time.monotonic() - self._looked_at > LOOK_S:
                    self._look()
                if not found:
                    self.dry = True
                    self._worker.transaction.touched()
                    found = await loop.run_in_executor(
                        self._threads, member.consume, 1, self._patience
                    )
                self.dry = False
                self.turned_at = time.monotonic()
                if changes := member.changes():
                    self._worker.assignment.changed(changes)
                if found:
                    await self._hand_out(found)
            await self._room()

    def _look(self) -> None:
        worker, self._looked_at = self._worker, time.monotonic()
        self.watermarks = worker.member.watermarks(worker.assignment.partitions)

    @property
    def _patience(self) -> float:
        """How long to wait for a record. Whatever else is asked of the consumer comes after
        that, so it is short while partitions come and go, or wait to be resumed."""
        is_quiet = self._worker.assignment.settled.is_set() and not self._paused
        return WAIT_S if is_quiet else BRIEFLY_S

    async def _hand_out(self, found: Sequence[Message]) -> None:
        worker = self._worker
        if self._at_most_once and not await self._commit_first(found):
            return
        for at, messages in by_partition(found):
            worker.counters.records[at.topic] += len(messages)
            feeds = worker.feeds(at.topic)
            for feed in feeds:
                # Each lane cuts its own list.
                feed.offer(at, messages if len(feeds) == 1 else messages[:])
        worker.counters.batches += 1

    async def commit(self, positions: Mapping[TopicPartition, Position]) -> None:
        """Have the group go on from these. It may take as long as the broker is away."""
        async with self.owned:
            await asyncio.get_running_loop().run_in_executor(
                self._threads, self._worker.member.commit, positions
            )

    async def _commit_first(self, found: Sequence[Message]) -> bool:
        """At most once: done before they are begun. False if they are ours no more."""
        positions = {
            at: Position(messages[-1].offset() + 1) for at, messages in by_partition(found)
        }
        worker, loop = self._worker, asyncio.get_running_loop()
        try:
            await loop.run_in_executor(
                self._threads,
                lambda: worker.patiently(lambda: worker.member.commit(positions)),
            )
        except NotAMember as error:
            log.info("Left to those who have the partitions now: %s", error.problem)
            return False
        worker.transaction.committed |= positions
        return True

    async def _room(self) -> None:
        """Let agents work, until somebody needs more."""
        await asyncio.sleep(0)
        self._balance()
        worker = self._worker
        if worker.waiting < BATCH or any(feed.starving for feed in worker.all_feeds()):
            return
        self._hungry.clear()
        if worker.waiting >= BATCH:
            try:
                async with asyncio.timeout(ROOM_S):
                    await self._hungry.wait()
            except TimeoutError:
                pass

    def _balance(self) -> None:
        """Pause partitions with too much waiting; resume those that have got on."""
        most = self._worker.conf.buffered_records_per_partition
        if not self._paused and self._worker.waiting < most:
            return
        waiting = self._worker.waiting_by_partition()
        full = {at for at, count in waiting.items() if count >= most} - self._paused
        empty = {at for at in self._paused if waiting.get(at, 0) <= most // 2}
        if full:
            self._worker.member.pause(list(full))
        if empty:
            self._worker.member.resume(list(empty))
        self._paused = (self._paused | full) - empty


def by_partition(
    found: Sequence[Message],
) -> list[tuple[TopicPartition, list[Message]]]:
    """The records of each partition; they mostly come in long rows of one."""
    kind = type(found[0])
    # Methods of the class, not of each record: in C from end to end.
    numbers, topics = list(map(kind.partition, found)), list(map(kind.topic, found))
    number, topic, count = numbers[0], topics[0], len(found)
    if numbers.count(number) == count and topics.count(topic) == count:
        return [(TopicPartition(topic, number), list(found))]
    rows: list[tuple[TopicPartition, list[Message]]] = []
    begin = 0
    for end in range(1, count + 1):
        if end == count or numbers[end] != number or topics[end] != topic:
            rows.append((TopicPartition(topic, number), list(found[begin:end])))
            if end < count:
                begin, number, topic = end, numbers[end], topics[end]
    return rows
