"""Joint spaces in closed form: linear maps of image features and of expression into one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ConfigError, ShapeError, explain

Matrix = npt.NDArray[np.float64]

ALPHAS: Final = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 1e4, 3e4, 1e5, 3e5)
_EXPRESSION_PCS: Final = 64
_MAX_FOLDS: Final = 5


class JointMethod(StrEnum):
    """How the two maps are found."""

    RIDGE = "ridge"
    """Principal components of expression; ridge regression of them on image features."""
    CCA = "cca"
    """Directions of largest correlation, with ridge-regularised covariances."""
    PCA = "pca"
    """Whitened principal components of each modality, turned onto each other (Procrustes)."""


@dataclass(frozen=True)
class JointSettings:
    """Settings of :func:`fit_joint_space`.

    Parameters
    ----------
    method
        How the maps are found.
    n_components
        Width of the joint space; fewer when there are fewer spots or genes.
    alpha
        Ridge penalty on standardised features; ``None`` chooses it on held-out patients (sections
        when there is one patient, blocks of spots when there is one section).
    """

    method: JointMethod = JointMethod.RIDGE
    n_components: int = 16
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.n_components < 1:
            raise ConfigError(explain("n_components", got=self.n_components, expected="1 or more"))
        if self.alpha is not None and not self.alpha > 0:
            raise ConfigError(explain("alpha", got=self.alpha, expected="a number above 0"))


@dataclass(frozen=True)
class JointSpace:
    """Two linear maps into one space.

    Parameters
    ----------
    feature_mean, feature_scale
        ``(feature_dim,)`` statistics of the training patches.
    image_map
        ``(feature_dim, dim)`` applied to standardised features.
    expression_map
        ``(n_genes, dim)`` applied to centred expression.
    alpha
        Ridge penalty that was used.
    """

    feature_mean: Matrix
    feature_scale: Matrix
    image_map: Matrix
    expression_map: Matrix
    alpha: float

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return int(self.image_map.shape[1])

    def embed_features(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map features ``(n_patches, feature_dim)`` to ``(n_patches, dim)``."""
        standard = (np.asarray(features, np.float64) - self.feature_mean) / self.feature_scale
        return (standard @ self.image_map).astype(np.float32)

    def embed_expression(self, centred: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map centred expression ``(n_spots, n_genes)`` to ``(n_spots, dim)``."""
        return (np.asarray(centred, np.float64) @ self.expression_map).astype(np.float32)

    def to_arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return everything as named arrays; :meth:`from_arrays` rebuilds it."""
        return {
            "joint.feature_mean": self.feature_mean,
            "joint.feature_scale": self.feature_scale,
            "joint.image_map": self.image_map,
            "joint.expression_map": self.expression_map,
            "joint.alpha": np.array([self.alpha]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> JointSpace:
        """Rebuild a space from :meth:`to_arrays`."""
        names = ("feature_mean", "feature_scale", "image_map", "expression_map")
        parts = [np.asarray(arrays[f"joint.{name}"], dtype=np.float64) for name in names]
        return cls(parts[0], parts[1], parts[2], parts[3], float(arrays["joint.alpha"][0]))


def fit_joint_space(
    features: Sequence[npt.ArrayLike],
    expression: Sequence[npt.ArrayLike],
    *,
    groups: Sequence[str],
    settings: JointSettings,
    common_scale: bool = False,
) -> JointSpace:
    """Fit both maps on training sections.

    Parameters
    ----------
    features
        One array a section, ``(n_spots, feature_dim)``.
    expression
        One array a section, ``(n_spots, n_genes)``, centred.
    groups
        Patient of each section; ``alpha`` is chosen across them.
    settings
        Method, width, penalty.
    common_scale
        Divide all features by one number instead of each by its own standard deviation; for codes
        whose spread tells how much they mean.

    Raises
    ------
    ShapeError
        When features and expression do not pair up, or there are fewer than three spots.
    """
    images = [np.asarray(x, dtype=np.float64) for x in features]
    spots = [np.asarray(y, dtype=np.float64) for y in expression]
    sizes = [len(x) for x in images]
    if sizes != [len(y) for y in spots] or len(groups) != len(sizes) or sum(sizes) < 3:
        raise ShapeError(
            explain(
                "joint space",
                got=f"features of {sizes} and expression of {[len(y) for y in spots]} spots",
                expected="as many of both, three or more",
            )
        )
    x, y = np.concatenate(images), np.concatenate(spots)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-8 * max(1.0, float(np.abs(mean).max())), scale, np.inf)
    if common_scale:
        scale = np.full_like(scale, np.sqrt(np.mean(x.var(axis=0))) or np.inf)
    x = (x - mean) / scale
    folds = _folds(sizes, groups)
    alpha = settings.alpha or _choose_alpha(x, y, folds, settings)
    image_map, expression_map = _FITTERS[settings.method](x, y, settings.n_components, alpha)
    finite = np.where(np.isfinite(scale), scale, 1.0)
    return JointSpace(mean, finite, image_map, expression_map, alpha)


def _folds(sizes: Sequence[int], groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the fold of each spot: by patient, else by section, else one of four blocks."""
    names = list(groups) if len(set(groups)) > 1 else [str(i) for i in range(len(sizes))]
    if len(set(names)) > 1:
        codes = {name: i % _MAX_FOLDS for i, name in enumerate(dict.fromkeys(names))}
        return np.repeat([codes[name] for name in names], sizes).astype(np.int64)
    return (np.arange(sizes[0]) * 4 // sizes[0]).astype(np.int64)


def _components(y: Matrix, n: int) -> Matrix:
    """Return the first principal directions ``(n_genes, n)`` of centred expression."""
    n = min(n, *y.shape)
    if y.shape[1] <= y.shape[0]:
        vectors = np.linalg.eigh(y.T @ y)[1][:, ::-1][:, :n]
    else:
        values, left = np.linalg.eigh(y @ y.T)
        top = np.sqrt(np.maximum(values[::-1][:n], 1e-30))
        vectors = y.T @ left[:, ::-1][:, :n] / top
    return np.asarray(_fix_signs(vectors), dtype=np.float64)


def _fix_signs(vectors: Matrix) -> Matrix:
    """Make the entry of largest size in each column positive, so that runs agree."""
    rows = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[rows, np.arange(vectors.shape[1])])
    return vectors * np.where(signs == 0, 1.0, signs)


def _ridge_path(x: Matrix, t: Matrix, alphas: Sequence[float]) -> list[Matrix]:
    """Return ridge coefficients ``(feature_dim, n)`` for each penalty from one decomposition."""
    if x.shape[1] <= x.shape[0]:
        values, vectors = np.linalg.eigh(x.T @ x)
        rotated = vectors.T @ (x.T @ t)
        return [vectors @ (rotated / (np.maximum(values, 0) + a)[:, None]) for a in alphas]
    values, vectors = np.linalg.eigh(x @ x.T)
    rotated = vectors.T @ t
    return [x.T @ (vectors @ (rotated / (np.maximum(values, 0) + a)[:, None])) for a in alphas]


def _choose_alpha(
    x: Matrix, y: Matrix, folds: npt.NDArray[np.int64], settings: JointSettings
) -> float:
    """Return the penalty whose predictions follow held-out expression best."""
    score = np.zeros(len(ALPHAS))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if train.sum() < 3 or test.sum() < 3:
            continue
        directions = _components(y[train], settings.n_components)
        truth = y[test] @ directions
        for i, coefficients in enumerate(_ridge_path(x[train], y[train] @ directions, ALPHAS)):
            score[i] += _mean_correlation(x[test] @ coefficients, truth)
    return ALPHAS[int(score.argmax())]


def _mean_correlation(predicted: Matrix, truth: Matrix) -> float:
    """Return the correlation of each component, averaged by the component's standard deviation."""
    predicted = predicted - predicted.mean(axis=0)
    truth = truth - truth.mean(axis=0)
    norms = np.sqrt((predicted**2).sum(axis=0) * (truth**2).sum(axis=0))
    correlation = (predicted * truth).sum(axis=0) / np.where(norms > 0, norms, np.inf)
    weights = truth.std(axis=0)
    return float((correlation * weights).sum() / max(float(weights.sum()), 1e-12))


def _fit_ridge(x: Matrix, y: Matrix, n: int, alpha: float) -> tuple[Matrix, Matrix]:
    directions = _components(y, n)
    return _ridge_path(x, y @ directions, (alpha,))[0], directions


def _fit_cca(x: Matrix, y: Matrix, n: int, alpha: float) -> tuple[Matrix, Matrix]:
    reduced = _components(y, max(n, min(_EXPRESSION_PCS, *y.shape)))
    scores = y @ reduced
    wx, wy = _inverse_root(x.T @ x, alpha), _inverse_root(scores.T @ scores, alpha)
    left, values, right = np.linalg.svd(wx @ (x.T @ scores) @ wy, full_matrices=False)
    n = min(n, len(values))
    root = np.sqrt(values[:n])
    return wx @ left[:, :n] * root, reduced @ wy @ right[:n].T * root


def _inverse_root(covariance: Matrix, alpha: float) -> Matrix:
    values, vectors = np.linalg.eigh(covariance)
    root = 1 / np.sqrt(np.maximum(values, 0) + alpha)
    return np.asarray((vectors * root) @ vectors.T, dtype=np.float64)


def _fit_pca(x: Matrix, y: Matrix, n: int, alpha: float) -> tuple[Matrix, Matrix]:
    del alpha
    n = min(n, *x.shape, *y.shape)
    maps = []
    for matrix in (x, y):
        directions = _components(matrix - matrix.mean(axis=0), n)
        spread = (matrix @ directions).std(axis=0)
        maps.append(directions / np.where(spread > 1e-12, spread, np.inf))
    left, _, right = np.linalg.svd((x @ maps[0]).T @ (y @ maps[1]))
    return maps[0] @ left @ right, maps[1]


_FITTERS: Final = {
    JointMethod.RIDGE: _fit_ridge,
    JointMethod.CCA: _fit_cca,
    JointMethod.PCA: _fit_pca,
}
