"""A byte stream cut into frames, and messages made into frames. No I/O here.

A frame is an int32 size and that many bytes. Bytes arrive in pieces of any
length, and this is arranged so that they are moved as little as can be:

    scratch   one buffer shared by all connections; bytes are read into it, whole
              frames are copied out, and nothing is left in it between two reads
    frame     once the size of a frame is known and the rest has still to come, the
              frame gets a buffer of its own, and the rest is read right into it

So an idle connection holds no buffer, and 100 MB of records are not copied. A
connection asks for the buffer, reads into it, and says how much it was:

    n = socket.recv_into(reader.get_buffer())
    for frame in reader.received(n): ...

A size is believed only as far as bytes come: the buffer of a large frame grows
with them, so that a client cannot reserve memory by announcing it.
"""

from struct import Struct

from streamer.wire.codec import Buffer, Malformed

SIZE = Struct(">i")
FRAME_BYTES_MAX = 104_857_600  # Kafka's default for socket.request.max.bytes

# A frame of at most this size gets its buffer at once, a larger one step by step.
RESERVED_BYTES_MAX = 256 << 10
GROWTH = 4


class FrameTooLarge(Malformed):
    """A frame announces more bytes than we accept."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        super().__init__(f"a frame of {size} bytes; at most {limit} are accepted")


class FrameReader:
    """Cuts what one connection receives into frames."""

    __slots__ = ("_filled", "_frame", "_head", "_limit", "_scratch", "_size")

    def __init__(self, scratch: memoryview, limit: int = FRAME_BYTES_MAX) -> None:
        self._scratch = scratch
        self._limit = limit
        self._head = b""  # the first bytes of a size, of which the rest is missing
        self._size = 0  # of the frame being received
        self._frame: bytearray | None = None  # what there is of it; None between frames
        self._filled = 0

    @property
    def pending(self) -> int:
        """How many bytes the frame now being received has announced; 0 between frames."""
        return self._size if self._frame is not None else 0

    def get_buffer(self) -> memoryview:
        """Where the next bytes of this connection belong. Use it at once."""
        if self._frame is None:
            return self._scratch
        if self._filled == len(self._frame):
            self._frame = self._grown(self._frame)
        return memoryview(self._frame)[self._filled :]

    def received(self, n: int) -> list[Buffer]:
        """The frames completed by the `n` bytes just put into the buffer."""
        if self._frame is None:
            return self._cut(n)
        self._filled += n
        if self._filled < self._size:
            return []
        whole = memoryview(self._frame)
        self._frame = None
        return [whole]

    def _cut(self, n: int) -> list[Buffer]:
        """Take all that the scratch buffer holds: whole frames, then a beginning."""
        data: Buffer = self._scratch[:n]
        if self._head:
            data, self._head = self._head + data, b""
        frames: list[Buffer] = []
        at, end = 0, len(data)
        while end - at >= SIZE.size:
            (size,) = SIZE.unpack_from(data, at)
            self._check(size)
            at += SIZE.size
            if size > end - at:
                self._begin(size, data[at:])
                return frames
            frames.append(bytes(data[at : at + size]))
            at += size
        self._head = bytes(data[at:])
        return frames

    def _check(self, size: int) -> None:
        if size < 0:
            raise Malformed(f"a frame of {size} bytes")
        if size > self._limit:
            raise FrameTooLarge(size, self._limit)

    def _begin(self, size: int, data: Buffer) -> None:
        self._size, self._filled = size, len(data)
        self._frame = bytearray(min(size, max(RESERVED_BYTES_MAX, len(data))))
        self._frame[: len(data)] = data

    def _grown(self, full: bytearray) -> bytearray:
        """Room in proportion to what has come, within the size announced."""
        # A new buffer: the old one cannot grow while somebody holds a view of it.
        grown = bytearray(min(self._size, GROWTH * len(full)))
        grown[: len(full)] = full
        return grown


def frame(chunks: list[Buffer]) -> list[Buffer]:
    """The chunks of one message, behind their size."""
    return [SIZE.pack(sum(map(len, chunks))), *chunks]
