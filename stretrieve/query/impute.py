"""Weighted means of measured expression, with spread and support. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import ShapeError, explain

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NEGLIGIBLE = 1e-12
"""A neighbour of this weight or less does not vote (weights of a query sum to 1)."""


@dataclass(frozen=True, slots=True)
class Imputed:
    """Imputed expression of some genes; every array is ``(n_query, n_genes)``.

    Parameters
    ----------
    mean
        Weighted mean over the neighbours that measured the gene; NaN where none did.
    spread
        Weighted standard deviation of the same neighbours, in the unit of ``mean``.
    n_effective
        ``(sum w)² / sum w²`` over the same neighbours: how many of them really vote.
    coverage
        Share of the neighbours' weight that measured the gene, 0 to 1.
    """

    mean: Floats
    spread: Floats
    n_effective: Floats
    coverage: Floats


@dataclass(frozen=True, slots=True)
class WeightMatrix:
    """Neighbour weights as a sparse map from the reference spots in use to the queries.

    Parameters
    ----------
    matrix
        ``(n_query, n_used)`` CSR; rows sum to 1, or to 0 for a query without neighbours.
    used
        ``(n_used,)`` sorted positions of the reference spots in use.
    """

    matrix: sparse.csr_matrix
    used: Indices

    @classmethod
    def build(cls, indices: Indices, weights: Floats) -> WeightMatrix:
        """Collect neighbours ``(n_query, k)`` (−1 for none) and their weights."""
        if indices.shape != weights.shape or indices.ndim != 2:
            raise ShapeError(
                explain("neighbour weights", got=weights.shape, expected=f"{indices.shape}")
            )
        rows, columns = np.nonzero((indices >= 0) & (weights > NEGLIGIBLE))
        used, inverse = np.unique(indices[rows, columns], return_inverse=True)
        matrix = sparse.csr_matrix(
            (weights[rows, columns], (rows, inverse.ravel())), shape=(len(indices), len(used))
        )
        return cls(matrix, used.astype(np.int64))


def impute(
    weights: sparse.csr_matrix, expression: npt.ArrayLike, *, measured: Mask | None = None
) -> Imputed:
    """Average neighbours' expression, letting only those vote that measured the gene.

    Parameters
    ----------
    weights
        ``(n_query, n_used)`` non-negative weights, rows summing to 1 (or 0: no neighbours).
    expression
        ``(n_used, n_genes)`` dense values, for example log1p CP10k.
    measured
        ``(n_used, n_genes)`` True where the spot's dataset measured the gene; all when ``None``.

    Notes
    -----
    ``y = sum_j w_j o_j x_j / sum_j w_j o_j`` with ``o`` the mask; a missing value is never read as 0.
    """
    values = np.asarray(expression, dtype=np.float64)
    shape = (weights.shape[0], values.shape[1] if values.ndim == 2 else -1)
    if values.ndim != 2 or values.shape[0] != weights.shape[1]:
        raise ShapeError(
            explain("expression", got=values.shape, expected=f"({weights.shape[1]}, n_genes)")
        )
    if measured is None or bool(measured.all()):
        total = np.broadcast_to(np.asarray(weights.sum(axis=1)).reshape(-1, 1), shape)
        squares = np.broadcast_to(np.asarray(weights.power(2).sum(axis=1)).reshape(-1, 1), shape)
    else:
        votes = measured.astype(np.float64)
        values = np.where(measured, values, 0.0)
        total = weights @ votes
        squares = weights.power(2) @ votes
    return _moments(weights, values, total, squares)


def _moments(weights: sparse.csr_matrix, values: Floats, total: Floats, squares: Floats) -> Imputed:
    some = total > 0
    empty = np.full(total.shape, np.nan)
    mean = np.divide(weights @ values, total, out=empty.copy(), where=some)
    second = np.divide(weights @ values**2, total, out=empty.copy(), where=some)
    spread = np.sqrt(np.maximum(second - mean**2, 0.0))
    n_effective = np.divide(total**2, squares, out=np.zeros(total.shape), where=some)
    return Imputed(mean, spread, n_effective, np.array(total))
