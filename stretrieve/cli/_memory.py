"""How the memory of the command line's own process is managed."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 1 << 30


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory in this process, where the C library is glibc.

    A network allocates and frees the same hundreds of megabytes in every layer. Given back to the system
    each time, as large blocks are, they cost a tenth of the time that the network takes.
    """
    if sys.platform == "linux":
        adjust = getattr(ctypes.CDLL(None), "mallopt", None)
        if adjust is not None:
            adjust(_MMAP_THRESHOLD, _KEPT_BYTES)
            adjust(_TRIM_THRESHOLD, _KEPT_BYTES)
