"""The process of an app's own broker: where it answers, how it is started, what it said.

An address is believed only if who answers there names the cluster of this folder: another
program may have the port by now, another broker even. A broker that somebody has started
by hand on the folder answers like that, and is as good as ours.

Who starts one holds `start.lock`: see `embedded.py`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from streamer.client.file_lock import Patience, is_held
from streamer.client.identity import cluster_at
from streamer.client.interface import ClientError

LOG_BYTES_MAX = 4 << 20
LAST_LINES = 15
# A broker that listens at every address is found at this one.
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class EmbeddedBrokerFailed(ClientError):
    """The app's own broker cannot be started, or does not answer."""

    remedy = (
        "Mend that, or name a broker that runs: --broker kafka://host:port, "
        "or STREAMER_BROKER."
    )


class BrokerProcess:
    """The broker of the folder `home`, whoever has started it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "broker"
        self.output = home / "broker.log"

    def address(self) -> str | None:
        """Where it answers; None if it does not."""
        try:
            found = (self.data / "address").read_text(errors="replace").split()
            properties = (self.data / "meta.properties").read_text(errors="replace")
        except OSError:
            return None
        host, _, port = found[0].rpartition(":") if found else ("", "", "")
        host = host.strip("[]")
        host = ANYWHERE.get(host, host)
        if not host or not port.isdecimal():
            return None
        if f"cluster.id={cluster_at(host, int(port))}" not in properties.splitlines():
            return None
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self, say: Callable[[], None]) -> str:
        """Start it and return where it answers.

        Somebody else may have its folder: a broker that is just stopping, one started by
        hand or by a user that was killed meanwhile. Either it answers soon, or it goes.
        """
        patience = Patience(say)
        began_at = self._said()
        process: subprocess.Popen[bytes] | None = None
        while (address := self.address()) is None:
            ended = process is None or process.poll() is not None
            if ended and not is_held(self.data / ".lock"):
                if process is not None:
                    raise self._failed(f"did not start ({process.returncode})", began_at)
                began_at = self._shorten_output()
                process = self._spawn()
            if not patience.wait():
                raise self._silent(began_at)
        return address

    def _spawn(self) -> subprocess.Popen[bytes]:
        # -P: a file of the user's, `select.py` say, must not come before Python's own.
        command = [sys.executable, "-P", "-m", "streamer", "broker"]
        command += ["--data-dir", str(self.data)]
        command += ["--while-used", str(self.home / "users.lock")]
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to all that run in the terminal's session.
                start_new_session=True,
            )
        # It may well outlive us; should it end before, it must not stay as a zombie.
        threading.Thread(target=process.wait, name="embedded broker", daemon=True).start()
        return process

    # What it said.

    def _said(self) -> int:
        try:
            return self.output.stat().st_size
        except FileNotFoundError:
            return 0

    def _shorten_output(self) -> int:
        """Begin another file when this one is long; how much there is of it."""
        size = self._said()
        if size <= LOG_BYTES_MAX:
            return size
        self.output.replace(self.output.with_name("broker.log.1"))
        return 0

    def _failed(self, how: str, began_at: int) -> EmbeddedBrokerFailed:
        with self.output.open("rb") as file:
            file.seek(began_at)
            lines = file.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        words = "".join(f"\n  | {line}" for line in lines or ["(nothing)"])
        return EmbeddedBrokerFailed(
            f"The app's own broker {how}. What it said last ({self.output}):{words}"
        )

    def _silent(self, began_at: int) -> EmbeddedBrokerFailed:
        lock = self.data / ".lock"
        if not is_held(lock):
            return self._failed(f"has not served for {Patience.seconds:.0f} s", began_at)
        holder = ", ".join(lock.read_text(errors="replace").splitlines())
        return EmbeddedBrokerFailed(
            f"The broker of {self.data} ({holder}) has not answered for "
            f"{Patience.seconds:.0f} s.",
            remedy=f"If {self.output} says that it recovers, try again. Else end that "
            "process, or keep this app's data elsewhere: STREAMER_HOME.",
        )
