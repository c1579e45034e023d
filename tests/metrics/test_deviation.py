"""Errors and variances against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

from stretrieve.metrics import (
    mae_per_gene,
    mse_per_gene,
    rvd_per_gene,
    variance_ratio_per_gene,
)

RNG = np.random.default_rng(3)
TRUTH = RNG.gamma(2.0, 1.0, (30, 5))
GUESS = TRUTH + RNG.normal(size=(30, 5))


def test_errors_agree_with_scikit_learn() -> None:
    raw = {"multioutput": "raw_values"}
    np.testing.assert_allclose(mae_per_gene(GUESS, TRUTH), mean_absolute_error(TRUTH, GUESS, **raw))
    np.testing.assert_allclose(mse_per_gene(GUESS, TRUTH), mean_squared_error(TRUTH, GUESS, **raw))


def test_variances_by_hand() -> None:
    truth = np.array([[0.0], [2.0]])  # population variance 1
    guess = np.array([[0.0], [1.0]])  # population variance 1/4
    assert variance_ratio_per_gene(guess, truth)[0] == pytest.approx(0.25)
    assert rvd_per_gene(guess, truth)[0] == pytest.approx(0.5625)
    assert mae_per_gene(guess, truth)[0] == pytest.approx(0.5)
    assert mse_per_gene(guess, truth)[0] == pytest.approx(0.5)


def test_rvd_is_the_published_ratio_of_population_variances() -> None:
    expected = (GUESS.var(axis=0) - TRUTH.var(axis=0)) ** 2 / TRUTH.var(axis=0) ** 2
    np.testing.assert_allclose(rvd_per_gene(GUESS, TRUTH), expected)
    # with sample variances over unequal numbers of spots the figure would differ
    np.testing.assert_allclose(
        variance_ratio_per_gene(GUESS, TRUTH), GUESS.var(axis=0) / TRUTH.var(axis=0)
    )


def test_constants() -> None:
    flat = np.full((30, 5), 0.3)
    np.testing.assert_allclose(rvd_per_gene(flat, TRUTH), 1.0)
    np.testing.assert_allclose(variance_ratio_per_gene(flat, TRUTH), 0.0)
    assert np.isnan(rvd_per_gene(GUESS, flat)).all()
    assert np.isnan(variance_ratio_per_gene(GUESS, flat)).all()
    np.testing.assert_allclose(mae_per_gene(flat, flat), 0.0)


def test_perfect_ends() -> None:
    np.testing.assert_allclose(mae_per_gene(TRUTH, TRUTH), 0.0)
    np.testing.assert_allclose(mse_per_gene(TRUTH, TRUTH), 0.0)
    np.testing.assert_allclose(rvd_per_gene(TRUTH, TRUTH), 0.0)
    np.testing.assert_allclose(variance_ratio_per_gene(TRUTH, TRUTH), 1.0)


@pytest.mark.parametrize(
    "score", [mae_per_gene, mse_per_gene, rvd_per_gene, variance_ratio_per_gene]
)
def test_missing_pairs_are_left_out(score) -> None:
    truth = TRUTH.copy()
    truth[10:, 1] = np.nan
    assert score(GUESS, truth)[1] == pytest.approx(score(GUESS[:10], TRUTH[:10])[1])
    truth[:, 1] = np.nan
    assert np.isnan(score(GUESS, truth)[1])
