"""Compaction: which partition is cleaned next, and the process that does it.

From time to time, as long as any partition is worth it, the one with most to gain is
handed to a process of its own (`log/compaction_process.py`), one at a time. It cleans
from file to file; here its results are swapped in, one by one as they come, which takes
the loop some renames. When there is nothing to do there is no process.

The process takes what others leave of the processor, and a small share at that, unless it
falls behind what is written. Where they leave nothing it says so, and the next one need not
wait for others, as long as there is something to do.

Whatever goes wrong costs a cleaning and nothing else: what was swapped in is good, the
rest is dropped, and the partition is tried again, later each time. A result is dropped as
well if the partition has changed under it: its topic was deleted or is no longer
compacted, or old segments went.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from streamer.broker.trouble import way_out
from streamer.log.compaction import Cleanable, is_worth_it, share_of_processor
from streamer.log.compaction_job import Cleaned, Cleaning, Swap
from streamer.log.compaction_process import Starved, parsed
from streamer.log.errors import CorruptLog
from streamer.log.partition import Partition

if TYPE_CHECKING:
    from streamer.broker.core import Broker

log = logging.getLogger(__name__)

# A partition that failed is left alone for one, two, four ... intervals, up to this long.
BACKOFF_SECONDS_MAX = 600.0
# How soon it is noticed that nobody wants what is being cleaned.
WATCH_SECONDS = 1.0
# A process that takes only what is left, and gets nothing, gives up after so long.
PATIENCE_SECONDS = 10.0
# A line names the segments that one replaces: at most as many as a partition has.
LINE_BYTES_MAX = 64 << 20


class _Failed(Exception):
    """A cleaning came to no good end."""


class _Unwanted(Exception):
    """The partition has changed under a cleaning."""


class _Setback(NamedTuple):
    times: int
    until: float
    """By the monotonic clock."""


class Cleaner:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._setbacks: dict[Partition, _Setback] = {}
        self._has_told_of_starving = False

    async def clean(self) -> None:
        """Clean what is worth it, the dirtiest first, until nothing is."""
        process: _Process | None = None
        patience: float | None = PATIENCE_SECONDS
        before: int | None = None
        try:
            while worth_it := self._worth_it():
                chosen = max(worth_it, key=lambda each: each[1].ratio)
                waiting = sum([part.dirty_bytes for _, part in worth_it])
                share = share_of_processor(chosen[1], waiting, before)
                process = process or await _Process.start(patience)
                try:
                    is_usable = await self._clean(process, *chosen, share)
                except Starved:
                    is_usable, patience = False, None
                before = waiting if is_usable else None
                if not is_usable:
                    await process.end()
                    process = None
        except OSError as error:
            log.error(
                "No process for compaction can be started: %s. It is tried again.\n  -> %s",
                error,
                way_out(error),
            )
        finally:
            if process is not None:
                await process.end()

    def _worth_it(self) -> list[tuple[Partition, Cleanable]]:
        if self._broker.offline is not None:
            return []
        now_ms = self._broker.clock.now_ms()
        found = []
        for partition in self._broker.directory.partitions():
            if partition.config.compact and self._may_be_tried(partition):
                cleaned_to = self._broker.directory.cleaned_to(partition)
                try:
                    part = partition.cleanable(cleaned_to, now_ms)
                except OSError as error:
                    self._set_back(partition, str(error))
                    continue
                if is_worth_it(part, partition.config):
                    found.append((partition, part))
        return found

    def _may_be_tried(self, partition: Partition) -> bool:
        if partition.offline is not None:
            return False
        setback = self._setbacks.get(partition)
        return setback is None or self._broker.clock.monotonic() >= setback.until

    async def _clean(
        self, process: _Process, partition: Partition, part: Cleanable, share: float
    ) -> bool:
        """Clean one partition; may the process be used again? Raises Starved."""
        clock = self._broker.clock
        began, size = clock.monotonic(), partition.size
        try:
            cleaning = _begin(partition, part, clock.now_ms())
            speed = self._broker.config.decimal("log.cleaner.io.max.bytes.per.second")
            await process.hand_over(partition, cleaning, speed, share)
            cleaned = await self._follow(process, partition, cleaning)
        except _Unwanted as reason:
            log.info("%s is not compacted after all: %s", partition.path, reason)
            await self._give_up(process, partition)
            return False
        except _Failed as failure:
            self._set_back(partition, str(failure))
            await self._give_up(process, partition)
            return False
        except Starved as how:
            self._tell_of_starving(partition, how)
            await self._give_up(process, partition)
            raise
        self._setbacks.pop(partition, None)
        await self._broker.note_cleaned(partition, cleaned.end)
        log.info(
            "%s is compacted up to offset %d: %.1f MiB became %.1f MiB in %.1f s.",
            partition.path,
            cleaned.end,
            size / 2**20,
            partition.size / 2**20,
            clock.monotonic() - began,
        )
        return True

    async def _follow(
        self, process: _Process, partition: Partition, cleaning: Cleaning
    ) -> Cleaned:
        """Swap in what comes, until all has come."""
        while True:
            try:
                async with asyncio.timeout(WATCH_SECONDS):
                    said = await process.next_line()
            except TimeoutError:
                if partition.offline is not None:
                    raise _Unwanted(partition.offline) from None
                continue
            if isinstance(said, Cleaned):
                return said
            if isinstance(said, str):
                raise _Failed(said)
            if isinstance(said, Starved):
                raise said
            self._swap_in(partition, cleaning, said)

    def _swap_in(self, partition: Partition, cleaning: Cleaning, done: Swap) -> None:
        if not partition.swap_in(cleaning, done):
            raise _Unwanted(partition.offline or "it has changed meanwhile.")

    def _tell_of_starving(self, partition: Partition, how: Starved) -> None:
        if not self._has_told_of_starving:
            self._has_told_of_starving = True
            log.warning(
                "%s was to be compacted with what others leave of the processor: %s.\n"
                "  -> It goes on with a share of its own, as do others that come to this;"
                " if producers wait too long then, this machine has too few cores.",
                partition.path,
                how,
            )

    async def _give_up(self, process: _Process, partition: Partition) -> None:
        """End the process, and then remove what it has left half done."""
        await process.end()
        directory = self._broker.directory
        if directory.has(partition):
            try:
                await self._broker.in_thread(directory.withdraw_cleaning(partition))
            except OSError:
                pass  # The next cleaning begins with that, and so does a start.

    def _set_back(self, partition: Partition, why: str) -> None:
        times = self._setbacks.get(partition, _Setback(0, 0.0)).times + 1
        pause = self._broker.config.number("log.cleaner.backoff.ms") / 1000
        seconds = min(BACKOFF_SECONDS_MAX, pause * 2**times)
        self._setbacks = {
            each: known
            for each, known in self._setbacks.items()
            if self._broker.directory.has(each)
        }
        self._setbacks[partition] = _Setback(
            times, self._broker.clock.monotonic() + seconds
        )
        log.error(
            "%s cannot be compacted: %s\n"
            "  -> What is there is served as before. It is tried again in %g s;"
            " `streamer log verify %s` shows whether its files are damaged.",
            partition.path,
            why,
            seconds,
            partition.path,
        )


def _begin(partition: Partition, part: Cleanable, now_ms: int) -> Cleaning:
    try:
        return partition.begin_cleaning(part, now_ms)
    except (OSError, CorruptLog) as error:
        raise _Failed(str(error)) from error


class _Process:
    """The process that compacts. It ends when its input does."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        transport: asyncio.ReadTransport,
    ) -> None:
        self._process = process
        self._reader = reader
        self._transport = transport

    @classmethod
    async def start(cls, patience: float | None) -> _Process:
        """With `patience`, one that takes what is left, and is starved after so long."""
        # In a thread, and not by the loop's own means: uvloop's fork copies the broker's
        # page tables while the loop stands still, 6 ms.
        starting = asyncio.ensure_future(asyncio.to_thread(_started, patience))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            _kill(await starting)
            raise
        reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        return cls(process, reader, transport)

    async def hand_over(
        self, partition: Partition, cleaning: Cleaning, speed: float, share: float
    ) -> None:
        message = {
            "folder": str(partition.path.absolute()),
            "bytes_per_second": speed,
            "share": share,
            "job": asdict(cleaning.job),
        }
        try:
            await asyncio.to_thread(self._write, json.dumps(message).encode() + b"\n")
        except ConnectionError as error:
            raise _Failed(await self._last_words()) from error

    def _write(self, line: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(line)
        stdin.flush()

    async def next_line(self) -> Swap | Cleaned | Starved | str:
        line = await self._reader.readline()
        return parsed(json.loads(line)) if line else await self._last_words()

    async def _last_words(self) -> str:
        code = await asyncio.to_thread(self._process.wait)
        return f"the process that does it has ended with {code}"

    async def end(self) -> None:
        self._transport.close()
        # To the end, so that nothing of it is left to be collected.
        await asyncio.to_thread(_kill, self._process)


def _started(patience: float | None) -> subprocess.Popen[bytes]:
    # Modules are found where we have found them, not in the folder we were started in.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [
            sys.executable,
            *("-P", "-m", "streamer.log.compaction_start"),
            *([] if patience is None else [str(patience)]),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # Nothing happens if it has ended by itself.
    process.wait()
    assert process.stdin is not None
    try:
        process.stdin.close()
    except ConnectionError:
        pass  # There was something that it has not read.
