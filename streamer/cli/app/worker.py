"""`worker`: run the app in this process, until a signal or until it cannot go on.

    SIGTERM, SIGINT (Ctrl-C)   stop in order: handlers finish, a last commit; exit code 0
    the same again             end at once; what was not committed is done again by others
    the worker cannot go on    it stops, and says why; exit code 1

A stop has a bound, `drain.timeout.ms` and a few seconds. Signals are heard, and the bound
is kept, by Python itself and a thread: handlers that block the loop hold up neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamer.app import App
from streamer.cli.app.progress import report
from streamer.cli.app.target import checked, pass_app
from streamer.cli.output import say
from streamer.client.embedded import home
from streamer.errors import StreamerError

if TYPE_CHECKING:
    from streamer.worker.worker import Worker

STOP_S = 8.0
"""To close clients and stores, in addition to the time that handlers may take."""
LOOK_S = 0.2

log = logging.getLogger(__name__)


class WorkerEnded(StreamerError):
    """The worker could not go on, by no error of ours."""

    remedy = "See the logged traceback; mend that, and start it again."


@click.command("worker")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Run so many of them; one that is killed is started again.",
)
@click.option(
    "-p",
    "--web-port",
    type=click.IntRange(0, 65535),
    help="Port of its pages; 0 takes any.  [default: 6066, or the next that is free]",
)
@click.option("--without-web", is_flag=True, help="Serve no pages.")
@click.option(
    "--store",
    type=click.Choice(["rocksdb", "memory"]),
    help="What keeps tables.  [default: rocksdb]",
)
@click.option(
    "-D",
    "--datadir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where tables are kept.  [default: state in the nearest .streamer folder]",
)
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
@click.option("--supervised", is_flag=True, hidden=True)
@pass_app
def worker_command(
    app: App,
    processes: int,
    web_port: int | None,
    without_web: bool,
    store: str | None,
    datadir: Path | None,
    loglevel: str,
    supervised: bool,
) -> None:
    """Run the app. Ctrl-C stops it in order, a second one at once.

    Start it several times, here or on other machines, and they share the work.

    \b
    Examples:
      streamer -A shop worker
      streamer -A shop worker --processes 2 --set commit.interval.ms=50
      python shop.py worker -b kafka.example.com:9092
    """
    checked(
        app,
        {
            "web.port": None if web_port is None else str(web_port),
            "web.enabled": "false" if without_web else None,
            "store": store,
            "state.dir": None if datadir is None else str(datadir.absolute()),
        },
    )
    # A program that has configured its logging gets what it wants.
    logging.basicConfig(
        level=loglevel.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    bound_s = app.conf.drain_timeout_ms / 1000 + STOP_S
    if processes > 1:
        from streamer.cli.app.processes import rerun, supervise

        asyncio.run(supervise(rerun(), processes, bound_s))
        return
    if supervised:
        threading.Thread(target=_end_with_supervisor, daemon=True).start()
    run(_serve(app, stop := Stop(bound_s)), stop)


def run(serve: Coroutine[Any, Any, None], stop: Stop) -> None:
    try:
        import uvloop
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        stop.listen(runner.get_loop())
        runner.run(serve)
    stop.done()


class Stop:
    """Whether somebody has asked for the end, and how long that may take."""

    def __init__(self, bound_s: float, end: Callable[[int], None] = os._exit) -> None:
        self.asked = asyncio.Event()
        self._bound_s = bound_s
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: threading.Timer | None = None

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _: object) -> None:
        if self._watch is not None:
            self._at_once("Ended at once", 128 + number)
        self.begin()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.asked.set)

    def begin(self) -> None:
        """It ends from now on, and must have done so in time."""
        if self._watch is None:
            late = f"Not stopped after {self._bound_s:g} s, ended"
            self._watch = threading.Timer(self._bound_s, self._at_once, (late, 1))
            self._watch.daemon = True
            self._watch.start()

    def done(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    def _at_once(self, how: str, code: int) -> None:
        # Not by `logging`: whoever was interrupted may hold its lock.
        os.write(2, f"{how}: what was not committed will be done again.\n".encode())
        self._end(code)


async def _serve(app: App, stop: Stop) -> None:
    asked = asyncio.create_task(stop.asked.wait())
    starting = asyncio.create_task(app.start())
    reporting = asyncio.create_task(report(app, log.info))
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
    elif starting.exception() is None:
        worker: Any = app._runtime
        for line in introduced(app, worker):
            say(line)
        ending = asyncio.create_task(_ended(app, worker))
        await asyncio.wait({ending, asked}, return_when=asyncio.FIRST_COMPLETED)
        stop.begin()
        await app.stop()
        if ending.done():
            ending.result()
    reporting.cancel()
    if not starting.cancelled():
        starting.result()


async def _ended(app: App, worker: Worker) -> None:
    """Until the worker cannot go on, which raises why, or until the app stops itself."""
    waiting = asyncio.create_task(worker.wait())
    while app._runtime is worker and not waiting.done():
        await asyncio.wait({waiting}, timeout=LOOK_S)
    if not waiting.done():
        waiting.cancel()
        return
    try:
        waiting.result()
    except StreamerError:
        raise
    except Exception as error:
        raise WorkerEnded(
            f"The worker cannot go on: {type(error).__name__}: {error}."
        ) from error


def introduced(app: App, worker: Worker) -> list[str]:
    """What runs, and where to look."""
    own = "" if app.conf.brokers else f", its own in {home(os.environ, Path.cwd())}"
    topics = ", ".join(sorted(worker.partition_counts)) or "no topic"
    pages = (
        f"; pages at http://{worker.conf.web_bind}:{worker.web_port}/"
        if worker.web_port
        else ""
    )
    return [
        f"{app.conf.id} runs in slot {worker.slot.number}, {app.conf.guarantee}; "
        f"broker {worker.clients.address}{own}",
        f"It reads {topics}{pages}; Ctrl-C stops it.",
    ]


def _end_with_supervisor() -> None:
    """Our stdin ends when whoever started us is gone, however it went."""
    # Not by `sys.stdin`, which Python would wait for when it ends.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
