"""Every metric keeps what it declares."""

from __future__ import annotations

import numpy as np
import pytest

from stretrieve import metrics
from stretrieve.errors import ConfigError
from stretrieve.metrics import METRICS, Direction, MetricSpec, Per

RNG = np.random.default_rng(10)
SIDE = 10
XY = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
TRUTH = 0.2 + (1 + np.sin(XY[:, :1] / 2 + np.arange(8))) + 0.3 * RNG.random((SIDE**2, 8))

EXTRA = {
    "auc": lambda: (np.median(TRUTH, axis=0),),
    "ssim": lambda: (XY,),
    "morans_i_agreement": lambda: (XY,),
    "risk_coverage": lambda: (np.arange(SIDE**2.0),),
}
EXPRESSION = [
    name
    for name, spec in METRICS.items()
    if spec.function.__module__.rpartition(".")[2]
    in {"correlation", "deviation", "classification", "spatial"}
] + ["risk_coverage"]


def _score(name: str, predicted: np.ndarray, truth: np.ndarray = TRUTH) -> np.ndarray:
    extra = EXTRA[name]() if name in EXTRA else ()
    return np.atleast_1d(METRICS[name].function(predicted, truth, *extra))


@pytest.mark.parametrize("name", EXPRESSION)
def test_perfect_prediction_reaches_the_best_value(name: str) -> None:
    np.testing.assert_allclose(_score(name, TRUTH), METRICS[name].best, atol=1e-9)


@pytest.mark.parametrize("name", EXPRESSION)
def test_random_prediction_is_in_range_and_worse(name: str) -> None:
    spec, scores = METRICS[name], _score(name, RNG.random(TRUTH.shape) * 3)
    assert (scores >= spec.low).all()
    assert (scores <= spec.high).all()
    distance = abs(scores.mean() - spec.best)
    assert distance > 0.1
    if spec.direction is Direction.LOWER:
        assert scores.mean() > spec.best


@pytest.mark.parametrize(
    "name", [n for n in EXPRESSION if METRICS[n].constant_prediction is not None]
)
def test_constant_prediction_scores_what_is_declared(name: str) -> None:
    flat = np.full_like(TRUTH, 0.7)
    np.testing.assert_allclose(_score(name, flat), METRICS[name].constant_prediction, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [n for n in EXPRESSION if METRICS[n].per is Per.GENE and "NaN" in METRICS[n].constant_truth],
)
def test_constant_truth_gives_nan_where_declared(name: str) -> None:
    truth = TRUTH.copy()
    truth[:, 2] = 1.0
    scores = _score(name, TRUTH, truth)
    assert np.isnan(scores[2])
    assert not np.isnan(np.delete(scores, 2)).any()


def test_missing_values_never_become_zeros() -> None:
    truth, guess = TRUTH.copy(), TRUTH + 0.1 * RNG.normal(size=TRUTH.shape)
    truth[::3, 1] = np.nan
    filled = np.nan_to_num(truth)
    for name in ("pcc_gene", "spearman_gene", "mae", "mse", "variance_ratio"):
        assert _score(name, guess, truth)[1] != pytest.approx(_score(name, guess, filled)[1])


def test_every_public_metric_is_declared() -> None:
    declared = {spec.function.__name__ for spec in METRICS.values()}
    helpers = {
        "chance_mrr", "chance_recall", "compare_paired", "constant_profile_per_spot",
        "expression_thresholds", "mean_over_genes", "morans_i", "neighbour_weights",
        "paired_ranks", "patient_macro",
    }  # fmt: skip
    functions = {name for name in metrics.__all__ if name[0].islower()}
    assert functions - helpers == declared


def test_a_best_value_outside_the_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="best value"):
        MetricSpec("x", abs, Per.GENE, 0, 1, Direction.HIGHER, 2, None)
