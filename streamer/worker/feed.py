"""From what was fetched to who processes it: lanes, and the feed of a subscriber.

    pump → Lane.offer        records of one partition, for one subscriber
    Feed.take → Run → actor  the next of them, from whichever lane has some
    actor: run.done += 1     the record is done
    Lane.progress → commit   the lowest that is not done, and what is done beyond it

A subscriber is an agent, or what forwards records for `group_by`. Several actors of one
agent take from one feed, so runs of a lane are done in any order. All of it is in memory
and belongs to the loop; nothing here waits for the network.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streamer.client.interface import Message, TopicPartition
from streamer.processing import Run
from streamer.state.table_partition import TablePartition
from streamer.worker.positions import NOTE_BYTES_MAX, RANGE_BYTES, Progress, note_bytes


class Lane:
    """One partition on its way to one subscriber."""

    def __init__(
        self,
        at: TopicPartition,
        progress: Progress,
        tables: Mapping[Any, TablePartition],
        now: Callable[[], float],
        *,
        note_bytes_max: int = NOTE_BYTES_MAX,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.at = at
        self.tables = tables
        self.waiting = 0
        self.waiting_since = 0.0
        self.taken = 0
        self._now = now
        self._wake = wake
        self._resumed = progress
        self._resumed_end = progress.ahead[-1][1] + 1 if progress.ahead else progress.offset
        self._next = progress.offset
        """Behind the last record offered."""
        self._chunks: deque[list[Message]] = deque()
        # Of the first chunk, so many have been taken.
        self._begun = 0
        self._under_way: deque[Run] = deque()
        # Going through all that is under way costs: not for each record.
        self._note_bytes_max = note_bytes_max
        self._look_again_at = note_bytes_max // RANGE_BYTES
        self._held_up = False
        self._ranges_ahead: list[tuple[int, int]] = list(progress.ahead)
        self._retired = False

    def offer(self, messages: list[Message]) -> None:
        """These have been fetched. Those done before are left out."""
        if self._retired:
            return
        first, behind = messages[0].offset(), messages[-1].offset() + 1
        if first < self._next or first < self._resumed_end:
            messages = [one for one in messages if self._is_new(one.offset())]
        self._next = max(self._next, behind)
        if not messages:
            return
        if not self.waiting:
            self.waiting_since = self._now()
        self._chunks.append(messages)
        self.waiting += len(messages)

    def _is_new(self, offset: int) -> bool:
        return offset >= self._next and not self._resumed.has_done(offset)

    @property
    def held_up(self) -> bool:
        """So much is done beyond the lowest that no more can be noted."""
        if len(self._under_way) < self._look_again_at:
            return False
        self._settle()
        self._put_together()
        room = self._note_bytes_max - note_bytes(self.progress())
        # Each further run can add one range to the note.
        self._look_again_at = len(self._under_way) + max(0, room) // RANGE_BYTES
        self._held_up = room < RANGE_BYTES
        return self._held_up

    def eased(self) -> None:
        """A record was done by somebody who does not come for the next one."""
        if self._held_up:
            self._wake()

    def take(self, limit: int) -> Run:
        return self._begin(self._next_chunk(limit))

    def take_all(self, limit: int) -> Run:
        """Like `take`, but over the borders of what was fetched at once."""
        found: list[Message] = []
        while self._chunks and len(found) < limit:
            found += self._next_chunk(limit - len(found))
        return self._begin(found, whole=True)

    def _next_chunk(self, limit: int) -> list[Message]:
        chunk, begin = self._chunks[0], self._begun
        if begin + limit < len(chunk):
            self._begun = begin + limit
            return chunk[begin : self._begun]
        self._chunks.popleft()
        self._begun = 0
        return chunk[begin:] if begin else chunk

    def _begin(self, messages: list[Message], *, whole: bool = False) -> Run:
        self.waiting -= len(messages)
        self.waiting_since = self._now()
        run = Run(messages, self.tables, self, whole=whole)
        run.since = self.waiting_since
        self.taken += len(messages)
        self._under_way.append(run)
        # Records that are done go at once: a second of them would be hundreds of MiB. Not
        # before this run is among them: the lane would seem to be idle.
        self._settle()
        return run

    def progress(self) -> Progress:
        """The next to be done, and what is done beyond it."""
        self._settle()
        if self._under_way:
            run = self._under_way[0]
            offset = run.messages[run.done].offset()
        elif self._chunks:
            offset = self._chunks[0][self._begun].offset()
        else:
            offset = self._next
        if self._ranges_ahead:
            self._ranges_ahead = [one for one in self._ranges_ahead if one[1] >= offset]
        ahead = [one for one in self._ahead() if one[1] >= offset]
        return Progress(offset, tuple(ahead)) if ahead else Progress(offset)

    def retire(self) -> None:
        """Hand out no more and take no more; what is in hand may still be done.

        Where it goes on is as before: behind a record in hand lies the rest of its run,
        which nobody has, and behind all runs what nobody has taken.
        """
        self._retired = True
        self.waiting = 0
        runs: deque[Run] = deque()
        for run in self._under_way:
            runs.append(run)
            if not run.is_done and (rest := run.cut()):
                runs.append(Run(rest, self.tables))
        self._under_way = runs

    def close(self) -> None:
        """Its records are read again, here or elsewhere: these count no more."""
        for run in self._under_way:
            run.void = True

    @property
    def in_hand(self) -> int:
        """Records that were taken and are not done."""
        return sum(len(run.messages) - run.done for run in self._taken_runs())

    def _taken_runs(self) -> Iterator[Run]:
        return (run for run in self._under_way if run.lane is not None)

    @property
    def in_hand_since(self) -> float | None:
        """When the oldest of them was taken."""
        open_runs = (run.since for run in self._taken_runs() if not run.is_done)
        return min(open_runs, default=None)

    @property
    def mark(self) -> object:
        """Another one whenever a record was taken or done."""
        last = id(self._under_way[-1]) if self._under_way else None
        return self._next, self.waiting, self.in_hand, self.taken, last

    @property
    def idle(self) -> bool:
        self._settle()
        return not self._under_way and not self._chunks

    def passed(self, offset: int) -> None:
        """All before this has been offered, or is no record: markers, say."""
        self._next = max(self._next, offset)

    def _settle(self) -> None:
        """Forget the runs at the front that are done."""
        runs = self._under_way
        while runs and runs[0].is_done:
            self.passed(runs.popleft().messages[-1].offset() + 1)
        while self._ranges_ahead and not runs and not self._chunks:
            first, last = self._ranges_ahead[0]
            if first > self._next:
                break
            self.passed(last + 1)
            del self._ranges_ahead[0]

    def _ahead(self) -> list[tuple[int, int]]:
        """Ranges done beyond the lowest, put together where nothing lies between."""
        found: list[tuple[int, int]] = []
        joined = False
        for run in self._under_way:
            if run.done == 0:
                joined = False
                continue
            first = run.messages[0].offset()
            last = run.messages[run.done - 1].offset()
            if joined:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
            joined = run.is_done
        if self._under_way and self._under_way[0].done and found:
            # What is done at the very front is told by the position.
            del found[0]
        return _merged(found, self._ranges_ahead)

    def _put_together(self) -> None:
        """Make one run of neighbours that are done."""
        runs: deque[Run] = deque()
        for run in self._under_way:
            is_done = run.is_done
            if is_done and runs and runs[-1].is_done:
                ends = [runs[-1].messages[0], run.messages[-1]]
                runs[-1] = Run(ends, self.tables, self)
                runs[-1].done = len(ends)
            else:
                runs.append(run)
        self._under_way = runs


def _merged(
    ours: list[tuple[int, int]], resumed: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    if not resumed:
        return ours
    found: list[tuple[int, int]] = []
    for first, last in sorted(ours + resumed):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


class Feed:
    """All lanes of one subscriber; actors take from it."""

    def __init__(
        self, name: str, now: Callable[[], float], hungry: Callable[[], None]
    ) -> None:
        """`hungry` is called when an actor finds nothing to do."""
        self.name = name
        self._now = now
        self._hungry = hungry
        self.lanes: dict[TopicPartition, Lane] = {}
        self._taken_before = 0
        self._ready: deque[Lane] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._choosy = False

    def add(
        self,
        at: TopicPartition,
        progress: Progress,
        tables: Mapping[Any, TablePartition],
        *,
        note_bytes_max: int = NOTE_BYTES_MAX,
    ) -> None:
        self.lanes[at] = Lane(
            *(at, progress, tables, self._now),
            note_bytes_max=note_bytes_max,
            wake=self.wake,
        )

    def clear(self) -> None:
        """Forget all lanes; what is in hand belongs to nobody any more."""
        self._taken_before += sum(lane.taken for lane in self.lanes.values())
        for lane in self.lanes.values():
            lane.close()
        self.lanes = {}
        self._ready.clear()

    def retire(self) -> None:
        for lane in self.lanes.values():
            lane.retire()
        self._ready.clear()

    @property
    def in_hand(self) -> int:
        return sum(lane.in_hand for lane in self.lanes.values())

    @property
    def taken(self) -> int:
        """Records that actors have taken since the start."""
        return self._taken_before + sum(lane.taken for lane in self.lanes.values())

    @property
    def oldest_s(self) -> float:
        """How long the oldest record that is not done has been in hand."""
        found = [lane.in_hand_since for lane in self.lanes.values()]
        since = min((one for one in found if one is not None), default=None)
        return 0.0 if since is None else self._now() - since

    @property
    def mark(self) -> object:
        """Another one whenever somebody has got on; None while there is nothing to do."""
        if not self.in_hand and (not self.waiting or self.starving):
            return None
        return [lane.mark for lane in self.lanes.values()]

    @property
    def idle(self) -> bool:
        return not self._ready and all(lane.idle for lane in self.lanes.values())

    def offer(self, at: TopicPartition, messages: list[Message]) -> None:
        if (lane := self.lanes.get(at)) is None:
            return
        had = lane.waiting
        lane.offer(messages)
        if lane.waiting and not had:
            self._ready.append(lane)
        self.wake()

    def take(self, limit: int, only: int | None = None) -> Run | None:
        """The next run, from the lanes in turn; None if none has any.

        `only`: of the partition with this number.
        """
        self._choosy = only is not None
        for _ in range(len(self._ready)):
            lane = self._ready.popleft()
            if only not in (None, lane.at.partition) or (limit == 1 and lane.held_up):
                self._ready.append(lane)
                continue
            run = lane.take(limit)
            if lane.waiting:
                self._ready.append(lane)
            return run
        return None

    def take_batch(
        self, size: int, within_s: float, only: int | None = None
    ) -> tuple[Run | None, float | None]:
        """A batch that is full, or has waited long enough; else how long to wait."""
        self._choosy = only is not None
        now = self._now()
        wait: float | None = None
        for _ in range(len(self._ready)):
            lane = self._ready.popleft()
            if only not in (None, lane.at.partition) or lane.held_up:
                self._ready.append(lane)
                continue
            left = lane.waiting_since + within_s - now
            if lane.waiting >= size or left <= 0:
                run = lane.take_all(size)
                if lane.waiting:
                    self._ready.append(lane)
                return run, None
            self._ready.append(lane)
            wait = left if wait is None else min(wait, left)
        return None, wait

    @property
    def waiting(self) -> int:
        return sum(lane.waiting for lane in self._ready)

    @property
    def starving(self) -> bool:
        """Somebody waits for more than there is."""
        return any(not waiter.done() for waiter in self._waiters)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until something may have come, or a place in a lane is free again."""
        self._hungry()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            if timeout_s is None:
                await waiter
            else:
                async with asyncio.timeout(timeout_s):
                    await waiter
        except TimeoutError:
            pass
        finally:
            if not waiter.done():
                waiter.cancel()

    def wake(self) -> None:
        """Let those who wait look again: as many as there are records, all if each of them
        waits for a partition of its own."""
        wanted = len(self._waiters) if self._choosy else max(1, self.waiting)
        while wanted and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wanted -= 1
