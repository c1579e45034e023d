"""The tissue mask of a slide, at a fixed physical resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ConfigError, ShapeError, TissueError, explain
from stretrieve.slides.base import Slide
from stretrieve.slides.geometry import check_centres
from stretrieve.slides.tissue_rule import find_tissue
from stretrieve.units import PixelSize

UM_PER_PX: Final = 8.0


@dataclass(frozen=True)
class TissueMask:
    """Where a slide shows tissue.

    Parameters
    ----------
    mask
        ``(height, width)`` bool; covers the whole slide.
    dimensions
        (width, height) of the slide in level-0 px.
    pixel_size
        Size of a level-0 pixel.
    """

    mask: npt.NDArray[np.bool_]
    dimensions: tuple[int, int]
    pixel_size: PixelSize

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_ or not self.mask.size:
            raise ShapeError(
                explain("tissue mask", got=f"{self.mask.shape} {self.mask.dtype}",
                        expected="(height, width) bool")
            )  # fmt: skip

    @property
    def px_per_mask_px(self) -> npt.NDArray[np.float64]:
        """``(2,)`` level-0 px per pixel of the mask, along x and y."""
        height, width = self.mask.shape
        return np.asarray(self.dimensions, dtype=np.float64) / (width, height)

    @property
    def area_mm2(self) -> float:
        """Area of the tissue in mm²."""
        sides = self.px_per_mask_px * (self.pixel_size.x, self.pixel_size.y)
        return float(self.mask.sum() * sides.prod() * 1e-6)

    def fraction(self, xy: npt.ArrayLike, side_um: float) -> npt.NDArray[np.float64]:
        """Return the share of tissue in a square field around each centre.

        Parameters
        ----------
        xy
            ``(n, 2)`` centres in level-0 px.
        side_um
            Side of the field in microns.

        Returns
        -------
        ndarray
            ``(n,)`` 0 to 1, exact for fields that begin and end within a pixel of the mask. What lies
            outside of the slide is no tissue.
        """
        if not side_um > 0:
            raise ConfigError(explain("side_um", got=side_um, expected="microns above 0"))
        centres = check_centres(xy)
        half = np.array([side_um / self.pixel_size.x, side_um / self.pixel_size.y]) / 2
        low = (centres - half) / self.px_per_mask_px
        high = (centres + half) / self.px_per_mask_px
        total = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        np.cumsum(np.cumsum(self.mask, axis=0), axis=1, out=total[1:, 1:])
        tissue = (
            _area_before(total, high[:, 0], high[:, 1])
            - _area_before(total, low[:, 0], high[:, 1])
            - _area_before(total, high[:, 0], low[:, 1])
            + _area_before(total, low[:, 0], low[:, 1])
        )
        return np.asarray(np.clip(tissue / (high - low).prod(axis=1), 0.0, 1.0))

    def to_geojson(self, path: Path, *, name: str = "Tissue") -> None:
        """Write the outlines as QuPath annotations, in level-0 px.

        Parameters
        ----------
        path
            GeoJSON file to write.
        name
            Class of the annotations.
        """
        from stretrieve.slides.geojson import outlines, write_geojson

        write_geojson(path, outlines(self.mask, self.px_per_mask_px), name=name)

    @classmethod
    def from_geojson(cls, path: Path, slide: Slide, *, um_per_px: float = UM_PER_PX) -> TissueMask:
        """Read regions of interest, for example drawn in QuPath, as the mask of a slide.

        Parameters
        ----------
        path
            GeoJSON with polygons in level-0 px.
        slide
            The slide they were drawn on.
        um_per_px
            Microns per pixel of the mask.

        Raises
        ------
        InputError
            When the file holds no usable polygon, or none that touches the slide.
        """
        from stretrieve.slides.geojson import rasterise, read_geojson

        width, height = _mask_size(slide, um_per_px)
        scale = np.asarray(slide.dimensions, dtype=np.float64) / (width, height)
        mask = rasterise(read_geojson(path), (width, height), scale, what=str(path))
        return cls(mask, slide.dimensions, slide.pixel_size)


def tissue_mask(
    slide: Slide, *, um_per_px: float = UM_PER_PX, require_tissue: bool = False
) -> TissueMask:
    """Find the tissue of an H&E slide.

    The result depends on the picture alone: neither on free memory nor on the levels of the file.

    Parameters
    ----------
    slide
        An open slide.
    um_per_px
        Microns per pixel of the mask.
    require_tissue
        Raise where there is none, in place of returning an empty mask.

    Raises
    ------
    ConfigError
        When ``um_per_px`` is out of range.
    TissueError
        When there is no tissue and ``require_tissue`` is set.
    SlideError
        When the slide cannot be read.
    """
    size = _mask_size(slide, um_per_px)
    mask = find_tissue(slide.overview(size), um_per_px=um_per_px)
    if require_tissue and not mask.any():
        raise TissueError(
            explain(
                f"slide {str(slide.path)!r}",
                got="no tissue",
                remedy="check the image, or draw regions and give them as GeoJSON (--regions)",
            )
        )
    return TissueMask(mask, slide.dimensions, slide.pixel_size)


def _mask_size(slide: Slide, um_per_px: float) -> tuple[int, int]:
    if not 0.5 <= um_per_px <= 100:
        raise ConfigError(explain("um_per_px of the mask", got=um_per_px, expected="0.5 to 100"))
    width, height = slide.size_um
    return max(1, round(width / um_per_px)), max(1, round(height / um_per_px))


def _area_before(
    total: npt.NDArray[np.float64], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Tissue above and left of (x, y): the summed-area table, interpolated within its cells."""
    height, width = total.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    i, j = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    u, v = x - i, y - j
    return np.asarray(
        total[j, i] * (1 - u) * (1 - v)
        + total[j, i + 1] * u * (1 - v)
        + total[j + 1, i] * (1 - u) * v
        + total[j + 1, i + 1] * u * v
    )
