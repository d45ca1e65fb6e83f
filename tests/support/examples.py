"""Examples as a person runs them: `python examples/shop.py worker`, in a folder of its own.

Each run has its home, STREAMER_HOME, so that its broker and its tables are there and
nowhere else. What it prints is kept in a file, which a failed wait shows. `loaded` gives
the module, to read what is in its topics.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from support.clients import DEADLINE_SECONDS, read, wait_until

FOLDER = Path(__file__).parents[2] / "examples"
PARTITIONS = range(4)
PATIENCE_S = 30.0


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
                env=environment_of(home),
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


def environment_of(home: Path) -> dict[str, str]:
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


class Example:
    """One in a folder of its own: workers that are killed, and commands beside them."""

    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = environment_of(self.home) | environment
        self._command = [sys.executable, str(FOLDER / f"{name}.py")]
        self._started: list[subprocess.Popen[str]] = []
        self._workers: list[subprocess.Popen[str]] = []

    # Commands.

    def start(self, *words: str) -> subprocess.Popen[str]:
        running = subprocess.Popen(
            [*self._command, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(running)
        return running

    def run(self, *words: str, fails: bool = False) -> str:
        """What the command prints."""
        return self.printed(self.start(*words), fails=fails)

    def printed(self, running: subprocess.Popen[str], *, fails: bool = False) -> str:
        try:
            stdout, stderr = running.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            running.kill()
            stdout, stderr = running.communicate()
            raise AssertionError(f"no end: {stdout}\n{stderr}\n{self.log()}") from None
        assert (running.returncode != 0) == fails, f"{stdout}\n{stderr}\n{self.log()}"
        return stdout

    # Workers.

    def start_worker(self) -> None:
        with (self.folder / f"worker-{len(self._workers)}.log").open("w") as sink:
            self._workers.append(
                subprocess.Popen(
                    [*self._command, "worker"],
                    cwd=self.folder,
                    env=self.environment,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def kill_workers(self) -> None:
        """kill -9: no farewell of any kind."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()

    def log(self) -> str:
        return "\n".join(
            f"--- {file.name}\n{file.read_text()[-2000:]}"
            for file in sorted(self.folder.glob("worker-*.log"))[-2:]
        )

    def page(self, path: str) -> Any:
        """What a worker answers, the first that has an answer; waits until one has."""
        until = time.monotonic() + PATIENCE_S
        while True:
            for number, worker in enumerate(self._workers):
                if worker.poll() is None and (answer := self._answer(number, path)):
                    return answer
            assert time.monotonic() < until, f"{path}: no answer\n{self.log()}"
            time.sleep(0.02)

    def _answer(self, number: int, path: str) -> Any:
        log = (self.folder / f"worker-{number}.log").read_text()
        place = log.partition("pages at ")[2].partition("/;")[0]
        try:
            with urllib.request.urlopen(f"{place}{path}", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, ValueError):
            pass
        return None

    # The end.

    def close(self) -> None:
        self.kill_workers()
        for command in self._started:
            command.kill()
            command.communicate()
        # It ends by itself a second after its last user.
        wait_until(lambda: not processes_of(self.home), "its broker goes on")


@contextmanager
def loaded(name: str, environment: Mapping[str, str]) -> Iterator[Any]:
    """The module of an example, as if nobody had imported it before."""
    before = dict(os.environ)
    os.environ.update(environment)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
        os.environ.clear()
        os.environ.update(before)


def first_number(printed: str) -> int:
    found = re.match(r"\d+", printed)
    assert found is not None, printed
    return int(found[0])
