"""Which stored vectors can be among the nearest of a query, by bounds of their products. Compiled.

Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve._compiled import compiled
from stretrieve.indexes import kernel
from stretrieve.indexes.products import PANEL, ROWS, first_bit, multiply, reaching
from stretrieve.indexes.rounded import Queries, Stored

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_QUERIES = 512
"""Queries whose last candidates stay in the cache."""
_FURTHER = 96
"""Candidates after which it pays to drop some."""
_SETTLED = 32
"""Queries whose candidates are scored in one go, so that vectors are fetched ahead without a break."""
_STEP: Final = np.float32(2**-10)
_CLOSE: Final = np.float32(2**-18)
"""Steps by which a bound is looked for, at first and at last."""
_WIDE: Final = np.float32(64.0)
"""More than products can be apart."""
_LEAST: Final = np.float32(-8.0)
"""Less than a product with a unit vector, less its error, can be."""
_ROUNDED: Final = np.float32(2**-18)
"""More than rounding to single precision moves a product of unit vectors."""


class Kept(NamedTuple):
    """Candidates of each query.

    Parameters
    ----------
    positions, highest, lowest
        ``(n_query, capacity)`` stored vectors, and between which bounds their products lie, in no
        order.
    counts
        ``(n_query,)`` how many there are; −1 where they were too many.
    full
        ``(n_query,)`` more than so many are gone through again.
    least
        ``(n_query,)`` what an upper bound must reach to matter.
    """

    positions: Indices
    highest: Floats
    lowest: Floats
    counts: Indices
    full: Indices
    least: Floats


class _Reached(NamedTuple):
    """Products of a panel and some queries, and which of these have products that matter.

    Parameters
    ----------
    products
        ``(n_query, 64)`` those of whole numbers.
    rows, lanes
        ``(n_query,)`` queries, and for which vectors of the panel, as bits.
    """

    products: npt.NDArray[np.int32]
    rows: Indices
    lanes: npt.NDArray[np.uint64]


class _Pairs(NamedTuple):
    """Pairs of a query and a stored vector, those of one query after each other, and their scores."""

    queries: Indices
    rows: Indices
    scores: Doubles


class Nearest(NamedTuple):
    """What is filled in.

    Parameters
    ----------
    indices, scores
        ``(n_query, k)`` best first; left as they are where candidates were too many.
    """

    indices: Indices
    scores: Doubles


@compiled
def keep(stored: Stored, positions: Indices, queries: Queries, k: int, kept: Kept,
         first: int, last: int) -> None:  # fmt: skip
    """Add what can matter of some stored vectors to the candidates of some queries.

    Parameters
    ----------
    stored, positions
        Vectors, and ``(n_vectors,)`` which they are.
    queries
        All of them.
    k
        Neighbours wanted.
    kept
        Candidates so far.
    first, last
        Queries ``first`` to ``last - 1``; both are multiples of 4.
    """
    room = _Reached(
        np.empty((_QUERIES, PANEL), dtype=np.int32),
        np.empty(_QUERIES, dtype=np.int64),
        np.empty(_QUERIES, dtype=np.uint64),
    )
    for begin in range(first, last, _QUERIES):
        end = min(begin + _QUERIES, last)
        for panel in range(len(stored.radii)):
            n = _compare(stored, panel, queries, kept.least, begin, end, room)
            for hit in range(n):
                row = room.rows[hit]
                _add(room.lanes[hit], room.products[row], stored, panel, positions, queries,
                     begin + row, kept)  # fmt: skip
                if kept.counts[begin + row] > kept.full[begin + row]:
                    _drop(kept, begin + row, k)


@compiled
def _compare(stored: Stored, panel: int, queries: Queries, least: Floats, begin: int, end: int,
             out: _Reached) -> int:  # fmt: skip
    """Multiply queries with a panel, and return how many of them have an upper bound that matters.

    What matters is seldom and cannot be foretold: to branch on it here would have the processor throw
    away products that it has begun.
    """
    n = 0
    for start in range(begin, end, ROWS):
        row = start - begin
        tile = out.products[row : row + ROWS]
        multiply(stored.numbers, panel, queries.numbers, start, queries.starts, tile)
        for query in range(start, start + ROWS):
            step, length = queries.steps[query], queries.lengths[query]
            bound = least[query] - _error(queries, query, stored, panel)
            lanes = reaching(tile, query - start, stored.steps, stored.offsets, stored.errors, panel,
                             step, length, bound)  # fmt: skip
            out.rows[n], out.lanes[n] = query - begin, lanes
            n += lanes != 0
    return n


@compiled
def _error(queries: Queries, query: int, stored: Stored, panel: int) -> np.float32:
    """Return how far products may be off by what the query lost, and by single precision."""
    error: np.float32 = queries.errors[query] * stored.radii[panel] + _ROUNDED
    return error


@compiled
def _add(lanes: np.uint64, products: npt.NDArray[np.int32], stored: Stored, panel: int,
         positions: Indices, queries: Queries, query: int, kept: Kept) -> None:  # fmt: skip
    """Add those of a panel whose bit is set."""
    step, length = queries.steps[query], queries.lengths[query]
    error = _error(queries, query, stored, panel)
    n = kept.counts[query]
    while lanes:
        lane = np.int64(first_bit(lanes))
        lanes &= lanes - np.uint64(1)
        product = np.float32(products[lane]) * stored.steps[panel, lane] * step
        product += stored.offsets[panel, lane]
        off = length * stored.errors[panel, lane] + error
        kept.positions[query, n] = positions[panel * PANEL + lane]
        kept.highest[query, n], kept.lowest[query, n] = product + off, product - off
        n += 1
    kept.counts[query] = n


@compiled
def settle(kept: Kept, shifts: Doubles, vectors: Doubles, stored: kernel.Stored, out: Nearest,
           first: int, last: int) -> None:  # fmt: skip
    """Fill in the nearest of the candidates of queries ``first`` to ``last - 1``.

    As many as are wanted are scored, those with the highest bounds; then what could be better than the
    worst of these.

    Parameters
    ----------
    kept
        All candidates.
    shifts
        ``(n_query,)`` a query's product with the centre, which all its bounds lack.
    vectors, stored
        ``(n_query, dim)`` the queries, and what they are compared with, as they are.
    out
        What is filled in.
    """
    k, room = out.indices.shape[1], _SETTLED * kept.positions.shape[1]
    pairs = _Pairs(np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64), np.empty(room))
    likely = np.empty(_SETTLED, dtype=np.float32)
    for begin in range(first, last, _SETTLED):
        group, n = range(begin, min(begin + _SETTLED, last)), 0
        for query in group:
            _drop(kept, query, k)
            bound = np.float32(-np.inf)
            if kept.counts[query] > k:
                bound = kth_bound(kept.highest[query, : kept.counts[query]], k, kept.least[query])
            likely[query - begin] = bound
            n = _choose(kept, query, bound, np.float32(np.inf), pairs, n)
        _insert(pairs, n, 0, vectors, stored, out)
        n = 0
        for query in group:
            worst = out.scores[query, k - 1] - shifts[query] - _ROUNDED
            n = _choose(kept, query, worst, likely[query - begin], pairs, n)
        _insert(pairs, n, k, vectors, stored, out)


@compiled
def _choose(
    kept: Kept, query: int, low: np.floating[Any], high: np.float32, pairs: _Pairs, n: int
) -> int:
    """Add to the pairs the candidates with upper bounds from ``low`` to below ``high``."""
    for i in range(kept.counts[query]):
        pairs.rows[n], pairs.queries[n] = kept.positions[query, i], query
        n += low <= kept.highest[query, i] < high
    return n


@compiled
def _insert(pairs: _Pairs, n: int, there: int, vectors: Doubles, stored: kernel.Stored,
            out: Nearest) -> None:  # fmt: skip
    """Score the pairs, and put them among the nearest, of which each query has ``there``."""
    kernel.fill_pairs(pairs.scores[:n], vectors, stored, pairs.queries[:n], pairs.rows[:n])
    end = 0
    while end < n:
        start, query = end, pairs.queries[end]
        best, values = out.indices[query], out.scores[query]
        while end < n and pairs.queries[end] == query:
            number = there + end - start
            kernel.insert(best, values, number, pairs.rows[end], pairs.scores[end])
            end += 1


@compiled
def _drop(kept: Kept, query: int, k: int) -> None:
    """Drop the candidates of a query that cannot be among its ``k`` best, and raise what is least.

    Where too many can, the query is given up.
    """
    n, capacity = kept.counts[query], kept.positions.shape[1]
    if n < k:
        return
    least = kth_bound(kept.lowest[query, :n], k, max(kept.least[query], _LEAST))
    left = 0
    for i in range(n):  # without branches, which could not be foretold
        highest = kept.highest[query, i]
        kept.positions[query, left] = kept.positions[query, i]
        kept.highest[query, left], kept.lowest[query, left] = highest, kept.lowest[query, i]
        left += highest >= least
    kept.counts[query], kept.least[query] = left, least
    kept.full[query] = min(left + _FURTHER, capacity - PANEL)
    if left > capacity - PANEL:
        kept.counts[query], kept.least[query] = -1, np.inf


@compiled
def kth_bound(numbers: Floats, k: int, low: np.float32) -> np.float32:
    """Return what the ``k``-th highest reaches, and misses by less than 2⁻¹⁸.

    Parameters
    ----------
    numbers
        ``k`` or more.
    k
        Which is looked for.
    low
        What ``k`` of them reach.
    """
    step = _STEP
    while step < _WIDE and _reach(numbers, low + step) >= k:
        low, step = low + step, step + step
    while step > _CLOSE:
        step = np.float32(0.5) * step
        if _reach(numbers, low + step) >= k:
            low = low + step
    return low


@compiled
def _reach(numbers: Floats, bound: np.float32) -> int:
    n = 0
    for i in range(len(numbers)):
        n += numbers[i] >= bound
    return n
