"""Correlations against SciPy, by hand, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from stretrieve.errors import InputError, ShapeError
from stretrieve.metrics import (
    constant_profile_per_spot,
    mean_over_genes,
    pearson_per_gene,
    pearson_per_spot,
    spearman_per_gene,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.gamma(2.0, 1.0, (40, 7))
GUESS = 0.5 * TRUTH + RNG.normal(size=(40, 7))


def test_pearson_agrees_with_scipy() -> None:
    expected = [stats.pearsonr(GUESS[:, g], TRUTH[:, g]).statistic for g in range(7)]
    np.testing.assert_allclose(pearson_per_gene(GUESS, TRUTH), expected, atol=1e-12)
    expected = [stats.pearsonr(GUESS[i], TRUTH[i]).statistic for i in range(40)]
    np.testing.assert_allclose(pearson_per_spot(GUESS, TRUTH), expected, atol=1e-12)


def test_spearman_agrees_with_scipy_also_with_ties() -> None:
    left, right = np.round(GUESS), np.round(TRUTH)
    expected = [stats.spearmanr(left[:, g], right[:, g]).statistic for g in range(7)]
    np.testing.assert_allclose(spearman_per_gene(left, right), expected, atol=1e-12)


def test_pearson_by_hand() -> None:
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / (sqrt 2 · sqrt 2)
    assert pearson_per_gene([[1.0], [2.0], [3.0]], [[1.0], [3.0], [2.0]])[0] == pytest.approx(0.5)


@pytest.mark.parametrize("score", [pearson_per_gene, spearman_per_gene])
def test_constant_prediction_is_zero_and_constant_truth_is_dropped(score) -> None:
    guess, truth = GUESS[:, :3].copy(), TRUTH[:, :3].copy()
    guess[:, 0] = np.float32(0.1)
    truth[:, 1] = 2.5
    scores = score(guess, truth)
    assert scores[0] == 0.0
    assert np.isnan(scores[1])
    assert np.isnan(score(np.ones((5, 1)), np.ones((5, 1)))[0])
    summary = mean_over_genes(scores)
    assert (summary.n_valid, summary.n_dropped, summary.n_zeroed) == (2, 1, 1)
    assert summary.mean == pytest.approx(scores[2] / 2)


def test_rounding_noise_around_a_constant_earns_nothing() -> None:
    jitter = 1.7 + 1e-9 * TRUTH[:, :1]
    assert pearson_per_gene(jitter, TRUTH[:, :1])[0] == 0.0


@pytest.mark.parametrize("score", [pearson_per_gene, spearman_per_gene])
def test_missing_pairs_are_left_out_on_either_side(score) -> None:
    guess, truth = GUESS.copy(), TRUTH.copy()
    guess[:5, 2] = np.nan
    truth[-4:, 2] = np.nan
    np.testing.assert_allclose(
        score(guess, truth)[2], score(GUESS[5:-4], TRUTH[5:-4])[2], atol=1e-12
    )
    np.testing.assert_allclose(
        np.delete(score(guess, truth), 2), np.delete(score(GUESS, TRUTH), 2), atol=1e-12
    )
    truth[:, 2] = np.nan
    assert np.isnan(score(guess, truth)[2])


def test_perfect_is_one_and_random_is_near_zero() -> None:
    for score in (pearson_per_gene, pearson_per_spot, spearman_per_gene):
        np.testing.assert_allclose(score(TRUTH, TRUTH), 1.0)
        np.testing.assert_allclose(score(-TRUTH, TRUTH), -1.0)
    shuffled = np.random.default_rng(1).normal(size=(4000, 20))
    truth = np.random.default_rng(2).normal(size=(4000, 20))
    assert abs(pearson_per_gene(shuffled, truth).mean()) < 0.02


def test_constant_profile_is_the_baseline_of_the_spot_correlation() -> None:
    profile = TRUTH.mean(axis=0)
    expected = [stats.pearsonr(profile, TRUTH[i]).statistic for i in range(40)]
    np.testing.assert_allclose(constant_profile_per_spot(profile, TRUTH), expected, atol=1e-12)
    with pytest.raises(ShapeError, match="profile"):
        constant_profile_per_spot(profile[:-1], TRUTH)


def test_sparse_truth_is_accepted() -> None:
    counts = sparse.csr_matrix(np.where(TRUTH > 2, TRUTH, 0.0))
    np.testing.assert_allclose(
        pearson_per_gene(GUESS, counts), pearson_per_gene(GUESS, counts.toarray())
    )


def test_refuses_other_shapes_and_infinities() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        pearson_per_gene(GUESS, TRUTH[:-1])
    with pytest.raises(InputError, match="infinite"):
        pearson_per_gene(np.full((3, 2), np.inf), np.ones((3, 2)))


def test_mean_of_nothing_is_missing() -> None:
    assert np.isnan(mean_over_genes([np.nan, np.nan]).mean)


values = hnp.arrays(np.float64, (12, 3), elements=st.integers(-50, 50).map(float))


@given(values, values, st.floats(0.1, 10), st.integers(-20, 20))
def test_invariant_to_scale_and_shift_and_within_range(left, right, scale, shift) -> None:
    scores = pearson_per_gene(left, right)
    np.testing.assert_allclose(pearson_per_gene(left * scale + shift, right), scores, atol=1e-9)
    assert (np.abs(scores[~np.isnan(scores)]) <= 1).all()
    ranks = spearman_per_gene(left, right)
    np.testing.assert_allclose(spearman_per_gene(np.cbrt(left), right), ranks, atol=1e-9)
