"""A broker without sockets: frames are handed to a connection, its answers are collected.

The disk is real and the loop too; only the network is left out, so that a test says
exactly which bytes arrive when, and sees exactly what is written back.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamer.broker.admission import Admission
from streamer.broker.api import table
from streamer.broker.config import Listener, load
from streamer.broker.connection import Connection
from streamer.broker.core import Broker
from streamer.log.clock import Clock, SystemClock
from streamer.log.directory import LogDirectory
from streamer.log.disk import Disk, RealDisk
from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.frames import SIZE, frame
from streamer.wire.headers import read_response_header, write_request_header

SCRATCH = memoryview(bytearray(64 * 1024))


@asynccontextmanager
async def running_broker(
    path: Path,
    settings: Mapping[str, str] | None = None,
    *,
    disk: Disk | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Broker]:
    """A broker on the folder `path`, ready for connections."""
    broker = await started_broker(path, settings, disk=disk, clock=clock)
    try:
        yield broker
    finally:
        broker.close()


async def started_broker(
    path: Path,
    settings: Mapping[str, str] | None = None,
    *,
    disk: Disk | None = None,
    clock: Clock | None = None,
) -> Broker:
    """The same, for those who will not close it in order."""
    config = load(flags=settings or {}, environment={}, directory=Path("/"))
    clock = clock or SystemClock()
    directory = LogDirectory.open(
        disk or RealDisk(),
        path,
        clock,
        durable=config.text("log.durability") == "fsync",
        node_id=1,
    )
    broker = Broker(config, clock, directory, table())
    broker.catalog.load()
    broker.groups.load()
    await broker.groups.forget_missing_topics()
    await broker.transactions.load()
    broker.addresses = [Listener("127.0.0.1", 9092)]
    return broker


class Transport(asyncio.Transport):
    """What a connection writes is kept; a client that does not read can be played."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5555)})
        self.written = bytearray()
        self.wrote = asyncio.Event()
        self._reading = True
        self._closed = False

    def write(self, data: Any) -> None:
        self.written += data
        self.wrote.set()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading

    def abort(self) -> None:
        self._closed = True

    def close(self) -> None:
        self._closed = True

    def is_closing(self) -> bool:
        return self._closed


class Client:
    """One connection to a broker, spoken to in messages."""

    def __init__(self, broker: Broker, admission: Admission | None = None) -> None:
        self.transport = Transport()
        self._correlation_id = 0
        self._asked: list[tuple[ApiKey, int]] = []
        self._connection = Connection(
            broker,
            admission
            or Admission(connections_max=10, bytes_max=1 << 20, idle_seconds=60.0),
            SCRATCH,
            listener=0,
        )
        self._connection.connection_made(self.transport)

    @property
    def connection(self) -> Connection:
        return self._connection

    def send(self, key: ApiKey, version: int, request: Any) -> None:
        """Send a request; do not wait for the answer."""
        self._correlation_id += 1
        head = write_request_header(key, version, self._correlation_id, "test")
        self._asked.append((key, version))
        self.send_bytes(b"".join(frame([head, *messages.write_request(request, version)])))

    def send_bytes(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self.transport.is_closing():
            buffer = self._connection.get_buffer(-1)
            piece = data[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            self._connection.buffer_updated(len(piece))
            at += len(piece)

    async def answer(self) -> Any:
        """The next answer that was written back."""
        async with asyncio.timeout(10):
            while not self.has_answer:
                self.transport.wrote.clear()
                await self.transport.wrote.wait()
        (size,) = SIZE.unpack_from(self.transport.written)
        received = bytes(self.transport.written[4 : 4 + size])
        del self.transport.written[: 4 + size]
        key, version = self._asked.pop(0)
        _, at = read_response_header(key, version, received)
        return messages.read_response(key, version, received, at)

    @property
    def has_answer(self) -> bool:
        written = self.transport.written
        return len(written) >= 4 and len(written) >= 4 + SIZE.unpack_from(written)[0]

    async def ask(self, key: ApiKey, version: int, request: Any) -> Any:
        self.send(key, version, request)
        return await self.answer()
