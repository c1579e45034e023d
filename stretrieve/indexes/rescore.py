"""Exact scores in float64, the one order of neighbours, and the test that no neighbour was missed.

Any search in float32 moves its scores by about 1e-7 with batch size, threads and device, and leaves
ties in arbitrary order. Here its candidates are scored again in float64 on the stored vectors, one row
at a time in a fixed order of additions, rounded to 1e-10, and sorted by (score, position), by compiled
loops (:mod:`stretrieve.indexes.kernel`).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stretrieve.config import choice
from stretrieve.errors import ShapeError, explain
from stretrieve.indexes.base import Metric, SearchResult, Vectors

if TYPE_CHECKING:
    from stretrieve.indexes.kernel import Stored

DECIMALS = 10
SPARE = 8
_SPAN_VALUES = 1 << 22
_NORM_ROWS = 16_384
_thread = threading.local()

Candidates = Callable[[Vectors, int], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
"""Given queries and ``k``: positions and float32 scores ``(n_query, k)`` of candidates, best first."""


class ExactScorer:
    """The stored vectors and how they are compared.

    Parameters
    ----------
    vectors
        ``(n_vectors, dim)`` float32, may be memory-mapped.
    metric
        How vectors are compared.
    """

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShapeError(
                explain(
                    "indexed vectors",
                    got=f"{vectors.dtype} {vectors.shape}",
                    expected="float32 (n_vectors, dim)",
                )
            )
        self.vectors = np.ascontiguousarray(vectors).view()
        self.vectors.flags.writeable = False  # of one type, for which there is machine code
        self.metric = choice(Metric, metric, "metric")

    @cached_property
    def norms(self) -> npt.NDArray[np.float64]:
        """``(n_vectors,)`` Euclidean norms."""
        out = np.empty(len(self.vectors))
        for start in range(0, len(out), _NORM_ROWS):
            block = np.asarray(self.vectors[start : start + _NORM_ROWS], dtype=np.float64)
            out[start : start + len(block)] = np.sqrt(np.einsum("nd,nd->n", block, block))
        return out

    @cached_property
    def _inverse_norms(self) -> npt.NDArray[np.float64]:
        return inverse(self.norms)

    @cached_property
    def inverse_norms(self) -> npt.NDArray[np.float32]:
        """``(n_vectors,)`` 1 / norm, and 0 for null vectors, whose cosine with anything is 0."""
        return self._inverse_norms.astype(np.float32)

    @cached_property
    def max_norm(self) -> float:
        """The largest norm; 1 for the cosine, which looks at directions only."""
        return 1.0 if self.metric is Metric.COSINE else float(self.norms.max(initial=0.0))

    @property
    def stored(self) -> Stored:
        """What compiled loops compare queries with."""
        from stretrieve.indexes import kernel

        norms = self._inverse_norms if self.metric is Metric.COSINE else np.empty(0)
        distances = self.metric is Metric.EUCLIDEAN
        return kernel.Stored(self.vectors, norms, distances, 10.0**DECIMALS)

    def check_query(self, query: npt.ArrayLike) -> Vectors:
        """Return the query as contiguous float32 ``(n_query, dim)``.

        Raises
        ------
        ShapeError
            When the shape is wrong or a value is not finite.
        """
        array = np.ascontiguousarray(query, dtype=np.float32)
        dim = self.vectors.shape[1]
        if array.ndim != 2 or array.shape[1] != dim:
            raise ShapeError(explain("query", got=array.shape, expected=f"(n_query, {dim})"))
        if not np.isfinite(array).all():
            raise ShapeError(explain("query", got="values that are not finite"))
        return array

    def for_search(self, query: Vectors) -> Vectors:
        """Return the query as an approximate search wants it: of unit length for the cosine."""
        if self.metric is not Metric.COSINE:
            return query
        wide = query.astype(np.float64)
        scale = inverse(np.sqrt(np.einsum("qd,qd->q", wide, wide)))
        return np.ascontiguousarray(wide * scale[:, None], dtype=np.float32)

    def scores(self, query: Vectors, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return exact scores ``(n_query, n_candidates)``; −inf where the index is −1.

        Raises
        ------
        ShapeError
            When a query is not one, an index is that of no vector, or there is not one row of indices a
            query.
        """
        from stretrieve.indexes import kernel

        wide, indices = self.check_query(query).astype(np.float64), np.ascontiguousarray(indices)
        if len(indices) != len(wide):
            raise ShapeError(
                explain("indices", got=indices.shape, expected=f"({len(wide)}, n_candidates)")
            )
        if indices.max(initial=-1) >= len(self.vectors):
            raise ShapeError(
                explain("index", got=indices.max(), expected=f"less than {len(self.vectors)}")
            )
        out = np.empty(indices.shape)
        least = max(1, _SPAN_VALUES // max(1, indices.shape[1] * query.shape[1]))
        for_parts(
            lambda part: kernel.fill_scores(out[part], wide[part], self.stored, indices[part]),
            len(query),
            least=least,
        )
        return out

    def slack(self, query: Vectors) -> npt.NDArray[np.float64]:
        """Return ``(n_query,)`` how far a float32 score may be off (squared for the distance)."""
        dim = self.vectors.shape[1]
        unit = 4.0 * float(np.finfo(np.float32).eps) * np.sqrt(dim)
        if self.metric is Metric.COSINE:
            return np.full(len(query), unit)
        norms = np.sqrt(np.einsum("qd,qd->q", query.astype(np.float64), query.astype(np.float64)))
        if self.metric is Metric.DOT:
            return np.asarray(unit * norms * self.max_norm)
        return np.asarray(unit * (norms + self.max_norm) ** 2)


def for_parts(
    work: Callable[[slice], object],
    n: int,
    *,
    least: int,
    start: Callable[[], object] = lambda: None,
) -> None:
    """Call a function on consecutive parts of ``n`` rows, one a thread, in several where that pays.

    Parts of parts stay in the thread that they are in. More of them than threads would even out what
    other work takes from some, but each costs milliseconds, with what it reads gone from the caches.

    Parameters
    ----------
    work
        Does one part; NumPy and FAISS let other threads run meanwhile.
    n
        Number of rows.
    least
        Fewest rows worth a thread.
    start
        Called in each new thread first.
    """
    inside = getattr(_thread, "busy", False)
    threads = 1 if inside else min(thread_count(), n // max(1, least))
    if threads < 2:
        work(slice(0, n))
        return
    ends = np.linspace(0, n, threads + 1).astype(np.int64)

    def begin() -> None:
        _thread.busy = True
        start()

    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        list(pool.map(work, [slice(*pair) for pair in itertools.pairwise(ends)]))


def thread_count() -> int:
    """Return how many threads to use: ``OMP_NUM_THREADS`` where it is set, else every core at hand."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def inverse(norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 / norm, and 0 where the norm is 0."""
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


def order_by_score(
    indices: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], k: int
) -> SearchResult:
    """Sort candidates by (score descending, position ascending) and keep ``k`` of them.

    Parameters
    ----------
    indices, scores
        ``(n_query, n_candidates)``; −1 and −inf for "none".
    k
        Columns of the result; filled up with −1 and −inf.
    """
    from stretrieve.indexes import kernel

    best = np.full((len(indices), k), -1, dtype=np.int64)
    values = np.full((len(indices), k), -np.inf)
    kernel.fill_best(best, values, np.ascontiguousarray(indices), np.ascontiguousarray(scores))
    return SearchResult(best, values)


def search_exactly(
    scorer: ExactScorer, query: Vectors, k: int, candidates: Candidates, *, n_allowed: int
) -> SearchResult:
    """Take some more than k candidates in float32, score them in float64, prove that none is missing.

    A query whose k-th exact score is not above the worst candidate's float32 score by more than the
    rounding error (many equal vectors, say) is searched again with twice as many candidates.

    Parameters
    ----------
    scorer
        The stored vectors.
    query
        ``(n_query, dim)``.
    k
        Neighbours wanted.
    candidates
        The float32 search over the allowed vectors.
    n_allowed
        Number of vectors that it looks at.
    """
    found = np.full((len(query), k), -1, dtype=np.int64)
    scores = np.full((len(query), k), -np.inf)
    open_rows = np.arange(len(query))
    width = min(n_allowed, k + max(SPARE, k // SPARE))
    while len(open_rows) and width:
        part = query[open_rows]
        indices, rough = candidates(part, width)
        near = _can_matter(scorer, part, rough, k)
        result = order_by_score(indices[:, :near], scorer.scores(part, indices[:, :near]), k)
        found[open_rows], scores[open_rows] = result.indices, result.scores
        if width == n_allowed:
            break
        open_rows = open_rows[_uncertain(scorer, part, result.scores[:, -1], rough)]
        width = min(n_allowed, 2 * width)
    return SearchResult(found, scores)


def _can_matter(scorer: ExactScorer, query: Vectors, rough: npt.NDArray[np.float32], k: int) -> int:
    """Return how many of the sorted candidates may be among the ``k`` best of any query."""
    wide = _comparable(scorer, rough.astype(np.float64))
    if k >= wide.shape[1]:
        return int(wide.shape[1])
    bound = wide[:, k - 1] - 2 * scorer.slack(query)
    return int((wide >= bound[:, None]).sum(axis=1).max(initial=0))


def _uncertain(
    scorer: ExactScorer,
    query: Vectors,
    last: npt.NDArray[np.float64],
    rough: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    worst = _comparable(scorer, rough[:, -1].astype(np.float64))
    reached = _comparable(scorer, last)
    return np.asarray(np.isfinite(worst) & (reached <= worst + scorer.slack(query)))


def _comparable(scorer: ExactScorer, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return scores on the scale on which the float32 error is bounded (distances squared)."""
    return -(scores**2) if scorer.metric is Metric.EUCLIDEAN else scores
