"""How well and how fast an index finds what the exact one finds."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from stretrieve.indexes.base import SearchResult, VectorIndex, Vectors
from stretrieve.indexes.exact import ExactIndex


@dataclass(frozen=True, slots=True)
class IndexMeasure:
    """What an index achieved.

    Parameters
    ----------
    recall
        Share of the exact neighbours that were found.
    queries_per_second
        In one batch.
    k
        Neighbours wanted.
    """

    recall: float
    queries_per_second: float
    k: int


def index_recall_at_k(found: SearchResult, truth: SearchResult) -> float:
    """Return the share of true neighbours found, ties in the score counting as found.

    Parameters
    ----------
    found, truth
        ``(n_query, k)`` results of the index and of the exact search.
    """
    last = np.where(truth.indices >= 0, truth.scores, np.inf).min(axis=1, initial=np.inf)
    wanted = int((truth.indices >= 0).sum())
    got = int(((found.indices >= 0) & (found.scores >= last[:, None])).sum())
    return got / wanted if wanted else 1.0


def measure_index(
    index: VectorIndex, vectors: Vectors, queries: Vectors, *, k: int
) -> IndexMeasure:
    """Search a sample and compare with the exact index.

    Parameters
    ----------
    index
        What is measured.
    vectors
        ``(n_vectors, dim)`` the indexed vectors.
    queries
        ``(n_query, dim)``.
    k
        Neighbours wanted.
    """
    index.search(queries[:1], k)
    start = time.perf_counter()
    found = index.search(queries, k)
    elapsed = time.perf_counter() - start
    truth = ExactIndex(vectors, metric=index.metric).search(queries, k)
    return IndexMeasure(index_recall_at_k(found, truth), len(queries) / max(elapsed, 1e-9), k)
