"""What a patch looks like, in 29 numbers that no network and no section has a say in."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.models.colour import NUCLEAR_OD, QUANTILES, STAINS, TISSUE_OD

Looks = npt.NDArray[np.float64]

N_STATISTICS: Final = 29
LEVELS: Final = 255
"""Steps of a pixel's value, and with it of the statistics, which lie between -1 and 1."""

_FLAT: Final = 1e-4
_DENSITY: Final = -np.log10(np.maximum(np.arange(LEVELS + 1), 1) / LEVELS)
_HAEMATOXYLIN: Final = np.linalg.inv(STAINS)[:, 0]


def looks(patches: npt.NDArray[np.uint8]) -> Looks:
    """Return colour and contrast statistics of patches.

    Parameters
    ----------
    patches
        ``(n_patches, height, width, 3)`` uint8 RGB. The correlations between channels depend on the
        size of a pixel: compare patches of the same size only.

    Returns
    -------
    ndarray
        ``(n_patches, 29)``: mean, standard deviation and correlation (RG, RB, GB) of the channels;
        order statistics at 5, 25, 50, 75 and 95 % of each channel; mean and standard deviation of
        the saturation; shares of pixels with stain, with haematoxylin and with much of it. Each row
        depends on its own patch only, to the last bit.
    """
    n = len(patches)
    if n == 0:
        return np.zeros((0, N_STATISTICS))
    channels = np.ascontiguousarray(np.moveaxis(patches.reshape(n, -1, 3), 2, 1))
    parts = [_moments(channels), _ranks(channels), _saturation(channels), _stained(channels)]
    return np.concatenate(parts, axis=1)


def _moments(channels: npt.NDArray[np.uint8]) -> Looks:
    """Return means, deviations and correlations; sums are of whole numbers, thus exact."""
    wide, n = channels.astype(np.float64), channels.shape[2]
    total, products = wide.sum(axis=2), wide @ wide.swapaxes(1, 2)
    covariance = (n * products - total[:, :, None] * total[:, None]) / (n * LEVELS) ** 2
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    one, other = np.triu_indices(3, 1)
    size = np.maximum(deviation[:, one] * deviation[:, other], _FLAT)
    return np.hstack([total / (n * LEVELS), deviation, covariance[:, one, other] / size])


def _ranks(channels: npt.NDArray[np.uint8]) -> Looks:
    """Return order statistics, all channels of one rank beside each other."""
    ranks = np.rint(np.multiply(QUANTILES, channels.shape[2] - 1)).astype(np.int64)
    ordered = np.sort(channels, axis=2, kind="stable")[:, :, ranks]
    return np.asarray(ordered.swapaxes(1, 2).reshape(len(channels), -1) / LEVELS)


def _saturation(channels: npt.NDArray[np.uint8]) -> Looks:
    high, low = channels.max(axis=1), channels.min(axis=1)
    saturation = (high - low) / np.maximum(high, 1)
    return np.stack([saturation.mean(axis=1), saturation.std(axis=1)], axis=1)


def _stained(channels: npt.NDArray[np.uint8]) -> Looks:
    density = np.take(_DENSITY, channels)
    red, green, blue = np.moveaxis(density * _HAEMATOXYLIN[:, None], 1, 0)
    haematoxylin = red + green + blue
    stained = [density.sum(axis=1) > 3 * TISSUE_OD]
    stained += [haematoxylin > threshold for threshold in NUCLEAR_OD]
    return np.stack([where.mean(axis=1) for where in stained], axis=1)
