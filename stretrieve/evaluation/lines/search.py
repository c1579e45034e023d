"""Exact search and plain averaging on arrays, shared by the retrieval lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.evaluation.training_data import Matrix
from stretrieve.query.impute import WeightMatrix, impute

_BLOCK = 1024


@dataclass(frozen=True)
class Found:
    """Nearest keys of each query.

    Parameters
    ----------
    indices
        ``(n_query, k)``, best first.
    scores
        ``(n_query, k)``.
    """

    indices: npt.NDArray[np.int64]
    scores: Matrix


def unit(vectors: npt.ArrayLike) -> Matrix:
    """Return vectors of length 1; zeros stay."""
    array = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(array, axis=1, keepdims=True)
    return np.asarray(array / np.where(norm > 0, norm, 1.0))


def nearest(query: Matrix, keys: Matrix, k: int) -> Found:
    """Return the ``k`` keys of highest dot product; ties go to the lower position."""
    k = min(k, len(keys))
    indices, scores = [], []
    for start in range(0, len(query), _BLOCK):
        products = query[start : start + _BLOCK] @ keys.T
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        indices.append(order)
        scores.append(np.take_along_axis(products, order, axis=1))
    return Found(np.concatenate(indices), np.concatenate(scores))


def average(found: Found, values: Matrix, weights: Matrix | None = None) -> tuple[Matrix, Matrix]:
    """Return weighted mean and spread ``(n_query, n_genes)`` of the neighbours' values.

    Parameters
    ----------
    found
        Neighbours.
    values
        ``(n_keys, n_genes)``.
    weights
        ``(n_query, k)``, rows summing to 1; equal when ``None``.
    """
    if weights is None:
        weights = np.full(found.indices.shape, 1.0 / found.indices.shape[1])
    matrix = WeightMatrix.build(found.indices, weights)
    imputed = impute(sparse.csr_matrix(matrix.matrix), values[matrix.used])
    return imputed.mean, imputed.spread
