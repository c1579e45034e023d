"""Joint spaces in closed form: maps of image features and of expression into one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, ShapeError, explain
from stretrieve.models.kernels import MAX_SPOTS, PENALTIES, Kernel, fixed_sample, kernels

Matrix = npt.NDArray[np.float64]

ALPHAS: Final = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 1e4, 3e4, 1e5, 3e5)
MARGIN: Final = 0.01
"""A kernel has to follow held-out expression better than a linear map by this much correlation."""
_EXPRESSION_PCS: Final = 64
_MAX_FOLDS: Final = 5
_FLAT: Final = 1e30
"""Scale of features that do not vary: whatever they are in a query, they become 0."""


class JointMethod(StrEnum):
    """How the two maps are found."""

    RIDGE = "ridge"
    """Principal components of expression; ridge regression of them on image features."""
    CCA = "cca"
    """Directions of largest correlation, with ridge-regularised covariances."""
    PCA = "pca"
    """Whitened principal components of each modality, turned onto each other (Procrustes)."""
    KERNEL = "kernel"
    """As ``ridge``, on radial basis functions of the features: what is not linear is followed, too."""
    AUTO = "auto"
    """``kernel`` where it follows held-out expression clearly better, else ``ridge``."""


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
        when there is one patient, blocks of spots when there is one section). So is a kernel's width.
    """

    method: JointMethod = JointMethod.RIDGE
    n_components: int = 16
    alpha: float | None = None

    def __post_init__(self) -> None:
        take_choices(self)
        if self.n_components < 1:
            raise ConfigError(explain("n_components", got=self.n_components, expected="1 or more"))
        if self.alpha is not None and not self.alpha > 0:
            raise ConfigError(explain("alpha", got=self.alpha, expected="a number above 0"))

    @property
    def is_linear(self) -> bool:
        """Whether the image side is a linear map, with which a trained head can start."""
        return self.method not in (JointMethod.KERNEL, JointMethod.AUTO)


@dataclass(frozen=True)
class JointSpace:
    """Two maps into one space; linear, but for a kernel on the image side.

    Parameters
    ----------
    feature_mean, feature_scale
        ``(feature_dim,)`` statistics of the training patches.
    image_map
        ``(feature_dim, dim)`` applied to standardised features; ``(n_landmarks, dim)`` applied to the
        kernel's values.
    expression_map
        ``(n_genes, dim)`` applied to centred expression.
    alpha
        Ridge penalty that was used.
    kernel
        Applied to standardised features first; ``None`` for a linear map.
    """

    feature_mean: Matrix
    feature_scale: Matrix
    image_map: Matrix
    expression_map: Matrix
    alpha: float
    kernel: Kernel | None = None

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return int(self.image_map.shape[1])

    def embed_features(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map features ``(n_patches, feature_dim)`` to ``(n_patches, dim)``."""
        standard = (np.asarray(features, np.float64) - self.feature_mean) / self.feature_scale
        inputs = standard if self.kernel is None else self.kernel(standard)
        return (inputs @ self.image_map).astype(np.float32)

    def embed_expression(self, centred: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map centred expression ``(n_spots, n_genes)`` to ``(n_spots, dim)``."""
        return (np.asarray(centred, np.float64) @ self.expression_map).astype(np.float32)

    def to_arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return everything as named arrays; :meth:`from_arrays` rebuilds it."""
        own = {
            "joint.feature_mean": self.feature_mean,
            "joint.feature_scale": self.feature_scale,
            "joint.image_map": self.image_map,
            "joint.expression_map": self.expression_map,
            "joint.alpha": np.array([self.alpha]),
        }
        if self.kernel is not None:
            own["joint.landmarks"] = self.kernel.landmarks
            own["joint.kernel_width"] = np.array([self.kernel.width])
        return own

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> JointSpace:
        """Rebuild a space from :meth:`to_arrays`."""
        names = ("feature_mean", "feature_scale", "image_map", "expression_map")
        parts = [np.asarray(arrays[f"joint.{name}"], dtype=np.float64) for name in names]
        kernel = None
        if "joint.landmarks" in arrays:
            landmarks = np.asarray(arrays["joint.landmarks"], dtype=np.float64)
            kernel = Kernel(landmarks, float(arrays["joint.kernel_width"][0]))
        return cls(parts[0], parts[1], parts[2], parts[3], float(arrays["joint.alpha"][0]), kernel)


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
    if not settings.is_linear:
        kept = fixed_sample(len(x), MAX_SPOTS)
        x, y, folds = x[kept], y[kept], folds[kept]
    best = _choose(_designs(x, settings), y, folds, settings.n_components)
    fitter = _FITTERS.get(settings.method, _fit_ridge)
    image_map, expression_map = fitter(best.inputs, y, settings.n_components, best.alphas[0])
    finite = np.where(np.isfinite(scale), scale, _FLAT)
    return JointSpace(
        mean, finite, best.root(image_map), expression_map, best.alphas[0], best.kernel
    )


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


@dataclass(frozen=True)
class _Design:
    """Inputs of a ridge regression ``(n_spots, ·)`` and the penalties to try on them."""

    inputs: Matrix
    alphas: tuple[float, ...]
    kernel: Kernel | None = None
    whitening: Matrix | None = None

    def root(self, coefficients: Matrix) -> Matrix:
        """Return coefficients of the features or of the kernel's values."""
        return coefficients if self.whitening is None else self.whitening @ coefficients


def _designs(x: Matrix, settings: JointSettings) -> list[_Design]:
    given = None if settings.alpha is None else (settings.alpha,)
    designs = []
    if settings.method is not JointMethod.KERNEL:
        designs.append(_Design(x, given or ALPHAS))
    if not settings.is_linear:
        for kernel in kernels(x):
            root = kernel.root()
            designs.append(_Design(kernel(x) @ root, given or PENALTIES, kernel, root))
    return designs


def _choose(designs: Sequence[_Design], y: Matrix, folds: npt.NDArray[np.int64], n: int) -> _Design:
    """Return the design whose predictions follow held-out expression best, with its best penalty.

    A linear design gives way to a kernel that is ahead by :data:`MARGIN`.
    """
    if len(designs) == len(designs[0].alphas) == 1:
        return designs[0]
    scores = [np.zeros(len(design.alphas)) for design in designs]
    n_folds = 0
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if train.sum() < 3 or test.sum() < 3:
            continue
        n_folds += 1
        directions = _components(y[train], n)
        target, truth = y[train] @ directions, y[test] @ directions
        for design, score in zip(designs, scores, strict=True):
            x = design.inputs
            for i, coefficients in enumerate(_ridge_path(x[train], target, design.alphas)):
                score[i] += _mean_correlation(x[test] @ coefficients, truth)
    ahead = [0.0 if d.kernel is None else -MARGIN * n_folds for d in designs]
    best = int(np.argmax([score.max() + a for score, a in zip(scores, ahead, strict=True)]))
    chosen = designs[best]
    return replace(chosen, alphas=(chosen.alphas[int(scores[best].argmax())],))


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
