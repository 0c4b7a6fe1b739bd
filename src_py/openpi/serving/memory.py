"""How this process handles the memory of images that come and go."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEEP_BYTES = 1 << 25  # the most that glibc allows on 64 bits


def keep_freed() -> None:
    """Keep big blocks that are freed, up to 32 MB each, for the next request.

    By default glibc gives them back to the system and faults their pages in again, which costs a request with three
    images about a quarter of the server's time. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2 * KEEP_BYTES)
