"""Baselines against scikit-learn, by hand, and what they must never do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from stretrieve.errors import InputError, ShapeError
from stretrieve.evaluation import (
    BASELINES,
    TrainingData,
    fit_knn,
    fit_mean_profile,
    fit_reduced_rank_ridge,
    fit_ridge,
)
from stretrieve.evaluation.baselines import ALPHAS, DEFAULT_ALPHA, choose_alpha
from stretrieve.metrics import pearson_per_gene

RNG = np.random.default_rng(0)
N, D, G = 90, 12, 20
SECTION_NAMES = np.array(["a", "b", "c"])
sections_of = np.repeat(SECTION_NAMES, [20, 30, 40])
FEATURES = RNG.normal(2.0, 3.0, (N, D))
OFFSETS = {"a": 0.0, "b": 5.0, "c": -2.0}
LATENT = RNG.normal(size=(D, 3)) @ RNG.normal(size=(3, G))
EXPRESSION = (
    FEATURES @ LATENT
    + RNG.normal(size=(N, G))
    + np.array([OFFSETS[s] for s in sections_of])[:, None]
)
DATA = TrainingData.build(FEATURES, EXPRESSION, sections_of)
QUERY = RNG.normal(2.0, 3.0, (15, D))


def _centred() -> np.ndarray:
    return np.concatenate(
        [EXPRESSION[sections_of == s] - EXPRESSION[sections_of == s].mean(axis=0) for s in "abc"]
    )


def _profile() -> np.ndarray:
    return np.mean([EXPRESSION[sections_of == s].mean(axis=0) for s in "abc"], axis=0)


def test_mean_profile_weighs_sections_alike_and_never_varies() -> None:
    predicted = fit_mean_profile(DATA).predict(QUERY)
    np.testing.assert_allclose(predicted, np.tile(_profile(), (15, 1)))
    assert not np.allclose(_profile(), EXPRESSION.mean(axis=0))
    assert (pearson_per_gene(predicted, RNG.random((15, G))) == 0).all()


def test_ridge_agrees_with_scikit_learn_on_centred_expression() -> None:
    scaler = StandardScaler().fit(FEATURES)
    model = Ridge(alpha=30.0, fit_intercept=False).fit(scaler.transform(FEATURES), _centred())
    expected = model.predict(scaler.transform(QUERY)) + _profile()
    np.testing.assert_allclose(fit_ridge(DATA, alpha=30.0).predict(QUERY), expected)


def test_ridge_works_with_more_features_than_spots() -> None:
    wide = RNG.normal(size=(N, 400))
    data = TrainingData.build(wide, EXPRESSION, sections_of)
    scaler = StandardScaler().fit(wide)
    model = Ridge(alpha=5.0, fit_intercept=False).fit(scaler.transform(wide), _centred())
    query = RNG.normal(size=(4, 400))
    expected = model.predict(scaler.transform(query)) + _profile()
    np.testing.assert_allclose(fit_ridge(data, alpha=5.0).predict(query), expected)


def test_reduced_rank_ridge_is_ridge_when_nothing_is_reduced_and_has_the_rank_asked_for() -> None:
    full = fit_reduced_rank_ridge(DATA, n_components=G, alpha=10.0)
    np.testing.assert_allclose(full.predict(QUERY), fit_ridge(DATA, alpha=10.0).predict(QUERY))
    reduced = fit_reduced_rank_ridge(DATA, n_components=2, alpha=10.0)
    assert np.linalg.matrix_rank(reduced.weights, tol=1e-8) == 2
    u, s, vt = np.linalg.svd(_centred(), full_matrices=False)
    scaler = StandardScaler().fit(FEATURES)
    parts = Ridge(alpha=10.0, fit_intercept=False).fit(scaler.transform(FEATURES), u[:, :2] * s[:2])
    expected = parts.predict(scaler.transform(QUERY)) @ vt[:2] + _profile()
    np.testing.assert_allclose(reduced.predict(QUERY), expected)


def test_knn_agrees_with_scikit_learn() -> None:
    scaler = StandardScaler().fit(FEATURES)
    search = NearestNeighbors(n_neighbors=7, metric="cosine").fit(scaler.transform(FEATURES))
    nearest = search.kneighbors(scaler.transform(QUERY), return_distance=False)
    expected = _centred()[nearest].mean(axis=1) + _profile()
    np.testing.assert_allclose(fit_knn(DATA, k=7, n_components=D).predict(QUERY), expected)
    every = fit_knn(DATA, k=1000).predict(QUERY)
    np.testing.assert_allclose(every, np.tile(_profile(), (15, 1)), atol=1e-9)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_offsets_between_sections_are_not_learnt(name: str) -> None:
    # the only thing that varies with the feature is the section: centred, nothing is left to learn
    sections = np.repeat(["a", "b"], 40)
    feature = np.repeat([[0.0], [1.0]], 40, axis=0) + 0.01 * RNG.normal(size=(80, 1))
    expression = np.repeat([[0.0], [4.0]], 40, axis=0) + 0.01 * RNG.normal(size=(80, 1))
    data = TrainingData.build(feature, expression, sections)
    predicted = BASELINES[name](data).predict([[0.0], [1.0]])
    np.testing.assert_allclose(predicted, 2.0, atol=0.05)


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"mean_profile"}))
def test_every_baseline_learns_what_is_there(name: str) -> None:
    predicted = BASELINES[name](DATA).predict(QUERY)
    assert predicted.shape == (15, G)
    assert np.nanmean(pearson_per_gene(predicted, QUERY @ LATENT)) > 0.5


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_shuffled_pairing_scores_nothing(name: str) -> None:
    rng = np.random.default_rng(1)
    features, query = rng.normal(size=(400, 8)), rng.normal(size=(500, 8))
    weights = rng.normal(size=(8, 30))
    data = TrainingData.build(features, (features @ weights)[rng.permutation(400)], ["s"] * 400)
    score = np.nanmean(pearson_per_gene(BASELINES[name](data).predict(query), query @ weights))
    assert abs(score) < 0.25


def test_penalty_is_chosen_on_held_out_groups() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(60, 40))
    groups = np.repeat(["p", "q", "r"], 20)
    noise = rng.normal(size=(60, 5))
    assert choose_alpha(inputs, noise, groups) >= 100
    assert choose_alpha(inputs, inputs[:, :5] * 3, groups) == min(ALPHAS)
    assert choose_alpha(inputs, noise, np.repeat("p", 60)) == DEFAULT_ALPHA


def test_the_patient_is_held_out_whole_when_given() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(60, 5))
    targets = inputs[:, :2]
    sections = np.repeat(["a", "b", "c"], 20)
    one = TrainingData.build(inputs, targets, sections, groups=["p"] * 60)
    assert fit_ridge(one).alpha == DEFAULT_ALPHA
    assert fit_ridge(TrainingData.build(inputs, targets, sections)).alpha != DEFAULT_ALPHA


def test_features_that_do_not_vary_do_no_harm() -> None:
    wider = np.concatenate([FEATURES, np.full((N, 1), 0.1)], axis=1)
    data = TrainingData.build(wider, EXPRESSION, sections_of)
    query = np.concatenate([QUERY, np.full((15, 1), 1e6)], axis=1)
    np.testing.assert_allclose(
        fit_ridge(data, alpha=3.0).predict(query), fit_ridge(DATA, alpha=3.0).predict(QUERY)
    )


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="training data"):
        TrainingData.build(FEATURES[:-1], EXPRESSION, sections_of)
    with pytest.raises(ShapeError, match="training data"):
        TrainingData.build(FEATURES, EXPRESSION, sections_of, groups=["a"])
    with pytest.raises(InputError, match="NaN"):
        TrainingData.build(np.full((2, 2), np.nan), np.ones((2, 2)), ["a", "a"])
    with pytest.raises(ShapeError, match="features"):
        fit_ridge(DATA).predict(QUERY[:, :-1])
