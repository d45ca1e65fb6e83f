"""`worker --processes N`: N workers, each a process of its own, and one that minds them.

    killed by a signal      started again, after a pause that grows while that goes on
    ended with a failure    the others are stopped, and that is the end: it would fail again
    ended in order          somebody has stopped just this one; the others go on

Each is started as this one was, anew and never forked: a fork would inherit locks that
belong to the worker and are given back when it dies. What they say is passed on, a line at
a time with the number of the process before it. Their stdin ends when this process does,
however it went, and then they stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

from streamer.cli.output import say
from streamer.errors import StreamerError

PAUSE_S, PAUSE_MAX_S = 0.5, 30.0
HEALTHY_S = 60.0
KILL_S = 2.0
"""After the bound that a worker keeps by itself."""
LAST_S = 0.5
CHUNK = 1 << 16


class ProcessFailed(StreamerError):
    """One of the workers could not go on."""

    remedy = "What it said last, above, says why, and what to do."


def rerun() -> list[str]:
    """How this program was started, for one process instead of several."""
    return [sys.executable, *sys.orig_argv[1:], "--processes", "1", "--supervised"]


async def supervise(command: Sequence[str], count: int, bound_s: float) -> None:
    """Run `command` so many times, until a signal, or a failure of one."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    keepers = [Keeper(number, command) for number in range(1, count + 1)]

    def stop(number: int) -> None:
        asked.set()
        for keeper in keepers:
            keeper.signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    say(f"{count} processes; Ctrl-C stops them.")
    kept = [asyncio.create_task(keeper.keep()) for keeper in keepers]
    waiting = asyncio.create_task(asked.wait())
    everything: asyncio.Future[list[None]] = asyncio.gather(*kept)
    ends: set[asyncio.Future[Any]] = {everything, waiting}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for keeper in keepers:
        keeper.stop()
    _, late = await asyncio.wait(kept, timeout=bound_s + KILL_S)
    if late:
        for keeper in keepers:
            keeper.signal(signal.SIGKILL)
        await asyncio.wait(late)
    waiting.cancel()
    await everything


class Keeper:
    """Sees to it that one worker runs."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        *,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self.starts = 0
        self._command = command
        self._first_pause_s = self._pause_s = pause_s
        self._clock = clock
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        while not self._stopping.is_set():
            began = self._clock()
            code = await self._run()
            if code > 0 and not self._was_asked(code):
                raise ProcessFailed(
                    f"Process {self.number} has ended with exit code {code}."
                )
            if code < 0 and self._stopping.is_set() and not self._was_asked(code):
                raise ProcessFailed(
                    f"Process {self.number} was killed ({signal.Signals(-code).name})"
                    " while it stopped."
                )
            if code >= 0 or self._stopping.is_set():
                return
            if self._clock() - began > HEALTHY_S:
                self._pause_s = self._first_pause_s
            say(
                f"[{self.number}] was killed ({signal.Signals(-code).name}); "
                f"started again in {self._pause_s:g} s."
            )
            await self._pause()

    def _was_asked(self, code: int) -> bool:
        """A second signal ends a worker at once, with the code that shells know. One that
        is still starting does not listen to signals yet: the first one kills it."""
        told = (signal.SIGTERM, signal.SIGINT)
        return self._stopping.is_set() and (code - 128 in told or -code in told)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    async def _run(self) -> int:
        """Run it once; its exit code, or the signal that killed it, negative."""
        prefix = f"[{self.number}] "
        with ExitStack() as pipes:
            out = await Pipe.to(sys.stdout.buffer, prefix)
            err = await Pipe.to(sys.stderr.buffer, prefix)
            told_by, tells = os.pipe()
            pipes.callback(os.close, tells)
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=told_by,
                stdout=out.end,
                stderr=err.end,
                # Ctrl-C comes to us, and is passed on: once, not twice.
                start_new_session=True,
            )
            for end in (told_by, out.end, err.end):
                os.close(end)
            self.starts += 1
            if self._stopping.is_set():
                self.signal(signal.SIGTERM)
            code = await process.wait()
            await out.close()
            await err.close()
        return code

    def stop(self) -> None:
        """Have it stop in order, and start it no more; once is enough."""
        if not self._stopping.is_set():
            self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Pass it on; whatever signal it is, there is no further start."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class Pipe:
    """What a worker says, on its way to us."""

    def __init__(
        self, end: int, transport: asyncio.ReadTransport, reading: asyncio.Task[None]
    ) -> None:
        # Where it writes to; closed here once it has started.
        self.end = end
        self._transport = transport
        self._reading = reading

    @classmethod
    async def to(cls, out: BinaryIO, prefix: str) -> Pipe:
        loop = asyncio.get_running_loop()
        begin, end = os.pipe()
        source = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(source), os.fdopen(begin, "rb", 0)
        )
        return cls(end, transport, asyncio.create_task(relay(source, prefix, out)))

    async def close(self) -> None:
        """Take what is still in it; a program that the worker has left behind may keep it
        open for long."""
        await asyncio.wait({self._reading}, timeout=LAST_S)
        self._reading.cancel()
        self._transport.close()


async def relay(source: asyncio.StreamReader, prefix: str, out: BinaryIO) -> None:
    """Pass on whole lines, each with its prefix, as soon as they are there."""
    rest = b""
    while chunk := await source.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        _write(lines, prefix.encode(), out)
    if rest:
        _write([rest], prefix.encode(), out)


def _write(lines: Sequence[bytes], prefix: bytes, out: BinaryIO) -> None:
    try:
        out.write(b"".join(prefix + line + b"\n" for line in lines))
        out.flush()
    except (BrokenPipeError, ValueError):
        pass  # nobody reads it any more; the workers go on
