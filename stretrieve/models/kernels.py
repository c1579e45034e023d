"""Radial basis functions, with which a linear map follows what is not linear in the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

MAX_LANDMARKS: Final = 1000
MAX_SPOTS: Final = 20_000
"""Spots that a kernel is fitted on; a fixed sample of more."""
WIDTHS: Final = (4.0, 16.0)
"""Widths that are tried, in units of the median squared distance between landmarks."""
PENALTIES: Final = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

_SEED = 0
_NEGLIGIBLE = 1e-10
_BLOCK = 4096


@dataclass(frozen=True)
class Kernel:
    """``exp(−|x − l|² / width) + x · l / feature_dim`` for each landmark ``l`` (Nyström).

    The second term makes what lies far from all landmarks go on linearly. Without it such a patch would
    come to lie in the middle of the joint space, as if it were the most ordinary of all.

    Parameters
    ----------
    landmarks
        ``(n_landmarks, feature_dim)`` standardised features of training spots.
    width
        Squared distance at which a landmark counts 1/e.
    """

    landmarks: Matrix
    width: float

    def __call__(self, features: Matrix) -> Matrix:
        """Return ``(n, n_landmarks)`` for standardised features ``(n, feature_dim)``."""
        out = np.empty((len(features), len(self.landmarks)))
        for start in range(0, len(features), _BLOCK):
            part = features[start : start + _BLOCK]
            near = np.exp(-_squared_distances(part, self.landmarks) / self.width)
            out[start : start + _BLOCK] = near + part @ self.landmarks.T / part.shape[1]
        return out

    def root(self) -> Matrix:
        """Return ``(n_landmarks, rank)`` that turns kernel values into uncorrelated coordinates.

        A ridge penalty on these is that of kernel ridge regression; with every training spot among the
        landmarks the two are the same.
        """
        values, vectors = np.linalg.eigh(self(self.landmarks))
        kept = values > _NEGLIGIBLE * values[-1]
        return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def fixed_sample(n: int, limit: int) -> npt.NDArray[np.int64]:
    """Return ``limit`` of ``n`` rows, always the same ones, ascending; all where there are fewer."""
    return np.sort(np.random.default_rng(_SEED).permutation(n)[:limit])


def kernels(features: Matrix) -> list[Kernel]:
    """Return a kernel of each width on a fixed sample of standardised features ``(n, feature_dim)``."""
    landmarks = features[fixed_sample(len(features), MAX_LANDMARKS)]
    usual = float(np.median(_squared_distances(landmarks, landmarks)))
    return [Kernel(landmarks, width * max(usual, 1e-12)) for width in WIDTHS]


def _squared_distances(first: Matrix, second: Matrix) -> Matrix:
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return np.asarray(np.maximum(squares, 0.0))
