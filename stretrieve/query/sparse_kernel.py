"""Weighted moments of neighbours' sparse expression, compiled; see :mod:`stretrieve.query.kernel`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve._compiled import compiled
from stretrieve.indexes.kernel import LINE, fetch
from stretrieve.query.kernel import (
    Floats,
    Moments,
    Votes,
    deviation,
    finish,
    places,
    support_of,
    tell_support,
)
from stretrieve.query.pairs import LANES, add_pair, add_pairs

_BLOCK = 32_768
_PART = 128
"""Entries of a row that are added between fetching as many of those to come."""


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
def sparse_moments(votes: Votes, values: Entries, first: int, last: int, out: Moments) -> None:
    """Fill in the moments of queries ``first`` to ``last - 1`` from sparse values."""
    n_genes = out.mean.shape[1]
    width = max(1, min(n_genes, _BLOCK))
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
                finish(sums, support, query, block, out)
            else:
                _add_entries(votes, query, values, start, n, pairs)
                _finish_pairs(pairs, support_of(votes, query), query, block, out)


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
def _row_after(votes: Votes, neighbour: int, values: Entries) -> tuple[int, int]:
    """Return where the next neighbour's row is, which is fetched while this one is added.

    It is empty where only some genes are wanted.
    """
    following = votes.rows[min(neighbour + 1, len(votes.rows) - 1)]
    begin, end = values.pointers[following], values.pointers[following + 1]
    return begin, end if values.whole else begin


@compiled
def _fetch(values: Entries, begin: int, end: int) -> None:
    for entry in range(begin, end, LINE):
        fetch(values.values, entry)
        fetch(values.columns, entry)


@compiled
def _add_entries(
    votes: Votes, query: int, values: Entries, start: int, n: int, sums: Floats
) -> None:
    """Add the stored values of a query's neighbours."""
    low = np.int64(values.first + start)
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        (ahead, last), weight = _row_after(votes, i, values), votes.weights[i]
        begin, end = _entries(values, votes.rows[i], start, n)
        genes, row = values.columns[begin:end], values.values[begin:end]
        eights = len(row) // LANES * LANES
        for part in range(0, eights, _PART):
            _fetch(values, ahead, min(ahead + _PART, last))
            ahead = min(ahead + _PART, last)
            for entry in range(part, min(part + _PART, eights), LANES):
                add_pairs(sums, genes, row, entry, low, weight)
        for entry in range(eights, len(row)):
            x = np.float64(row[entry])
            add_pair(sums, np.uint64(genes[entry] - low), weight * x, weight * x * x)
        _fetch(values, ahead, last)


@compiled
def _add_entries_measured(
    votes: Votes, query: int, values: Entries, start: int, n: int, sums: Floats
) -> None:
    """Add ``w x`` and ``w ((x - offset)² - offset²)`` of what a query's neighbours measured."""
    low = values.first + start
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        (ahead, last), weight = _row_after(votes, i, values), votes.weights[i]
        group = votes.groups[i]
        offsets, measured = votes.offsets[group, start:], votes.measured[group, start:]
        begin, end = _entries(values, votes.rows[i], start, n)
        genes, row = values.columns[begin:end], values.values[begin:end]
        for part in range(0, len(row), _PART):
            _fetch(values, ahead, min(ahead + _PART, last))
            ahead = min(ahead + _PART, last)
            for entry in range(part, min(part + _PART, len(row))):
                gene = np.uint64(genes[entry] - low)
                if measured[gene]:
                    x = np.float64(row[entry])
                    add_pair(sums, gene, weight * x, weight * x * (x - 2 * offsets[gene]))
        _fetch(values, ahead, last)


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
def _finish_pairs(pairs: Floats, support: Floats, query: int, block: slice, out: Moments) -> None:
    """Turn the sums of a block of genes, all of the same support, into what is wanted."""
    means, spreads = places(out, query, block)
    sums, total = pairs.reshape(-1), support[0, 0]  # steps of two are known to the compiler here
    for gene in range(len(means)):
        means[gene] = sums[2 * gene] / total
    for gene in range(len(spreads)):
        spreads[gene] = deviation(sums[2 * gene + 1], total, means[gene])
    tell_support(support, out.coverage[query], out.n_effective[query])
