"""How the process that compacts begins: `python -m streamer.log.compaction_start [SECONDS]`

It steps behind everybody else before it imports what it needs. To import takes a fifth of a
second of a processor, and done as anybody's equal it is what producers notice most. With
SECONDS it does so for as long as its patience lasts: `compaction_process.py`.
"""

from __future__ import annotations

import os
import sys

NICENESS = 10
"""It has time; those who produce and fetch have not."""


def take_what_is_left() -> bool:
    """Leave the processor to everybody else; False where the system has no such thing."""
    if not hasattr(os, "SCHED_IDLE"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        return False  # Some containers do not let us.
    return True


def main() -> None:
    patience = float(sys.argv[1]) if sys.argv[1:] else None
    if patience is None or not take_what_is_left():
        os.nice(NICENESS)
        patience = None
    from streamer.log.compaction_process import run

    run(patience)


if __name__ == "__main__":
    main()
