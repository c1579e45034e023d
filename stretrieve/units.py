"""Units of length on a slide, so that pixels and microns are never mixed.

Coordinates are always (x, y). ``SlidePx`` are pixels of level 0; ``PatchPx`` are pixels of the patch
that an embedder sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

import numpy as np
import numpy.typing as npt

from stretrieve.errors import MppError, explain

Microns = NewType("Microns", float)
Mpp = NewType("Mpp", float)
SlidePx = NewType("SlidePx", float)
PatchPx = NewType("PatchPx", int)

MIN_MPP = 0.1
MAX_MPP = 5.0


class MppSource(StrEnum):
    """Where the resolution of an image comes from; it is never guessed."""

    FILE = "file"
    GIVEN = "given"
    SHEET = "sheet"
    GRID = "grid"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Physical size of a level-0 pixel and where that figure comes from.

    Parameters
    ----------
    x, y
        Microns per pixel along each axis. Resized images have different values for the two.
    source
        Where the figures come from.
    """

    x: Mpp
    y: Mpp
    source: MppSource

    def __post_init__(self) -> None:
        for axis, value in (("x", self.x), ("y", self.y)):
            if not (np.isfinite(value) and value > 0):
                raise MppError(explain(f"mpp along {axis}", got=value, expected="a number above 0"))

    @classmethod
    def square(cls, mpp: float, source: MppSource) -> PixelSize:
        """Return a pixel size that is the same along both axes."""
        return cls(Mpp(mpp), Mpp(mpp), source)

    @property
    def mean(self) -> Mpp:
        """Geometric mean of both axes, in µm per pixel."""
        return Mpp(float(np.sqrt(self.x * self.y)))

    def to_um(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Convert level-0 pixels ``(n, 2)`` to microns ``(n, 2)``."""
        return np.asarray(xy, dtype=np.float64) * (self.x, self.y)

    def to_px(self, xy_um: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Convert microns ``(n, 2)`` to level-0 pixels ``(n, 2)``."""
        return np.asarray(xy_um, dtype=np.float64) / (self.x, self.y)

    def check_plausible(self, what: str, *, low: float = MIN_MPP, high: float = MAX_MPP) -> None:
        """Refuse a resolution outside ``low`` to ``high`` µm per pixel.

        Raises
        ------
        MppError
            When either axis is out of range.
        """
        if not (low <= self.x <= high and low <= self.y <= high):
            raise MppError(
                explain(
                    f"mpp of {what}",
                    got=f"{self.x:.4g} x {self.y:.4g} ({self.source})",
                    expected=f"{low:g} to {high:g} µm/px",
                    remedy="give the true value with --mpp or the sheet's mpp column",
                )
            )
