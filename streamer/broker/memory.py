"""Large blocks of memory are kept for the next request, not handed back to the system.

Each Fetch and each large Produce takes a block of up to a megabyte or so and soon lets go
of it. As delivered, glibc then returns it to the system, and the next one comes page by
page again, zeroed: measured, that is half of what a Fetch of a megabyte costs. So the C
library is told to keep what it has, up to a bound. Elsewhere (macOS, musl) nothing changes.
"""

import ctypes
import sys

# The names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

# Blocks up to this size come from the heap, ...
HEAP_BLOCK_BYTES = 16 << 20
# ... which keeps this much free at its end for what comes next.
KEPT_BYTES = 64 << 20


def keep_large_blocks() -> None:
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
