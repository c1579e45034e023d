"""Where on a slide expression is predicted: a grid over the tissue, or positions given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputError, TissueError, explain
from stretrieve.query.settings import QuerySettings
from stretrieve.slides import Slide, patch_grid, tissue_mask
from stretrieve.specs import PatchSpec


@dataclass(frozen=True)
class Positions:
    """Patch centres on a slide.

    Parameters
    ----------
    names
        ``(n_patches,)`` unique names: spot ids when given, else ``patch_0000012``.
    xy
        ``(n_patches, 2)`` centres in level-0 px.
    tissue_fraction
        ``(n_patches,)`` share of tissue in the finest field of view, 0 to 1.
    """

    names: npt.NDArray[np.str_]
    xy: npt.NDArray[np.float64]
    tissue_fraction: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class SpotPositions:
    """Positions at which the caller wants predictions.

    Parameters
    ----------
    names
        ``(n_spots,)`` unique spot ids.
    xy
        ``(n_spots, 2)`` centres in level-0 px of the slide.
    """

    names: npt.NDArray[np.str_]
    xy: npt.NDArray[np.float64]


def locate(
    slide: Slide, spec: PatchSpec, *, settings: QuerySettings, spots: SpotPositions | None
) -> Positions:
    """Return the patch centres of a slide.

    Raises
    ------
    TissueError
        When no patch of the grid holds enough tissue.
    InputError
        When given positions lie outside the image.
    """
    if spots is not None:
        return _given(slide, spec, spots)
    mask = tissue_mask(slide)
    grid = patch_grid(
        slide, spec, stride_um=settings.stride_um, mask=mask, min_tissue=settings.min_tissue
    )
    if len(grid.xy) == 0:
        raise TissueError(
            explain(
                f"tissue on {slide.path.name}",
                got=f"no patch with {settings.min_tissue:.0%} tissue or more",
                remedy="check the image, or lower --min-tissue",
            )
        )
    names = np.array([f"patch_{i:07d}" for i in range(len(grid.xy))])
    return Positions(names, np.asarray(grid.xy, np.float64), np.asarray(grid.tissue_fraction))


def _given(slide: Slide, spec: PatchSpec, spots: SpotPositions) -> Positions:
    if len(spots.names) == 0:
        raise InputError(explain("spots file", got="no positions", expected="one or more"))
    if len(np.unique(spots.names)) != len(spots.names):
        raise InputError(explain("spots file", got="duplicate spot ids", expected="unique ids"))
    width, height = slide.dimensions
    inside = np.all((spots.xy >= 0) & (spots.xy < (width, height)), axis=1)
    outside = np.atleast_1d(~inside)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        x, y = spots.xy[first]
        raise InputError(
            explain(
                f"{int(outside.sum())} of {len(outside)} spots outside {slide.path.name}",
                got=f"{spots.names[first]} at ({x:.0f}, {y:.0f})",
                expected=f"pixels of the {width} x {height} image",
                remedy="check that the spot file belongs to this image",
            )
        )
    fraction = tissue_mask(slide).fraction(spots.xy, spec.primary.side_um)
    return Positions(np.asarray(spots.names, np.str_), np.asarray(spots.xy, np.float64), fraction)
