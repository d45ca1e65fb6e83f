"""The broker of our own: started again when it has gone.

It is a process of its own and may be killed like any other. Whoever misses it first has it
started again, on the port where the clients look for it; they then go on by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamer.client.embedded import EmbeddedBroker
from streamer.client.interface import ClientError
from streamer.worker.errors import WorkerFailed

log = logging.getLogger(__name__)

LOOK_S = 0.2


class OwnBroker:
    """This worker's share in it; nothing, where the app names a broker."""

    def __init__(self, broker: EmbeddedBroker | None, missed: Callable[[], bool]) -> None:
        """`missed` says, once each time, that a client has found nobody there."""
        self._broker = broker
        self._missed = missed
        self._task: asyncio.Task[None] | None = None

    def start(self, ended: Callable[[asyncio.Task[None]], None]) -> None:
        if self._broker is not None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._look_after(self._broker), name="broker")
            self._task.add_done_callback(ended)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_after(self, broker: EmbeddedBroker) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self._missed():
                await asyncio.to_thread(self.ensure)

    def ensure(self) -> None:
        """Have it run. Blocks; without one of our own there is nothing to be done."""
        if self._broker is None:
            return
        address = self._broker.address
        try:
            self._broker.ensure()
        except ClientError as error:
            log.warning("%s", error)
            return
        if self._broker.address != address:
            raise WorkerFailed(
                f"The app's own broker was at {address} and is at {self._broker.address}"
                " now.",
                remedy="Start the worker again: it looks where the broker was.",
            )

    def leave(self) -> None:
        if self._broker is not None:
            self._broker.leave()
