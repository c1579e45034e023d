"""Which pixels of which level show a field of view. Pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ShapeError, SlideError, explain
from stretrieve.slides.limits import MAX_READ_PX
from stretrieve.slides.protocol import Job
from stretrieve.specs import PatchView
from stretrieve.units import PixelSize

Boxes = npt.NDArray[np.float64]

_LEVEL_TOLERANCE: Final = 1.01
_FILTER_SUPPORT: Final = 3.0
_MAX_MARGIN_PX: Final = 64
_ALIGNED_PX: Final = 1e-3
_OUTSIDE_PX: Final = 0.5
_MAX_COORDINATE: Final = float(1 << 40)


def choose_level(downsamples: Sequence[float], scale: float) -> int:
    """Return the coarsest level that is still as fine as wanted.

    Parameters
    ----------
    downsamples
        Level-0 pixels per pixel of each level.
    scale
        Level-0 pixels per pixel of the picture.
    """
    fitting = [i for i, value in enumerate(downsamples) if value <= scale * _LEVEL_TOLERANCE]
    return max(fitting, key=lambda i: downsamples[i]) if fitting else 0


def check_centres(xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return centres as ``(n, 2)`` float64.

    Raises
    ------
    ShapeError
        When they have another shape or are not finite.
    """
    centres = np.asarray(xy, dtype=np.float64)
    if centres.size == 0:
        centres = centres.reshape(0, 2)
    if centres.ndim != 2 or centres.shape[1] != 2:
        raise ShapeError(explain("patch centres", got=centres.shape, expected="(n, 2), x then y"))
    if not (np.abs(centres) < _MAX_COORDINATE).all():
        raise ShapeError(explain("patch centres", got="NaN or infinite", expected="finite pixels"))
    return centres


def boxes_of_view(xy: npt.NDArray[np.float64], view: PatchView, pixel_size: PixelSize) -> Boxes:
    """Return the field of view around each centre as (left, top, right, bottom), ``(n, 4)`` level-0 px.

    The field is square in microns, so it is not square in pixels where these are not.
    """
    half = np.array([view.side_um / pixel_size.x, view.side_um / pixel_size.y]) / 2
    return np.hstack([xy - half, xy + half])


def outside(boxes: Boxes, dimensions: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Tell for each box ``(n, 4)`` whether part of it lies outside of the slide."""
    before = (boxes[:, :2] < -_OUTSIDE_PX).any(axis=1)
    beyond = (boxes[:, 2:] > np.asarray(dimensions) + _OUTSIDE_PX).any(axis=1)
    return np.asarray(before | beyond)


def plan_boxes(boxes: Boxes, out_size: tuple[int, int], downsamples: Sequence[float]) -> list[Job]:
    """Return the job that shows each box, all of one shape, at ``out_size`` pixels.

    Parameters
    ----------
    boxes
        ``(n, 4)`` left, top, right, bottom in level-0 px.
    out_size
        (width, height) of the pictures.
    downsamples
        Level-0 pixels per pixel of each level.

    Raises
    ------
    SlideError
        When a box needs more pixels than one read may take.
    """
    if not len(boxes):
        return []
    spans = boxes[0, 2:] - boxes[0, :2]
    level = choose_level(downsamples, float((spans / out_size).min()))
    downsample = downsamples[level]
    placed = boxes / downsample
    shown = np.round(placed)
    aligned = (np.abs(placed - shown) <= _ALIGNED_PX).all(axis=1)
    aligned &= (shown[:, 2:] - shown[:, :2] == out_size).all(axis=1)
    scale = float((spans / downsample / out_size).max())
    margin = min(math.ceil(_FILTER_SUPPORT * max(scale, 1.0)) + 1, _MAX_MARGIN_PX)
    margins = np.where(aligned, 0, margin)[:, None]
    start = np.where(aligned[:, None], shown[:, :2], np.floor(placed[:, :2])) - margins
    end = np.where(aligned[:, None], shown[:, 2:], np.ceil(placed[:, 2:])) + margins
    place = np.round(start * downsample)
    size = end - start
    if (size.prod(axis=1) > MAX_READ_PX).any():
        raise SlideError(
            explain(
                "field of view",
                got=f"{size.max(axis=0)} px in one read",
                expected=f"at most {MAX_READ_PX} px",
                remedy="the slide has no coarser level; convert it to a pyramidal TIFF",
            )
        )
    origin = place / downsample
    window = placed - np.hstack([origin, origin])
    return [
        Job(level, int(x), int(y), int(w), int(h), left, top, right, bottom, *out_size)
        for (x, y), (w, h), (left, top, right, bottom) in zip(
            place.tolist(), size.tolist(), _inside(window, size).tolist(), strict=True
        )
    ]


def _inside(window: Boxes, size: npt.NDArray[np.float64]) -> Boxes:
    """Keep rounding errors from moving a window out of its region."""
    return np.clip(window, 0.0, np.hstack([size, size]))
