"""How the memory of the command line's own process is managed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 1 << 30
_OLDER_LIMIT: Final = 32 << 20
"""Of blocks that older versions of glibc can be told to keep."""


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory in this process, where the C library is glibc.

    A network allocates and frees the same hundreds of megabytes in every layer. Given back to the system
    each time, as large blocks are, they cost time that the network could use.
    """
    if sys.platform == "linux":
        adjust = getattr(ctypes.CDLL(None), "mallopt", None)
        if adjust is not None:
            keep(adjust)


def keep(adjust: Callable[[int, int], int]) -> None:
    """Tell ``mallopt``, which returns 0 where it refuses a value.

    Telling it about trimming alone would end glibc's own choice of thresholds, at far too low a one.
    """
    if adjust(_MMAP_THRESHOLD, _KEPT_BYTES) or adjust(_MMAP_THRESHOLD, _OLDER_LIMIT):
        adjust(_TRIM_THRESHOLD, _KEPT_BYTES)
