"""The contract of every vector index: subclass it, name a recipe or build your own index.

Needs pytest, which the extra ``test`` installs. A subclass is a test class:

>>> class TestMyIndex(VectorIndexContract):  # doctest: +SKIP
...     @classmethod
...     def build(cls, vectors, metric):
...         return MyIndex(vectors, metric=metric)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from stretrieve.errors import ShapeError
from stretrieve.indexes import ExactIndex, Metric, SearchResult, VectorIndex
from stretrieve.indexes.base import Vectors
from stretrieve.indexes.recall import index_recall_at_k

N, DIM, N_QUERY, K = 3000, 24, 40, 10
_METRICS = list(Metric)


def clustered_vectors(*, seed: int = 0, n: int = N, dim: int = DIM) -> Vectors:
    """Return vectors ``(n, dim)`` in clusters, a hundred of them equal and one of them null."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    spread = 0.7 * rng.normal(size=(n, dim))
    vectors = (centres[rng.integers(0, len(centres), n)] + spread).astype(np.float32)
    vectors[n // 2 : n // 2 + 100] = vectors[n // 2]
    vectors[7] = 0.0
    return vectors


def queries_near(vectors: Vectors, *, seed: int = 1, n: int = N_QUERY) -> Vectors:
    """Return queries ``(n, dim)`` near some vectors; the first three are among the equal ones."""
    rng = np.random.default_rng(seed)
    picked = vectors[rng.integers(0, len(vectors), n)]
    queries = (picked + 0.2 * rng.normal(size=picked.shape)).astype(np.float32)
    queries[:3] = vectors[len(vectors) // 2]
    return queries


class VectorIndexContract(ABC):
    """What holds for every index, checked by value against the exact one."""

    recall_floor: ClassVar[float] = 1.0
    """Least recall; indexes that look at every vector have to reach 1."""

    @classmethod
    @abstractmethod
    def build(cls, vectors: Vectors, metric: Metric) -> VectorIndex:
        """Return the index under test over ``vectors``."""

    @pytest.fixture(scope="class", params=_METRICS, ids=[m.value for m in _METRICS])
    @classmethod
    def case(cls, request: pytest.FixtureRequest) -> tuple[VectorIndex, ExactIndex, Vectors]:
        """Index under test, exact index and queries, for each metric."""
        vectors = clustered_vectors()
        metric: Metric = request.param
        index = cls.build(vectors, metric)
        return index, ExactIndex(vectors, metric=metric), queries_near(vectors)

    def test_size_and_metric(self, case: tuple[VectorIndex, ExactIndex, Vectors]) -> None:
        """It says what it holds."""
        index, exact, _ = case
        _true((len(index), index.dim, index.metric) == (N, DIM, exact.metric), "size")

    def test_scores_are_true(self, case: tuple[VectorIndex, ExactIndex, Vectors]) -> None:
        """A score is the similarity or negative distance of the stored vector, best first."""
        index, exact, queries = case
        found = index.search(queries, K)
        vectors = clustered_vectors().astype(np.float64)
        for row, query in enumerate(queries.astype(np.float64)):
            expected = naive_scores(query, vectors[found.indices[row]], exact.metric)
            np.testing.assert_allclose(found.scores[row], expected, atol=1e-9)
        _true(bool((np.diff(found.scores, axis=1) <= 0).all()), "best first")

    def test_finds_what_the_exact_index_finds(
        self, case: tuple[VectorIndex, ExactIndex, Vectors]
    ) -> None:
        """Positions and scores agree with the exact index, up to the recall promised."""
        index, exact, queries = case
        found, truth = index.search(queries, K), exact.search(queries, K)
        recall = index_recall_at_k(found, truth)
        _true(recall >= self.recall_floor, f"recall {recall:.3f} is {self.recall_floor:g} or more")
        if self.recall_floor == 1.0:
            _assert_equal(found, truth)

    def test_ties_are_in_order_of_position(
        self, case: tuple[VectorIndex, ExactIndex, Vectors]
    ) -> None:
        """Of equal vectors those with the lowest positions are returned, ascending."""
        index, _, queries = case
        found = index.search(queries[:3], K)
        first = N // 2
        for row in found.indices if self.recall_floor == 1.0 else ():
            equal = row[(row >= first) & (row < first + 100)]
            np.testing.assert_array_equal(equal, first + np.arange(len(equal)))
            _true(len(equal) >= K // 2, "most neighbours among the equal vectors")
        tied = np.diff(found.scores, axis=1) == 0
        _true(bool((np.diff(found.indices, axis=1)[tied] > 0).all()), "ties in order")

    def test_one_result_whatever_the_batch(
        self, case: tuple[VectorIndex, ExactIndex, Vectors]
    ) -> None:
        """Searching in batches of 1, 7 or all gives the same bits."""
        index, _, queries = case
        whole = index.search(queries, K)
        for size in (1, 7):
            parts = [index.search(queries[i : i + size], K) for i in range(0, N_QUERY, size)]
            np.testing.assert_array_equal(np.vstack([p.indices for p in parts]), whole.indices)
            np.testing.assert_array_equal(np.vstack([p.scores for p in parts]), whole.scores)

    def test_a_rebuilt_index_gives_the_same(
        self, case: tuple[VectorIndex, ExactIndex, Vectors]
    ) -> None:
        """Building again gives the same bits."""
        index, _, queries = case
        again = self.build(clustered_vectors(), index.metric)
        _assert_equal(again.search(queries, K), index.search(queries, K))

    @pytest.mark.parametrize("share", [0.0001, 0.003, 0.05, 0.5, 0.999])
    def test_filtering_equals_filtering_first(
        self, case: tuple[VectorIndex, ExactIndex, Vectors], share: float
    ) -> None:
        """A mask gives what an exact index over the allowed vectors alone gives."""
        index, exact, queries = case
        rng = np.random.default_rng(5)
        allowed = rng.random(N) < share
        allowed[rng.integers(0, N)] = True
        kept = np.flatnonzero(allowed)
        alone = ExactIndex(clustered_vectors()[kept], metric=exact.metric).search(queries, K)
        found = index.search(queries, K, allowed=allowed)
        expected = np.where(alone.indices < 0, -1, kept[alone.indices])
        _assert_equal(found, SearchResult(expected, alone.scores))

    def test_nothing_allowed(self, case: tuple[VectorIndex, ExactIndex, Vectors]) -> None:
        """A mask that allows nothing gives −1 and −inf."""
        index, _, queries = case
        found = index.search(queries, 3, allowed=np.zeros(N, dtype=np.bool_))
        _true(bool((found.indices == -1).all()), "no neighbour")
        _true(bool((found.scores == -np.inf).all()), "no score")

    def test_more_neighbours_than_vectors(self) -> None:
        """Rows are filled up with −1 and −inf."""
        vectors = clustered_vectors(n=500)
        found = self.build(vectors, Metric.COSINE).search(vectors[:2], 510)
        _true(found.k == 510, "as many columns as asked for")
        _true(bool((found.indices[:, 500:] == -1).all()), "no neighbour")
        _true(bool((found.scores[:, 500:] == -np.inf).all()), "no score")
        if self.recall_floor == 1.0:
            np.testing.assert_array_equal(np.sort(found.indices[0, :500]), np.arange(500))

    def test_no_queries(self, case: tuple[VectorIndex, ExactIndex, Vectors]) -> None:
        """An empty batch gives an empty result."""
        index, _, queries = case
        _true(index.search(queries[:0], 3).indices.shape == (0, 3), "an empty result")

    @pytest.mark.parametrize("fault", ["dim", "nan", "k", "mask"])
    def test_bad_input_is_refused(
        self, case: tuple[VectorIndex, ExactIndex, Vectors], fault: str
    ) -> None:
        """Wrong shapes and values that are not finite raise, with what was expected."""
        index, _, queries = case
        query: npt.NDArray[np.float32] = queries[:2].copy()
        mask = np.ones(N - 1 if fault == "mask" else N, dtype=np.bool_)
        if fault == "dim":
            query = query[:, :-1]
        if fault == "nan":
            query[0, 0] = np.nan
        with pytest.raises(ShapeError):
            index.search(query, 0 if fault == "k" else 3, allowed=mask)


def naive_scores(
    query: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64], metric: Metric
) -> npt.NDArray[np.float64]:
    """Return scores of one query ``(dim,)`` and vectors ``(n, dim)`` in the plainest way."""
    if metric is Metric.EUCLIDEAN:
        return np.asarray([-float(np.linalg.norm(query - v)) for v in vectors])
    products = np.asarray([float((query * v).sum()) for v in vectors])
    if metric is Metric.DOT:
        return products
    norms = np.asarray([float(np.linalg.norm(v) * np.linalg.norm(query)) for v in vectors])
    scores = np.zeros_like(products)
    return np.asarray(np.divide(products, norms, out=scores, where=norms > 0))


def _assert_equal(found: SearchResult, expected: SearchResult) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def _true(condition: bool, what: str) -> None:  # noqa: FBT001 (the condition under test)
    if not condition:
        pytest.fail(f"expected {what}")
