"""The rivals that every figure is printed beside.

All work on features ``(n_spots, n_features)`` and log1p CP10k ``(n_spots, n_genes)``. Features are
standardised on the training spots. Expression is centred per section before anything is learnt, so
that offsets between sections are not mistaken for biology, and the mean profile is added back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.evaluation.training_data import Matrix, Scaler, TrainingData

ALPHAS: Final = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 1e4, 3e4, 1e5, 3e5)
"""Ridge penalties to choose from, on standardised features."""

DEFAULT_ALPHA: Final = 1000.0
"""Penalty where there is only one group and nothing to choose on."""

N_COMPONENTS: Final = 16
N_NEIGHBOURS: Final = 50
KNN_COMPONENTS: Final = 64


class Predictor(Protocol):
    """A fitted baseline."""

    def predict(self, features: npt.ArrayLike) -> Matrix:
        """Return log1p CP10k ``(n_patches, n_genes)`` for features ``(n_patches, n_features)``."""


@dataclass(frozen=True)
class MeanProfile:
    """Predicts the same profile everywhere.

    Parameters
    ----------
    profile
        ``(n_genes,)``.
    """

    profile: Matrix

    def predict(self, features: npt.ArrayLike) -> Matrix:
        """Return the profile for every row of ``features``."""
        return np.tile(self.profile, (len(np.asarray(features)), 1))


@dataclass(frozen=True)
class LinearPredictor:
    """Predicts a linear function of standardised features.

    Parameters
    ----------
    scaler
        Standardisation.
    weights
        ``(n_features, n_genes)``.
    profile
        ``(n_genes,)`` added to every prediction.
    alpha
        Ridge penalty that was used.
    """

    scaler: Scaler
    weights: Matrix
    profile: Matrix
    alpha: float

    def predict(self, features: npt.ArrayLike) -> Matrix:
        """Return log1p CP10k ``(n_patches, n_genes)``."""
        return np.asarray(self.scaler.apply(features) @ self.weights + self.profile)


@dataclass(frozen=True)
class KnnPredictor:
    """Averages the training spots whose features point the same way.

    Parameters
    ----------
    scaler
        Standardisation.
    axes
        ``(n_features, n_components)`` principal axes.
    keys
        ``(n_spots, n_components)`` unit vectors of the training spots.
    values
        ``(n_spots, n_genes)`` their centred expression.
    profile
        ``(n_genes,)`` added to every prediction.
    k
        Neighbours that are averaged.
    """

    scaler: Scaler
    axes: Matrix
    keys: Matrix
    values: Matrix
    profile: Matrix
    k: int

    def predict(self, features: npt.ArrayLike) -> Matrix:
        """Return log1p CP10k ``(n_patches, n_genes)``."""
        scores = _unit(self.scaler.apply(features) @ self.axes) @ self.keys.T
        k = min(self.k, len(self.keys))
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        rows = np.repeat(np.arange(len(scores)), k)
        votes = (np.full(nearest.size, 1.0 / k), (rows, nearest.ravel()))
        average = sparse.csr_matrix(votes, shape=scores.shape) @ self.values
        return np.asarray(average + self.profile)


def fit_mean_profile(data: TrainingData) -> MeanProfile:
    """Learn the mean profile of the training sections; its per-gene correlation is 0."""
    return MeanProfile(data.profile)


def fit_ridge(data: TrainingData, *, alpha: float | None = None) -> LinearPredictor:
    """Regress centred expression on features with a ridge penalty.

    Parameters
    ----------
    data
        Training spots.
    alpha
        Penalty; ``None`` chooses the best of :data:`ALPHAS` on held-out groups.
    """
    scaler = Scaler.fit(data.features)
    inputs, targets = scaler.apply(data.features), data.centred()
    alpha = choose_alpha(inputs, targets, _groups(data)) if alpha is None else alpha
    return LinearPredictor(scaler, _ridge(inputs, targets, [alpha])[0], data.profile, alpha)


def fit_reduced_rank_ridge(
    data: TrainingData, *, n_components: int = N_COMPONENTS, alpha: float | None = None
) -> LinearPredictor:
    """Regress the leading components of centred expression and decode them linearly.

    The strongest linear rival: what cannot be predicted in one gene is not asked for.

    Parameters
    ----------
    data
        Training spots.
    n_components
        Principal components of expression that are regressed.
    alpha
        Penalty; ``None`` chooses the best of :data:`ALPHAS` on held-out groups.
    """
    scaler = Scaler.fit(data.features)
    inputs, centred = scaler.apply(data.features), data.centred()
    axes = _principal_axes(centred, n_components)
    targets = centred @ axes
    alpha = choose_alpha(inputs, targets, _groups(data)) if alpha is None else alpha
    weights = _ridge(inputs, targets, [alpha])[0] @ axes.T
    return LinearPredictor(scaler, weights, data.profile, alpha)


def fit_knn(
    data: TrainingData, *, k: int = N_NEIGHBOURS, n_components: int = KNN_COMPONENTS
) -> KnnPredictor:
    """Keep the training spots for nearest-neighbour averaging by cosine in principal components.

    Parameters
    ----------
    data
        Training spots.
    k
        Neighbours that are averaged.
    n_components
        Principal components of the standardised features.
    """
    scaler = Scaler.fit(data.features)
    inputs = scaler.apply(data.features)
    axes = _principal_axes(inputs, n_components)
    return KnnPredictor(scaler, axes, _unit(inputs @ axes), data.centred(), data.profile, k)


def choose_alpha(
    inputs: Matrix,
    targets: Matrix,
    groups: npt.NDArray[np.str_],
    *,
    alphas: Sequence[float] = ALPHAS,
) -> float:
    """Return the penalty with the least squared error on held-out groups.

    Parameters
    ----------
    inputs, targets
        ``(n_spots, n_features)`` standardised and ``(n_spots, n_targets)`` centred.
    groups
        ``(n_spots,)``; each group is held out once. With one group :data:`DEFAULT_ALPHA` comes back.
    alphas
        Penalties to choose from.
    """
    names = np.unique(groups)
    if len(names) < 2:
        return DEFAULT_ALPHA
    error = np.zeros(len(alphas))
    for name in names:
        held = groups == name
        weights = _ridge(inputs[~held], targets[~held], alphas)
        residual = [np.mean((inputs[held] @ w - targets[held]) ** 2) for w in weights]
        error += np.asarray(residual)
    return float(alphas[int(error.argmin())])


def _groups(data: TrainingData) -> npt.NDArray[np.str_]:
    return data.sections if data.groups is None else data.groups


def _ridge(inputs: Matrix, targets: Matrix, alphas: Sequence[float]) -> list[Matrix]:
    """Return weights ``(n_features, n_targets)`` for each penalty from one decomposition."""
    u, s, vt = np.linalg.svd(inputs, full_matrices=False)
    projected = u.T @ targets
    return [vt.T @ ((s / (s**2 + alpha))[:, None] * projected) for alpha in alphas]


def _principal_axes(values: Matrix, n_components: int) -> Matrix:
    centred = values - values.mean(axis=0)
    kept = max(1, n_components)
    if len(centred) > centred.shape[1]:  # the same axes from a far smaller problem
        return np.asarray(np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :kept])
    return np.asarray(np.linalg.svd(centred, full_matrices=False)[2][:kept].T)


def _unit(vectors: Matrix) -> Matrix:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norm > 0, norm, 1.0))


BASELINES: Final = MappingProxyType[str, Callable[[TrainingData], Predictor]](
    {
        "mean_profile": fit_mean_profile,
        "ridge": fit_ridge,
        "reduced_rank_ridge": fit_reduced_rank_ridge,
        "knn": fit_knn,
    }
)
"""Baselines by name. ``ridge`` on colour statistics is the colour ridge, on a backbone's features the
image ridge; ``knn`` on a backbone's features is the image kNN."""
