"""Frames from a stream that is cut anywhere."""

import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from streamer.wire.frames import (
    FRAME_BYTES_MAX,
    RESERVED_BYTES_MAX,
    FrameReader,
    FrameTooLarge,
    frame,
)
from streamer.wire.messages import Malformed

SCRATCH_BYTES = 64


def reader(limit: int = FRAME_BYTES_MAX, scratch: int = SCRATCH_BYTES) -> FrameReader:
    return FrameReader(memoryview(bytearray(scratch)), limit)


def feed(frames: FrameReader, data: bytes) -> list[bytes]:
    """Let the reader receive `data`, in pieces no larger than the buffers it offers."""
    found = []
    while data:
        buffer = frames.get_buffer()
        n = min(len(buffer), len(data))
        buffer[:n] = data[:n]
        found += [bytes(whole) for whole in frames.received(n)]
        data = data[n:]
    return found


def stream(bodies: Iterable[bytes]) -> bytes:
    return b"".join(b"".join(frame([body])) for body in bodies)


@given(st.lists(st.binary(max_size=200)), st.lists(st.integers(0, 1000)))
def test_frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
    bodies: list[bytes], cuts: list[int]
) -> None:
    data, frames, found = stream(bodies), reader(), []

    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        found += feed(frames, data[start:end])

    assert found == bodies
    assert frames.pending == 0


@given(st.lists(st.binary(max_size=100), min_size=1))
def test_frames_come_out_of_single_bytes(bodies: list[bytes]) -> None:
    frames = reader()

    found = [whole for byte in stream(bodies) for whole in feed(frames, bytes([byte]))]

    assert found == bodies


def test_connections_share_a_scratch_buffer() -> None:
    """What one has begun is safe from what another receives."""
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    first, second = FrameReader(scratch), FrameReader(scratch)
    data = stream([b"abc", b"d" * 40])

    found: tuple[list[bytes], list[bytes]] = ([], [])
    for byte in data:
        found[0].extend(feed(first, bytes([byte])))
        found[1].extend(feed(second, bytes([byte ^ 0])))

    assert found == ([b"abc", b"d" * 40], [b"abc", b"d" * 40])


def test_a_frame_stays_what_it_is_when_the_next_one_comes() -> None:
    frames = reader()
    (buffer := frames.get_buffer())[:7] = stream([b"one"])
    (one,) = frames.received(7)
    buffer[:7] = stream([b"two"])
    (two,) = frames.received(7)

    assert (bytes(one), bytes(two)) == (b"one", b"two")


def test_the_rest_of_a_large_frame_is_received_in_place() -> None:
    body = bytes(range(256)) * 40
    data, frames = stream([body]), reader()
    assert feed(frames, data[:SCRATCH_BYTES]) == []

    buffer = frames.get_buffer()

    assert len(buffer) == len(data) - SCRATCH_BYTES
    buffer[:] = data[SCRATCH_BYTES:]
    (whole,) = frames.received(len(buffer))
    assert isinstance(whole, memoryview)
    assert whole.obj is buffer.obj
    assert whole == body


def test_pending_tells_how_large_the_frame_being_received_will_be() -> None:
    frames = reader()

    assert frames.pending == 0
    feed(frames, (1000).to_bytes(4, "big") + b"begun")
    assert frames.pending == 1000
    feed(frames, bytes(995))
    assert frames.pending == 0


def test_the_buffer_of_a_large_frame_grows_with_what_comes() -> None:
    """Announcing 100 MiB costs the client as many bytes as it costs us, and not five."""
    body = bytes(3 * RESERVED_BYTES_MAX)
    frames = reader(scratch=1 << 16)

    tracemalloc.start()
    try:
        feed(frames, FRAME_BYTES_MAX.to_bytes(4, "big") + b"x")
        assert tracemalloc.get_traced_memory()[1] < 2 * RESERVED_BYTES_MAX
    finally:
        tracemalloc.stop()

    assert feed(reader(), stream([body, b"next"])) == [body, b"next"]


def test_an_empty_frame_is_a_frame() -> None:
    assert feed(reader(), stream([b"", b"", b"a"])) == [b"", b"", b"a"]


def test_a_frame_of_the_limit_is_accepted_and_a_larger_one_is_not() -> None:
    assert feed(reader(limit=10), stream([bytes(10)])) == [bytes(10)]
    with pytest.raises(FrameTooLarge, match="11 bytes; at most 10") as raised:
        feed(reader(limit=10), stream([bytes(11)]))
    assert raised.value.size == 11


def test_a_negative_size_is_malformed() -> None:
    """The first bytes of a TLS handshake or of HTTP make no size either."""
    with pytest.raises(Malformed, match="-1 bytes"):
        feed(reader(), b"\xff\xff\xff\xff")
    with pytest.raises(FrameTooLarge):
        feed(reader(), b"GET / HTTP/1.1\r\n")


def test_a_frame_is_made_of_chunks_without_joining_them() -> None:
    records = memoryview(b"records")

    assert frame([b"ab", records]) == [b"\x00\x00\x00\x09", b"ab", records]
    assert frame([b"ab", records])[2] is records
