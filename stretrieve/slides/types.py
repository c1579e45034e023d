"""What comes out of a slide: batches of patches, with what happened to each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ShapeError, explain


class PatchStatus(IntEnum):
    """What happened to a patch."""

    OK = 0
    PADDED = 1
    """Part of the field of view lies outside the image and was filled with white."""
    FAILED = 2
    """The pixels could not be read; the patch is white."""


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Consecutive patches of one slide, in the order in which their centres were given.

    Parameters
    ----------
    views
        One array a view of the patch spec, each ``(n_patches, patch_px, patch_px, 3)`` uint8 RGB.
    xy
        ``(n_patches, 2)`` centres in level-0 px.
    xy_um
        ``(n_patches, 2)`` centres in microns.
    indices
        ``(n_patches,)`` positions in the list of centres.
    status
        ``(n_patches,)`` values of :class:`PatchStatus`.
    """

    views: tuple[npt.NDArray[np.uint8], ...]
    xy: npt.NDArray[np.float64]
    xy_um: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.indices)
        lengths = [len(view) for view in self.views]
        lengths += [len(self.xy), len(self.xy_um), len(self.status)]
        if not self.views or any(length != n for length in lengths):
            raise ShapeError(
                explain("patch batch", got=f"{lengths} rows", expected=f"{n} in each array")
            )

    def __len__(self) -> int:
        return len(self.indices)
