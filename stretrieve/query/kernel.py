"""Weighted moments of neighbours' expression, compiled: each neighbour's row is read once.

A query is computed by one thread, its neighbours in the order given, in float64, so that neither
threads nor batches nor the genes asked for change a value. Where the spread is wanted, genes are taken
in blocks whose sums stay in a core's cache. Sparse expression has :mod:`stretrieve.query.sparse_kernel`.
Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve._compiled import compiled
from stretrieve.indexes.kernel import LINE, fetch

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_BLOCK = 512
_PART = 64
"""Entries of a row that are added between fetching as many of those to come."""


class Votes(NamedTuple):
    """Who votes for what, and what is taken away from a value.

    Parameters
    ----------
    pointers, rows, weights
        Neighbours of each query as in a CSR matrix; ``rows`` are rows of the expression.
    groups
        ``(n_neighbours,)`` row of ``offsets`` and ``measured`` of each neighbour.
    offsets
        ``(n_groups, n_genes)`` subtracted from the values of a group.
    measured
        ``(n_groups, n_genes)`` which group votes for which gene; all for all without groups.
    """

    pointers: Indices
    rows: Indices
    weights: Floats
    groups: Indices
    offsets: Floats
    measured: npt.NDArray[np.bool_]


class Moments(NamedTuple):
    """What is filled in; see :class:`~stretrieve.query.impute.Imputed`.

    Parameters
    ----------
    mean
        ``(n_query, n_genes)``.
    spread
        The same, or ``(n_query, 0)`` where it is not wanted.
    n_effective, coverage
        ``(n_query, n_genes)``, or ``(n_query, 1)`` where every gene has the same.
    """

    mean: Floats
    spread: Floats
    n_effective: Floats
    coverage: Floats


@compiled
def dense_moments(
    votes: Votes, values: npt.NDArray[Any], first: int, last: int, out: Moments
) -> None:
    """Fill in the moments of queries ``first`` to ``last - 1`` from values ``(n_rows, n_genes)``."""
    n_genes = out.mean.shape[1]
    if not out.spread.shape[1] and not len(votes.measured):
        _dense_means(votes, values, first, last, out)
        return
    sums, support = np.empty((2, _BLOCK)), np.empty((2, _BLOCK))
    for query in range(first, last):
        for start in range(0, n_genes, _BLOCK):
            block = slice(start, min(start + _BLOCK, n_genes))
            sums[:] = 0.0
            if len(votes.measured):
                support[:] = 0.0
                _add_measured(votes, query, values, block, sums, support)
                finish(sums, support, query, block, out)
            else:
                _add_rows(votes, query, values, block, sums)
                finish(sums, support_of(votes, query), query, block, out)


@compiled
def _dense_means(
    votes: Votes, values: npt.NDArray[Any], first: int, last: int, out: Moments
) -> None:
    """Fill in all but the spread, row by row: sums of all genes stay in the cache by themselves."""
    for query in range(first, last):
        means, support = out.mean[query], support_of(votes, query)
        means[:] = 0.0
        _add_rows_once(votes, query, values, means)
        for gene in range(len(means)):
            means[gene] /= support[0, 0]
        tell_support(support, out.coverage[query], out.n_effective[query])


@compiled
def support_of(votes: Votes, query: int) -> Floats:
    """Return sum and sum of squares ``(2, 1)`` of a query's weights."""
    out = np.zeros((2, 1))
    for neighbour in range(votes.pointers[query], votes.pointers[query + 1]):
        out[0] += votes.weights[neighbour]
        out[1] += votes.weights[neighbour] ** 2
    return out


@compiled
def _add_rows(
    votes: Votes, query: int, values: npt.NDArray[Any], block: slice, sums: Floats
) -> None:
    """Add a query's neighbours, four rows at a time while there are as many.

    All in one function: passing arrays on costs more than adding a part of their rows.
    """
    rows, weights = votes.rows, votes.weights
    i, end = votes.pointers[query], votes.pointers[query + 1]
    step = values.strides[0] // values.itemsize
    while i + 4 <= end:
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for start in range(block.start, block.stop, _PART):
            part = slice(start, min(start + _PART, block.stop))
            for j in range(i + 4, min(i + 8, len(rows))):
                for gene in range(part.start, part.stop, LINE):
                    fetch(values, rows[j] * step + gene)
            row0, row1 = values[rows[i], part], values[rows[i + 1], part]
            row2, row3 = values[rows[i + 2], part], values[rows[i + 3], part]
            place = slice(part.start - block.start, part.stop - block.start)
            firsts, seconds = sums[0, place], sums[1, place]
            for gene in range(len(row0)):
                first, second = firsts[gene], seconds[gene]
                x = np.float64(row0[gene])
                first, second = first + w0 * x, second + w0 * x * x
                x = np.float64(row1[gene])
                first, second = first + w1 * x, second + w1 * x * x
                x = np.float64(row2[gene])
                first, second = first + w2 * x, second + w2 * x * x
                x = np.float64(row3[gene])
                first, second = first + w3 * x, second + w3 * x * x
                firsts[gene], seconds[gene] = first, second
        i += 4
    for j in range(i, end):
        row = values[rows[j], block]
        for gene in range(len(row)):
            x = np.float64(row[gene])
            sums[0, gene] += weights[j] * x
            sums[1, gene] += weights[j] * x * x


@compiled
def _add_rows_once(votes: Votes, query: int, values: npt.NDArray[Any], sums: Floats) -> None:
    """Add a query's neighbours as :func:`_add_rows` does, in the same order, without squares."""
    rows, weights = votes.rows, votes.weights
    i, end = votes.pointers[query], votes.pointers[query + 1]
    step = values.strides[0] // values.itemsize
    while i + 4 <= end:
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for start in range(0, len(sums), _PART):
            part = slice(start, min(start + _PART, len(sums)))
            for j in range(i + 4, min(i + 8, len(rows))):
                for gene in range(part.start, part.stop, LINE):
                    fetch(values, rows[j] * step + gene)
            row0, row1 = values[rows[i], part], values[rows[i + 1], part]
            row2, row3 = values[rows[i + 2], part], values[rows[i + 3], part]
            firsts = sums[part]
            for gene in range(len(row0)):
                first = firsts[gene] + w0 * np.float64(row0[gene])
                first += w1 * np.float64(row1[gene])
                first += w2 * np.float64(row2[gene])
                firsts[gene] = first + w3 * np.float64(row3[gene])
        i += 4
    for j in range(i, end):
        row = values[rows[j]]
        for gene in range(len(row)):
            sums[gene] += weights[j] * np.float64(row[gene])


@compiled
def _add_measured(
    votes: Votes,
    query: int,
    values: npt.NDArray[Any],
    block: slice,
    sums: Floats,
    support: Floats,
) -> None:
    """Add what a query's neighbours measured, freed of offsets, and their weights."""
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        weight, group = votes.weights[i], votes.groups[i]
        row, offsets = values[votes.rows[i], block], votes.offsets[group, block]
        measured = votes.measured[group, block]
        for gene in range(len(row)):
            if measured[gene]:
                x = np.float64(row[gene]) - offsets[gene]
                sums[0, gene] += weight * x
                sums[1, gene] += weight * x * x
                support[0, gene] += weight
                support[1, gene] += weight * weight


@compiled
def finish(sums: Floats, support: Floats, query: int, block: slice, out: Moments) -> None:
    """Turn the sums of a block of genes into what is wanted; 0 / 0 is NaN.

    ``support`` has one column where every gene has the same, and is written once then.
    """
    means, spreads = places(out, query, block)
    n = len(means)
    if support.shape[1] == 1:
        _divide(sums[0, :n], sums[1, :n], support[0, 0], means, spreads)
        tell_support(support, out.coverage[query], out.n_effective[query])
        return
    for gene in range(n):
        means[gene] = sums[0, gene] / support[0, gene]
    for gene in range(len(spreads)):
        spreads[gene] = deviation(sums[1, gene], support[0, gene], means[gene])
    tell_support(support, out.coverage[query, block], out.n_effective[query, block])


@compiled
def places(out: Moments, query: int, block: slice) -> tuple[Floats, Floats]:
    """Return where means and spreads go; none for spreads that are not wanted."""
    means = out.mean[query, block]
    return means, out.spread[query, block] if out.spread.shape[1] else means[:0]


@compiled
def _divide(first: Floats, second: Floats, total: float, means: Floats, spreads: Floats) -> None:
    for gene in range(len(first)):
        means[gene] = first[gene] / total
    for gene in range(len(spreads)):
        spreads[gene] = deviation(second[gene], total, means[gene])


@compiled
def deviation(squares: float, total: float, mean: float) -> float:
    """Return the standard deviation of values with some sum of squares and mean."""
    variance = squares / total - mean * mean
    return float(np.sqrt(0.0 if variance < 0 else variance))


@compiled
def tell_support(support: Floats, coverage: Floats, n_effective: Floats) -> None:
    """Fill in coverage and effective number from the sums and sums of squares of weights."""
    for gene in range(len(coverage)):
        total = support[0, gene]
        coverage[gene] = total
        n_effective[gene] = total * total / support[1, gene] if total > 0 else 0.0
