"""Codecs: there and back, other writers' data, and bombs."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from struct import pack

import cramjam
import pytest
from hypothesis import given, settings, strategies as st

from streamer.wire.compression import (
    XERIAL,
    Compression,
    Undecodable,
    compress,
    decompress,
)

CODECS = [codec for codec in Compression if codec is not Compression.NONE]
MEBIBYTE = 1 << 20

# 16 MiB of nothing, 64 times over: a GiB, if one unpacks it.
BOMB_PART, BOMB_PARTS = 16 * MEBIBYTE, 64


@given(st.sampled_from(Compression), st.binary(max_size=500), st.integers(1, 100))
@settings(deadline=None)
def test_what_is_compressed_decompresses_equal(
    codec: Compression, data: bytes, times: int
) -> None:
    packed = compress(codec, data * times)

    assert decompress(codec, packed) == data * times
    assert decompress(codec, memoryview(packed)) == data * times


@given(st.binary(max_size=2000), st.integers(1, 200))
@settings(deadline=None)
def test_lz4_is_written_as_java_reads_it(data: bytes, times: int) -> None:
    """Its client refuses blocks that build on each other, and checks the header."""
    packed = compress(Compression.LZ4, data * times)

    version_and_flags = packed[4]
    assert version_and_flags >> 6 == 1
    assert version_and_flags & 0x20, "blocks are independent"
    assert packed[-4:] == bytes(4)
    assert bytes(cramjam.lz4.decompress(packed)) == data * times


@pytest.mark.parametrize("codec", CODECS)
def test_cut_or_strange_data_is_undecodable(codec: Compression) -> None:
    packed = compress(codec, b"some bytes to be packed" * 100)

    for data in (b"", b"\x01", packed[: len(packed) // 2], b"no such format" * 10):
        with pytest.raises(Undecodable):
            decompress(codec, data)


@given(st.sampled_from(CODECS), st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_data_is_decoded_or_undecodable(
    codec: Compression, data: st.DataObject
) -> None:
    packed = bytearray(compress(codec, bytes(range(256)) * 4))
    for at in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=3)):
        packed[at] ^= data.draw(st.integers(1, 255))

    try:
        found = decompress(codec, bytes(packed), limit=MEBIBYTE)
    except Undecodable:
        return
    assert len(found) <= MEBIBYTE


@pytest.mark.parametrize("codec", CODECS)
def test_the_limit_itself_is_allowed(codec: Compression) -> None:
    packed = compress(codec, bytes(100_000))

    assert decompress(codec, packed, limit=100_000) == bytes(100_000)
    with pytest.raises(Undecodable, match="more than 99999 bytes"):
        decompress(codec, packed, limit=99_999)


def bomb(codec: Compression) -> bytes:
    part = compress(codec, bytes(BOMB_PART))
    if codec is Compression.SNAPPY:
        return xerial([part] * BOMB_PARTS)
    return part * BOMB_PARTS


def xerial(blocks: list[bytes]) -> bytes:
    """Snappy as Java wraps it: magic, two versions, and blocks behind their sizes."""
    return XERIAL + pack(">ii", 1, 1) + b"".join(pack(">i", len(b)) + b for b in blocks)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_stops_at_the_limit(codec: Compression) -> None:
    data, limit = bomb(codec), 4 * MEBIBYTE

    tracemalloc.start()
    try:
        with pytest.raises(Undecodable, match=f"more than {limit} bytes"):
            decompress(codec, data, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < limit + MEBIBYTE


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_bombs_do_not_take_memory_behind_our_back() -> None:
    """The codecs allocate outside of Python; the kernel sees that too."""
    script = (
        "import resource\n"
        "from wire.test_compression import *\n"
        "for codec in CODECS:\n"
        "    data = bomb(codec)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    try:\n"
        "        decompress(codec, data)\n"
        "    except Undecodable:\n"
        "        pass\n"
        "    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    print(codec.name, (after - before) >> 10)\n"
    )
    tests = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{tests}:{tests.parent}"},
        capture_output=True,
        text=True,
        check=True,
    )
    grown = {name: int(n) for name, n in (line.split() for line in ran.stdout.splitlines())}

    assert set(grown) == {codec.name for codec in CODECS}
    assert max(grown.values()) < 100, grown


def test_a_kibibyte_that_claims_a_gibibyte_is_refused_unread() -> None:
    claim = b"\x80\x80\x80\x80\x04" + bytes(1019)
    assert cramjam.snappy.decompress_raw_len(claim) == 1 << 30

    with pytest.raises(Undecodable, match="more than"):
        decompress(Compression.SNAPPY, claim)


def test_snappy_as_java_wraps_it_is_read() -> None:
    blocks = [compress(Compression.SNAPPY, block) for block in (b"first ", b"second" * 99)]

    assert decompress(Compression.SNAPPY, xerial(blocks)) == b"first " + b"second" * 99
    assert decompress(Compression.SNAPPY, xerial([])) == b""


@pytest.mark.parametrize(
    "data",
    [
        xerial([b"\x03abc"])[:-1],
        xerial([]) + b"\x00\x00",
        xerial([]) + pack(">i", 0),
        xerial([]) + pack(">i", -1),
        xerial([]) + pack(">i", 1 << 30),
    ],
)
def test_blocks_that_do_not_fit_are_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable):
        decompress(Compression.SNAPPY, data)
