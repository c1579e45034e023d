"""What a baseline learns from, and the standardisation of its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputError, ShapeError, explain

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingData:
    """Features and expression of the training spots.

    Parameters
    ----------
    features
        ``(n_spots, n_features)``, finite.
    expression
        ``(n_spots, n_genes)`` log1p CP10k, finite.
    sections
        ``(n_spots,)`` section of each spot.
    groups
        ``(n_spots,)`` what is held out to choose a penalty: the patient; the section when ``None``.

    Raises
    ------
    ShapeError
        When the numbers of spots differ or there are none.
    InputError
        When a value is not finite.
    """

    features: Matrix
    expression: Matrix
    sections: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        n = len(self.sections)
        lengths = [len(self.features), len(self.expression), n if self.groups is None else -1]
        if self.groups is not None:
            lengths[2] = len(self.groups)
        if n == 0 or any(length != n for length in lengths):
            raise ShapeError(explain("training data", got=lengths, expected=f"{n} spots, over 0"))
        if self.features.ndim != 2 or self.expression.ndim != 2:
            raise ShapeError(explain("training data", got="vectors", expected="two matrices"))
        if not (np.isfinite(self.features).all() and np.isfinite(self.expression).all()):
            raise InputError(explain("training data", got="NaN or infinity", expected="numbers"))

    @classmethod
    def build(
        cls,
        features: npt.ArrayLike,
        expression: npt.ArrayLike,
        sections: Sequence[str] | npt.NDArray[np.str_],
        *,
        groups: Sequence[str] | npt.NDArray[np.str_] | None = None,
    ) -> TrainingData:
        """Return training data as float64 arrays, checked."""
        return cls(
            np.asarray(features, dtype=np.float64),
            np.asarray(expression, dtype=np.float64),
            np.asarray(sections, dtype=np.str_),
            None if groups is None else np.asarray(groups, dtype=np.str_),
        )

    @property
    def profile(self) -> Matrix:
        """``(n_genes,)`` mean expression; every section weighs the same."""
        means = [self.expression[self.sections == s].mean(axis=0) for s in np.unique(self.sections)]
        return np.asarray(np.mean(means, axis=0))

    def centred(self) -> Matrix:
        """Return expression minus the mean of its section."""
        result = self.expression.copy()
        for section in np.unique(self.sections):
            rows = self.sections == section
            result[rows] -= result[rows].mean(axis=0)
        return result


@dataclass(frozen=True)
class Scaler:
    """Standardisation learnt on training spots.

    Parameters
    ----------
    mean, scale
        ``(n_features,)``; features that do not vary have an infinite scale and become 0.
    """

    mean: Matrix
    scale: Matrix

    @classmethod
    def fit(cls, features: Matrix) -> Scaler:
        """Learn mean and scale of each feature."""
        mean, spread = features.mean(axis=0), features.std(axis=0)
        flat = spread <= 1e-9 * np.maximum(np.abs(mean), 1e-12)
        return cls(mean, np.where(flat, np.inf, spread))

    def apply(self, features: npt.ArrayLike) -> Matrix:
        """Return standardised features.

        Raises
        ------
        ShapeError
            When the number of features differs.
        """
        array = np.asarray(features, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.mean):
            raise ShapeError(
                explain("features", got=array.shape, expected=f"(n, {len(self.mean)})")
            )
        return np.asarray((array - self.mean) / self.scale)
