"""Choosing inverted lists so that the choice is the same whatever batch a query is part of.

A matrix product moves scores by about 1e-7 with the size of the batch. Where the last list chosen and
the first one left out are further apart than that, the choice stands; the other queries, few, choose by
exact scores. Scores and order of the lists, which compressed codes depend on, are computed pair by pair.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stretrieve.indexes.base import Metric, Vectors
from stretrieve.indexes.rescore import ExactScorer, search_exactly
from stretrieve.indexes.train import faiss_metric

_QUERIES_PER_THREAD = 8

Lists = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class CoarseSearch:
    """The centroids of an inverted file.

    Parameters
    ----------
    centroids
        ``(n_lists, dim)`` float32.
    metric
        How the indexed vectors are compared; those of the cosine are of unit length already.
    nprobe
        Lists that a search looks at.
    coded
        Whether the lists hold codes relative to their centroid, so that scores matter.
    """

    def __init__(self, centroids: Vectors, metric: Metric, nprobe: int, *, coded: bool) -> None:
        coarse = Metric.EUCLIDEAN if metric is Metric.EUCLIDEAN else Metric.DOT
        self._scorer = ExactScorer(np.ascontiguousarray(centroids, dtype=np.float32), coarse)
        self._coded = coded
        self.nprobe = min(nprobe, len(centroids))

    def lists(self, query: Vectors) -> Lists:
        """Return the lists to look at ``(n_query, nprobe)``, best first, and FAISS's score of each."""
        lists = self._chosen(query)
        if not self._coded:
            return lists, np.zeros(lists.shape, dtype=np.float32)
        values = pair_values(query, self._scorer.vectors, lists, self._scorer.metric)
        signed = values if self._scorer.metric is Metric.EUCLIDEAN else -values
        rising = signed[:, :-1] < signed[:, 1:]
        rows = np.flatnonzero(~rising.all(axis=1))
        if len(rows):
            order = np.lexsort((lists[rows], signed[rows]), axis=1)
            lists[rows] = np.take_along_axis(lists[rows], order, axis=1)
            values[rows] = np.take_along_axis(values[rows], order, axis=1)
        return lists, values

    def _chosen(self, query: Vectors) -> npt.NDArray[np.int64]:
        centroids = self._scorer.vectors
        width = min(self.nprobe + 1, len(centroids))
        values, lists = _nearest(query, centroids, width, self._scorer.metric)
        chosen: npt.NDArray[np.int64] = np.ascontiguousarray(lists[:, : self.nprobe])
        if width == self.nprobe:
            return chosen
        gap = np.abs(values[:, -1].astype(np.float64) - values[:, -2])
        close = np.flatnonzero(gap <= 2 * self._scorer.slack(query))
        if len(close):
            chosen[close] = self._exactly(query[close])
        return chosen

    def _exactly(self, query: Vectors) -> npt.NDArray[np.int64]:
        scorer = self._scorer

        def nearest(part: Vectors, width: int) -> Lists:
            values, lists = _nearest(part, scorer.vectors, width, scorer.metric)
            scores = values if scorer.metric is Metric.DOT else -np.sqrt(np.maximum(values, 0))
            return lists, scores

        n_lists = len(scorer.vectors)
        return search_exactly(scorer, query, self.nprobe, nearest, n_allowed=n_lists).indices


def pair_values(
    query: Vectors, vectors: Vectors, indices: npt.NDArray[np.int64], metric: Metric
) -> npt.NDArray[np.float32]:
    """Return inner products, or squared distances, of each query with some vectors, pair by pair.

    Parameters
    ----------
    query
        ``(n_query, dim)`` contiguous float32.
    vectors
        ``(n_vectors, dim)`` contiguous float32.
    indices
        ``(n_query, k)`` contiguous positions in ``vectors``; the value of a negative one means nothing.
    metric
        Squared distances for the Euclidean, inner products for the others.
    """
    import faiss

    out = np.empty(indices.shape, dtype=np.float32)
    euclidean = metric is Metric.EUCLIDEAN
    function = faiss.fvec_L2sqr_by_idx if euclidean else faiss.fvec_inner_products_by_idx
    pointers = [faiss.swig_ptr(array) for array in (out, query, vectors, indices)]
    threads = faiss.omp_get_max_threads()
    try:
        if len(query) < _QUERIES_PER_THREAD * threads:
            faiss.omp_set_num_threads(1)
        function(*pointers, vectors.shape[1], *indices.shape)
    finally:
        faiss.omp_set_num_threads(threads)
    return out


def _nearest(
    query: Vectors, vectors: Vectors, k: int, metric: Metric
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import faiss

    values, lists = faiss.knn(query, vectors, k, metric=faiss_metric(metric))
    return values, lists
