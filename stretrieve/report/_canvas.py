"""The slide behind a map: thumbnail, positions, scale bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from stretrieve import keys
from stretrieve.errors import InputError, explain
from stretrieve.slides.overview import shrink_picture

BAR_STEPS_UM = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_BAR_SHARE = 0.25
_DOT_SHARE = 0.94
_DOT_UM = 55.0
_MAX_PX = 900


@dataclass(frozen=True)
class Canvas:
    """What a map is drawn on, in pixels of the thumbnail.

    Parameters
    ----------
    image
        ``(height, width, 3)`` uint8 thumbnail; ``None`` when the file holds none.
    xy
        ``(n_patches, 2)`` centres.
    diameter
        Diameter of a dot.
    um_per_px
        Microns per pixel of the thumbnail; ``None`` when unknown, then there is no scale bar.
    name
        Name of the slide.
    """

    image: npt.NDArray[np.uint8] | None
    xy: npt.NDArray[np.float64]
    diameter: float
    um_per_px: float | None
    name: str

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the picture: the whole thumbnail, or all positions."""
        if self.image is not None:
            height, width = self.image.shape[:2]
            return 0.0, float(width), float(height), 0.0
        low, high = self.xy.min(axis=0) - self.diameter, self.xy.max(axis=0) + self.diameter
        return float(low[0]), float(high[0]), float(high[1]), float(low[1])

    @property
    def bar_um(self) -> int | None:
        """Length of the scale bar: the longest round figure within a quarter of the width."""
        if self.um_per_px is None:
            return None
        left, right, _, _ = self.extent
        limit = _BAR_SHARE * (right - left) * self.um_per_px
        return max((step for step in BAR_STEPS_UM if step <= limit), default=BAR_STEPS_UM[0])


def canvas_of(adata: Any) -> Canvas:
    """Return the canvas of predictions or measurements in the Space Ranger form.

    Parameters
    ----------
    adata
        AnnData with ``obsm["spatial"]``; thumbnail and pixel size are used when present.

    Raises
    ------
    InputError
        When there are no positions.
    """
    if keys.SPATIAL not in adata.obsm or adata.n_obs == 0:
        raise InputError(
            explain("map", got="no positions", expected=f"obsm[{keys.SPATIAL!r}] of one or more")
        )
    xy = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    name, image, scale = _thumbnail(adata)
    mpp = _mpp(adata)
    return Canvas(
        image=image,
        xy=xy * scale,
        diameter=_dot_px(xy, mpp) * scale,
        um_per_px=None if mpp is None else mpp / scale,
        name=name,
    )


def _thumbnail(adata: Any) -> tuple[str, npt.NDArray[np.uint8] | None, float]:
    for name, library in adata.uns.get(keys.SPATIAL, {}).items():
        image = library.get("images", {}).get("hires")
        scale = library.get("scalefactors", {}).get("tissue_hires_scalef")
        if image is None or scale is None:
            return str(name), None, 1.0
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8:
            pixels = (255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        small = shrink_picture(pixels[..., :3], _MAX_PX)
        return str(name), small, float(scale) * small.shape[1] / pixels.shape[1]
    return "", None, 1.0


def _mpp(adata: Any) -> float | None:
    slide = adata.uns.get(keys.UNS, {}).get("slide", {})
    if "mpp_x" not in slide:
        return None
    return float(np.sqrt(float(slide["mpp_x"]) * float(slide["mpp_y"])))


def _dot_px(xy: npt.NDArray[np.float64], mpp: float | None) -> float:
    """Return a diameter at which dots nearly touch."""
    if len(xy) < 2:
        return _DOT_UM / mpp if mpp else 1.0
    nearest = np.asarray(cKDTree(xy).query(xy, k=2)[0])[:, 1]
    return float(_DOT_SHARE * np.median(nearest))


def draw_slide(axes: Any, canvas: Canvas, *, faded: bool = False) -> None:
    """Draw the thumbnail, in grey and pale when ``faded``, and hide the axes."""
    left, right, bottom, top = canvas.extent
    if canvas.image is not None:
        shown: npt.NDArray[Any] = canvas.image
        if faded:
            grey = canvas.image.astype(np.float32).mean(axis=2) / 255.0
            shown = np.repeat((0.55 + 0.45 * grey)[..., None], 3, axis=2)
        axes.imshow(shown, extent=(left, right, bottom, top), interpolation="bilinear")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def draw_dots(
    axes: Any, canvas: Canvas, values: npt.NDArray[np.float64], *, limits: tuple[float, float]
) -> Any:
    """Draw one dot a patch in the viridis scale and return what a colour bar needs.

    Parameters
    ----------
    axes
        Matplotlib axes.
    canvas
        Positions.
    values
        ``(n_patches,)``; NaN is not drawn.
    limits
        Values at both ends of the colour scale.
    """
    from matplotlib.collections import EllipseCollection

    known = np.isfinite(values)
    side = np.full(int(known.sum()), canvas.diameter)
    dots = EllipseCollection(
        side,
        side,
        np.zeros_like(side),
        units="xy",
        offsets=canvas.xy[known],
        offset_transform=axes.transData,
        array=values[known],
        cmap="viridis",
        linewidths=0,
    )
    dots.set_clim(*limits)
    return axes.add_collection(dots)


def draw_scale_bar(axes: Any, canvas: Canvas) -> None:
    """Draw a scale bar in the lower left corner, labelled in µm or mm."""
    length_um = canvas.bar_um
    if length_um is None or canvas.um_per_px is None:
        return
    left, right, bottom, top = canvas.extent
    x = left + 0.04 * (right - left)
    y = bottom + 0.04 * (top - bottom)
    length = length_um / canvas.um_per_px
    label = f"{length_um // 1000} mm" if length_um >= 1000 else f"{length_um} µm"
    axes.plot([x, x + length], [y, y], color="black", linewidth=2.5, solid_capstyle="butt")
    lift = 0.015 * (top - bottom)
    axes.text(x + length / 2, y + lift, label, ha="center", va="bottom", fontsize=8)
