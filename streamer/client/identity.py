"""Which cluster answers at an address: a Metadata request by hand, in a millisecond.

An address that was written down may be anybody's by now, another broker's even. The id of
the cluster tells: it was drawn when the broker's folder was made.
"""

from __future__ import annotations

import socket
import struct

# Size; key 3 (Metadata), version 2, correlation, client id; an array of no topics.
REQUEST = struct.pack(">ihhih8si", 22, 3, 2, 1, 8, b"streamer", 0)
# Whoever is silent for so long is busy or somebody else; both can wait.
PATIENCE_SECONDS = 0.5
# More than this is no answer about a cluster of one.
ANSWER_BYTES_MAX = 1 << 16


def cluster_at(host: str, port: int) -> str | None:
    """The id of the cluster whose broker answers there; None if none does."""
    try:
        with socket.create_connection((host, port), PATIENCE_SECONDS) as connection:
            connection.sendall(REQUEST)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            return _cluster_id(_receive(connection, size))
    except (OSError, EOFError, OverflowError, ValueError, struct.error):
        return None


def _receive(connection: socket.socket, size: int) -> bytes:
    if not 0 < size <= ANSWER_BYTES_MAX:
        raise EOFError
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise EOFError
        received += part
    return received


def _cluster_id(answer: bytes) -> str | None:
    """Skip the correlation and the brokers (id, host, port, rack); the next text is it."""
    (brokers,) = struct.unpack_from(">i", answer, 4)
    at = 8
    for _ in range(brokers):
        _, at = _text(answer, at + 4)
        _, at = _text(answer, at + 4)
    return _text(answer, at)[0]


def _text(answer: bytes, at: int) -> tuple[str | None, int]:
    (size,) = struct.unpack_from(">h", answer, at)
    at += 2
    if size < 0:
        return None, at
    return answer[at : at + size].decode(), at + size
