"""Pictures and slide files made for the tests."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage


@functools.lru_cache(maxsize=4)
def tissue_picture(width: int = 640, height: int = 480, *, seed: int = 0) -> np.ndarray:
    """An H&E-like blob of purple nuclei on pink stroma, on white glass, at 2 µm/px or so."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((x / width - 0.45) / 0.33, (y / height - 0.5) / 0.36)
    inside = (
        distance + 0.15 * ndimage.gaussian_filter(rng.standard_normal((height, width)), 20) * 20 < 1
    )
    nuclei = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    nuclei = nuclei > np.quantile(nuclei, 0.75)
    picture = np.full((height, width, 3), (243, 241, 244), dtype=np.float64)
    picture[inside] = (226, 150, 190)
    picture[inside & nuclei] = (110, 70, 150)
    picture = ndimage.gaussian_filter(picture, (0.7, 0.7, 0))
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def halved(picture: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    blocks = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def write_pyramid(
    path: Path,
    picture: np.ndarray,
    *,
    mpp: float | None = 0.5,
    levels: int = 3,
    description: str = "",
) -> Path:
    """A tiled TIFF that OpenSlide opens as generic-tiff (or as Aperio, given its description)."""
    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            tiff.write(
                picture,
                tile=(128, 128),
                photometric="rgb",
                compression="zlib",
                subfiletype=1 if level else 0,
                resolution=resolution if not level else None,
                resolutionunit="CENTIMETER" if resolution and not level else None,
                description=description if not level else None,
                metadata=None,
            )
            picture = halved(picture)
    return path


def write_ome(
    path: Path,
    picture: np.ndarray,
    *,
    mpp: float | None = 0.5,
    levels: int = 2,
    planar: bool = False,
) -> Path:
    metadata = {"axes": "CYX" if planar else "YXS"}
    if mpp is not None:
        metadata |= {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for level in range(levels):
            tiff.write(
                np.moveaxis(picture, -1, 0) if planar else picture,
                tile=(128, 128),
                photometric="rgb",
                planarconfig="separate" if planar else "contig",
                compression="zlib",
                subifds=levels - 1 if not level else None,
                subfiletype=1 if level else 0,
                metadata=metadata if not level else None,
            )
            picture = halved(picture)
    return path
