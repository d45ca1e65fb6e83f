"""The processes that are measured: started, listened to, and never left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from benchmarks.contenders import ROOT, ClientFailed

PATIENCE_S = 300.0


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.workloads.{module}", *arguments]


class Process:
    """Each of its lines is JSON; the last is what it found. Used as a context, it ends."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._late = threading.Timer(PATIENCE_S, self.process.kill)
        self._late.daemon = True
        self._late.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._late.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def tell(self) -> None:
        """Whatever it waits for, now."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def expect(self, **line: object) -> None:
        """Wait until it says this."""
        while self._line() != line:
            pass

    def result(self) -> dict[str, Any]:
        """Wait until it is done; what it found."""
        found: dict[str, Any] = {}
        try:
            while True:
                found = self._line()
        except EOFError:
            pass
        if code := self.process.wait():
            raise ClientFailed(f"{self.name} ended with {code}; see above")
        return found

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        if code := self.process.wait():
            raise ClientFailed(f"{self.name} ended with {code}; see above")
        raise EOFError(f"{self.name} has no more to say")
