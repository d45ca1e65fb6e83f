"""A broker in a process of its own, as a test or a benchmark sees it.

Ours (`broker.py`) and Apache Kafka (`kafka.py`) are started differently and are
the same afterwards: an address, a process, the folder of their logs. A server is
ready when it answers a Metadata request with at least one broker in it: an open
port is not enough, since Kafka listens before it knows itself.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Size, then: key 3 (Metadata), version 1, correlation 1, no client id; no topics.
METADATA_REQUEST = struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0)

PATIENCE_SECONDS = 60.0

# For tests, with either broker: no delay before a rebalance, sessions that end soon,
# groups that are soon full, and no transaction left open much longer than it may be.
PROMPT = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "group.max.size": "20",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
}


class DidNotStart(Exception):
    """The process ended, or never answered; the message holds its last words."""


@dataclass(slots=True)
class Server:
    """A running broker; used as a context it stops at the end."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    logs: Path  # the folder that holds `topic-0/` and its neighbours
    output: Path  # what it wrote to stdout and stderr
    seconds_to_serve: float  # from the start of its process to its first answer

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in order, and by force when it does not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9: no farewell of any kind."""
        self.process.kill()
        self.process.wait()

    @property
    def host_and_port(self) -> tuple[str, int]:
        return split_address(self.address)


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def wait_until_serving(
    address: str, process: subprocess.Popen[bytes], output: Path
) -> None:
    """Return once a Metadata request is answered with a broker."""
    wait_for(lambda: answers_metadata(address), process, output)


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], output: Path
) -> None:
    """Return once `condition` holds, as long as the process lives and in good time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if process.poll() is not None:
            raise DidNotStart(f"It ended with {process.returncode}:\n{last_words(output)}")
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise DidNotStart(
                f"No answer in {PATIENCE_SECONDS:.0f} s:\n{last_words(output)}"
            )
        time.sleep(0.005)


def answers_metadata(address: str) -> bool:
    try:
        with socket.create_connection(split_address(address), timeout=2) as connection:
            connection.sendall(METADATA_REQUEST)
            answer = connection.recv(4096)
    except OSError:
        return False
    # Size, correlation, then the number of brokers.
    return len(answer) >= 12 and struct.unpack_from(">i", answer, 8)[0] > 0


def last_words(output: Path) -> str:
    return output.read_text(errors="replace")[-3000:] or "(it wrote nothing)"
