"""The broker as a process: open the log, listen, keep house, stop in order.

    start   take the folder, recover, replay the catalogue, the groups and the
            transactions, end what was left half done, listen, write the address down
    run     checkpoints, retention, compaction, forgotten producers, silent connections,
            free space
    stop    take no more requests, answer the produces in hand and hang up on all else,
            flush, mark the folder as clean; from then on nothing is written

The port is chosen once and kept in the folder (`address`), so that clients find a broker
again that was killed and started anew with `--port 0`. Should somebody else have taken it
meanwhile, it is another one, and the log says so.
"""

import asyncio
import errno
import logging
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from streamer.broker.admission import Admission
from streamer.broker.api import table
from streamer.broker.config import BrokerConfig, Listener
from streamer.broker.connection import Connection
from streamer.broker.core import Broker
from streamer.broker.open_files import allow_many, connections_max
from streamer.broker.trouble import way_out
from streamer.broker.users import Users
from streamer.errors import BrokerError
from streamer.log.clock import Clock
from streamer.log.directory import LogDirectory
from streamer.log.disk import RealDisk

log = logging.getLogger(__name__)

SCRATCH_BYTES = 256 * 1024
# Requests in hand get this long to be answered when the broker stops.
STOP_SECONDS = 5.0
SWEEP_SECONDS = 5.0


class Server:
    """One broker, listening."""

    def __init__(self, config: BrokerConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._path = Path(config.text("log.dirs"))
        self._servers: list[asyncio.Server] = []
        self._chores: list[asyncio.Task[None]] = []
        self._admission = Admission(
            connections_max=connections_max(config.number("max.connections")),
            bytes_max=config.number("queued.max.request.bytes"),
            idle_seconds=config.number("connections.max.idle.ms") / 1000,
        )
        # One buffer serves all connections: each read from a socket is dealt with
        # before the next one happens.
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))

    @property
    def addresses(self) -> list[Listener]:
        return self.broker.addresses

    async def start(self) -> None:
        try:
            self._open()
        except OSError as error:
            raise BrokerError(
                f"{self._path} cannot be used: {error}.", remedy=way_out(error)
            ) from error
        try:
            await self.broker.groups.forget_missing_topics()
            await self.broker.transactions.load()
            await self._listen_everywhere()
        except BaseException:
            # The log is in order; the next start need not check it.
            self.broker.close()
            raise
        self._keep_ports()
        self.broker.watch_space()
        self._chores = [
            asyncio.create_task(self._repeat(seconds, chore), name=chore.__name__)
            for seconds, chore in (
                (SWEEP_SECONDS, self._sweep),
                (self._seconds("log.flush.offset.checkpoint"), self.broker.checkpoint),
                (self._seconds("log.retention.check"), self.broker.apply_retention),
                (
                    self._seconds("producer.id.expiration.check"),
                    self.broker.expire_producers,
                ),
                (self._seconds("offsets.retention.check"), self.broker.groups.expire),
                (
                    self._seconds("transaction.abort.timed.out.transaction.cleanup"),
                    self.broker.transactions.abort_late,
                ),
                (
                    self._seconds("transaction.remove.expired.transaction.cleanup"),
                    self.broker.transactions.expire,
                ),
                (
                    self._config.number("log.cleaner.backoff.ms") / 1000,
                    self.broker.cleaner.clean,
                ),
            )
        ]

    def _open(self) -> None:
        directory = LogDirectory.open(
            RealDisk(),
            self._path,
            self._clock,
            durable=self._config.text("log.durability") == "fsync",
            node_id=self._config.number("node.id"),
        )
        self.broker = Broker(self._config, self._clock, directory, table())
        self.broker.catalog.load()
        self.broker.groups.load()

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for connection in list(self._admission.connections):
            connection.stop()
        await self._admission.all_gone(STOP_SECONDS)
        for connection in list(self._admission.connections):
            connection.abort()
        self.broker.close()

    # Listening.

    async def _listen_everywhere(self) -> None:
        kept = self._kept_ports()
        for index, listener in enumerate(self._config.listeners):
            server = await self._listen(index, listener, kept)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            self.broker.addresses.append(Listener(listener.host, port))

    async def _listen(
        self, index: int, listener: Listener, kept: dict[int, int]
    ) -> asyncio.Server:
        wanted = listener.port or kept.get(index, 0)
        try:
            return await self._serve(index, listener.host, wanted)
        except OSError as error:
            if listener.port == 0 and wanted:
                server = await self._serve(index, listener.host, 0)
                log.warning(
                    "Port %d, where clients knew this broker, is taken: %s."
                    " It is found at port %d from now on.",
                    wanted,
                    error.strerror or error,
                    server.sockets[0].getsockname()[1],
                )
                return server
            raise BrokerError(
                f"Cannot listen at {listener.host}:{wanted}: {error.strerror or error}.",
                remedy="Stop who listens there, or take another port with --port "
                "(0 takes a free one)."
                if error.errno == errno.EADDRINUSE
                else "Name another address with --host.",
            ) from None

    async def _serve(self, index: int, host: str, port: int) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(self.broker, self._admission, self._scratch, index),
            host,
            port,
            backlog=self._config.number("socket.listen.backlog.size"),
        )

    def _kept_ports(self) -> dict[int, int]:
        """The ports of the last time; those that cannot be read are chosen anew."""
        try:
            lines = (self._path / "address").read_text(errors="replace").split()
        except OSError:
            return {}
        ports = {index: line.rpartition(":")[2] for index, line in enumerate(lines)}
        return {
            index: int(port)
            for index, port in ports.items()
            if re.fullmatch("[0-9]{1,5}", port) and int(port) < 1 << 16
        }

    def _keep_ports(self) -> None:
        addresses = "".join(f"{address}\n" for address in self.broker.addresses)
        file, temporary = self._path / "address", self._path / "address.tmp"
        try:
            if not file.exists() or file.read_text(errors="replace") != addresses:
                temporary.write_text(addresses)
                temporary.replace(file)
            self.broker.directory.publish_address(", ".join(addresses.split()))
        except OSError as error:
            log.warning(
                "%s cannot be written: %s. The next start may take another port.\n  -> %s",
                file,
                error,
                way_out(error),
            )

    # Chores.

    def _seconds(self, name: str) -> float:
        return self._config.number(f"{name}.interval.ms") / 1000

    async def _repeat(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        """Do `chore` every so many seconds; a failure is told and does not end it."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await chore()
            except Exception:
                log.exception(
                    "%s failed; it is tried again in %g s.", chore.__name__, seconds
                )

    async def _sweep(self) -> None:
        self._admission.sweep(self._clock.monotonic())
        self.broker.watch_space()


async def serve(
    config: BrokerConfig,
    clock: Clock,
    on_ready: Callable[[Server], None],
    users: Users | None = None,
) -> None:
    """Run a broker until SIGINT or SIGTERM, or until its users have gone; stop in order."""
    allow_many()
    server = Server(config, clock)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    watch = asyncio.create_task(_stop_when_unused(users, stopping)) if users else None
    try:
        on_ready(server)
        await stopping.wait()
    finally:
        # A second Ctrl-C ends it at once: the next start recovers.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if watch is not None:
            watch.cancel()
        await server.stop()


async def _stop_when_unused(users: Users, stopping: asyncio.Event) -> None:
    try:
        await users.wait_until_gone()
        log.info("Nobody uses this broker any more; it stops.")
    except OSError as error:
        # Whoever still needs it starts it again; a broker that never ends helps nobody.
        log.error("%s cannot be watched: %s. The broker stops.", users.path, error)
    stopping.set()
