"""One client: frames in, handlers, answers out in order.

    socket → FrameReader → waiting → started → answered in the order they came → socket

Produces may overlap: each is appended when it comes, and one flush then answers many.
Every other request waits until all before it are answered, as in Apache Kafka. While
the client does not read its answers nothing more is started for it and nothing more
is read from it, so at most one answer and a few small requests wait in memory; what that
comes to for all clients together is bounded by `unread.py`.

Rubbish closes the connection, with a line in the log; it never harms another one.

After this: `api.py` says which handler, `wire/` reads and writes messages.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from streamer.broker import cluster
from streamer.broker.admission import Admission
from streamer.broker.api import Answer, Api, Call, CloseConnection, Message
from streamer.broker.security import Session
from streamer.broker.waiting import Waiting, Watch
from streamer.wire import messages
from streamer.wire.api_keys import ApiKey
from streamer.wire.frames import FrameReader, FrameTooLarge, frame
from streamer.wire.headers import RequestHeader, read_request_header, response_header
from streamer.wire.messages import Malformed, UnsupportedVersion

if TYPE_CHECKING:
    from streamer.broker.core import Broker

log = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview

# Requests that may wait here before nothing more is read from the client.
WAITING_MAX = 32
# Produces of one client that may wait for their flush at once.
OVERLAPPING_MAX = 128
PRODUCE_KEY = b"\0\0"
# Frames larger than this ask for admission before they are received.
LARGE_FRAME = 64 * 1024
# Requests without records are small: a few hundred KiB for a client of very many
# partitions. Decoded, one takes at most eight times its size (`wire/rows.py`), but what
# a handler makes of each element, and the time for all of them, is bounded only here.
PLAIN_REQUEST_MAX = 8 * 1024 * 1024
# Chunks smaller than this are joined before they are written; larger ones are not copied.
JOIN_BELOW = 64 * 1024


class Pending:
    """A request that was started and is not answered yet."""

    __slots__ = ("chunks", "done", "header", "is_produce", "task", "version", "watch")

    def __init__(self, header: RequestHeader) -> None:
        self.header = header
        self.version = header.api_version
        self.is_produce = header.api_key == ApiKey.PRODUCE
        self.done = False
        self.chunks: list[Buffer] | None = None
        self.watch: Watch | None = None
        self.task: asyncio.Future[Answer] | None = None

    def stop_waiting(self) -> None:
        if self.watch is not None:
            self.watch.cancel()
            self.watch = None


class Connection(asyncio.BufferedProtocol):
    def __init__(
        self, broker: "Broker", admission: Admission, scratch: memoryview, listener: int
    ) -> None:
        self._broker = broker
        self._admission = admission
        self._reader = FrameReader(
            scratch, limit=broker.config.number("socket.request.max.bytes")
        )
        self._listener = listener
        self._waiting: deque[Buffer] = deque()
        self._pending: deque[Pending] = deque()
        self._writing_paused = False
        self._reading_paused = False
        self._admitted = 0
        self._unread = 0
        self._asks_admission = False
        self._closing = False
        self._stopping = False
        self.last_heard = broker.clock.monotonic()
        # How often it has sent the end of a request.
        self.completed = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # A client that has gone again already has no name any more.
        host, port = (transport.get_extra_info("peername") or ("somewhere", 0))[:2]
        self.session = Session(peer=f"{host}:{port}", listener=self._listener)
        if own := transport.get_extra_info("sockname"):
            self.session.reached = own[0]
        if not self._admission.enter(self):
            self._broker.connection_refused(
                self.session.peer, self._admission.connections_max
            )
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._admission.leave(self)
        self._release()
        self._note_unread(0)
        for pending in self._pending:
            # What was begun is carried to its end: half a change to the catalogue would be
            # written down, and not known here.
            pending.stop_waiting()
        self._waiting.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.last_heard = self._broker.clock.monotonic()
        try:
            frames = self._reader.received(nbytes)
        except (FrameTooLarge, Malformed) as error:
            self.close(f"sent no frame that Kafka knows: {error}")
            return
        if frames:
            self.completed += 1
        if frames and not self._stopping:
            self._waiting.extend(frames)
            self._advance()
        if (
            self._reader.pending > LARGE_FRAME
            and not self._admitted
            and not self._asks_admission
        ):
            self._ask_admission()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._note_unread(0)
        self.last_heard = self._broker.clock.monotonic()
        self._advance()

    def eof_received(self) -> bool:
        return False

    # Reading: how much of this client is held in memory.

    @property
    def is_idle(self) -> bool:
        """Whether it is for the client to do something: to ask, or to read the answers."""
        return not self._pending

    @property
    def is_mid_frame(self) -> bool:
        """Whether it is for the client to send the rest of a request."""
        waits_for_us = self._reading_paused or self._asks_admission
        return self._reader.pending > 0 and not waits_for_us

    def close(self, why: str) -> None:
        """Close for a fault of the client's, or for its silence."""
        if not self._closing:
            log.warning("Connection from %s closed: it %s.", self.session.peer, why)
            self.abort()

    def abort(self) -> None:
        self._closing = True
        self._waiting.clear()
        self._transport.abort()

    def stop(self) -> None:
        """Close in order: what was appended is still answered, nothing new is begun."""
        self._stopping = True
        self._waiting.clear()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._stopping and not any(one.is_produce for one in self._pending):
            self._transport.close()

    def _ask_admission(self) -> None:
        size = self._reader.pending
        if self._admission.take(self, size):
            self._admitted = size
        else:
            self._asks_admission = True
            self._transport.pause_reading()

    def admitted(self, size: int) -> None:
        """There is room now for the large frame that this connection waited to receive."""
        self._admitted = size
        self._asks_admission = False
        self._read_on()

    def _read_on(self) -> None:
        """Read again, unless there is another reason not to."""
        if not (self._reading_paused or self._asks_admission or self._closing):
            self.last_heard = self._broker.clock.monotonic()
            self._transport.resume_reading()

    def _release(self) -> None:
        admitted, self._admitted = self._admitted, 0
        if admitted:
            self._admission.give_back(admitted)

    # Requests.

    def _advance(self) -> None:
        """Start what may be started; read on while not too much is waiting."""
        while self._waiting and not self._writing_paused and not self._closing:
            if self._pending and not self._may_overlap(self._waiting[0]):
                break
            received = self._waiting.popleft()
            self._start(received)
            if len(received) > LARGE_FRAME:
                self._release()
        if self._closing:
            return
        # One large request that waits is enough.
        full = len(self._waiting) >= WAITING_MAX or (
            bool(self._waiting) and len(self._waiting[-1]) > LARGE_FRAME
        )
        if full and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        elif not full and self._reading_paused:
            self._reading_paused = False
            self._read_on()

    def _may_overlap(self, received: Buffer) -> bool:
        """Whether a request may be started before all others are answered."""
        return (
            bytes(received[:2]) == PRODUCE_KEY
            and self._pending[-1].is_produce
            and len(self._pending) < OVERLAPPING_MAX
        )

    def _start(self, received: Buffer) -> None:
        try:
            pending = Pending(read_request_header(received))
        except Malformed as error:
            self.close(f"sent a request that cannot be read: {error}")
            return
        self._pending.append(pending)
        self._take(pending, partial(self._handle, pending, received))

    def _handle(self, pending: Pending, received: Buffer) -> Answer:
        header = pending.header
        api = self._broker.table.get(header.api_key)
        if api is None:
            raise CloseConnection(
                f"asked for API key {header.api_key}, which is not served"
            )
        version = header.api_version
        if not api.lowest <= version <= api.highest:
            if api.key != ApiKey.API_VERSIONS:
                raise CloseConnection(_unserved_version(api, version))
            # A newer client asks in words we do not know: it is told, in the oldest
            # words there are, which ones we do (KIP-511).
            pending.version = 0
            return cluster.unsupported_api_versions(api)
        if len(received) > PLAIN_REQUEST_MAX and not pending.is_produce:
            raise CloseConnection(f"sent {len(received)} bytes of {api.key.title}")
        try:
            request = messages.read_request(api.key, version, received, header.body)
        except (Malformed, UnsupportedVersion) as error:
            raise CloseConnection(f"sent a request that cannot be read: {error}") from error
        call = Call(version, self.session, self._broker, header.client_id or "")
        return api.handler(request, call)

    def _take(self, pending: Pending, give: Callable[[], Answer]) -> None:
        """Get an answer and pass it on, or wait for it; see to whatever goes wrong."""
        try:
            answer = give()
            if isinstance(answer, Waiting):
                self._wait(pending, answer)
            elif isinstance(answer, Awaitable):
                self._follow(pending, answer)
            else:
                self._answered(pending, answer)
        except CloseConnection as error:
            self.close(str(error))
        except Exception:
            log.exception("A request from %s failed; closing it.", self.session.peer)
            self.abort()

    def _wait(self, pending: Pending, waiting: Waiting) -> None:
        """Have `waiting` look whenever one of its partitions moves, until it answers."""
        if pending.watch is not None:
            return  # It has looked, and waits on.

        def wake(in_time: bool) -> None:
            if self._closing or pending.watch is None:
                return  # Nobody waits any more.
            answer = waiting.look if in_time else waiting.late
            self._take(pending, answer)
            if pending.done:
                self._advance()

        seconds = waiting.deadline - self._broker.clock.monotonic()
        pending.watch = self._broker.watchers.watch(waiting, seconds, wake)

    def _follow(self, pending: Pending, answer: Awaitable[Answer]) -> None:
        """Let a handler that waits for the disk do so; its answer comes when it is done."""
        pending.stop_waiting()
        pending.task = asyncio.ensure_future(answer)

        def finished(task: asyncio.Task[Answer]) -> None:
            if not task.cancelled() and not self._closing:
                self._take(pending, task.result)
                self._advance()

        pending.task.add_done_callback(finished)

    # Answers.

    def _answered(self, pending: Pending, response: Message | None) -> None:
        pending.stop_waiting()
        if response is not None:
            header = pending.header
            chunks = messages.write_response(response, pending.version)
            head = response_header(header.api_key, pending.version, header.correlation_id)
            pending.chunks = frame([head, *chunks])
        pending.done = True
        self._send_answered()

    def _send_answered(self) -> None:
        """Write the answers that are next in order."""
        while self._pending and self._pending[0].done:
            chunks = self._pending.popleft().chunks
            if chunks is not None:
                for buffer in _joined(chunks):
                    self._transport.write(buffer)
        if self._writing_paused:
            self._note_unread(self._transport.get_write_buffer_size())
        self._close_if_done()

    def _note_unread(self, size: int) -> None:
        self._broker.unread.changed(size - self._unread)
        self._unread = size


def _joined(chunks: list[Buffer]) -> list[Buffer]:
    """The same bytes in fewer pieces: small neighbours joined, large ones left alone."""
    if sum(map(len, chunks)) < JOIN_BELOW:
        return [b"".join(chunks)]
    joined: list[Buffer] = []
    small: list[Buffer] = []
    for chunk in chunks:
        if len(chunk) < JOIN_BELOW:
            small.append(chunk)
        else:
            if small:
                joined.append(b"".join(small))
                small = []
            joined.append(chunk)
    if small:
        joined.append(b"".join(small))
    return joined


def _unserved_version(api: Api, version: int) -> str:
    return (
        f"asked for {api.key.name} version {version}; "
        f"versions {api.lowest} to {api.highest} are served"
    )
