"""Locks on files (flock), which the system gives back for a process that is killed.

They are waited for by asking again and again, so that who waits can be told what for, and
need not wait for ever.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from streamer.client.interface import ClientError

# After so long, whoever waits is told what for.
SILENCE_SECONDS = 2.0
LOOK_SECONDS = 0.01


class Patience:
    """Waiting that tells once what it is for when it takes long, and that ends."""

    seconds = 60.0

    def __init__(self, say: Callable[[], None]) -> None:
        self._say: Callable[[], None] | None = say
        self._began = time.monotonic()

    def wait(self) -> bool:
        """Wait a little; False if it has been too long."""
        waited = time.monotonic() - self._began
        if self._say and waited > SILENCE_SECONDS:
            self._say()
            self._say = None
        time.sleep(LOOK_SECONDS)
        return waited < self.seconds


class FileLock:
    """The file `path`, locked until `release`; programs started from here have no part."""

    def __init__(
        self, path: Path, *, shared: bool = False, say: Callable[[], None]
    ) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        patience = Patience(say)
        try:
            while not _taken(self._fd, kind):
                if not patience.wait():
                    raise ClientError(
                        f"{path} has been locked by others for {Patience.seconds:.0f} s.",
                        remedy=f"`lsof {path}` shows them; end those that hang.",
                    )
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        # Not LOCK_UN: a process that was forked from this one uses it still.
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_held(path: Path) -> bool:
    """Whether some process has locked the file for itself alone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _taken(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _taken(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
