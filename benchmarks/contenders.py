"""Who is compared: our broker in both kinds of durability, and Apache Kafka.

Also what is measured from outside: the CPU and the memory of a broker's process, and
the clients' processes that load it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from support.broker import start_streamer
from support.kafka import start_kafka, why_not_here
from support.server import DidNotStart, Server

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = "benchmarks.clients"
PATIENCE_SECONDS = 60


class NotHere(Exception):
    """This contender cannot run; the message says why."""


class ClientFailed(Exception):
    """A load did not come to its end; what went wrong is on stderr."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of the brokers to compare."""

    name: str
    kafka: bool
    settings: Mapping[str, str]

    def start(self, directory: Path) -> Server:
        """Start it on `directory`, which may hold data from before."""
        if self.kafka and (reason := why_not_here()):
            raise NotHere(reason)
        try:
            if self.kafka:
                # The heap that Kafka's own start script gives it.
                return start_kafka(directory, heap="1g", settings=self.settings)
            return start_streamer(directory, settings=self.settings)
        except (DidNotStart, OSError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise NotHere(f"it did not start: {reason}") from error


KAFKA = Contender("Kafka", True, {})
FSYNC = Contender("fsync", False, {"log.durability": "fsync"})
PAGE_CACHE = Contender("page-cache", False, {"log.durability": "page-cache"})
CONTENDERS = (KAFKA, FSYNC, PAGE_CACHE)


def create_topic(bootstrap: str, name: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = NewTopic(name, num_partitions=partitions, replication_factor=1)
    admin.create_topics([wanted])[name].result(PATIENCE_SECONDS)


def delete_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([name])[name].result(PATIENCE_SECONDS)


def cpu_seconds(server: Server) -> float:
    """User and system time of all threads, those of child processes included."""
    broker = psutil.Process(server.process.pid)
    times = [each.cpu_times() for each in (broker, *broker.children(recursive=True))]
    ended = times[0].children_user + times[0].children_system
    return ended + sum(time.user + time.system for time in times)


def resident_mebibytes(server: Server) -> float:
    broker = psutil.Process(server.process.pid)
    family = (broker, *broker.children(recursive=True))
    return sum(each.memory_info().rss for each in family) / 2**20


def forget_cached(directory: Path) -> None:
    """Push these files out of the page cache, so that reading them means the disk.

    One by one, since `/proc/sys/vm/drop_caches` would make the machine forget the
    programs too, and the next seconds would measure how they are read again.
    """
    for path in directory.rglob("*.log"):
        with path.open("rb+") as file:
            os.fdatasync(file.fileno())  # what is not yet written cannot be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


class Client:
    """A process of `clients.py`: prepared at once, let go when the harness says so."""

    def __init__(self, load: str, **settings: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", CLIENTS, load, json.dumps(settings)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.expect("ready")

    def expect(self, line: str) -> None:
        found = self.read_line()
        if found != line:
            raise ClientFailed(f"a client said {found!r} instead of {line!r}")

    def read_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ClientFailed(f"a client ended with {self.process.wait()}; see above")
        return line.strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait until it is done; what it found."""
        line = self.read_line()
        self.process.wait()
        found: dict[str, Any] = json.loads(line)
        return found

    def run(self) -> dict[str, Any]:
        self.go()
        return self.result()
