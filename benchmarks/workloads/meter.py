"""CPU and time as records go by: what a worker's process says about itself.

A mark is (records so far, seconds of CPU, moment). CPU is user and system time of all
threads, librdkafka's and RocksDB's too. What becomes of marks is in `measures.py`; here
is nothing that would take time beside the work.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EACH_S = 0.005


class Meter:
    def __init__(self) -> None:
        self.marks: list[tuple[int, float, float]] = []
        self._due = 0.0

    def mark(self, records: int) -> None:
        """So many are done by now; the first of them starts the clocks."""
        now = time.monotonic()
        if records and now >= self._due:
            self.marks.append((records, time.process_time(), now))
            self._due = now + EACH_S

    def end(self, records: int) -> None:
        """All are done, and all that came of them is committed."""
        self.marks.append((records, time.process_time(), time.monotonic()))


def say(**what: object) -> None:
    """A line to the process that compares."""
    print(json.dumps(what), flush=True)


def when_told(stop: threading.Event) -> None:
    """Set `stop` when a line comes, or whoever started us is gone."""

    def wait() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()


def peak_mebibytes() -> float:
    """The most memory this process ever had.

    Not `ru_maxrss`: Linux counts into it what the parent had when it started us.
    """
    status = Path("/proc/self/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if "VmHWM" in line)
    return int(kibibytes) / 1024


def digest(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A table in few words, to be compared with what it should be."""
    rows = sorted(items)
    text = json.dumps(rows).encode()
    return {
        "keys": len(rows),
        "sum": sum(value for _, value in rows),
        "sha256": hashlib.sha256(text).hexdigest(),
    }
