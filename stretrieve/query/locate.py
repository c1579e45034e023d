"""Where on a slide expression is predicted: a grid over the tissue, or positions given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputError, explain
from stretrieve.query.settings import QuerySettings
from stretrieve.slides import Slide, TissueMask, patch_grid, tissue_mask
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
        ``(n_patches,)`` share of tissue, or of the regions given, in the finest field of view, 0 to 1.
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
    slide: Slide,
    spec: PatchSpec,
    *,
    settings: QuerySettings,
    spots: SpotPositions | None = None,
    regions: Path | str | None = None,
) -> Positions:
    """Return the patch centres of a slide: at spots, in regions, or on the tissue found.

    Parameters
    ----------
    slide
        An open slide.
    spec
        Fields of view of the embedder.
    settings
        Stride and least share of tissue of a grid.
    spots
        Positions given; a grid over the tissue when ``None``.
    regions
        GeoJSON with polygons in level-0 px. Whoever drew them decides, not the tissue finder: a patch
        counts when ``settings.min_tissue`` of it is inside.

    Raises
    ------
    TissueError
        When no patch of the grid holds enough tissue.
    InputError
        When given positions lie outside the image, or regions are none that can be used.
    """
    if spots is not None and regions is not None:
        raise InputError(explain("query", got="both spots and regions", expected="one of them"))
    side_um = spec.primary.side_um
    if spots is not None:
        _check(slide, spots)
        names, xy = np.asarray(spots.names, np.str_), np.asarray(spots.xy, np.float64)
        return Positions(names, xy, tissue_mask(slide).fraction(xy, side_um))
    tissue = tissue_mask(slide)
    drawn = None if regions is None else TissueMask.from_geojson(Path(regions), slide)
    grid = patch_grid(
        slide,
        spec,
        stride_um=settings.stride_um,
        mask=tissue if drawn is None else drawn,
        min_tissue=settings.min_tissue,
    )
    names = np.array([f"patch_{i:07d}" for i in range(len(grid.xy))])
    fraction = grid.tissue_fraction if drawn is None else tissue.fraction(grid.xy, side_um)
    return Positions(names, np.asarray(grid.xy, np.float64), np.asarray(fraction))


def _check(slide: Slide, spots: SpotPositions) -> None:
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
