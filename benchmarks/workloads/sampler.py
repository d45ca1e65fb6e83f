"""Which lines the time goes to: looked at as often as the kernel's clock ticks.

A tracing profiler charges each call, and so shows code of many small calls as slower than
it is. A signal now and then shows each line as often as it takes time. What C code takes
is on the line that called it. Only the main thread is looked at.
"""

from __future__ import annotations

import linecache
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

EACH_S = 0.001
LINES = 25


class Sampler:
    def __init__(self) -> None:
        self._lines: Counter[tuple[str, int]] = Counter()
        self._functions: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, EACH_S, EACH_S)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is not None:
            code = frame.f_code
            # Some instructions are of no line.
            line = frame.f_lineno or code.co_firstlineno
            self._lines[code.co_filename, line] += 1
        inside = set()
        while frame is not None:
            inside.add((frame.f_code.co_filename, frame.f_code.co_qualname))
            frame = frame.f_back
        self._functions.update(inside)

    def report(self) -> str:
        looks = max(1, self._lines.total())
        lines = [
            f"{count / looks:6.1%}  {short(file)}:{number}  "
            f"{linecache.getline(file, number).strip()}"
            for (file, number), count in self._lines.most_common(LINES)
        ]
        functions = [
            f"{count / looks:6.1%}  {short(file)}  {name}"
            for (file, name), count in self._functions.most_common(LINES)
        ]
        return "\n".join(
            [
                f"{looks} looks; by line:",
                *lines,
                "by function, with all it calls:",
                *functions,
            ]
        )


def short(file: str) -> str:
    return "/".join(Path(file).parts[-2:])
