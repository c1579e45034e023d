"""Exact scores and their order, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import ShapeError
from stretrieve.indexes import Metric, rescore
from stretrieve.indexes.rescore import ExactScorer, order_by_score
from stretrieve.testing.indexes import naive_scores

_DIMS = [1, 7, 31, 32, 33, 64, 100]


def pairs(seed, dim, n=40, n_query=5, k=9):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    vectors[::7] = 0.0
    query = rng.normal(size=(n_query, dim)).astype(np.float32)
    query[0] = 0.0
    indices = rng.integers(0, n, size=(n_query, k))
    indices[rng.random(indices.shape) < 0.2] = -1
    return vectors, query, indices


def expected_scores(vectors, query, indices, metric):
    rows = zip(query.astype(float), indices, strict=True)
    found = np.stack([naive_scores(q, vectors[i].astype(float), metric) for q, i in rows])
    return np.where(indices < 0, -np.inf, found)


@given(
    seed=st.integers(0, 10_000), dim=st.sampled_from(_DIMS), metric=st.sampled_from(list(Metric))
)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_numpy(seed, dim, metric):
    vectors, query, indices = pairs(seed, dim)
    found = ExactScorer(vectors, metric).scores(query, indices)
    np.testing.assert_allclose(
        found, expected_scores(vectors, query, indices, metric), rtol=0, atol=1.1e-10
    )
    np.testing.assert_array_equal(found, np.round(found, rescore.DECIMALS))
    assert not np.signbit(found[found == 0]).any()
    assert metric is not Metric.COSINE or (found <= 1).all()


@pytest.mark.parametrize("dim", _DIMS)
def test_products_are_added_in_one_order(dim):
    """Every 32nd to the same sum; so large that rounding hides nothing."""
    rng = np.random.default_rng(dim)
    query, vectors = 1e4 * rng.normal(size=(2, 20, dim)).astype(np.float32)
    found = ExactScorer(vectors, Metric.DOT).scores(query, np.tile(np.arange(20), (20, 1)))
    products = query[:, None].astype(float) * vectors[None].astype(float)
    whole = dim - dim % 32
    sums = np.zeros((20, 20, 4, 8))
    for start in range(0, whole, 32):
        sums += products[..., start : start + 32].reshape(sums.shape)
    lanes = (sums[..., 0, :] + sums[..., 1, :]) + (sums[..., 2, :] + sums[..., 3, :])
    total = np.zeros((20, 20))
    for term in (*np.moveaxis(lanes, -1, 0), *np.moveaxis(products[..., whole:], -1, 0)):
        total = total + term
    np.testing.assert_array_equal(found, np.round(total, rescore.DECIMALS))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("dim", [33, 256])
def test_a_score_does_not_depend_on_what_else_is_scored(metric, dim, monkeypatch):
    rng = np.random.default_rng(0)
    scale = 1.0 if metric is Metric.COSINE else 1e4
    vectors = (scale * rng.normal(size=(300, dim))).astype(np.float32)
    query = (scale * rng.normal(size=(40, dim))).astype(np.float32)
    indices = rng.integers(-1, 300, size=(40, 50))
    scorer = ExactScorer(vectors, metric)
    whole = scorer.scores(query, indices)
    for i, j in rng.integers(0, (40, 50), size=(60, 2)):
        assert scorer.scores(query[i : i + 1], indices[i : i + 1, j : j + 1]) == whole[i, j]
        np.testing.assert_array_equal(scorer.scores(query[i:], indices[i:, j:]), whole[i:, j:])
    monkeypatch.setattr(rescore, "_SPAN_VALUES", 1)
    for threads in ("2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        np.testing.assert_array_equal(scorer.scores(query, indices), whole)


def test_vectors_are_scored_where_they_lie(tmp_path):
    """Mapped read-only from a file; those that are not in rows are copied once."""
    vectors, query, indices = pairs(0, 40)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    truth = ExactScorer(vectors, Metric.COSINE).scores(query, indices)
    scorer = ExactScorer(mapped, Metric.COSINE)
    assert np.shares_memory(scorer.vectors, mapped)
    np.testing.assert_array_equal(scorer.scores(query, indices), truth)
    for other in (np.asfortranarray(vectors), np.repeat(vectors, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(
            ExactScorer(other, Metric.COSINE).scores(query, indices), truth
        )
    assert vectors.flags.writeable


def test_what_is_no_vector_is_refused():
    vectors, query, _ = pairs(0, 8, n=10)
    scorer = ExactScorer(vectors, Metric.DOT)
    with pytest.raises(ShapeError, match="got 10; expected less than 10"):
        scorer.scores(query, np.full((5, 1), 10))
    with pytest.raises(ShapeError, match="query"):
        scorer.scores(query[:, :7], np.zeros((5, 1), dtype=np.int64))
    with pytest.raises(ShapeError, match=r"got \(6, 1\); expected \(5, n_candidates\)"):
        scorer.scores(query, np.zeros((6, 1), dtype=np.int64))


@given(
    seed=st.integers(0, 10_000),
    width=st.integers(0, 40),
    k=st.integers(1, 45),
    n_values=st.integers(1, 50),
)
@settings(max_examples=100, deadline=None)
def test_the_best_are_those_of_a_full_sort(seed, width, k, n_values):
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.permutation(60)[:width] for _ in range(3)]).astype(np.int64)
    indices[rng.random(indices.shape) < 0.2] = -1
    scores = np.where(indices < 0, -np.inf, rng.integers(0, n_values, indices.shape) / 7)
    before = indices.copy(), scores.copy()
    found = order_by_score(indices, scores, k)
    for row in range(3):
        there = indices[row] >= 0
        position, score = indices[row][there], scores[row][there]
        order = np.lexsort((position, -score))[:k]
        none = k - len(order)
        np.testing.assert_array_equal(found.indices[row], [*position[order], *[-1] * none])
        np.testing.assert_array_equal(found.scores[row], [*score[order], *[-np.inf] * none])
    np.testing.assert_array_equal(indices, before[0])
    np.testing.assert_array_equal(scores, before[1])
