"""Slots: a folder of its own for each worker of an app on this machine.

    STATE/APP/slot-0/      tables of the first worker
    STATE/APP/slot-1/      of the second, while the first lives

A worker takes the first slot that nobody holds and locks it. The number gives it its place
in the group, its transactional id and its state: whoever takes the slot next is the same
member. The system gives the lock back when the process is gone, however it went, so that a
worker that was killed and started again finds its state.

State is never shared between slots, and nobody reads that of another.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

from streamer.state.errors import NoSlot

LOCK = ".lock"


class Slot:
    """A slot that is ours until `release`, or until this process ends."""

    def __init__(self, number: int, path: Path, fd: int) -> None:
        self.number = number
        self.path = path
        # Closed in programs started from here. A process forked from this one would have a
        # part in the lock, and hold it when we are gone: fork none.
        self._fd = fd

    @staticmethod
    def take(root: Path) -> Slot:
        """The first slot below `root` that nobody holds."""
        try:
            for number in itertools.count():
                path = root / f"slot-{number}"
                path.mkdir(parents=True, exist_ok=True)
                fd = _locked(path / LOCK)
                if fd is not None:
                    return Slot(number, path, fd)
        except OSError as error:
            raise NoSlot(
                f"Cannot keep state in {root}: {error.strerror or error}."
            ) from None
        raise AssertionError("there is always another number")

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Leave the slot to others, with all that is in it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(path: Path) -> int | None:
    """The file, locked for us alone; None if somebody else has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    # For a person who looks for the process; nobody reads it otherwise.
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
