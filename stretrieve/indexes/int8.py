"""Exact search that begins with products of 8-bit numbers, where the processor is made for them.

Processors with AVX-512 VNNI multiply 8-bit numbers many times as fast as single precision. Vectors,
less their common mean, are rounded to steps of their own. What each loses by that is measured and
bounds how far a product is off; products with the mean are known. All vectors whose upper bound reaches
the k-th best lower bound can be among the k nearest, and what can is scored in float64. Where that
leaves too many (vectors in tight clusters), the query is searched in single precision.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from stretrieve.indexes.base import Metric, SearchResult, Vectors
from stretrieve.indexes.exact import blocks
from stretrieve.indexes.rescore import (
    Candidates,
    ExactScorer,
    for_parts,
    search_exactly,
    thread_count,
)

if TYPE_CHECKING:
    from stretrieve.indexes.candidates import Kept
    from stretrieve.indexes.rounded import Queries, Stored

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_LEAST_PRODUCTS: Final = 1 << 33
"""Multiplications of a search that is worth it."""
_LEAST_QUERIES: Final = 256
_LEAST_DIM: Final = 64
_MOST_NEIGHBOURS: Final = 256
"""Of more, there would be many candidates to each query."""
_AT_ONCE: Final = 1 << 25
"""Stored numbers that are rounded at once."""
_SAMPLE: Final = 4096
"""Stored vectors that the mean is taken over; any would do."""
_CAPACITY: Final = (10, 128)
"""Candidates kept of a query: so many times k, and so many more."""
_HELD: Final = 1 << 20
"""Candidates held at once, if stored vectors are rounded once for all queries."""
_HELD_LONG: Final = 1 << 23
"""The same, if they are rounded anew for every group of queries."""
_GIVE_UP: Final = 0.25
"""Share of queries with too many candidates at which the rest is not tried."""
_PANELS_PER_THREAD: Final = 16
_QUERIES_PER_THREAD: Final = 64


def pays(scorer: ExactScorer, n_query: int, k: int, n_allowed: int) -> bool:
    """Whether a search is large enough, and of cosines, and the processor is made for 8-bit products.

    Parameters
    ----------
    scorer
        The stored vectors.
    n_query, k, n_allowed
        Queries, neighbours wanted, and vectors that they are compared with.
    """
    dim = scorer.vectors.shape[1]
    large = n_query * n_allowed * dim >= _LEAST_PRODUCTS
    wide = n_query >= _LEAST_QUERIES and dim >= _LEAST_DIM and k <= _MOST_NEIGHBOURS
    return scorer.metric is Metric.COSINE and large and wide and is_supported()


@functools.cache
def is_supported() -> bool:
    """Whether code for AVX-512 VNNI can be made and run here."""
    from numba import config
    from numba.core.codegen import get_host_cpu_features

    chosen = config.CPU_NAME or config.CPU_FEATURES  # by the user: code is made for that then
    return not chosen and "+avx512vnni" in get_host_cpu_features().split(",")


def search_from_int8(
    stored: RoundedBlocks, query: Vectors, k: int, otherwise: Candidates, *, n_allowed: int
) -> SearchResult:
    """Return the ``k`` best vectors for each query, by cosine.

    Parameters
    ----------
    stored
        The allowed vectors.
    query
        ``(n_query, dim)``.
    k
        Neighbours wanted.
    otherwise
        The search in single precision, for queries that have too many candidates.
    n_allowed
        Number of allowed vectors.
    """
    found = np.full((len(query), k), -1, dtype=np.int64)
    scores = np.full((len(query), k), -np.inf)
    for group in _groups(len(query), k, is_one_block=stored.is_one_block):
        _search(stored, query[group], SearchResult(found[group], scores[group]))
        if (found[group, 0] < 0).mean() > _GIVE_UP:
            break
    rest = np.flatnonzero(found[:, 0] < 0)
    if len(rest):
        again = search_exactly(stored.scorer, query[rest], k, otherwise, n_allowed=n_allowed)
        found[rest], scores[rest] = again.indices, again.scores
    return SearchResult(found, scores)


def _groups(n_query: int, k: int, *, is_one_block: bool) -> Iterator[slice]:
    """Yield groups of about one size, each with work for every thread."""
    held = (_HELD if is_one_block else _HELD_LONG) // _capacity(k)
    most = max(held, thread_count() * _QUERIES_PER_THREAD)
    ends = np.linspace(0, n_query, -(-n_query // most) + 1).astype(np.int64)
    yield from (slice(*pair) for pair in itertools.pairwise(ends.tolist()))


class RoundedBlocks:
    """Allowed vectors as whole numbers, block by block; kept where there is but one block.

    Parameters
    ----------
    scorer
        The stored vectors, compared by cosine.
    mask
        ``(n_vectors,)`` which vectors are allowed; all when ``None``.
    """

    def __init__(self, scorer: ExactScorer, mask: Mask | None) -> None:
        self.scorer, self._mask = scorer, None if mask is None else mask.copy()
        self.centre = _centre(scorer)
        self.is_one_block = scorer.vectors.size <= _AT_ONCE
        self._kept: list[tuple[Stored, Indices]] = []

    def allows(self, mask: Mask | None) -> bool:
        """Whether these are the vectors that a mask allows."""
        if self._mask is None or mask is None:
            return self._mask is mask
        return np.array_equal(self._mask, mask)

    def __iter__(self) -> Iterator[tuple[Stored, Indices]]:
        """Yield vectors, good until the next, and their positions."""
        if self.is_one_block and not self._kept:
            self._kept = list(self._rounded())
        yield from self._kept if self.is_one_block else self._rounded()

    def _rounded(self) -> Iterator[tuple[Stored, Indices]]:
        space, scales = _space(self.scorer), self.scorer.stored.inverse_norms
        for block, positions in blocks(self.scorer.vectors, self._mask, rows=space.steps.size):
            yield _packed(block, scales[positions], self.centre, space), positions


def _search(stored: RoundedBlocks, query: Vectors, out: SearchResult) -> None:
    """Fill in the nearest of some queries; what has too many candidates is left as it is."""
    from stretrieve.indexes import candidates, rounded
    from stretrieve.indexes.products import TOGETHER

    scorer, centre = stored.scorer, stored.centre
    unit, k = scorer.for_search(query), out.indices.shape[1]
    wide = -(-query.shape[1] // TOGETHER) * TOGETHER
    queries = rounded.pack_queries(unit, centre, wide)
    kept = keep_candidates(stored, queries, k)
    shifts, exact = unit.astype(np.float64) @ centre, query.astype(np.float64)
    compared, nearest = scorer.stored, candidates.Nearest(out.indices, out.scores)
    for_parts(
        lambda part: candidates.settle(
            kept, shifts, exact, compared, nearest, part.start, part.stop
        ),
        len(query),
        least=_QUERIES_PER_THREAD,
    )


def keep_candidates(stored: RoundedBlocks, queries: Queries, k: int) -> Kept:
    """Return all vectors that can be among the ``k`` nearest; −1 as their number where too many can.

    Parameters
    ----------
    stored
        The vectors.
    queries
        As whole numbers, less the same centre.
    k
        Neighbours wanted.
    """
    kept = _nothing_kept(queries, k)
    for block, positions in stored:
        _keep(block, positions, queries, k, kept)
        if not stored.is_one_block and (kept.counts < 0).mean() > _GIVE_UP:
            kept.counts[:] = -1
            break
    return kept


def _keep(stored: Stored, positions: Indices, queries: Queries, k: int, kept: Kept) -> None:
    """Add what can matter of a block of stored vectors."""
    from stretrieve.indexes import candidates
    from stretrieve.indexes.products import ROWS

    for_parts(
        lambda part: candidates.keep(
            stored, positions, queries, k, kept, part.start * ROWS, part.stop * ROWS
        ),
        len(queries.steps) // ROWS,
        least=_QUERIES_PER_THREAD // ROWS,
    )


def _capacity(k: int) -> int:
    from stretrieve.indexes.products import PANEL

    times, more = _CAPACITY
    return max(times * k + more, 2 * PANEL)


def _nothing_kept(queries: Queries, k: int) -> Kept:
    from stretrieve.indexes.candidates import Kept
    from stretrieve.indexes.products import PANEL

    n_query = len(queries.steps)
    shape = (n_query, _capacity(k))
    least = np.where(queries.steps > 0, -np.inf, np.inf)  # rows that fill up get nothing
    return Kept(
        np.empty(shape, dtype=np.int64),
        np.empty(shape, dtype=np.float32),
        np.empty(shape, dtype=np.float32),
        np.zeros(n_query, dtype=np.int64),
        np.full(n_query, k + PANEL, dtype=np.int64),
        least.astype(np.float32),
    )


def _centre(scorer: ExactScorer) -> Vectors:
    """Return about the mean ``(dim,)`` of the vectors at length 1: what they share tells nothing."""
    every = max(1, len(scorer.vectors) // _SAMPLE)
    sample = scorer.vectors[::every] * scorer.stored.inverse_norms[::every, None]
    return np.asarray(sample.mean(axis=0), dtype=np.float32)


def _space(scorer: ExactScorer) -> Stored:
    """Return room for a block of vectors."""
    from stretrieve.indexes import products, rounded

    n_vectors, dim = scorer.vectors.shape
    panels = -(-min(n_vectors, _AT_ONCE // dim) // products.PANEL)
    words = -(-dim // products.TOGETHER)
    shape = (panels, products.PANEL)
    return rounded.Stored(
        np.empty((panels, words, products.PANEL), dtype=np.uint32),
        np.empty(shape, dtype=np.float32),
        np.empty(shape, dtype=np.float32),
        np.empty(shape, dtype=np.float32),
        np.empty(panels, dtype=np.float32),
    )


def _packed(
    vectors: Vectors, scales: npt.NDArray[np.float64], centre: Vectors, space: Stored
) -> Stored:
    """Return vectors as whole numbers, in the room given."""
    from stretrieve.indexes import rounded
    from stretrieve.indexes.products import PANEL

    panels = -(-len(vectors) // PANEL)
    out = rounded.Stored(
        space.numbers[:panels],
        space.steps[:panels],
        space.errors[:panels],
        space.offsets[:panels],
        space.radii[:panels],
    )
    for_parts(
        lambda part: rounded.pack(vectors, scales, centre, out, part.start, part.stop),
        panels,
        least=_PANELS_PER_THREAD,
    )
    return out
