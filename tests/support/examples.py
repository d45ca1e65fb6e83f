"""Examples as a person runs them: `python examples/shop.py worker`, in a folder of its own.

Each run has its home, STREAMER_HOME, so that its broker and its tables are there and
nowhere else. What it prints is kept in a file, which a failed wait shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from support.clients import DEADLINE_SECONDS, read

FOLDER = Path(__file__).parents[2] / "examples"
PARTITIONS = range(4)


class Program:
    """An example that runs."""

    def __init__(self, command: Sequence[str], home: Path, output: Path) -> None:
        self.output = output
        self._before = output.stat().st_size if output.exists() else 0
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(home),
            )

    @property
    def said(self) -> str:
        """What it has printed since it was started."""
        with self.output.open("rb") as file:
            file.seek(self._before)
            return file.read().decode()

    def wait_for(self, words: str) -> None:
        """Until it has said that."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while words not in self.said:
            assert self.process.poll() is None, f"it has ended:\n{self.said}"
            assert time.monotonic() < deadline, f"it never said {words!r}:\n{self.said}"
            time.sleep(0.02)

    def end(self) -> int:
        """Until it ends by itself; its exit code."""
        try:
            return self.process.wait(2 * DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.said}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop, as Ctrl-C in a shell's background or a service manager does."""
        self.process.terminate()
        return self.process.wait(DEADLINE_SECONDS)


def environment(home: Path) -> dict[str, str]:
    ours = {"STREAMER_HOME": str(home), "STREAMER_WEB_PORT": "0", "PYTHONUNBUFFERED": "1"}
    return {
        name: text for name, text in os.environ.items() if not name.startswith("STREAMER_")
    } | ours


Started = AbstractContextManager[Program]


@contextmanager
def running(home: Path, script: str, *arguments: str) -> Iterator[Program]:
    """The example, until the end of the block at most."""
    command = [sys.executable, str(FOLDER / script), *arguments]
    output = home.with_name("-".join([script, *arguments[:1]]) + ".log")
    program = Program(command, home, output)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.stop()


def run(home: Path, script: str, *arguments: str) -> str:
    """Run it to its end; what it prints."""
    with running(home, script, *arguments) as program:
        assert program.end() == 0, program.said
        return program.said


def table(address: str, changelog: str) -> dict[bytes, Any]:
    """What a table holds that has this changelog: whatever is committed."""
    found: dict[bytes, Any] = {}
    for message in read(address, changelog, partitions=PARTITIONS):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        if value is None:
            found.pop(key, None)
        else:
            found[key] = json.loads(value)
    return found


def values(address: str, topic: str) -> list[Any]:
    """The committed records of a topic."""
    found = read(address, topic, partitions=PARTITIONS)
    return [json.loads(message.value() or b"") for message in found]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Those that name something below `folder`, in their arguments or their home."""
    return [one for one in psutil.process_iter() if _names(one, str(folder))]


def _names(process: psutil.Process, folder: str) -> bool:
    try:
        words = [*process.cmdline(), process.environ().get("STREAMER_HOME", "")]
    except psutil.Error:
        return False
    return process.pid != os.getpid() and any(folder in word for word in words)
