"""What becomes of the memory that a generator's layers free, where the C library is glibc."""

from __future__ import annotations

import ctypes
import sys

MOST_KEPT = 64 << 20  # bytes; a layer of a batch of the demo's generator fills up to 16 MiB
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Keeps what was freed for the next batch; where the C library is another nothing is done.

    By itself glibc gives large blocks back to the system and fetches them anew, page by page, or
    learns not to: it hangs on what the process did before.
    """
    if not sys.platform.startswith("linux"):
        return
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(MMAP_THRESHOLD, MOST_KEPT)
        set_option(TRIM_THRESHOLD, MOST_KEPT)
