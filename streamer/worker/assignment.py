"""Assignment: what happens when the group gives partitions, or takes them back.

    given    where each agent goes on, tables brought up to date, lanes opened, then read
    taken    lanes give out no more, handlers finish what is in hand, a last commit,
             and only then the partitions go back
    lost     nothing may be committed any more: what was done since is dropped

Changes are dealt with one after another in a task of its own, while the pump goes on
taking part in the group. A recovery under way is stopped by the next change; what it has
restored stays.

Positions are committed as who we were when the partitions were given. By the time of the
commit we may be somebody else in the group, with partitions that are others' by then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from streamer.client.interface import ClientError, Given, Position, Taken, TopicPartition
from streamer.worker.errors import WorkerFailed
from streamer.worker.positions import NOTE_BYTES_MAX, resumed

if TYPE_CHECKING:
    from streamer.worker.worker import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_S = 0.02


class Assignment:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._changes: asyncio.Queue[Given | Taken] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="state")
        # Set when a recovery is in vain: the group has decided anew, or the worker stops.
        self._in_vain = Event()
        # Partitions are on their way out: nothing is begun again.
        self._ending = False
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.membership: object = None
        # Given, and read as soon as their state is there.
        self.pending: frozenset[TopicPartition] = frozenset()
        self.settled = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="assignment")
        self._task.add_done_callback(self._worker.ended)

    async def stop(self) -> None:
        self._in_vain.set()
        if self._task is not None:
            task, self._task = self._task, None
            task.remove_done_callback(self._worker.ended)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # A recovery still writes to stores that are about to be closed.
        await asyncio.to_thread(self._threads.shutdown)

    def changed(self, changes: Sequence[Given | Taken]) -> None:
        """Called by the pump with what the group has decided."""
        self._worker.counters.rebalances += 1
        for change in changes:
            self._changes.put_nowait(change)
        self._in_vain.set()

    async def _run(self) -> None:
        while True:
            change = await self._changes.get()
            if isinstance(change, Given):
                await self._begin(change)
            else:
                await self._end(change)

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, step)

    # Given.

    async def _begin(self, given: Given) -> None:
        worker, partitions = self._worker, given.partitions
        self._in_vain = in_vain = Event()
        if not self._changes.empty():
            return  # the next change is waiting
        self.pending = frozenset(partitions)
        places = self._places(partitions)
        # Positions first: once they are told, no former owner can commit any more, and the
        # changelogs hold all that belongs to them.
        positions = await self._in_thread(lambda: self._positions(partitions))
        await self._in_thread(
            lambda: worker.patiently(lambda: worker.tables.open(places, in_vain))
        )
        async with worker.pump.owned:
            if not self._changes.empty():
                return
            self.partitions, self.pending = self.pending, frozenset()
            self.membership = given.membership
            worker.transaction.committed = dict(positions)
            worker.tables.show(places)
            self.read_from(positions)
        for crew in worker.crews:
            crew.partitions_changed(self.partitions)
        log.info("Working on %s.", named(self.partitions) or "no partition")
        self.settled.set()
        await worker.app.on_partitions_assigned.send(worker.app, set(self.partitions))
        await worker.app.on_rebalance_complete.send(worker.app)
        await self._in_thread(worker.tables.clean_up)

    def _places(self, partitions: Iterable[TopicPartition]) -> set[tuple[int, int]]:
        """Number of partitions of their topics, and number, of those that are whole.

        All topics of n partitions must give the same numbers: a table that is filled from
        two of them is in one place.
        """
        counts = self._worker.partition_counts
        numbers: dict[tuple[int, str], set[int]] = defaultdict(set)
        for topic, number in partitions:
            numbers[counts[topic], topic].add(number)
        by_count: dict[int, set[frozenset[int]]] = defaultdict(set)
        for topic, count in counts.items():
            by_count[count].add(frozenset(numbers.get((count, topic), set())))
        for count, found in by_count.items():
            if len(found) > 1 and self._worker.app.tables:
                topics = sorted(topic for topic, n in counts.items() if n == count)
                raise WorkerFailed(
                    f"The group has not given this worker the same partitions of"
                    f" {', '.join(topics)}, which have {count} each.",
                    remedy="All members of the group must be workers of this app, with the"
                    " same topics; stop those that are not.",
                )
        return {(counts[topic], number) for topic, number in partitions}

    def _positions(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Position]:
        """Where to go on: as committed, or where new apps begin."""
        worker = self._worker
        found = worker.patiently(lambda: worker.member.committed(partitions))
        new = [at for at in partitions if at not in found]
        if new:
            admin = worker.clients.admin
            latest = worker.conf.auto_offset_reset == "latest"
            ask = admin.end_offsets if latest else admin.first_offsets
            begins = worker.patiently(lambda: ask(new))
            found |= {at: Position(offset) for at, offset in begins.items()}
        return found

    def read_from(self, positions: Mapping[TopicPartition, Position]) -> None:
        """Open lanes and read, each agent from where it is."""
        worker = self._worker
        starts: dict[TopicPartition, int] = {}
        for at, position in positions.items():
            feeds = worker.feeds(at.topic)
            progress = resumed(position, [feed.name for feed in feeds])
            tables = worker.tables.at(worker.partition_counts[at.topic], at.partition)
            for feed in feeds:
                most = NOTE_BYTES_MAX // len(feeds)
                feed.add(at, progress[feed.name], tables, note_bytes_max=most)
            starts[at] = min(
                [one.offset for one in progress.values()], default=position.offset
            )
        worker.pump.forget_paused()
        worker.member.read(starts)

    # Taken.

    async def _end(self, change: Taken) -> None:
        worker = self._worker
        self.settled.clear()
        self._ending = True
        if self.partitions:
            if change.lost:
                log.warning("The group has gone on without this worker.")
                await self.drop()
            else:
                await self.finish()
            await worker.app.on_partitions_revoked.send(worker.app, set(self.partitions))
        self.partitions = self.pending = frozenset()
        for feed in worker.all_feeds():
            feed.clear()
        worker.tables.show([])
        worker.transaction.committed = {}
        self._ending = False
        if not change.lost:
            async with worker.pump.owned:
                worker.member.let_go()

    async def finish(self) -> None:
        """Let handlers finish what they have in hand, for a while, and commit."""
        worker = self._worker
        for feed in worker.all_feeds():
            feed.retire()
        until = time.monotonic() + worker.conf.drain_timeout_ms / 1000
        while any(feed.in_hand for feed in worker.all_feeds()):
            if time.monotonic() > until:
                log.info("Handlers that are not done by now are done again elsewhere.")
                break
            await asyncio.sleep(LOOK_S)
        for crew in worker.crews:
            await crew.stop()
        # Whoever waits here is cancelled when the worker stops. The commit is in a thread,
        # where nothing can stop it: it comes to its end before there is another.
        await asyncio.shield(asyncio.ensure_future(self._commit_the_last()))
        self._start_crews()

    async def _commit_the_last(self) -> None:
        worker = self._worker
        try:
            await worker.transaction.commit()
        except ClientError as error:
            log.warning("The last commit has failed: %s", error.problem)
        # What was acknowledged (`noack`) since that commit has not happened either.
        for feed in worker.all_feeds():
            feed.clear()
        worker.transaction.forget()

    async def drop(self) -> None:
        """What was done since the last commit has not happened."""
        for crew in self._worker.crews:
            await crew.stop()
        for feed in self._worker.all_feeds():
            feed.clear()
        await self._worker.transaction.abandon()
        self._start_crews()

    def _start_crews(self) -> None:
        for feed in self._worker.all_feeds():
            feed.clear()
        if not self._worker.stopping:
            for crew in self._worker.crews:
                crew.start()

    async def reread(self) -> None:
        """After an abort: everything since the last commit is read again."""
        worker = self._worker
        for crew in worker.crews:
            await crew.stop()
        # Not before: they have gone on until now, and what they did has not happened. Lanes
        # go in the same moment, or what is acknowledged in between would count.
        for feed in worker.all_feeds():
            feed.clear()
        worker.transaction.forget()
        async with worker.pump.owned:
            # How far they were counts no more, neither for the last commit of a revoke.
            for feed in worker.all_feeds():
                feed.clear()
            if self._ending or worker.stopping:
                return  # it is read again by whoever has the partitions next
            if self.partitions:
                self.read_from(worker.transaction.committed)
            for crew in worker.crews:
                crew.start()
                crew.partitions_changed(self.partitions)


def named(partitions: Iterable[TopicPartition]) -> str:
    """Briefly: `orders 0-3, clicks 1`."""
    by_topic: dict[str, list[int]] = defaultdict(list)
    for topic, number in sorted(partitions):
        by_topic[topic].append(number)
    return ", ".join(f"{topic} {_ranges(numbers)}" for topic, numbers in by_topic.items())


def _ranges(numbers: list[int]) -> str:
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return "+".join(f"{one}-{two}" if two > one else str(one) for one, two in found)
