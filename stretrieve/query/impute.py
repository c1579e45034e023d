"""Weighted means of measured expression, with spread and support. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import ShapeError, explain
from stretrieve.indexes.rescore import for_parts

if TYPE_CHECKING:
    from stretrieve.query.kernel import Moments, Votes

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NEGLIGIBLE = 1e-12
"""A neighbour of this weight or less does not vote (weights of a query sum to 1)."""
_QUERIES_PER_THREAD = 16
_VALUES_PER_THREAD = 1 << 22
"""Starting a thread takes as long as averaging about so many values."""


@dataclass(frozen=True, slots=True)
class Imputed:
    """Imputed expression of some genes; arrays are ``(n_query, n_genes)``.

    ``n_effective`` and ``coverage`` are read-only where all genes share one column.

    Parameters
    ----------
    mean
        Weighted mean over the neighbours that measured the gene; NaN where none did.
    spread
        Weighted standard deviation of the same neighbours, in the unit of ``mean``; ``(n_query, 0)``
        where it was not wanted.
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
        positions = indices[rows, columns]
        there = np.zeros(positions.max(initial=-1) + 1, dtype=np.bool_)
        there[positions] = True
        used = np.flatnonzero(there)
        place = np.cumsum(there) - 1
        pointers = np.searchsorted(rows, np.arange(len(indices) + 1))
        matrix = sparse.csr_matrix(
            (weights[rows, columns], place[positions], pointers), shape=(len(indices), len(used))
        )
        matrix.sum_duplicates()
        return cls(matrix, used)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Expression of some spots where it lies in memory, so that none has to be copied.

    Parameters
    ----------
    values
        ``(n_rows, n_columns)`` dense, or CSR in canonical order.
    rows
        ``(n_spots,)`` row of each spot.
    genes
        Columns of the genes.
    """

    values: npt.NDArray[Any] | sparse.csr_matrix
    rows: Indices
    genes: slice

    @classmethod
    def of(
        cls,
        values: npt.ArrayLike | sparse.csr_matrix,
        rows: Indices | None = None,
        genes: slice | None = None,
    ) -> StoredRows:
        """Take all rows and columns unless told otherwise."""
        if sparse.issparse(values):
            values = values if isinstance(values, sparse.csr_matrix) else sparse.csr_matrix(values)
            values = values if values.has_canonical_format else _canonical(values)
        else:
            values = np.asarray(values)
            if values.ndim != 2:
                raise ShapeError(
                    explain("expression", got=values.shape, expected="(n_spots, n_genes)")
                )
        rows = np.arange(values.shape[0]) if rows is None else rows
        return cls(values, rows, genes or slice(0, values.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of spots and genes."""
        return len(self.rows), self.genes.stop - self.genes.start


def _canonical(values: sparse.csr_matrix) -> sparse.csr_matrix:
    copy = values.copy()
    copy.sum_duplicates()
    return copy


def impute(
    weights: sparse.csr_matrix,
    expression: npt.ArrayLike | sparse.csr_matrix | StoredRows,
    *,
    measured: Mask | None = None,
    offsets: Floats | None = None,
    groups: Indices | None = None,
    spread: bool = True,
) -> Imputed:
    """Average neighbours' expression, letting only those vote that measured the gene.

    Parameters
    ----------
    weights
        ``(n_query, n_used)`` non-negative weights, rows summing to 1 (or 0: no neighbours).
    expression
        ``(n_used, n_genes)`` values, for example log1p CP10k; sparse ones are never made dense.
    measured
        ``(n_groups, n_genes)`` True where a group of spots measured the gene; all when ``None``.
    offsets
        ``(n_groups, n_genes)`` subtracted from the values of a group; 0 when ``None``.
    groups
        ``(n_used,)`` group of each spot, for instance its section; every spot is one when ``None``.
    spread
        Whether the spread is wanted too. The other results are the same without.

    Notes
    -----
    ``y = sum_j w_j o_j x_j / sum_j w_j o_j`` with ``o`` the mask; a missing value is never read as 0.
    """
    stored = expression if isinstance(expression, StoredRows) else StoredRows.of(expression)
    if stored.shape[0] != weights.shape[1]:
        expected = f"({weights.shape[1]}, n_genes)"
        raise ShapeError(explain("expression", got=stored.shape, expected=expected))
    n_query, n_genes = weights.shape[0], stored.shape[1]
    groups = np.arange(stored.shape[0]) if groups is None else groups
    votes = _votes(weights, stored, groups, measured, offsets)
    out = _room(n_query, n_genes, votes, spread=spread)
    per_query = 1 + weights.nnz * n_genes // max(n_query, 1)
    least = max(_QUERIES_PER_THREAD, _VALUES_PER_THREAD // per_query)
    for_parts(_filler(votes, stored, out), n_query, least=least)
    n_effective, coverage = (
        np.broadcast_to(part, out.mean.shape) for part in (out.n_effective, out.coverage)
    )
    return Imputed(out.mean, out.spread, n_effective, coverage)


def _room(n_query: int, n_genes: int, votes: Votes, *, spread: bool) -> Moments:
    """Return what is filled in; coverage is that of all genes where each spot votes for all."""
    from stretrieve.query.kernel import Moments

    shape = (n_query, n_genes if len(votes.measured) else min(n_genes, 1))
    mean, spreads = np.empty((n_query, n_genes)), np.empty((n_query, n_genes if spread else 0))
    return Moments(mean, spreads, np.empty(shape), np.empty(shape))


def _votes(
    weights: sparse.csr_matrix,
    stored: StoredRows,
    groups: Indices,
    measured: Mask | None,
    offsets: Floats | None,
) -> Votes:
    """Return who votes for what; no groups where all vote for all genes with plain values."""
    from stretrieve.query.kernel import Votes

    used = np.flatnonzero(np.bincount(groups))
    if offsets is None and (measured is None or measured[used].all()):
        offsets = measured = None
        used = used[:0]
    shape = (int(used.max(initial=-1)) + 1, stored.shape[1])
    return Votes(
        weights.indptr.astype(np.int64),
        stored.rows[weights.indices],
        weights.data.astype(np.float64),
        groups[weights.indices],
        np.zeros(shape) if offsets is None else np.ascontiguousarray(offsets),
        np.ones(shape, dtype=np.bool_) if measured is None else np.ascontiguousarray(measured),
    )


def _filler(votes: Votes, stored: StoredRows, out: Moments) -> Callable[[slice], None]:
    """Return what fills in the moments of some queries."""
    from stretrieve.query import kernel, sparse_kernel

    if isinstance(stored.values, np.ndarray):
        values = stored.values[:, stored.genes]
        return lambda part: kernel.dense_moments(votes, values, part.start, part.stop, out)
    matrix: Any = stored.values
    whole = stored.shape[1] == matrix.shape[1]
    data = (
        matrix.data if matrix.data.dtype in (np.float32, np.float64) else matrix.data.astype(float)
    )
    entries = sparse_kernel.Entries(matrix.indptr, matrix.indices, data, stored.genes.start, whole)
    return lambda part: sparse_kernel.sparse_moments(votes, entries, part.start, part.stop, out)
