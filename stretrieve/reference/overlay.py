"""The picture that shows whether spots lie on the tissue."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path

_RING: Final = (0, 110, 220)
_OFF: Final = (220, 30, 30)
_FILL: Final = 0.35


def write_overlay(
    path: Path,
    thumbnail: npt.NDArray[np.uint8],
    xy: npt.NDArray[np.float64],
    on_tissue: npt.NDArray[np.bool_],
    *,
    dimensions: tuple[int, int],
    radius_px: float,
) -> None:
    """Draw the spots over the tissue: blue rings on tissue, red ones beside it.

    Parameters
    ----------
    path
        PNG to write; it appears complete or not at all.
    thumbnail
        ``(height, width, 3)`` uint8 picture of the whole slide.
    xy
        ``(n_spots, 2)`` centres in level-0 px.
    on_tissue
        ``(n_spots,)`` which spots lie on tissue.
    dimensions
        (width, height) of the slide in level-0 px.
    radius_px
        Radius of a spot in level-0 px.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(thumbnail).convert("RGB")
    draw = ImageDraw.Draw(picture)
    scale = np.array(picture.size) / np.asarray(dimensions)
    radius = np.maximum(radius_px * scale, 1.5)
    line = max(1, round(float(radius.min()) * _FILL))
    for (x, y), good in zip(xy * scale, on_tissue, strict=True):
        box = (x - radius[0], y - radius[1], x + radius[0], y + radius[1])
        draw.ellipse(box, outline=_RING if good else _OFF, width=line)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
