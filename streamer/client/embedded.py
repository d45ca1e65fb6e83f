"""A broker for an app that names none: a process beside it, shared by all who use the same
folder, and gone soon after the last of them.

    HOME/users.lock   every user holds it, shared, from before it looks for the broker
                      until it leaves
    HOME/start.lock   held by the one who is starting the broker
    HOME/broker/      its data, and in `address` where it was found the last time
    HOME/broker.log   what it says

The broker tries to lock `users.lock` for itself alone every second (`streamer broker
--while-used`) and keeps it while it stops: whoever comes meanwhile waits, and then starts a
fresh one. So nobody is sent to a broker that is about to go.

All this blocks: once a loop runs, call it in a thread. `embedded_process.py` starts the
broker; the broker's side of the lock is `broker/users.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streamer.client.embedded_process import BrokerProcess, EmbeddedBrokerFailed
from streamer.client.file_lock import FileLock

__all__ = ["EmbeddedBroker", "EmbeddedBrokerFailed", "home"]

FOLDER = ".streamer"
Log = Callable[[str], None]
logger = logging.getLogger(__name__)


def home(environment: Mapping[str, str], directory: Path) -> Path:
    """STREAMER_HOME, or else the nearest `.streamer` from `directory` upward."""
    directory = directory.absolute()
    if named := environment.get("STREAMER_HOME"):
        return directory / Path(named).expanduser()
    for folder in (directory, *directory.parents):
        if os.path.isdir(folder / FOLDER):
            return folder / FOLDER
    return directory / FOLDER


class EmbeddedBroker:
    """One user's share in the broker of a folder, until it leaves."""

    def __init__(self, process: BrokerProcess, users: FileLock, log: Log) -> None:
        self.address = ""
        """host:port. Another after `ensure` if somebody else has taken the port."""
        self.home = process.home
        self._process = process
        self._users = users
        self._log = log

    @classmethod
    def join(cls, home: Path, log: Log = logger.info) -> EmbeddedBroker:
        """Use the broker of the folder `home`, started if there is none.

        `log` is told, a line each, what whoever waits for it wants to know.
        """
        home = home.absolute()
        with _trouble_named(home):
            _make(home)
            users = FileLock(
                home / "users.lock",
                shared=True,
                say=lambda: log(f"Waiting for the broker of {home}, which is stopping."),
            )
        broker = cls(BrokerProcess(home), users, log)
        try:
            broker.ensure()
        except BaseException:
            broker.leave()
            raise
        return broker

    def ensure(self) -> None:
        """Start the broker again if it does not answer; all its users may at once."""
        address = self._process.address() or self._start()
        if self.address not in ("", address):
            self._log(
                f"The app's own broker has moved from {self.address} to {address}: "
                "somebody else has taken its port."
            )
        self.address = address

    def _start(self) -> str:
        def say() -> None:
            self._log(f"Waiting for the app's own broker ({self._process.output}).")

        with (
            _trouble_named(self.home),
            FileLock(self.home / "start.lock", say=say),
        ):
            # Another user may have started it just before.
            address = self._process.address()
            if address is None:
                address = self._process.start(say)
                self._log(f"The app's own broker serves {address} from {self.home}.")
            return address

    def leave(self) -> None:
        """Use it no longer. The broker ends a second later if nobody else does."""
        self._users.release()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def _make(home: Path) -> None:
    if home.is_dir():
        return
    home.mkdir(parents=True, exist_ok=True)
    if home.name == FOLDER:
        # Nobody wants a log in version control.
        (home / ".gitignore").write_text("*\n")


@contextmanager
def _trouble_named(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedBrokerFailed(
            f"{home}, the folder of the app's own broker, cannot be used: {error}.",
            remedy="Name one that you may write to by STREAMER_HOME, or a broker that "
            "runs: --broker kafka://host:port, or STREAMER_BROKER.",
        ) from error
