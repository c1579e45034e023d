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
_HALVINGS = 21
_MOST: Final = np.float32(8.0)
"""More than a product with a unit vector, and its error, can be."""
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
    tile = np.empty((ROWS, PANEL), dtype=np.int32)
    for begin in range(first, last, _QUERIES):
        for panel in range(len(stored.radii)):
            for start in range(begin, min(begin + _QUERIES, last), ROWS):
                multiply(stored.numbers, panel, queries.numbers, start, queries.starts, tile)
                for row in range(ROWS):
                    query = start + row
                    step, length = queries.steps[query], queries.lengths[query]
                    error = queries.errors[query] * stored.radii[panel] + _ROUNDED
                    found = reaching(tile, row, stored.steps, stored.offsets, stored.errors, panel,
                                     step, length, kept.least[query] - error)  # fmt: skip
                    n = kept.counts[query]
                    while found:
                        lane = np.int64(first_bit(found))
                        found &= found - np.uint64(1)
                        product = np.float32(tile[row, lane]) * stored.steps[panel, lane] * step
                        product += stored.offsets[panel, lane]
                        off = length * stored.errors[panel, lane] + error
                        kept.positions[query, n] = positions[panel * PANEL + lane]
                        kept.highest[query, n] = product + off
                        kept.lowest[query, n] = product - off
                        n += 1
                    kept.counts[query] = n
                    if n > kept.full[query]:
                        _drop(kept, query, k)


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
    k, capacity = out.indices.shape[1], kept.positions.shape[1]
    chosen, scores = np.empty(capacity, dtype=np.int64), np.empty(capacity)
    for query in range(first, last):
        _drop(kept, query, k)
        n = kept.counts[query]
        if n < 0:
            continue
        row = slice(query, query + 1)
        vector, best, values = vectors[row], out.indices[row], out.scores[row]
        likely = np.float32(-np.inf)
        if n > k:
            likely = kth_bound(kept.highest[query, :n], k, _MOST)
        there = _choose(kept, query, likely, np.float32(np.inf), chosen, 0)
        _score(chosen, scores, 0, there, vector, stored)
        kernel.fill_best(best, values, chosen[:there].reshape(1, -1), scores[:there].reshape(1, -1))
        worst = values[0, k - 1] - shifts[query] - _ROUNDED
        chosen[:k], scores[:k] = best[0], values[0]
        there = _choose(kept, query, worst, likely, chosen, k)
        _score(chosen, scores, k, there, vector, stored)
        kernel.fill_best(best, values, chosen[:there].reshape(1, -1), scores[:there].reshape(1, -1))


@compiled
def _choose(
    kept: Kept, query: int, low: np.floating[Any], high: np.floating[Any], chosen: Indices, n: int
) -> int:
    """Add to what is chosen the candidates with upper bounds from ``low`` to below ``high``."""
    for i in range(kept.counts[query]):
        if low <= kept.highest[query, i] < high:
            chosen[n] = kept.positions[query, i]
            n += 1
    return n


@compiled
def _score(chosen: Indices, scores: Doubles, first: int, last: int, vector: Doubles,
           stored: kernel.Stored) -> None:  # fmt: skip
    part = slice(first, last)
    kernel.fill_scores(scores[part].reshape(1, -1), vector, stored, chosen[part].reshape(1, -1))


@compiled
def _drop(kept: Kept, query: int, k: int) -> None:
    """Drop the candidates of a query that cannot be among its ``k`` best, and raise what is least.

    Where too many can, the query is given up.
    """
    n, capacity = kept.counts[query], kept.positions.shape[1]
    if n < k:
        return
    least = kth_bound(kept.lowest[query, :n], k, _MOST)
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
def kth_bound(numbers: Floats, k: int, most: np.float32) -> np.float32:
    """Return what the ``k``-th highest reaches, and misses by less than a millionth of ``most``.

    Parameters
    ----------
    numbers
        ``k`` or more, of which none is below ``-most`` or above ``most``.
    k
        Which is looked for.
    most
        Where to look.
    """
    low, high = -most, most
    for _ in range(_HALVINGS):
        middle, reached = np.float32(0.5) * (low + high), 0
        for i in range(len(numbers)):
            reached += numbers[i] >= middle
        if reached >= k:
            low = middle
        else:
            high = middle
    return low
