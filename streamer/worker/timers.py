"""Functions that run at times, and those that run once: timers, crontabs, tasks.

They have no record in hand: what they send goes at once, and they write to no table. One
that raises is logged and runs again at its next time; a task that raises ends the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streamer.app import Task, Timer
from streamer.schedule import Every

if TYPE_CHECKING:
    from streamer.worker.worker import Worker

log = logging.getLogger(__name__)


class Timers:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        app, loop = self._worker.app, asyncio.get_running_loop()
        for timer in app.timers:
            self._tasks.append(loop.create_task(self._at_times(timer), name=timer.name))
        for task in app.tasks:
            self._tasks.append(loop.create_task(self._once(task), name=task.name))
        for running in self._tasks:
            running.add_done_callback(self._worker.ended)

    async def stop(self) -> None:
        for task in self._tasks:
            task.remove_done_callback(self._worker.ended)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _at_times(self, timer: Timer) -> None:
        due = time.monotonic()
        while True:
            if isinstance(timer.schedule, Every):
                due = timer.schedule.next_after(time.monotonic(), due)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            else:
                now = datetime.now(UTC)
                await asyncio.sleep(
                    max(0.0, (timer.schedule.next_after(now) - now).total_seconds())
                )
            if timer.on_leader and not self._worker.is_leader:
                continue
            try:
                await self._call(timer.fun)
            except Exception:
                log.exception("%s has failed; it runs again at its next time.", timer.name)

    async def _once(self, task: Task) -> None:
        if not task.on_leader or self._worker.is_leader:
            await self._call(task.fun)

    async def _call(self, fun: Any) -> None:
        """A function may take the app, or nothing."""
        takes_app = bool(inspect.signature(fun).parameters)
        result = fun(self._worker.app) if takes_app else fun()
        if inspect.isawaitable(result):
            await result
