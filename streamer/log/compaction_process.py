"""Compaction in a process of its own, so that the broker's loop need not share Python with
it: `python -m streamer.log.compaction_process`.

A line on standard input is a job, lines on standard output are what comes of it:

    in   {"folder": ..., "bytes_per_second": ..., "job": {...}}
    out  {"swap": [...]}  ...  then {"cleaned": [...]} or {"failed": why}

It goes to the partition's folder and names files from there: if the folder is renamed,
because its topic is deleted, it goes on in the renamed one and disturbs no new topic of
that name. It ends with its input, which is when the broker ends, however that comes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
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
NICENESS = 10
"""It has time; those who produce and fetch have not."""
PROBLEMS = (OSError, CorruptLog, CheckpointDamaged)


class Pace:
    """Counts bytes, waits as long as they should have taken, and watches the input."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._began = time.monotonic()
        self._count = 0

    def __call__(self, count: int) -> None:
        self._count += count
        due = self._began + self._count / self._bytes_per_second
        wait(max(0.0, due - time.monotonic()))


def wait(seconds: float) -> None:
    """Do nothing for so long. No job comes amid a job, so any input is its end."""
    readable, _, _ = select.select([STDIN], [], [], seconds)
    if readable:
        sys.exit()


def carry_out(folder: str, bytes_per_second: float, job: Job) -> Iterator[dict[str, Any]]:
    """What to say about a job, as it comes."""
    try:
        os.chdir(folder)
        found = read_partition_metadata(Path(PARTITION_METADATA).read_bytes())
        if found != UUID(job.topic_id):
            yield {"failed": "the topic was deleted"}
            return
        for step in clean(RealDisk(), Path(), job, on_bytes=Pace(bytes_per_second)):
            yield {"swap" if isinstance(step, Swap) else "cleaned": step}
    except PROBLEMS as error:
        yield {"failed": str(error)}


def parsed(message: dict[str, Any]) -> Swap | Cleaned | str:
    """What the process has said; a text is why it failed."""
    if "swap" in message:
        return Swap(*message["swap"])
    if "cleaned" in message:
        return Cleaned(*message["cleaned"])
    return str(message["failed"])


def main() -> None:
    # Ctrl-C is for the broker, which ends us in its time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        job = Job(**message["job"])
        for step in carry_out(message["folder"], message["bytes_per_second"], job):
            sys.stdout.write(json.dumps(step) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
