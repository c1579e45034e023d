"""Seeded generators and smooth random fields."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float32]


def generator(*parts: str | int) -> np.random.Generator:
    """Return a generator that depends on all ``parts`` and on nothing else.

    Parameters
    ----------
    parts
        Names and numbers, for example ``("stain", "donor1", 7)``; the same parts give the same
        stream on every machine.
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Return a Gaussian random field ``shape`` with mean 0 and standard deviation 1.

    Parameters
    ----------
    rng
        Source of the noise.
    shape
        ``(height, width)``.
    sigma
        Standard deviation of the smoothing kernel, in pixels of the field.
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    field = ndimage.gaussian_filter(noise, sigma, mode="reflect")
    return np.asarray((field - field.mean()) / (field.std() + 1e-12), dtype=np.float32)


def resize(field: npt.NDArray[np.floating], size: tuple[int, int]) -> Field:
    """Return ``field`` (h, w) resized bilinearly to ``size`` = (width, height), as float32."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.array(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
