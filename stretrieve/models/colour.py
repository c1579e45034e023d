"""Colour and texture statistics of patches; no weights."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Images = npt.NDArray[np.float32]

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_STAIN_QUANTILES: Final = (0.1, 0.5, 0.9)
_SCALES: Final = (1, 2, 4)
_WINDOWS: Final = (3, 7, 15)
STAINS: Final = np.array(
    [[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], dtype=np.float64
)
"""Absorption of haematoxylin, eosin and residual in R, G, B (Ruifrok and Johnston, 2001)."""

_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
TISSUE_OD: Final = 0.15
NUCLEAR_OD: Final = (0.15, 0.3)


def _names() -> tuple[str, ...]:
    names = [
        f"{channel}_{statistic}"
        for channel in ("red", "green", "blue")
        for statistic in ("mean", "sd", *(f"q{int(100 * q):02d}" for q in QUANTILES))
    ]
    names += [
        f"{stain}_{statistic}"
        for stain in ("haematoxylin", "eosin", "residual")
        for statistic in ("mean", "sd", *(f"q{int(100 * q):02d}" for q in _STAIN_QUANTILES))
    ]
    names += ["saturation_mean", "saturation_sd", "tissue_fraction"]
    names += [f"nuclear_fraction_{od}" for od in NUCLEAR_OD]
    for channel in ("luminance", "haematoxylin"):
        names += [f"{channel}_gradient_{s}_{what}" for s in _SCALES for what in ("mean", "sd")]
    names += [f"haematoxylin_contrast_{window}" for window in _WINDOWS]
    names += [f"{channel}_centre" for channel in ("haematoxylin", "eosin", "residual")]
    return tuple(names)


STATISTICS: Final = _names()
"""Names of the columns of :func:`colour_statistics`."""


def colour_statistics(patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return colour and texture statistics of patches.

    Parameters
    ----------
    patches
        ``(n_patches, patch_px, patch_px, 3)`` uint8 RGB.

    Returns
    -------
    ndarray
        ``(n_patches, len(STATISTICS))`` float32: moments and quantiles of RGB and of stain
        densities, saturation, tissue and nuclear fractions, gradients at three scales, local
        contrast in three windows, and how the centre differs from the whole. Each row depends on
        its own patch only.
    """
    if len(patches) == 0:
        return np.zeros((0, len(STATISTICS)), dtype=np.float32)
    rgb = (patches / np.float32(255)).astype(np.float32)
    stains = _stain_densities(rgb)
    luminance = np.asarray(rgb @ _LUMINANCE, dtype=np.float32)
    parts = [
        _moments(rgb, QUANTILES),
        _moments(stains, _STAIN_QUANTILES),
        _areas(rgb, stains),
        _gradients(luminance),
        _gradients(stains[..., 0]),
        _contrast(stains[..., 0]),
        _centre(stains),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _stain_densities(rgb: Images) -> Images:
    density = -np.log10(np.maximum(rgb, 1 / 255))
    unmix = np.linalg.inv(STAINS).astype(np.float32)
    return np.asarray(density @ unmix, dtype=np.float32)


def _moments(images: Images, quantiles: tuple[float, ...]) -> Images:
    flat = images.reshape(len(images), -1, images.shape[-1])
    statistics = np.stack(
        [flat.mean(axis=1, dtype=np.float64), flat.std(axis=1, dtype=np.float64)], axis=-1
    )
    spread = np.moveaxis(np.quantile(flat, quantiles, axis=1), 0, -1)
    joined = np.concatenate([statistics, spread.astype(np.float32)], axis=-1)
    return joined.reshape(len(images), -1)


def _areas(rgb: Images, stains: Images) -> Images:
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    saturation = (high - low) / np.maximum(high, 1e-3)
    density = -np.log10(np.maximum(rgb, 1 / 255)).mean(axis=-1)
    columns = [_mean(saturation), saturation.std(axis=(1, 2)), _mean(density > TISSUE_OD)]
    columns += [_mean(stains[..., 0] > threshold) for threshold in NUCLEAR_OD]
    return np.stack(columns, axis=1)


def _mean(images: npt.NDArray[np.float32] | npt.NDArray[np.bool_]) -> Images:
    return np.asarray(images.mean(axis=(1, 2), dtype=np.float32))


def _gradients(image: Images) -> Images:
    columns = []
    for scale in _SCALES:
        smooth = ndimage.uniform_filter(image, size=(1, scale, scale)) if scale > 1 else image
        dy, dx = np.gradient(smooth, axis=(1, 2)) if min(image.shape[1:]) > 1 else (smooth, smooth)
        size = np.hypot(dx, dy)
        columns += [size.mean(axis=(1, 2)), size.std(axis=(1, 2))]
    return np.stack(columns, axis=1)


def _contrast(image: Images) -> Images:
    columns = []
    for window in _WINDOWS:
        size = (1, window, window)
        mean = ndimage.uniform_filter(image, size=size)
        square = ndimage.uniform_filter(image * image, size=size)
        columns.append(np.sqrt(np.maximum(square - mean * mean, 0)).mean(axis=(1, 2)))
    return np.stack(columns, axis=1)


def _centre(stains: Images) -> Images:
    side = stains.shape[1]
    low, high = side // 4, max(side - side // 4, side // 4 + 1)
    inner = stains[:, low:high, low:high].mean(axis=(1, 2))
    return np.asarray(inner - stains.mean(axis=(1, 2)))
