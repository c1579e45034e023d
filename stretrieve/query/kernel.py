"""Weighted moments of neighbours' expression, compiled: each neighbour's row is read once.

A query is computed by one thread, its neighbours in the order given, in float64, so that neither
threads nor batches nor the genes asked for change a value. Genes are taken in blocks whose sums stay
in a core's cache. Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from stretrieve._compiled import compiled
from stretrieve.indexes.kernel import fetch

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_DENSE_BLOCK = 512
_SPARSE_BLOCK = 32_768
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
        As in a CSR matrix.
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


@intrinsic  # type: ignore[untyped-decorator]
def _add_pair(context: Any, sums: Any, row: Any, first: Any, second: Any) -> Any:
    """Add to ``sums[row, 0]`` and ``sums[row, 1]`` at once."""
    del context

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, args[0]).data
        pair, number = ir.VectorType(ir.DoubleType(), 2), ir.IntType(32)
        address = builder.gep(builder.bitcast(data, pair.as_pointer()), [args[1]])
        both = builder.insert_element(ir.Constant(pair, ir.Undefined), args[2], number(0))
        both = builder.insert_element(both, args[3], number(1))
        old = builder.load(address)
        old.align = 8
        builder.store(builder.fadd(old, both), address).align = 8
        return target.get_dummy_value()

    return types.void(sums, row, first, second), generate


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
            n = block.stop - start
            sums[:], support[:] = 0.0, 0.0
            if len(votes.measured):
                _add_measured(votes, query, values, block, sums, support)
            else:
                _add_rows(votes, query, values, block, sums)
                support[:] = _support(votes, query)
            _finish(sums[0, :n], sums[1, :n], support, query, start, out)


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
    """Add a query's neighbours, four rows at a time while there are as many."""
    rows, weights = votes.rows, votes.weights
    i, end = votes.pointers[query], votes.pointers[query + 1]
    while i + 4 <= end:
        row0, row1 = values[rows[i], block], values[rows[i + 1], block]
        row2, row3 = values[rows[i + 2], block], values[rows[i + 3], block]
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for gene in range(len(row0)):
            first, second = sums[0, gene], sums[1, gene]
            x = np.float64(row0[gene])
            first, second = first + w0 * x, second + w0 * x * x
            x = np.float64(row1[gene])
            first, second = first + w1 * x, second + w1 * x * x
            x = np.float64(row2[gene])
            first, second = first + w2 * x, second + w2 * x * x
            x = np.float64(row3[gene])
            first, second = first + w3 * x, second + w3 * x * x
            sums[0, gene], sums[1, gene] = first, second
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
    sums, support = np.empty((width, 2)), np.empty((2, width))
    for query in range(first, last):
        for start in range(0, n_genes, width):
            n = min(width, n_genes - start)
            sums[:], support[:] = 0.0, 0.0
            if len(votes.measured):
                _add_entries_measured(votes, query, values, start, n, sums)
                _add_offsets(votes, query, start, sums[:n], support)
            else:
                _add_entries(votes, query, values, start, n, sums)
                support[:] = _support(votes, query)
            _finish(sums[:n, 0], sums[:n, 1], support, query, start, out)


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
def _fetch_row(votes: Votes, neighbour: int, values: Entries) -> None:
    if values.whole and neighbour < len(votes.rows):
        row = votes.rows[neighbour]
        for entry in range(values.pointers[row], values.pointers[row + 1], _LINE):
            fetch(values.values, entry)
            fetch(values.columns, entry)


@compiled
def _add_entries(
    votes: Votes, query: int, values: Entries, start: int, n: int, sums: Floats
) -> None:
    """Add the stored values of a query's neighbours."""
    low = values.first + start
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        _fetch_row(votes, i + 1, values)
        weight = votes.weights[i]
        begin, end = _entries(values, votes.rows[i], start, n)
        genes, row = values.columns[begin:end], values.values[begin:end]
        for entry in range(len(row)):
            x = np.float64(row[entry])
            _add_pair(sums, np.uint64(genes[entry] - low), weight * x, weight * x * x)


@compiled
def _add_entries_measured(
    votes: Votes, query: int, values: Entries, start: int, n: int, sums: Floats
) -> None:
    """Add ``w x`` and ``w ((x - offset)² - offset²)`` of what a query's neighbours measured."""
    low = values.first + start
    for i in range(votes.pointers[query], votes.pointers[query + 1]):
        _fetch_row(votes, i + 1, values)
        weight, group = votes.weights[i], votes.groups[i]
        offsets, measured = votes.offsets[group, start:], votes.measured[group, start:]
        begin, end = _entries(values, votes.rows[i], start, n)
        genes, row = values.columns[begin:end], values.values[begin:end]
        for entry in range(len(row)):
            gene = np.uint64(genes[entry] - low)
            if measured[gene]:
                x = np.float64(row[entry])
                _add_pair(sums, gene, weight * x, weight * x * (x - 2 * offsets[gene]))


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
def _finish(
    first: Floats, second: Floats, support: Floats, query: int, start: int, out: Moments
) -> None:
    """Turn the sums of a block of genes into what is wanted; 0 / 0 is NaN."""
    block = slice(start, start + len(first))
    means, spreads, total = out.mean[query, block], out.spread[query, block], support[0]
    for gene in range(len(first)):
        mean = first[gene] / total[gene]
        variance = second[gene] / total[gene] - mean * mean
        means[gene], spreads[gene] = mean, np.sqrt(0.0 if variance < 0 else variance)
    coverage, n_effective = out.coverage[query, block], out.n_effective[query, block]
    for gene in range(len(coverage)):
        coverage[gene] = total[gene]
        voters = total[gene] * total[gene] / support[1, gene]
        n_effective[gene] = voters if total[gene] > 0 else 0.0
