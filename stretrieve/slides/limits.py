"""Bounds on what a slide file may ask of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stretrieve.errors import ConfigError, explain

MAX_SIDE_PX: Final = 1 << 20
"""Longest side of an image, in pixels."""
MAX_TILE_SIDE_PX: Final = 16_384
"""Longest side of a storage tile, in pixels."""
MAX_READ_PX: Final = 64_000_000
"""Most pixels of one read."""
MAX_OVERVIEW_PX: Final = 8_000_000_000
"""Most pixels that are read to see a whole slide, from its best level."""
MAX_PX_PER_BYTE: Final = 1000
"""Most pixels a byte of a file may stand for; blank tiles of real slides reach some hundreds."""
BIG_IMAGE_PX: Final = 256_000_000
"""Images of no more pixels than this may be as empty as they like."""
MAX_RASTER_PX: Final = 1_000_000_000
"""Most pixels of an image that must be decoded as a whole."""
MAX_CHILD_BYTES: Final = 8 << 30
"""Address space of a reader process."""


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """How long a reader process may take and how often it is tried again.

    Parameters
    ----------
    open_timeout_s
        Seconds to open a file.
    read_timeout_s
        Seconds for one region; decoding a plain raster image adds its own estimate.
    retries
        How often an open or a region is tried again, in a new process, after a hang or a crash.
    max_crashes, max_hangs
        Crashes and hangs of one slide's readers that are put up with; after one more it is given up.
    max_failed
        Fraction of patches that may fail before the slide is given up.
    """

    open_timeout_s: float = 15.0
    read_timeout_s: float = 15.0
    retries: int = 1
    max_crashes: int = 8
    max_hangs: int = 3
    max_failed: float = 0.05

    def __post_init__(self) -> None:
        if min(self.open_timeout_s, self.read_timeout_s) <= 0:
            raise ConfigError(explain("reader timeouts", got=self, expected="seconds above 0"))
        if min(self.retries, self.max_crashes, self.max_hangs) < 0 or not 0 <= self.max_failed <= 1:
            raise ConfigError(
                explain("reader limits", got=self, expected="0 or more, max_failed 0 to 1")
            )
