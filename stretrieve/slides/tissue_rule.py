"""Which pixels of an overview show stained tissue. Pure functions; the same picture gives the same mask.

Tissue is what is stained (its optical densities differ between colours), darker than the glass and
textured, all three at a scale of tens of microns. Each test removes what the others let through: glow
and smears are coloured but smooth, printed fiducials and dust are textured but grey, pen is of a hue
that haematoxylin and eosin do not have, and black is no tissue at all.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float32]

_BLACK: Final = 45
_DENSITY: Final = (-np.log10(np.clip(np.arange(256), 1, 255) / 255)).astype(np.float32)

_TEXTURE_UM: Final = 72.0
_STAIN_SIGMA_UM: Final = 32.0
_TEXTURE_SIGMA_UM: Final = 16.0
_FINE_SIGMA_UM: Final = 8.0
_CLOSING_UM: Final = 40.0
_PEN_RADIUS_UM: Final = 24.0
_PEN_MARGIN_UM: Final = 40.0

_SMOOTH: Final = 0.015
_GLASS_DENSITY: Final = 0.15
_GLASS_PERCENTILE: Final = 20
_MIN_GLASS_FRACTION: Final = 0.005
_MIN_GLASS_PX: Final = 50
_USUAL_GLASS: Final = (0.03, 0.02)

_MIN_DENSITY: Final = 0.04
_MIN_FINE_DENSITY: Final = 0.025
_MIN_STAIN: Final = 0.018
_MIN_TEXTURE: Final = 0.018
_STAINED: Final = 0.05
_STAIN_PER_TEXTURE: Final = 0.55
_SURE_STAIN: Final = 0.06
_SURE_DENSITY: Final = 0.08
_SURE_FRACTION: Final = 0.15
_SURE_MM2: Final = 0.02
_MIN_MM2: Final = 0.05
_MIN_IMAGE_FRACTION: Final = 0.1
_MAX_HOLE_MM2: Final = 0.1

_PEN_MEAN_DENSITY: Final = 0.3
_PEN_DENSITY: Final = 0.45
_INSET_FILL: Final = 0.97
_MIN_BLACK_FRACTION: Final = 0.1


class _Features(NamedTuple):
    """Stain, darkness and texture of each pixel, above the glass."""

    density: Plane
    fine_density: Plane
    stain: Plane
    texture: Plane


def find_tissue(rgb: Rgb, *, um_per_px: float) -> Mask:
    """Return where an overview shows tissue.

    Parameters
    ----------
    rgb
        ``(height, width, 3)`` overview.
    um_per_px
        Microns per pixel of the overview.

    Returns
    -------
    Mask
        ``(height, width)``.
    """
    seen = rgb.max(axis=2) >= _BLACK
    if not seen.any():
        return np.zeros(seen.shape, dtype=bool)
    seen &= ~_insets(seen)
    found = _features(rgb, seen, um_per_px)
    possible = (
        (found.density > _MIN_DENSITY)
        & (found.fine_density > _MIN_FINE_DENSITY)
        & (found.stain > _MIN_STAIN)
        & (found.texture > _MIN_TEXTURE)
        & ((found.stain > _STAINED) | (found.stain > _STAIN_PER_TEXTURE * found.texture))
        & seen
        & ~_pen(rgb, um_per_px)
    )
    sure = possible & (found.stain > _SURE_STAIN) & (found.density > _SURE_DENSITY)
    return _tidy(possible, sure, seen, um_per_px)


def _features(rgb: Rgb, seen: Mask, um_per_px: float) -> _Features:
    from scipy import ndimage

    green = _DENSITY[rgb[..., 1]]
    spread = _DENSITY[rgb.min(axis=2)] - _DENSITY[rgb.max(axis=2)]
    window = max(3, round(_TEXTURE_UM / um_per_px))
    mean = ndimage.uniform_filter(green, window, mode="nearest")
    square = ndimage.uniform_filter(green * green, window, mode="nearest")
    texture = np.sqrt(np.maximum(square - mean * mean, 0))
    glass = _glass(green, spread, seen & (texture < _SMOOTH) & (green < _GLASS_DENSITY), seen)
    return _Features(
        density=_smooth(green, seen, _STAIN_SIGMA_UM / um_per_px) - glass[0],
        fine_density=_smooth(green, seen, _FINE_SIGMA_UM / um_per_px) - glass[0],
        stain=_smooth(spread, seen, _STAIN_SIGMA_UM / um_per_px) - glass[1],
        texture=_smooth(texture, seen, _TEXTURE_SIGMA_UM / um_per_px),
    )


def _glass(green: Plane, spread: Plane, smooth: Mask, seen: Mask) -> tuple[float, float]:
    """Return density and colour of the bare glass; usual values where a picture shows none."""
    if smooth.sum() < _MIN_GLASS_FRACTION * seen.sum() + _MIN_GLASS_PX:
        return _USUAL_GLASS
    return (
        float(np.percentile(green[smooth], _GLASS_PERCENTILE)),
        float(np.percentile(spread[smooth], _GLASS_PERCENTILE)),
    )


def _smooth(plane: Plane, seen: Mask, sigma: float) -> Plane:
    """Blur, taking no account of pixels that are not seen."""
    from scipy import ndimage

    weight = ndimage.gaussian_filter(seen.astype(np.float32), sigma)
    blurred = ndimage.gaussian_filter(np.where(seen, plane, np.float32(0)), sigma)
    return np.asarray(blurred / (weight + np.float32(1e-6)), dtype=np.float32)


def _pen(rgb: Rgb, um_per_px: float) -> Mask:
    """Return broad strokes of a hue that haematoxylin and eosin do not have: blue, green, red."""
    from scipy import ndimage

    morphology: Any = importlib.import_module("skimage.morphology")
    red, green, blue = (_DENSITY[rgb[..., i]] for i in range(3))
    dark = red + green + blue > 3 * _PEN_MEAN_DENSITY
    of_blue = (red > 1.35 * green) & (red > _PEN_DENSITY)
    of_green = (green < 0.9 * np.minimum(red, blue)) & (red > _PEN_DENSITY)
    of_red = (blue > 0.85 * green) & (red < 0.35 * green) & (green > _PEN_DENSITY)
    strokes = dark & (of_blue | of_green | of_red)
    strokes = morphology.isotropic_opening(strokes, _PEN_RADIUS_UM / um_per_px)
    if not strokes.any():
        return np.asarray(strokes, dtype=bool)
    margin = max(1, round(_PEN_MARGIN_UM / um_per_px))
    return np.asarray(ndimage.binary_dilation(strokes, iterations=margin), dtype=bool)


def _insets(seen: Mask) -> Mask:
    """Return pictures set into a corner of an image whose background was blacked out."""
    from scipy import ndimage

    nothing = np.zeros(seen.shape, dtype=bool)
    if (~seen).mean() < _MIN_BLACK_FRACTION:
        return nothing
    labels, _ = ndimage.label(seen)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    main = int(areas.argmax())
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = box
        size = (rows.stop - rows.start) * (columns.stop - columns.start)
        touches = rows.start == 0 or rows.stop == seen.shape[0]
        touches &= columns.start == 0 or columns.stop == seen.shape[1]
        if label != main and touches and size > _MIN_GLASS_PX and areas[label] > _INSET_FILL * size:
            nothing[box] = True
    return nothing


def _tidy(possible: Mask, sure: Mask, seen: Mask, um_per_px: float) -> Mask:
    """Keep pieces that are large and sure enough; close cracks and small holes."""
    morphology: Any = importlib.import_module("skimage.morphology")
    per_mm2 = 1e6 / um_per_px**2
    radius = _CLOSING_UM / um_per_px
    pad = int(radius) + 2
    whole = morphology.isotropic_closing(np.pad(possible, pad), radius)[pad:-pad, pad:-pad] & seen
    least = min(_MIN_MM2 * per_mm2, _MIN_IMAGE_FRACTION * whole.size)
    kept = _pieces(
        np.asarray(whole, dtype=bool),
        sure,
        least=least,
        sure_least=min(_SURE_MM2 * per_mm2, least),
    )
    holes = _pieces(~kept, ~kept, least=_MAX_HOLE_MM2 * per_mm2, sure_least=0)
    return (kept | ~holes) & seen


def _pieces(mask: Mask, sure: Mask, *, least: float, sure_least: float) -> Mask:
    """Keep connected pieces of at least ``least`` pixels, enough of which are sure."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    areas = np.bincount(labels.ravel())
    certain = np.bincount(labels.ravel(), weights=(sure & mask).ravel())
    keep = (areas >= least) & (certain >= np.maximum(_SURE_FRACTION * areas, sure_least))
    keep[0] = False
    return np.asarray(keep[labels], dtype=bool)
