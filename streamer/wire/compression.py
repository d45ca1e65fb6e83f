"""The codecs that a batch of records may be compressed with.

A kilobyte can claim to be a gigabyte. So the output goes into a buffer of ours
which grows until the data fits and never beyond `limit`: a bomb costs time and
memory for `limit` bytes and not for what it would unfold to.

Snappy comes in two wrappings: raw, as librdkafka writes it, and cut into blocks
behind a header, as Java does ("xerial"). Both are read; raw is written.

Java's client refuses lz4 whose blocks build on each other, which is what cramjam
writes unless told otherwise. So the frame is ours, of independent blocks as Java
writes them.

`cramjam` is imported at first use: a broker that never looks inside a batch
never loads it.
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Any

from streamer.wire.codec import Buffer

# What a batch may hold when decompressed. Clients cap a batch at a few megabytes.
UNPACKED_BYTES_MAX = 64 << 20

FIRST_GUESS_BYTES_MIN = 4096
GROWTH = 4

XERIAL = b"\x82SNAPPY\x00"
XERIAL_HEADER_BYTES = len(XERIAL) + 8  # and two versions, of no use
BLOCK_SIZE = Struct(">i")

# Independent blocks of up to 64 KiB, no checksums; the last byte is the header's own.
LZ4_HEADER = bytes.fromhex("04224d18604082")
LZ4_BLOCK_BYTES = 64 << 10
LZ4_SIZE = Struct("<I")
LZ4_AS_IT_IS = 1 << 31
LZ4_END = bytes(4)

# How cramjam says that the output did not fit into the buffer.
OUTPUT_FULL = "failed to write whole buffer"


class Compression(IntEnum):
    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class Undecodable(Exception):
    """Data that does not decompress, or to more than we allow."""


def compress(codec: Compression, data: Buffer) -> bytes:
    if codec is Compression.NONE:
        return bytes(data)
    if codec is Compression.SNAPPY:
        return bytes(module(codec).compress_raw(data))
    if codec is Compression.LZ4:
        return compress_lz4(data)
    return bytes(module(codec).compress(data))


def compress_lz4(data: Buffer) -> bytes:
    from cramjam import lz4

    frame = bytearray(LZ4_HEADER)
    for at in range(0, len(data), LZ4_BLOCK_BYTES):
        block = data[at : at + LZ4_BLOCK_BYTES]
        packed = bytes(lz4.compress_block(block, store_size=False))
        if len(packed) < len(block):
            frame += LZ4_SIZE.pack(len(packed))
            frame += packed
        else:
            frame += LZ4_SIZE.pack(len(block) | LZ4_AS_IT_IS)
            frame += block
    return bytes(frame + LZ4_END)


def decompress(
    codec: Compression, data: Buffer, limit: int = UNPACKED_BYTES_MAX
) -> bytes | bytearray:
    if codec is Compression.NONE:
        return bytes(data)
    from cramjam import DecompressionError

    try:
        if codec is Compression.SNAPPY:
            return decompress_snappy(data, limit)
        return decompress_stream(module(codec), data, limit)
    except DecompressionError as error:
        raise Undecodable(f"{len(data)} bytes of {codec.name.lower()}: {error}") from error


def module(codec: Compression) -> Any:
    import cramjam

    return getattr(cramjam, codec.name.lower())


def decompress_stream(codec: Any, data: Buffer, limit: int) -> bytearray:
    """For codecs that do not say beforehand how much will come out."""
    from cramjam import DecompressionError

    size = min(limit, max(FIRST_GUESS_BYTES_MIN, GROWTH * len(data)))
    while True:
        unpacked = bytearray(size)
        try:
            written = codec.decompress_into(data, unpacked)
        except DecompressionError as error:
            if OUTPUT_FULL not in str(error):
                raise
        else:
            del unpacked[written:]
            return unpacked
        del unpacked  # before the larger one is made
        if size == limit:
            raise too_large(limit)
        size = min(limit, size * GROWTH)


def decompress_snappy(data: Buffer, limit: int) -> bytearray:
    """Each block says how much it unfolds to, so the room is known at once."""
    from cramjam import snappy

    unpacked = bytearray()
    for block in snappy_blocks(data):
        size = snappy.decompress_raw_len(block)
        if size > limit - len(unpacked):
            raise too_large(limit)
        part = bytearray(size)
        if snappy.decompress_raw_into(block, part) != size:
            raise Undecodable(f"a snappy block of less than the {size} bytes it claims")
        unpacked += part
    return unpacked


def snappy_blocks(data: Buffer) -> Iterator[Buffer]:
    if data[: len(XERIAL)] != XERIAL:
        yield data
        return
    at = XERIAL_HEADER_BYTES
    while at < len(data):
        if len(data) - at < BLOCK_SIZE.size:
            raise Undecodable("snappy data that ends within the size of a block")
        (size,) = BLOCK_SIZE.unpack_from(data, at)
        at += BLOCK_SIZE.size
        if not 0 < size <= len(data) - at:
            raise Undecodable(f"a snappy block of {size} bytes, {len(data) - at} remain")
        yield data[at : at + size]
        at += size


def too_large(limit: int) -> Undecodable:
    return Undecodable(f"it unfolds to more than {limit} bytes")
