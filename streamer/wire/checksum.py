"""CRC32C, which covers every batch, and what else we write and must be able to trust."""

import google_crc32c

from streamer.wire.codec import Buffer


def crc32c(data: Buffer) -> int:
    # The library takes nothing but `bytes`. It runs at 26 GB/s, a copy no slower.
    value: int = google_crc32c.value(data if type(data) is bytes else bytes(data))
    return value
