"""Patches as a reference keeps them: small pictures, by which they are compared with a query's."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.models.look import N_STATISTICS, Looks, looks
from stretrieve.reference import Reference
from stretrieve.reference.embed import jpeg
from stretrieve.specs import PatchView

__all__ = ["SIDE_PX", "Looks", "comparable_px", "looks_of_images", "looks_of_patches"]

SIDE_PX: Final = 32
"""Side at which patches are compared; larger pictures are shrunk to it."""

_AT_ONCE: Final = 64


def looks_of_images(images: Sequence[bytes]) -> Looks:
    """Return what stored JPEG pictures, all of one size, look like ``(n_images, 29)``."""
    if not images:
        return np.zeros((0, N_STATISTICS))
    parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    return np.concatenate([looks(np.stack(list(map(_shown, part)))) for part in parts])


def looks_of_patches(patches: npt.NDArray[np.uint8], *, thumbnail_px: int) -> Looks:
    """Return what patches ``(n, patch_px, patch_px, 3)`` would look like if they had been stored.

    JPEG smooths colour, noise above all: without it here, own tissue would look unlike itself.
    """
    return looks_of_images([jpeg(patch, side_px=thumbnail_px) for patch in patches])


def comparable_px(reference: Reference, view: PatchView) -> int | None:
    """Return the size in which a reference keeps what a query's patches show.

    Parameters
    ----------
    reference
        Whose thumbnails were made of the first view of its own embedder.
    view
        The first view of the query's patches.

    Returns
    -------
    int or None
        ``thumbnail_px`` for :func:`looks_of_patches`; ``None`` where the patches cover another field
        of view or thumbnails are too small to compare them.
    """
    shown = reference.thumbnail_view
    fits = math.isclose(shown.side_um, view.side_um) and SIDE_PX <= shown.patch_px <= view.patch_px
    return shown.patch_px if fits else None


def _shown(image: bytes) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        larger = opened.width > SIDE_PX
        shown = opened.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX) if larger else opened
        return np.asarray(shown)
