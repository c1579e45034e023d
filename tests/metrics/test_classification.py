"""Area under the curve against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stretrieve.errors import ShapeError
from stretrieve.metrics import auc_per_gene, expression_thresholds

RNG = np.random.default_rng(4)
TRUTH = RNG.poisson(1.0, (120, 4)).astype(float)
GUESS = np.round(TRUTH + RNG.normal(size=TRUTH.shape), 1)  # rounded: ties


def test_threshold_is_the_median_of_expressing_training_spots() -> None:
    train = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [8.0, 0.0]])
    np.testing.assert_array_equal(expression_thresholds(train), [3.0, 0.0])


def test_agrees_with_scikit_learn_on_ties() -> None:
    thresholds = np.array([0.0, 0.5, 1.0, 1.0])
    expected = [roc_auc_score(TRUTH[:, g] > thresholds[g], GUESS[:, g]) for g in range(4)]
    np.testing.assert_allclose(auc_per_gene(GUESS, TRUTH, thresholds), expected, atol=1e-12)


def test_ends_and_constants() -> None:
    zero = np.zeros(4)
    np.testing.assert_allclose(auc_per_gene(TRUTH, TRUTH, zero), 1.0)
    np.testing.assert_allclose(auc_per_gene(-TRUTH, TRUTH, zero), 0.0)
    np.testing.assert_allclose(auc_per_gene(np.ones_like(TRUTH), TRUTH, zero), 0.5)
    assert np.isnan(auc_per_gene(GUESS, np.zeros_like(TRUTH), zero)).all()


def test_small_classes_are_not_scored() -> None:
    truth = np.zeros((100, 2))
    truth[:19, 0] = truth[:20, 1] = 1.0
    guess = np.random.default_rng(5).normal(size=truth.shape)
    scores = auc_per_gene(guess, truth, np.zeros(2))
    assert np.isnan(scores[0])
    assert not np.isnan(scores[1])


def test_missing_pairs_are_left_out() -> None:
    truth = TRUTH.copy()
    truth[:30, 0] = np.nan
    expected = roc_auc_score(TRUTH[30:, 0] > 0, GUESS[30:, 0])
    assert auc_per_gene(GUESS, truth, np.zeros(4))[0] == pytest.approx(expected)


def test_needs_one_threshold_a_gene() -> None:
    with pytest.raises(ShapeError, match="one a gene"):
        auc_per_gene(GUESS, TRUTH, np.zeros(3))
