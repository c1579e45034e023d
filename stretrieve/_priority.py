"""Work that others must not wait for."""

from __future__ import annotations

import os
import sys
from typing import Final

_NICE: Final = 10


def step_back() -> None:
    """Let the calling thread, or a process by its first one, yield to others that want its core.

    Decoding and everything after the network run ahead of it or behind it, and have time; a network that
    has to share a core with them has not. On Linux alone, where threads have priorities of their own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
