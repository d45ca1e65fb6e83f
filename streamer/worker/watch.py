"""Watching the worker: does the loop turn, and does every agent get on?

User code that computes for long, or waits without `await`, holds up the loop, and with it
everything but the heartbeats of the group. Nobody in the loop can tell of it, so a thread
looks on, and names the place in the log while it lasts.

    Watch     a thread; the loop tells it several times a second that it turns
    Stalls    twice a second: which agents have something to do and do nothing
"""

from __future__ import annotations

import asyncio
import linecache
import logging
import site
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)

BEAT_S_MAX = 0.25
LOOK_S = 0.5

OURS = str(Path(__file__).parent.parent) + "/"
LIBRARIES = tuple(
    {sysconfig.get_paths()[kind] + "/" for kind in ("purelib", "platlib")}
    | {folder + "/" for folder in site.getsitepackages()}
)
STDLIB = tuple(
    {sysconfig.get_paths()[kind] + "/" for kind in ("stdlib", "platstdlib")} | {"<frozen "}
)
# Whoever has started the loop is not to blame for what runs in it.
LOOP = tuple(asyncio.__file__.replace("__init__", name) for name in ("events", "runners"))


class Place(NamedTuple):
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        text = linecache.getline(self.file, self.line).strip()
        shown = f": `{text}`" if text else ""
        return f"{self.file}:{self.line} in {self.function}{shown}"


def place_of(frame: FrameType | None) -> Place | None:
    """Where the user's code stands: the innermost frame that is neither ours, nor the
    standard library's, nor of a library if that can be avoided."""
    stack: list[Place] = []
    while frame is not None:
        code = frame.f_code
        stack.append(Place(code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return users_place(stack)


def users_place(stack: Sequence[Place]) -> Place | None:
    """The same of a stack, innermost first."""
    in_loop = list(takewhile(lambda place: place.file not in LOOP, stack))
    stack = in_loop or stack
    foreign = [
        place
        for place in stack
        if place.file.startswith(LIBRARIES) or not place.file.startswith((OURS, *STDLIB))
    ]
    foreign = [place for place in foreign if not place.file.startswith(OURS)]
    users = [place for place in foreign if not place.file.startswith(LIBRARIES)]
    return next(iter(users or foreign or stack), None)


class Watch:
    def __init__(self, limit_s: float, stalled: Callable[[float], None]) -> None:
        """`stalled` is told, in the loop, of each time that the loop did not turn for
        longer than `limit_s`, and for how long."""
        self._limit_s = limit_s
        self._beat_s = min(limit_s / 4, BEAT_S_MAX)
        self._stalled = stalled
        self._beat_at = time.monotonic()
        # Where it stands, once that has been said.
        self._named = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._beat()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._handle is not None:
            self._handle.cancel()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self) -> None:
        now = time.monotonic()
        silent_s, self._beat_at = now - self._beat_at, now
        if self._named:
            log.warning("The loop turns again, after %.1f s: %s", silent_s, self._named)
            self._named = ""
            self._stalled(silent_s)
        self._handle = self._loop.call_later(self._beat_s, self._beat)

    def _run(self) -> None:
        looked_at = time.monotonic()
        while not self._stopped.wait(self._beat_s):
            now = time.monotonic()
            slept_s, looked_at = now - looked_at, now
            if slept_s > self._limit_s:
                # This thread did not run either, so no place in the code is to blame.
                self._beat_at = now
                log.warning("The whole process stood still for %.1f s.", slept_s)
            elif now - self._beat_at > self._limit_s and not self._named:
                self._name(now - self._beat_at)

    def _name(self, silent_s: float) -> None:
        task = asyncio.current_task(self._loop)
        place = place_of(sys._current_frames().get(self._loop_thread))
        who = task.get_name() if task is not None else "no task"
        self._named = f"{who}, at {place}"
        log.warning(
            "The loop has not turned for %.1f s, held up by %s\n"
            "  -> Await what waits; what computes for long belongs into a thread:"
            " `await asyncio.to_thread(...)`.",
            silent_s,
            self._named,
        )


class Marked(Protocol):
    """A feed: `mark` is another one whenever it has got on, None when nothing is to do."""

    @property
    def name(self) -> str: ...

    @property
    def mark(self) -> object: ...


class Stalls:
    """Since when an agent has not got on, though it has something to do."""

    def __init__(
        self,
        feeds: Callable[[], Iterable[Marked]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feeds = feeds
        self._now = now
        self._seen: dict[str, tuple[object, float]] = {}
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.look()
        self._handle = asyncio.get_running_loop().call_later(LOOK_S, self.start)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def look(self) -> None:
        now = self._now()
        for feed in self._feeds():
            mark = feed.mark
            before, _ = self._seen.get(feed.name, (None, now))
            if mark is None or mark != before:
                self._seen[feed.name] = mark, now

    def stuck_s(self, name: str) -> float:
        mark, since = self._seen.get(name, (None, 0.0))
        return 0.0 if mark is None else self._now() - since
