"""Connected pieces of a mask: which ones are tissue, which holes are glass, what is an inset."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]

_SURE_FRACTION: Final = 0.15
_SURE_MM2: Final = 0.02
_MIN_MM2: Final = 0.05
_MIN_IMAGE_FRACTION: Final = 0.1
_MAX_HOLE_MM2: Final = 0.1
_INSET_FILL: Final = 0.97
_INSET_PX: Final = 50
_MIN_BLACK_FRACTION: Final = 0.1
_ROWS: Final = 512


def insets(seen: Mask) -> Mask:
    """Return pictures set into a corner of an image whose background was blacked out.

    Parameters
    ----------
    seen
        ``(height, width)`` where the image is not black.
    """
    from scipy import ndimage

    nothing = np.zeros(seen.shape, dtype=bool)
    if (~seen).mean() < _MIN_BLACK_FRACTION:
        return nothing
    labels, n = ndimage.label(seen)
    areas = _count(labels, n)
    main = int(areas[1:].argmax()) + 1 if n else 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = box
        size = (rows.stop - rows.start) * (columns.stop - columns.start)
        touches = rows.start == 0 or rows.stop == seen.shape[0]
        touches &= columns.start == 0 or columns.stop == seen.shape[1]
        if label != main and touches and size > _INSET_PX and areas[label] > _INSET_FILL * size:
            nothing[box] = True
    return nothing


def keep_tissue(possible: Mask, sure: Mask, *, um_per_px: float) -> Mask:
    """Keep pieces that are large and sure enough, and fill their small holes.

    Parameters
    ----------
    possible
        ``(height, width)`` what may be tissue.
    sure
        ``(height, width)`` what must be tissue.
    um_per_px
        Microns per pixel.
    """
    per_mm2 = 1e6 / um_per_px**2
    least = min(_MIN_MM2 * per_mm2, _MIN_IMAGE_FRACTION * possible.size)
    kept = _pieces(possible, sure, least=least, sure_least=min(_SURE_MM2 * per_mm2, least))
    kept |= ~_pieces(~kept, None, least=_MAX_HOLE_MM2 * per_mm2, sure_least=0)
    return kept


def _pieces(mask: Mask, sure: Mask | None, *, least: float, sure_least: float) -> Mask:
    """Keep connected pieces of at least ``least`` pixels, enough of which are sure."""
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    areas = _count(labels, n)
    keep = areas >= least
    if sure is not None:
        certain = _count(labels * sure, n)
        keep &= certain >= np.maximum(_SURE_FRACTION * areas, sure_least)
    keep[0] = False
    return np.asarray(keep[labels], dtype=bool)


def _count(labels: Labels, n: int) -> npt.NDArray[np.int64]:
    """Pixels of each label, ``(n + 1,)``; a few rows at a time, as counting widens its input."""
    counts = np.zeros(n + 1, dtype=np.int64)
    for start in range(0, len(labels), _ROWS):
        counts += np.bincount(labels[start : start + _ROWS].ravel(), minlength=n + 1)
    return counts
