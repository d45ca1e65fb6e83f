"""The server of a worker's pages, in the worker's own loop.

    bind     the first free port from `web.port` on: it is known before the worker joins
             its group, whose other members find the pages by it
    serve    answers from then on; who connected before has waited
    stop     ends what is under way, within a second

Starlette and uvicorn are imported when the worker runs already: they take a tenth of a
second.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.errors import StreamerError
from streamer.web.view import View

if TYPE_CHECKING:
    from streamer.web.serving import Serving

log = logging.getLogger(__name__)

PORTS_TRIED = 100
BACKLOG = 128


class NoPort(StreamerError):
    remedy = "Set web.port and web.bind, or web.enabled=false for a worker without pages."


class WebServer:
    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.port: int = listening.getsockname()[1]
        self._serving: Serving | None = None

    @classmethod
    def bind(cls, host: str, port: int, kept: Path | None = None) -> WebServer:
        """At this port or the next that is free; 0: at any.

        `kept` is the file that says which it was the last time. A member that comes back
        to its group is known there by the address it had, so it had better have it again.
        """
        # At once for others to see: two sockets may be bound to a port as long as neither
        # listens.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        tried = list(range(port, min(port + PORTS_TRIED, 65536)) if port else (0,))
        last = _kept_port(kept)
        if last and (port == 0 or last in tried):
            tried.insert(0, last)
        for one in tried:
            try:
                listening = socket.create_server(
                    (host, one), family=family, backlog=BACKLOG
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    why = error.strerror or error
                    raise NoPort(
                        f"Pages cannot be served at {host}:{one}: {why}."
                    ) from error
            else:
                server = cls(listening)
                _keep_port(kept, server.port)
                return server
        raise NoPort(f"All ports of {host} from {port} to {tried[-1]} are in use.")

    async def serve(self, view: View) -> None:
        serving = await asyncio.to_thread(_import_serving)
        self._serving = serving(view, self._socket)
        await self._serving.start()
        log.info("Pages are at http://%s:%d/", view.app.conf.web_bind, self.port)

    async def stop(self) -> None:
        if self._serving is not None:
            serving, self._serving = self._serving, None
            await serving.stop()
        self._socket.close()


def _keep_port(kept: Path | None, port: int) -> None:
    try:
        if kept is not None:
            kept.write_text(str(port))
    except OSError as error:
        log.warning("%s cannot be written: %s.", kept, error.strerror or error)


def _kept_port(kept: Path | None) -> int:
    try:
        return int(kept.read_text()) if kept is not None else 0
    except (OSError, ValueError):
        return 0


def _import_serving() -> type[Serving]:
    from streamer.web.serving import Serving

    return Serving
