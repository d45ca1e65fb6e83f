"""Whether anybody uses this broker still: how one that apps started for themselves ends.

Each user holds a file locked, shared, from before it looks for the broker until it has
done; the system lets go for those that are killed. The broker tries to lock the same file
for itself alone, which succeeds when nobody is left, and keeps it while it stops: whoever
comes then waits, and finds no broker that is about to go.

The users' side is `client/embedded.py`.
"""

import asyncio
import fcntl
import os
from pathlib import Path

from streamer.broker.trouble import way_out
from streamer.errors import BrokerError

LOOK_SECONDS = 1.0


class Users:
    """Those who hold the file `path`; as a context, newcomers wait until its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BrokerError(
                f"{path} cannot be opened: {error.strerror or error}.",
                remedy=way_out(error),
            ) from error

    def __enter__(self) -> "Users":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def gone(self) -> bool:
        """Whether nobody is left; from then on nobody comes in."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def wait_until_gone(self) -> None:
        while True:
            if self.gone():
                return
            await asyncio.sleep(LOOK_SECONDS)
