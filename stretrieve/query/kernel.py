"""Weighted moments of neighbours' expression, compiled: each neighbour's row is read once.

A query is computed by one thread, its neighbours in the order given, in float64, so that neither
threads nor batches nor the genes asked for change a value. Genes are taken in blocks whose sums stay
in a core's cache. Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve._compiled import compiled
from stretrieve.indexes.kernel import fetch
from stretrieve.query.pairs import LANES, add_pair, add_pairs

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_DENSE_BLOCK = 512
_SPARSE_BLOCK = 32_768
_PART = 64
"""Entries of a row that are added between fetching as many of those to come."""
_LINE = 16
"""Entries of four bytes that are fetched from memory at once."""


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
    mean, spread
        ``(n_query, n_genes)``.
    n_effective, coverage
        ``(n_query, n_genes)``, or ``(n_query, 1)`` where every gene has the same.
    """

    mean: Floats
    spread: Floats
    n_effective: Floats
    coverage: Floats


class Entries(NamedTuple):
    """Expression of rows, those of one row in ascending order of genes.

    Parameters
    ----------
    pointers, columns, values
        As in a CSR matrix; values in single or double precision.
    first
        Column of the first gene wanted; the others follow.
    whole
        Whether all genes are wanted, so that it pays to fetch rows ahead.
    """

    pointers: npt.NDArray[Any]
    columns: npt.NDArray[Any]
    values: npt.NDArray[Any]
    first: int
    whole: bool


@compiled
def dense_moments(
    votes: Votes, values: npt.NDArray[Any], first: int, last: int, out: Moments
) -> None:
    """Fill in the moments of queries ``first`` to ``last - 1`` from values ``(n_rows, n_genes)``."""
    n_genes = out.mean.shape[1]
    sums, support = np.empty((2, _DENSE_BLOCK)), np.empty((2, _DENSE_BLOCK))
    for query in range(first, last):
        for start in range(0, n_genes, _DENSE_BLOCK):
            block = slice(start, min(start + _DENSE_BLOCK, n_genes))
            sums[:] = 0.0
            if len(votes.measured):
                support[:] = 0.0
                _add_measured(votes, query, values, block, sums, support)
                _finish(sums, support, query, block, out)
            else:
                _add_rows(votes, query, values, block, sums)
                _finish(sums, _support(votes, query), query, block, out)


@compiled
def _support(votes: Votes, query: int) -> Floats:
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
                for gene in range(part.start, part.stop, _LINE):
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
def sparse_moments(votes: Votes, values: Entries, first: int, last: int, out: Moments) -> None:
    """Fill in the moments of queries ``first`` to ``last - 1`` from sparse values."""
    n_genes = out.mean.shape[1]
    width = max(1, min(n_genes, _SPARSE_BLOCK))
    pairs, sums, support = np.empty((width, 2)), np.empty((2, width)), np.empty((2, width))
    for query in range(first, last):
        for start in range(0, n_genes, width):
            block = slice(start, min(start + width, n_genes))
            n = block.stop - start
            pairs[:] = 0.0
            if len(votes.measured):
                support[:] = 0.0
                _add_entries_measured(votes, query, values, start, n, pairs)
                _add_offsets(votes, query, start, pairs[:n], support)
                _separate(pairs, sums)
                _finish(sums, support, query, block, out)
            else:
                _add_entries(votes, query, values, start, n, pairs)
                _separate(pairs, sums)
                _finish(sums, _support(votes, query), query, block, out)


@compiled
def _separate(pairs: Floats, sums: Floats) -> None:
    for gene in range(len(pairs)):
        sums[0, gene], sums[1, gene] = pairs[gene, 0], pairs[gene, 1]


@compiled
def _entries(values: Entries, row: int, start: int, n: int) -> tuple[int, int]:
    """Return where the entries of ``n`` genes of a row begin and end."""
    begin, end = values.pointers[row], values.pointers[row + 1]
    low = np.int64(values.first + start)
    if begin < end and values.columns[begin] < low:
        begin += np.searchsorted(values.columns[begin:end], low)
    if begin < end and values.columns[end - 1] >= low + n:
        end = begin + np.searchsorted(values.columns[begin:end], low + n)
    return begin, end


@compiled
def _row_after(votes: Votes, neighbour: int, values: Entries) -> int:
    """Return where the row of the next neighbour begins, which is fetched while this one is added."""
    following = min(neighbour + 1, len(votes.rows) - 1)
    return int(values.pointers[votes.rows[following]])


@compiled
def _fetch_part(values: Entries, begin: int) -> None:
    if values.whole:
        for entry in range(begin, begin + _PART, _LINE):
            fetch(values.values, entry)
            fetch(values.columns, entry)


@compiled
def _add_entries(
    votes: Votes, query: int, values: Entries, start: int, n: int, sums: Floats
) -> None:
    """Add the stored values of a query's neighbours."""
    low = np.int64(values.first + start)
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        following, weight = _row_after(votes, i, values), votes.weights[i]
        begin, end = _entries(values, votes.rows[i], start, n)
        genes, row = values.columns[begin:end], values.values[begin:end]
        for part in range(0, len(row), _PART):
            _fetch_part(values, following + part)
            last = min(part + _PART, len(row))
            eights = part + (last - part) // LANES * LANES
            for entry in range(part, eights, LANES):
                add_pairs(sums, genes, row, entry, low, weight)
            for entry in range(eights, last):
                x = np.float64(row[entry])
                add_pair(sums, np.uint64(genes[entry] - low), weight * x, weight * x * x)


@compiled
def _add_entries_measured(
    votes: Votes, query: int, values: Entries, start: int, n: int, sums: Floats
) -> None:
    """Add ``w x`` and ``w ((x - offset)² - offset²)`` of what a query's neighbours measured."""
    low = values.first + start
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        following, weight, group = _row_after(votes, i, values), votes.weights[i], votes.groups[i]
        offsets, measured = votes.offsets[group, start:], votes.measured[group, start:]
        begin, end = _entries(values, votes.rows[i], start, n)
        genes, row = values.columns[begin:end], values.values[begin:end]
        for part in range(0, len(row), _PART):
            _fetch_part(values, following + part)
            for entry in range(part, min(part + _PART, len(row))):
                gene = np.uint64(genes[entry] - low)
                if measured[gene]:
                    x = np.float64(row[entry])
                    add_pair(sums, gene, weight * x, weight * x * (x - 2 * offsets[gene]))


@compiled
def _add_offsets(votes: Votes, query: int, start: int, sums: Floats, support: Floats) -> None:
    """Take offsets away, once for neighbours of one group in a row, and add the weights."""
    end = votes.pointers[query + 1]
    total = squares = 0.0
    for i in range(votes.pointers[query], end):
        group, weight = votes.groups[i], votes.weights[i]
        total, squares = total + weight, squares + weight * weight
        if i + 1 < end and votes.groups[i + 1] == group:
            continue
        for gene in range(len(sums)):
            if votes.measured[group, start + gene]:
                offset = votes.offsets[group, start + gene]
                sums[gene, 0] -= total * offset
                sums[gene, 1] += total * offset * offset
                support[0, gene] += total
                support[1, gene] += squares
        total = squares = 0.0


@compiled
def _finish(sums: Floats, support: Floats, query: int, block: slice, out: Moments) -> None:
    """Turn the sums of a block of genes into what is wanted; 0 / 0 is NaN.

    ``support`` has one column where every gene has the same, and is written once then.
    """
    means, spreads, n = out.mean[query, block], out.spread[query, block], block.stop - block.start
    if support.shape[1] == 1:
        _divide(sums[0, :n], sums[1, :n], support[0, 0], means, spreads)
        _tell_support(support, out.coverage[query], out.n_effective[query])
        return
    for gene in range(n):
        mean = sums[0, gene] / support[0, gene]
        variance = sums[1, gene] / support[0, gene] - mean * mean
        means[gene], spreads[gene] = mean, np.sqrt(0.0 if variance < 0 else variance)
    _tell_support(support, out.coverage[query, block], out.n_effective[query, block])


@compiled
def _divide(first: Floats, second: Floats, total: float, means: Floats, spreads: Floats) -> None:
    for gene in range(len(first)):
        mean = first[gene] / total
        variance = second[gene] / total - mean * mean
        means[gene], spreads[gene] = mean, np.sqrt(0.0 if variance < 0 else variance)


@compiled
def _tell_support(support: Floats, coverage: Floats, n_effective: Floats) -> None:
    for gene in range(len(coverage)):
        total = support[0, gene]
        coverage[gene] = total
        n_effective[gene] = total * total / support[1, gene] if total > 0 else 0.0
