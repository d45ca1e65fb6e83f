"""Compaction in a process of its own, so that the broker's loop need not share Python with
it; it is started by way of `compaction_start.py`.

A line on standard input is a job, lines on standard output are what comes of it:

    in   {"folder": ..., "bytes_per_second": ..., "share": ..., "job": {...}}
    out  {"swap": [...]}  ...  then {"cleaned": [...]}, {"starved": how} or {"failed": why}

With patience it takes only what nobody else wants of the processor, which may be nothing:
when it has come nowhere for so long, it ends its job as starved. A process cannot take a
larger share again, but whoever has started it can start another one, without patience.

It goes to the partition's folder and names files from there: if the folder is renamed,
because its topic is deleted, it goes on in the renamed one and disturbs no new topic of
that name. It ends with its input, which is when the broker ends, however that comes.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from streamer.log.checkpoints import (
    PARTITION_METADATA,
    CheckpointDamaged,
    read_partition_metadata,
)
from streamer.log.compaction_files import clean
from streamer.log.compaction_job import Cleaned, Job, Swap
from streamer.log.disk import RealDisk
from streamer.log.errors import CorruptLog

STDIN = 0
PROBLEMS = (OSError, CorruptLog, CheckpointDamaged)

# Who gets less than this of its pace, and of its share of a processor, is starved: not who
# has much to compute, nor whose disk is half as fast. One a tenth as fast looks the same
# from here.
STARVED_SHARE = 0.1
# However fast it may go, nobody has to be faster than this.
PACE_MAX = 50 << 20


class Starved(Exception):
    """Others have left it next to nothing of the processor."""


class Pace:
    """Counts bytes and the time of the processor, and waits as long as they should have
    taken: the bytes at their rate, the processor's time if it were but a `share` of it.

    It counts from when it was last on time. With `patience`, it is looked into after so
    many seconds behind: raises Starved, or starts counting anew, so that what was missed
    is not made up for at full speed.
    """

    def __init__(
        self,
        bytes_per_second: float,
        *,
        share: float = 1.0,
        patience: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
        wait: Callable[[float], None],
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._share = share
        self._patience = math.inf if patience is None else patience
        self._monotonic = monotonic
        self._processor = processor
        self._wait = wait
        self._count_from(monotonic())

    def _count_from(self, moment: float) -> None:
        self._began = moment
        self._had = self._processor()
        self._count = 0

    def __call__(self, count: int) -> None:
        self._count += count
        took = self._monotonic() - self._began
        had = self._processor() - self._had
        due = self._count / self._bytes_per_second
        if self._share < 1:
            due = max(due, had / self._share)
        self._wait(max(0.0, due - took))
        if due >= took:
            self._count_from(self._began + due)
        elif took >= self._patience:
            self._look_into(took, had)
            self._count_from(self._began + took)

    def _look_into(self, took: float, had: float) -> None:
        least = STARVED_SHARE * min(self._bytes_per_second, PACE_MAX) * took
        if self._count < least and had < STARVED_SHARE * self._share * took:
            raise Starved(f"{self._count / 2**20:.1f} MiB in {took:.0f} s")


def wait(seconds: float) -> None:
    """Do nothing for so long. No job comes amid a job, so any input is its end."""
    readable, _, _ = select.select([STDIN], [], [], seconds)
    if readable:
        sys.exit()


def carry_out(folder: str, job: Job, pace: Pace) -> Iterator[dict[str, Any]]:
    """What to say about a job, as it comes."""
    try:
        os.chdir(folder)
        found = read_partition_metadata(Path(PARTITION_METADATA).read_bytes())
        if found != UUID(job.topic_id):
            yield {"failed": "the topic was deleted"}
            return
        for step in clean(RealDisk(), Path(), job, on_bytes=pace):
            yield {"swap" if isinstance(step, Swap) else "cleaned": step}
    except Starved as how:
        yield {"starved": str(how)}
    except PROBLEMS as error:
        yield {"failed": str(error)}


def parsed(message: dict[str, Any]) -> Swap | Cleaned | Starved | str:
    """What the process has said; a text is why it failed."""
    if "swap" in message:
        return Swap(*message["swap"])
    if "cleaned" in message:
        return Cleaned(*message["cleaned"])
    if "starved" in message:
        return Starved(message["starved"])
    return str(message["failed"])


def run(patience: float | None) -> None:
    # Ctrl-C is for the broker, which ends us in its time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        pace = Pace(
            message["bytes_per_second"],
            share=message["share"],
            patience=patience,
            wait=wait,
        )
        for step in carry_out(message["folder"], Job(**message["job"]), pace):
            sys.stdout.write(json.dumps(step) + "\n")
            sys.stdout.flush()
