"""Which pixels of an overview show stained tissue. Pure functions; the same picture gives the same mask.

Tissue is what is stained (its optical densities differ between colours), darker than the glass and
textured, all three at a scale of tens of microns. Each test removes what the others let through: glow
and smears are coloured but smooth, printed fiducials and dust are textured but grey, pen is of a hue
that haematoxylin and eosin do not have, and black is no tissue at all.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve.slides.tissue_pieces import insets, keep_tissue

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float32]

_BLACK: Final = 45
_DENSITY: Final = (-np.log10(np.clip(np.arange(256), 1, 255) / 255)).astype(np.float32)

_TEXTURE_UM: Final = 72.0
_STAIN_SIGMA_UM: Final = 32.0
_TEXTURE_SIGMA_UM: Final = 16.0
_FINE_SIGMA_UM: Final = 8.0
_CRACK_UM: Final = 72.0
_BROAD_BLACK_UM: Final = 40.0
_PEN_UM: Final = 40.0
_PEN_MARGIN_UM: Final = 40.0

_BAND_ROWS: Final = 512
_BANDS_AT_ONCE: Final = 2
_REACH_UM: Final = 400.0

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

_PEN_MEAN_DENSITY: Final = 0.3
_PEN_DENSITY: Final = 0.45


class _Features(NamedTuple):
    """Stain, darkness and texture of each pixel, above the glass."""

    density: Plane
    fine_density: Plane
    stain: Plane
    texture: Plane


def find_tissue(rgb: Rgb, *, um_per_px: float) -> Mask:
    """Return where an overview shows tissue.

    The picture is worked through in bands, two at a time, so that memory stays near that of the
    picture.

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
    seen = _most(rgb) >= _BLACK
    seen &= ~insets(seen)
    possible, sure = np.zeros_like(seen), np.zeros_like(seen)
    bands = _bands(len(seen), math.ceil(_REACH_UM / um_per_px))
    with ThreadPoolExecutor(_BANDS_AT_ONCE, thread_name_prefix="stretrieve-tissue") as threads:
        bare = threads.map(lambda band: _bare(rgb[band.read], seen[band.read], um_per_px), bands)
        glass = _glass(list(bare), seen)

        def judge(band: _Band) -> None:
            found = _features(rgb[band.read], seen[band.read], glass, um_per_px)
            stained, certain = _judge(found)
            stained &= seen[band.read] & ~_pen(rgb[band.read], um_per_px)
            possible[band.kept] = _closed(stained, um_per_px)[band.within]
            sure[band.kept] = (stained & certain)[band.within]

        list(threads.map(judge, bands))
    tissue = keep_tissue(possible & seen, sure, um_per_px=um_per_px)
    return tissue & ~_broad(~seen, _BROAD_BLACK_UM / um_per_px)


def _judge(found: _Features) -> tuple[Mask, Mask]:
    """Return what may be tissue and, within it, what must be."""
    possible = (
        (found.density > _MIN_DENSITY)
        & (found.fine_density > _MIN_FINE_DENSITY)
        & (found.stain > _MIN_STAIN)
        & (found.texture > _MIN_TEXTURE)
        & ((found.stain > _STAINED) | (found.stain > _STAIN_PER_TEXTURE * found.texture))
    )
    return np.asarray(possible), (found.stain > _SURE_STAIN) & (found.density > _SURE_DENSITY)


class _Band(NamedTuple):
    """Rows to read, those of them to keep, and where the kept ones lie in the picture."""

    read: slice
    within: slice
    kept: slice


def _bands(height: int, margin: int) -> list[_Band]:
    bands = []
    rows = math.ceil(height / math.ceil(height / _BAND_ROWS))
    for start in range(0, height, rows):
        stop, first = min(start + rows, height), max(0, start - margin)
        bands.append(
            _Band(
                slice(first, min(stop + margin, height)),
                slice(start - first, stop - first),
                slice(start, stop),
            )
        )
    return bands


def _least(rgb: Rgb) -> npt.NDArray[np.uint8]:
    return np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def _most(rgb: Rgb) -> npt.NDArray[np.uint8]:
    return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def _planes(rgb: Rgb, um_per_px: float) -> tuple[Plane, Plane, Plane]:
    """Return green density, spread of densities between colours, and texture."""
    from scipy import ndimage

    green = _DENSITY[rgb[..., 1]]
    spread = _DENSITY[_least(rgb)] - _DENSITY[_most(rgb)]
    window = max(3, round(_TEXTURE_UM / um_per_px))
    mean = ndimage.uniform_filter(green, window, mode="nearest")
    square = ndimage.uniform_filter(green * green, window, mode="nearest")
    return green, spread, np.sqrt(np.maximum(square - mean * mean, 0))


def _bare(rgb: Rgb, seen: Mask, um_per_px: float) -> npt.NDArray[np.float32]:
    """Return density and spread of pixels that look like bare glass, ``(2, n)``."""
    green, spread, texture = _planes(rgb, um_per_px)
    smooth = seen & (texture < _SMOOTH) & (green < _GLASS_DENSITY)
    return np.stack([green[smooth], spread[smooth]])


def _glass(bare: list[npt.NDArray[np.float32]], seen: Mask) -> tuple[float, float]:
    """Return density and colour of the bare glass; usual values where a picture shows none."""
    values = np.concatenate(bare, axis=1)
    if values.shape[1] < _MIN_GLASS_FRACTION * seen.sum() + _MIN_GLASS_PX:
        return _USUAL_GLASS
    density, colour = np.percentile(values, _GLASS_PERCENTILE, axis=1)
    return float(density), float(colour)


def _features(rgb: Rgb, seen: Mask, glass: tuple[float, float], um_per_px: float) -> _Features:
    green, spread, texture = _planes(rgb, um_per_px)
    return _Features(
        density=_smooth(green, seen, _STAIN_SIGMA_UM / um_per_px) - np.float32(glass[0]),
        fine_density=_smooth(green, seen, _FINE_SIGMA_UM / um_per_px) - np.float32(glass[0]),
        stain=_smooth(spread, seen, _STAIN_SIGMA_UM / um_per_px) - np.float32(glass[1]),
        texture=_smooth(texture, seen, _TEXTURE_SIGMA_UM / um_per_px),
    )


def _smooth(plane: Plane, seen: Mask, sigma: float) -> Plane:
    """Blur by two box filters of that spread, taking no account of pixels that are not seen."""
    if seen.all():
        return _blur(plane, sigma)
    weight = _blur(seen.astype(np.float32), sigma)
    blurred = _blur(np.where(seen, plane, np.float32(0)), sigma)
    return np.asarray(blurred / (weight + np.float32(1e-6)), dtype=np.float32)


def _blur(plane: Plane, sigma: float) -> Plane:
    from scipy import ndimage

    window = 2 * math.floor(math.sqrt(6 * sigma**2 + 1) / 2) + 1
    once = ndimage.uniform_filter(plane, window, mode="nearest")
    return np.asarray(ndimage.uniform_filter(once, window, mode="nearest"), dtype=np.float32)


def _closed(mask: Mask, um_per_px: float) -> Mask:
    """Close cracks."""
    from scipy import ndimage

    window = _odd(_CRACK_UM / um_per_px)
    padded = np.pad(mask.astype(np.uint8), window)
    closed = ndimage.grey_closing(padded, size=(window, window))
    return np.asarray(closed[window:-window, window:-window], dtype=bool)


def _broad(mask: Mask, length_px: float) -> Mask:
    """Return the parts of a mask that a square of this side fits into."""
    from scipy import ndimage

    side = _odd(length_px)
    return np.asarray(ndimage.grey_opening(mask.astype(np.uint8), size=(side, side)), dtype=bool)


def _odd(length_px: float) -> int:
    """Return an odd number of pixels of about this length."""
    return max(1, 2 * math.floor(length_px / 2) + 1)


def _pen(rgb: Rgb, um_per_px: float) -> Mask:
    """Return broad strokes of a hue that haematoxylin and eosin do not have: blue, green, red."""
    from scipy import ndimage

    red, green, blue = (_DENSITY[rgb[..., i]] for i in range(3))
    dark = red + green + blue > 3 * _PEN_MEAN_DENSITY
    of_blue = (red > 1.35 * green) & (red > _PEN_DENSITY)
    of_green = (green < 0.9 * np.minimum(red, blue)) & (red > _PEN_DENSITY)
    of_red = (blue > 0.85 * green) & (red < 0.35 * green) & (green > _PEN_DENSITY)
    strokes = dark & (of_blue | of_green | of_red)
    if strokes.any():
        broad = _broad(strokes, _PEN_UM / um_per_px)
        around = 2 * math.ceil(_PEN_MARGIN_UM / um_per_px) + 1
        strokes = ndimage.maximum_filter(broad, size=around) > 0
    return np.asarray(strokes, dtype=bool)
