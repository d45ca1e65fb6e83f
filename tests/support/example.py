"""An example as a person runs it: `python bank.py worker`, other commands beside it.

It has a folder of its own for the broker that it starts for itself. Workers are processes
and may be killed; `loaded` gives the module, to read what is in its topics.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from support.clients import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 30.0


class Example:
    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = {
            "STREAMER_HOME": str(self.home),
            "STREAMER_WEB_PORT": "0",
            **environment,
        }
        self._command = [sys.executable, str(EXAMPLES / f"{name}.py")]
        self._started: list[subprocess.Popen[str]] = []
        self._workers: list[subprocess.Popen[str]] = []

    # Commands.

    def start(self, *words: str) -> subprocess.Popen[str]:
        running = subprocess.Popen(
            [*self._command, *words],
            cwd=self.folder,
            env=os.environ | self.environment,
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
                    env=os.environ | self.environment,
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
        wait_until(self._broker_has_gone, "its broker goes on")

    def _broker_has_gone(self) -> bool:
        """It ends by itself a second after its last user."""
        return not any(
            str(self.home) in word
            for process in psutil.process_iter(["cmdline"])
            for word in process.info["cmdline"] or ()
        )


@contextmanager
def loaded(name: str, environment: Mapping[str, str]) -> Iterator[Any]:
    """The module of an example, as if nobody had imported it before."""
    before = dict(os.environ)
    os.environ.update(environment)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
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
