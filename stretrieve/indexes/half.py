"""Exact search that begins with products in half precision, where the processor is made for them.

Products of bfloat16 numbers take a fraction of the time of single precision on processors with AVX-512
BF16 or AMX. Each is off by no more than a bound, so all vectors within twice the bound of the k-th best
product are scored in float64: among them are the k nearest. Where that leaves too many (vectors in
tight clusters), the query is searched in single precision.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from stretrieve.indexes.base import Metric, SearchResult, Vectors
from stretrieve.indexes.exact import blocks
from stretrieve.indexes.rescore import (
    Candidates,
    ExactScorer,
    for_parts,
    order_by_score,
    search_exactly,
)

if TYPE_CHECKING:
    import torch

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_LEAST_PRODUCTS: Final = 1 << 33
"""Multiplications of a search that is worth it."""
_LEAST_QUERIES: Final = 256
_LEAST_DIM: Final = 64
_MOST_NEIGHBOURS: Final = 256
"""Of more, the candidates of all queries would take much memory."""
_ROWS: Final = 2048
"""Stored vectors of a block: its products stay in the cache."""
_QUERIES: Final = 512
_GROUP: Final = 4096
"""Queries whose candidates are held at once by a thread."""
_CAPACITY: Final = (8, 128)
"""Candidates kept of a query: so many times k, and so many more."""
_TRIALS: Final = 16
_GIVE_UP: Final = 0.25
"""Share of queries with too many candidates at which the rest is not tried."""
_one_at_a_time = threading.Lock()


def pays(scorer: ExactScorer, n_query: int, k: int, n_allowed: int) -> bool:
    """Whether a search is large enough, and of cosines, and half precision is faster here.

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
    return scorer.metric is Metric.COSINE and large and wide and is_fast()


@functools.cache
def is_fast() -> bool:
    """Whether products in half precision take less than a third of the time, measured once a process."""
    import torch

    single = torch.ones((2048, 256))
    half = single.bfloat16()
    with _threads_of_torch_kept():
        torch.set_num_threads(1)
        taken = [
            _shortest(functools.partial(torch.mm, each[:256], each.T)) for each in (half, single)
        ]
    return taken[0] < taken[1] / 3


@contextmanager
def _threads_of_torch_kept() -> Iterator[None]:
    """Leave torch's number of threads as it was; it is one for the process, so one search at a time."""
    import torch

    with _one_at_a_time:
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _shortest(call: Callable[[], object]) -> float:
    """Return the shortest of some times in seconds: that is what other work disturbs least."""
    taken = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def search_from_half(
    scorer: ExactScorer,
    query: Vectors,
    k: int,
    otherwise: Candidates,
    *,
    mask: Mask | None,
    n_allowed: int,
) -> SearchResult:
    """Return the ``k`` best vectors for each query, by cosine.

    Parameters
    ----------
    scorer
        The stored vectors.
    query
        ``(n_query, dim)``.
    k
        Neighbours wanted.
    otherwise
        The search in single precision, for queries that have too many candidates.
    mask
        ``(n_vectors,)`` which vectors are allowed; all when ``None``.
    n_allowed
        Number of those.
    """
    import torch

    found = np.full((len(query), k), -1, dtype=np.int64)
    scores = np.full((len(query), k), -np.inf)
    certain = np.zeros(len(query), dtype=np.bool_)
    len(scorer.inverse_norms)  # computed once, before several threads ask for it

    def search(part: slice) -> None:
        for start in range(part.start, part.stop, _GROUP):
            group = slice(start, min(start + _GROUP, part.stop))
            indices = candidates(scorer, query[group], k, mask)
            best = order_by_score(indices, scorer.scores(query[group], indices), k)
            found[group], scores[group] = best.indices, best.scores
            certain[group] = indices[:, 0] >= 0

    with _threads_of_torch_kept():
        start = functools.partial(torch.set_num_threads, 1)
        for_parts(search, len(query), least=_LEAST_QUERIES, start=start)
    rest = np.flatnonzero(~certain)
    if len(rest):
        again = search_exactly(scorer, query[rest], k, otherwise, n_allowed=n_allowed)
        found[rest], scores[rest] = again.indices, again.scores
    return SearchResult(found, scores)


def candidates(scorer: ExactScorer, query: Vectors, k: int, mask: Mask | None) -> Indices:
    """Return all vectors that can be among the ``k`` nearest; a row of −1 where there are too many.

    Parameters
    ----------
    scorer
        The stored vectors, compared by cosine.
    query
        ``(n_query, dim)``.
    k
        Neighbours wanted.
    mask
        ``(n_vectors,)`` which vectors are allowed; all when ``None``.

    Returns
    -------
    numpy.ndarray
        ``(n_query, n_candidates)`` positions, filled up with −1.
    """
    from stretrieve.indexes import select

    times, more = _CAPACITY
    shape = (len(query), max(times * k + more, 2 * select.CHUNK))
    kept = select.Kept(
        np.empty(shape, dtype=np.int64),
        np.empty(shape, dtype=np.int16),
        np.zeros(len(query), dtype=np.int64),
        np.full(len(query), np.iinfo(np.int16).min, dtype=np.int16),
    )
    error = largest_error(query.shape[1])
    ready = _halves(scorer.for_search(query))
    for block, positions in blocks(scorer.vectors, mask, rows=_ROWS):
        stored = _halves(block * scorer.inverse_norms[positions][:, None])
        for start in range(0, len(query), _QUERIES):
            part = slice(start, start + _QUERIES)
            products = _bits(ready[part] @ stored.T)
            select.keep(products, positions, k, error, kept, start)
        if (kept.counts < 0).mean() > _GIVE_UP:
            kept.counts[:] = -1
            break
    for row, n in enumerate(kept.counts):
        kept.counts[row] = select.drop(kept, row, n, k, error)
    width = max(1, int(kept.counts.max(initial=0)))
    there = np.arange(width) < kept.counts[:, None]
    return np.where(there, kept.positions[:, :width], -1)


def largest_error(dim: int) -> np.float32:
    """Return how far a product of unit vectors may be off before it is rounded itself.

    Both numbers of a product are rounded to 8 bits, sums to 24. With ``Σ |ab| ≤ 1`` relative errors
    of numbers are at most absolute ones of the product: twice 2⁻⁸ and their product, and at most one
    rounding for each addition.

    Parameters
    ----------
    dim
        Width of the vectors.
    """
    return np.float32(2**-7 + 2**-15 + dim * 2**-22)


def _halves(vectors: Vectors) -> torch.Tensor:
    import torch

    return torch.from_numpy(vectors).bfloat16()


def _bits(products: torch.Tensor) -> npt.NDArray[np.int16]:
    import torch

    bits: npt.NDArray[np.int16] = products.view(torch.int16).numpy()
    return bits
