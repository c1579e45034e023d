"""Intervals, uncertainty and risk–coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stretrieve.errors import InputError, ShapeError
from stretrieve.metrics import (
    interval_coverage,
    interval_width,
    pearson_per_gene,
    risk_coverage,
    width_error_agreement,
)

RNG = np.random.default_rng(9)


def test_coverage_by_hand() -> None:
    truth = np.array([[0.0], [1.0], [2.0], [3.0]])
    low, high = np.full((4, 1), 1.0), np.full((4, 1), 2.0)
    assert interval_coverage(truth, low, high)[0] == 0.5  # both ends count
    assert interval_width(low, high)[0] == 1.0
    low[1] = np.nan
    assert interval_coverage(truth, low, high)[0] == pytest.approx(1 / 3)
    assert interval_width(low, high)[0] == 1.0
    assert np.isnan(interval_coverage(truth, np.full((4, 1), np.nan), high)[0])


def test_gaussian_intervals_cover_what_they_say() -> None:
    truth = RNG.normal(size=(20_000, 2))
    half = np.full_like(truth, stats.norm.ppf(0.95))
    np.testing.assert_allclose(interval_coverage(truth, -half, half), 0.9, atol=0.01)


def test_width_error_agreement_across_spots_and_genes() -> None:
    width = RNG.gamma(2, 1, (80, 5))
    error = width * RNG.normal(size=(80, 5))
    expected = np.mean([stats.spearmanr(width[:, g], abs(error[:, g])).statistic for g in range(5)])
    assert width_error_agreement(width, error) == pytest.approx(expected)
    expected = stats.spearmanr(width.mean(0), abs(error).mean(0)).statistic
    assert width_error_agreement(width, error, across="genes") == pytest.approx(expected)
    assert width_error_agreement(width, width) == pytest.approx(1.0)
    assert width_error_agreement(np.ones_like(width), error) == 0.0
    with pytest.raises(InputError, match="across"):
        width_error_agreement(width, error, across="patients")


def test_risk_coverage_rises_with_a_useful_uncertainty_only() -> None:
    truth = RNG.normal(size=(600, 6))
    noise = np.repeat([0.1, 3.0], 300)[:, None]
    guess = truth + noise * RNG.normal(size=truth.shape)
    useful = risk_coverage(guess, truth, noise[:, 0])
    assert useful[-1] > 0.95 > useful[0]
    assert (np.diff(useful) > 0).all()
    useless = risk_coverage(guess, truth, RNG.random(600))
    assert abs(useless[-1] - useless[0]) < 0.1
    assert useful[0] == pytest.approx(pearson_per_gene(guess, truth).mean())
    kept = np.argsort(noise[:, 0], kind="stable")[:480]
    one = risk_coverage(guess, truth, noise[:, 0], kept=[0.8])[0]
    assert one == pytest.approx(pearson_per_gene(guess[kept], truth[kept]).mean())


def test_risk_coverage_refuses_bad_input() -> None:
    truth = RNG.normal(size=(10, 2))
    with pytest.raises(ShapeError):
        risk_coverage(truth, truth, np.ones(9))
    with pytest.raises(ShapeError):
        risk_coverage(truth, truth, np.full(10, np.nan))
    with pytest.raises(InputError, match="at most 1"):
        risk_coverage(truth, truth, np.ones(10), kept=[1.2])
