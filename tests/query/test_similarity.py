import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import ConfigError
from stretrieve.query import (
    ArrayPool,
    Balance,
    Compat,
    Modality,
    Predictor,
    QuerySettings,
    RetrievalSettings,
    Similarity,
    WeightScheme,
)
from stretrieve.query import similarity as module
from stretrieve.query.similarity import FusedSearch
from stretrieve.query.weights import keep_mass, softmax_weights
from tests.query.pools import make_pool, queries


def cosine(left, right):
    left, right = left.astype(np.float64), right.astype(np.float64)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    return left @ (right / np.linalg.norm(right, axis=1, keepdims=True)).T


def brute_force(pool, asked, weight, k, allowed):
    score = weight * cosine(asked, pool.embeddings("expression"))
    score = np.round(score + (1 - weight) * cosine(asked, pool.embeddings("image")), 10)
    score[:, ~allowed] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(score.shape[1]), score.shape), -score))[:, :k]
    return order, np.take_along_axis(score, order, axis=1)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([1, 4, 60]))
@settings(max_examples=30, deadline=None)
def test_fused_search_is_exact(seed, weight, k):
    pool, asked = make_pool(seed), queries(seed=seed)
    allowed = np.random.default_rng(seed).random(120) < 0.8
    found = FusedSearch(pool, weight).search(asked, k, allowed=allowed)
    indices, scores = brute_force(pool, asked, weight, k, allowed)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.scores, scores, atol=1e-9)


def test_candidate_lists_that_prove_nothing_are_not_trusted(monkeypatch):
    """Embeddings that disagree: the best fused spots are near the top of neither list."""
    monkeypatch.setattr(module, "_CANDIDATES", 1)
    rng = np.random.default_rng(3)
    pool = ArrayPool.build(
        {"image": rng.normal(size=(400, 5)), "expression": rng.normal(size=(400, 5))},
        np.ones((400, 1)), ["G"], sections=["s"] * 400,
    )  # fmt: skip
    asked, allowed = queries(40, dim=5), np.ones(400, dtype=bool)
    found = FusedSearch(pool, 0.5).search(asked, 3, allowed=allowed)
    np.testing.assert_array_equal(found.indices, brute_force(pool, asked, 0.5, 3, allowed)[0])


def test_equal_scores_are_ordered_by_position():
    same = np.ones((9, 4))
    pool = ArrayPool.build(
        {"image": same, "expression": same}, np.ones((9, 1)), ["G"], sections=["s"] * 9
    )
    found = FusedSearch(pool, 0.4).search(queries(2, dim=4), 5, allowed=np.ones(9, dtype=bool))
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(5), (2, 1)))


@pytest.mark.parametrize("modality", list(Modality))
def test_every_patient_gives_as_many_neighbours(modality):
    pool = make_pool(patients="AABCD")
    chosen = RetrievalSettings(top_k=10, balance=Balance.EQUAL, modality=modality)
    found = Predictor(pool, chosen).find(queries()).neighbours
    donors = pool.spots["patient"].to_numpy()[found.indices]
    assert found.indices.shape == (17, 12)
    for row in donors:
        assert {name: int((row == name).sum()) for name in "ABCD"} == dict.fromkeys("ABCD", 3)
    assert (np.diff(found.similarity, axis=1) <= 0).all()


@given(st.integers(0, 1000), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_no_patient_gives_more_than_the_cap(seed, cap):
    pool, asked = make_pool(seed), queries(seed=seed)
    capped = RetrievalSettings(top_k=12, balance=Balance.CAP, per_patient=cap)
    found = Predictor(pool, capped).find(asked).neighbours
    donors = pool.spots["patient"].to_numpy()
    everything = Predictor(pool, RetrievalSettings(top_k=120)).find(asked).neighbours.indices
    for row, ranked in zip(found.indices, everything, strict=True):
        expected, used = [], dict.fromkeys("ABC", 0)
        for spot in ranked:
            if used[donors[spot]] < cap and len(expected) < 12:
                expected.append(spot)
                used[donors[spot]] += 1
        assert row[row >= 0].tolist() == expected


@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.integers(1, 8))
def test_adaptive_k_is_the_smallest_that_reaches_the_share(seed, top_p, k_min):
    scores = -np.sort(-np.random.default_rng(seed).normal(size=(5, 20)), axis=1)
    indices = np.tile(np.arange(20), (5, 1))
    weights = softmax_weights(scores, indices, temperature=0.5)
    kept = keep_mass(weights, top_p=top_p, k_min=k_min)
    np.testing.assert_allclose(kept.sum(axis=1), 1)
    for row, original in zip(kept, weights, strict=True):
        k = int((row > 0).sum())
        assert (row[:k] > 0).all()
        assert k >= k_min
        assert original[:k].sum() >= top_p - 1e-9
        assert k == k_min or original[: k - 1].sum() < top_p
        np.testing.assert_allclose(row[:k], original[:k] / original[:k].sum())


def test_adaptive_k_of_a_patch_with_one_good_match():
    pool = make_pool()
    asked = pool.embeddings("expression")[:3]
    chosen = RetrievalSettings(
        top_k=50, weights=WeightScheme.SOFTMAX, temperature=0.01, top_p=0.9, k_min=1
    )
    found = Predictor(pool, chosen).find(asked).neighbours
    n = (found.indices >= 0).sum(axis=1)
    assert (n < 10).all()
    assert (found.indices[:, 0] == np.arange(3)).all()


@pytest.fixture(scope="module")
def bleep(shared_data):
    return dict(np.load(shared_data / "parity" / "bleep.npz"))


@pytest.mark.parametrize(("compat", "array"), [
    (Compat.BLEEP_SIMPLE, "pred_simple"),
    (Compat.BLEEP, "pred_average"),
    (Compat.BLEEP_WEIGHTED, "pred_weighted_average"),
])  # fmt: skip
def test_published_bleep_inference(bleep, compat, array):
    expression = bleep["expression"]
    pool = ArrayPool.build(
        {"image": bleep["key"], "expression": bleep["key"]}, expression,
        [f"G{i}" for i in range(25)], sections=["s"] * 300,
    )  # fmt: skip
    predicted = Predictor(pool, RetrievalSettings(compat=compat)).predict(bleep["query"])
    np.testing.assert_allclose(predicted.mean, bleep[array], rtol=1e-5, atol=1e-5)
    if compat is Compat.BLEEP:
        np.testing.assert_array_equal(predicted.found.neighbours.indices, bleep["indices_top50"])


def test_published_stgchb_inference_takes_raw_products_and_the_wrong_sign():
    pool, asked = make_pool(), queries()
    scores = asked.astype(np.float64) @ pool.embeddings("expression").astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :50]
    best = np.take_along_axis(scores, order, axis=1)
    raw = np.exp(-best / 20)
    weights = raw / raw.sum(axis=1, keepdims=True)
    values = pool.expression.toarray()[order]
    plain = Predictor(pool, RetrievalSettings(compat=Compat.STGCHB)).predict(asked)
    np.testing.assert_allclose(plain.mean, values.mean(axis=1), rtol=1e-5)
    wrong = Predictor(pool, RetrievalSettings(compat=Compat.STGCHB_WEIGHTED)).predict(asked)
    np.testing.assert_allclose(wrong.mean, np.einsum("qk,qkg->qg", weights, values), rtol=1e-5)
    assert (np.diff(wrong.found.neighbours.weights, axis=1) >= 0).all()


def test_published_mclstexp_inference_weighs_200_by_reciprocal_distance():
    pool, asked = make_pool(n_spots=70), queries()
    keys = pool.embeddings("expression")
    order = np.argsort(-cosine(asked, keys), axis=1, kind="stable")[:, :200]
    raw = 1 / ((asked[:, None].astype(np.float64) - keys[order]) ** 2).sum(axis=2)
    weights = raw / raw.sum(axis=1, keepdims=True)
    expected = np.einsum("qk,qkg->qg", weights, pool.expression.toarray()[order])
    predicted = Predictor(pool, RetrievalSettings(compat=Compat.MCLSTEXP)).predict(asked)
    np.testing.assert_allclose(predicted.mean, expected, rtol=1e-5)


def test_compat_decides_every_setting_of_retrieval_and_no_other():
    chosen = QuerySettings(top_k=3, fusion=0.1, batch_size=5, compat=Compat.MCLSTEXP).resolved()
    assert (chosen.top_k, chosen.weights, chosen.fusion) == (200, WeightScheme.INVERSE, 0.5)
    assert chosen.batch_size == 5
    assert chosen.resolved() == chosen


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="fused"):
        RetrievalSettings(modality=Modality.FUSED, similarity=Similarity.DOT)
    with pytest.raises(ConfigError, match=r"fusion.*top_p"):
        RetrievalSettings(fusion=1.5, top_p=0.0)
