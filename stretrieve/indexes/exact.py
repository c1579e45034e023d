"""Exact search with NumPy: the oracle of every other index, and the path that needs no index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ShapeError, explain
from stretrieve.indexes.base import Metric, SearchResult, VectorIndex, Vectors
from stretrieve.indexes.rescore import ExactScorer, search_exactly

_BLOCK_ROWS = 16_384
_BLOCK_QUERIES = 256
_DENSE = 0.25

Rough = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class ExactIndex(VectorIndex):
    """Looks at every vector, in blocks, so that memory does not grow with their number.

    Parameters
    ----------
    vectors
        ``(n_vectors, dim)`` float32; may be memory-mapped.
    metric
        How vectors are compared.
    """

    def __init__(self, vectors: Vectors, *, metric: Metric) -> None:
        self.scorer = ExactScorer(vectors, metric)

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""
        return self.scorer.metric

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.scorer.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.scorer.vectors)

    def search(
        self, query: Vectors, k: int, *, allowed: npt.NDArray[np.bool_] | None = None
    ) -> SearchResult:
        """Return the ``k`` best vectors for each query; see :meth:`VectorIndex.search`."""
        query = self.scorer.check_query(query)
        check_k(k)
        mask = check_allowed(allowed, len(self))
        n_allowed = len(self) if mask is None else int(mask.sum())

        def candidates(part: Vectors, width: int) -> Rough:
            return rough_search(self.scorer, part, width, mask=mask)

        return search_exactly(self.scorer, query, k, candidates, n_allowed=n_allowed)


def check_k(k: int) -> None:
    """Refuse a number of neighbours below 1."""
    if k < 1:
        raise ShapeError(explain("k", got=k, expected="1 or more"))


def check_allowed(
    allowed: npt.NDArray[np.bool_] | None, n_vectors: int
) -> npt.NDArray[np.bool_] | None:
    """Return the mask, or ``None`` when it allows everything.

    Raises
    ------
    ShapeError
        When the mask is not boolean ``(n_vectors,)``.
    """
    if allowed is None:
        return None
    mask = np.asarray(allowed)
    if mask.dtype != np.bool_ or mask.shape != (n_vectors,):
        raise ShapeError(
            explain(
                "mask of allowed vectors",
                got=f"{mask.dtype} {mask.shape}",
                expected=f"bool ({n_vectors},)",
            )
        )
    return None if mask.all() else mask


def blocks(
    vectors: Vectors, mask: npt.NDArray[np.bool_] | None, *, rows: int = _BLOCK_ROWS
) -> Iterator[tuple[Vectors, npt.NDArray[np.int64]]]:
    """Yield allowed vectors block by block, with their positions.

    Parameters
    ----------
    vectors
        ``(n_vectors, dim)``.
    mask
        ``(n_vectors,)`` which are allowed; all when ``None``.
    rows
        Most vectors in a block.
    """
    if mask is not None and mask.mean() < _DENSE:
        picked = np.flatnonzero(mask)
        for start in range(0, len(picked), rows):
            positions = picked[start : start + rows]
            yield np.asarray(vectors[positions]), positions
        return
    for start in range(0, len(vectors), rows):
        block = np.asarray(vectors[start : start + rows])
        positions = np.arange(start, start + len(block))
        if mask is not None:
            inside = mask[start : start + rows]
            if not inside.all():
                block, positions = block[inside], positions[inside]
        if len(positions):
            yield block, positions


def rough_search(
    scorer: ExactScorer, query: Vectors, k: int, *, mask: npt.NDArray[np.bool_] | None
) -> Rough:
    """Return float32 candidates ``(n_query, k)`` by matrix products over blocks.

    Parameters
    ----------
    scorer
        The stored vectors.
    query
        ``(n_query, dim)``.
    k
        Candidates wanted.
    mask
        ``(n_vectors,)`` which vectors are allowed; all when ``None``.
    """
    ready = scorer.for_search(query)
    indices = np.full((len(query), k), -1, dtype=np.int64)
    scores = np.full((len(query), k), -np.inf, dtype=np.float32)
    for block, positions in blocks(scorer.vectors, mask):
        for start in range(0, len(query), _BLOCK_QUERIES):
            part = slice(start, start + _BLOCK_QUERIES)
            rough = _rough_scores(scorer, ready[part], block, positions)
            indices[part], scores[part] = _merge(indices[part], scores[part], positions, rough)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _rough_scores(
    scorer: ExactScorer, query: Vectors, block: Vectors, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    product = query @ block.T
    if scorer.metric is Metric.COSINE:
        product *= scorer.inverse_norms[positions]
    if scorer.metric is Metric.EUCLIDEAN:
        square = (query * query).sum(axis=1)[:, None] + (block * block).sum(axis=1)[None, :]
        product = -np.sqrt(np.maximum(square - 2 * product, 0))
    return np.asarray(product, dtype=np.float32)


def _merge(
    indices: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    positions: npt.NDArray[np.int64],
    rough: npt.NDArray[np.float32],
) -> Rough:
    k = indices.shape[1]
    if rough.shape[1] > k:
        best = np.argpartition(rough, rough.shape[1] - k, axis=1)[:, -k:]
        rough, found = np.take_along_axis(rough, best, axis=1), positions[best]
    else:
        found = np.broadcast_to(positions, rough.shape)
    all_scores = np.hstack([scores, rough])
    all_indices = np.hstack([indices, found])
    best = np.argpartition(all_scores, all_scores.shape[1] - k, axis=1)[:, -k:]
    return (
        np.take_along_axis(all_indices, best, axis=1),
        np.take_along_axis(all_scores, best, axis=1),
    )
