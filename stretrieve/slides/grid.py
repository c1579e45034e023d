"""A grid of patches over the tissue, laid out in microns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ConfigError, ShapeError, TissueError, explain
from stretrieve.slides.base import Slide
from stretrieve.slides.tissue import TissueMask, tissue_mask
from stretrieve.specs import PatchSpec

_MAX_CELLS: Final = 20_000_000
_EXTRA_NEIGHBOURS: Final = 12
_DECIMALS_UM: Final = 6


@dataclass(frozen=True)
class PatchGrid:
    """Patch centres on a regular grid, row by row.

    Parameters
    ----------
    xy
        ``(n, 2)`` centres in level-0 px.
    xy_um
        ``(n, 2)`` centres in microns.
    tissue_fraction
        ``(n,)`` share of tissue in the finest field of view.
    grid_index
        ``(n, 2)`` (column, row) on the grid.
    stride_um
        Distance of neighbouring centres.
    """

    xy: npt.NDArray[np.float64]
    xy_um: npt.NDArray[np.float64]
    tissue_fraction: npt.NDArray[np.float64]
    grid_index: npt.NDArray[np.int64]
    stride_um: float

    def __post_init__(self) -> None:
        n = len(self.xy)
        shapes = [
            self.xy.shape,
            self.xy_um.shape,
            self.tissue_fraction.shape,
            self.grid_index.shape,
        ]
        if shapes != [(n, 2), (n, 2), (n,), (n, 2)]:
            raise ShapeError(explain("patch grid", got=shapes, expected=f"{n} rows in each array"))

    def __len__(self) -> int:
        return len(self.xy)

    def neighbours(self, k: int, *, radius_um: float | None = None) -> npt.NDArray[np.int64]:
        """Return the nearest other patches of each patch.

        Parameters
        ----------
        k
            Neighbours of each patch.
        radius_um
            Greatest distance; ``None`` for any.

        Returns
        -------
        ndarray
            ``(n, k)`` positions in this grid, nearest first, ties by position; -1 where there are
            fewer.

        Raises
        ------
        ConfigError
            When ``k`` is below 1.
        """
        return nearest_neighbours(self.xy_um, k, radius_um=radius_um)


def nearest_neighbours(
    xy_um: npt.NDArray[np.float64], k: int, *, radius_um: float | None = None
) -> npt.NDArray[np.int64]:
    """Return the ``k`` nearest other points of each point, as :meth:`PatchGrid.neighbours` does.

    Parameters
    ----------
    xy_um
        ``(n, 2)`` points in microns.
    k
        Neighbours of each point.
    radius_um
        Greatest distance; ``None`` for any.
    """
    from scipy.spatial import cKDTree

    if k < 1:
        raise ConfigError(explain("neighbours", got=k, expected="1 or more"))
    n = len(xy_um)
    result = np.full((n, k), -1, dtype=np.int64)
    if n < 2:
        return result
    wanted = min(n, k + 1 + _EXTRA_NEIGHBOURS)
    distances, found = cKDTree(xy_um).query(xy_um, k=wanted)
    distances = np.round(distances, _DECIMALS_UM)
    distances[found == np.arange(n)[:, None]] = np.inf
    if radius_um is not None:
        distances[distances > radius_um] = np.inf
    order = np.lexsort((found, distances), axis=1)[:, : min(k, wanted - 1)]
    nearest = np.take_along_axis(found, order, axis=1)
    nearest[np.isinf(np.take_along_axis(distances, order, axis=1))] = -1
    result[:, : nearest.shape[1]] = nearest
    return result


def patch_grid(
    slide: Slide,
    spec: PatchSpec,
    *,
    stride_um: float | None = None,
    mask: TissueMask | None = None,
    min_tissue: float = 0.1,
) -> PatchGrid:
    """Lay a grid over a slide and keep the patches that show tissue.

    The first field of view begins at the slide's top left corner and the step is in microns, so the
    same tissue gets the same grid at any resolution of the scan.

    Parameters
    ----------
    slide
        An open slide.
    spec
        Fields of view; the finest one decides about tissue.
    stride_um
        Distance of neighbouring centres; ``None`` for patches side by side.
    mask
        Where tissue is; ``None`` to find it.
    min_tissue
        Least share of tissue in a patch, 0 to 1; 0 keeps all patches.

    Raises
    ------
    ConfigError
        When stride or share are out of range, or the grid would have too many cells.
    TissueError
        When no patch shows enough tissue.
    """
    side = spec.primary.side_um
    step = side if stride_um is None else float(stride_um)
    if not (math.isfinite(step) and step > 0):
        raise ConfigError(explain("stride_um", got=stride_um, expected="microns above 0"))
    if not 0 <= min_tissue <= 1:
        raise ConfigError(explain("min_tissue", got=min_tissue, expected="0 to 1"))
    index = _cells(slide.size_um, side, step)
    xy_um = np.asarray(index * step + side / 2, dtype=np.float64)
    xy = slide.pixel_size.to_px(xy_um)
    found = mask if mask is not None else tissue_mask(slide)
    fraction = found.fraction(xy, side)
    keep = fraction >= min_tissue
    if not keep.any():
        raise TissueError(
            explain(
                f"slide {str(slide.path)!r}",
                got=f"no patch with {min_tissue:.0%} tissue or more among {len(index)}",
                remedy="check the image and its mpp, or lower the least share of tissue",
            )
        )
    return PatchGrid(xy[keep], xy_um[keep], fraction[keep], index[keep], step)


def _cells(size_um: tuple[float, float], side: float, step: float) -> npt.NDArray[np.int64]:
    """Return (column, row) of all cells, row by row; the last ones may reach over the edge."""
    columns, rows = (max(1, math.ceil((length - side) / step) + 1) for length in size_um)
    if columns * rows > _MAX_CELLS:
        raise ConfigError(
            explain("patch grid", got=f"{columns} x {rows} cells", expected=f"at most {_MAX_CELLS}",
                    remedy="use a larger stride")
        )  # fmt: skip
    index = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    return index.reshape(-1, 2).astype(np.int64)
