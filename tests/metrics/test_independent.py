"""Metrics against implementations that share no code with ours, and what they may not depend on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.metrics import (
    label_ranking_average_precision_score,
    r2_score,
    top_k_accuracy_score,
)
from sklearn.neighbors import kneighbors_graph

from stretrieve.errors import InputError
from stretrieve.metrics import (
    METRICS,
    Per,
    compare_paired,
    gene_gene_agreement,
    label_precision,
    label_recall,
    mean_reciprocal_rank,
    morans_i,
    mse_per_gene,
    neighbour_overlap,
    neighbour_weights,
    paired_ranks,
    patient_macro,
    pearson_per_gene,
    recall_at_k,
    risk_coverage,
)

RNG = np.random.default_rng(11)
SIDE = 12
XY = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
TRUTH = 0.2 + (1 + np.sin(XY[:, :1] / 2 + np.arange(7))) + 0.3 * RNG.random((SIDE**2, 7))
GUESS = TRUTH + 0.8 * RNG.normal(size=TRUTH.shape)


def test_retrieval_against_scikit_learn() -> None:
    query = RNG.normal(size=(80, 5))
    keys = query + 1.5 * RNG.normal(size=(80, 5))
    similarity = 1 - cdist(query, keys, metric="cosine")
    ranks = paired_ranks(query, keys)
    for k in (1, 3, 10, 40):
        expected = top_k_accuracy_score(np.arange(80), similarity, k=k)
        assert recall_at_k(ranks, k) == pytest.approx(expected)
    # with one relevant item, average precision is the reciprocal rank
    expected = label_ranking_average_precision_score(np.eye(80), similarity)
    assert mean_reciprocal_rank(ranks) == pytest.approx(expected)


def test_labels_and_overlap_against_pandas() -> None:
    found = np.stack([RNG.permutation(30)[:6] for _ in range(20)])
    other = np.stack([RNG.permutation(30)[:6] for _ in range(20)])
    keys, query = RNG.choice(list("abc"), 30), RNG.choice(list("abc"), 20)
    table = pd.DataFrame(keys[found]).eq(pd.Series(query), axis=0)
    assert label_precision(found, query, keys) == pytest.approx(table.to_numpy().mean())
    assert label_recall(found, query, keys) == pytest.approx(table.any(axis=1).mean())
    shared = [len(np.intersect1d(a, b)) / 6 for a, b in zip(found, other, strict=True)]
    assert neighbour_overlap(found, other) == pytest.approx(np.mean(shared))


def test_morans_i_against_esda() -> None:
    """Figures of esda 2.9.0: Moran(y, KNN(points, k=6), transformation="r", permutations=0).I."""
    i = np.arange(40.0)
    points = np.stack([10 * np.sin(i * 1.7), 10 * np.cos(i * 2.3)], axis=1)
    values = np.stack([points[:, 0], np.sin(i * i), points[:, 0] * points[:, 1]], axis=1)
    expected = [0.903223199671885, 0.11639937771632641, 0.8309902675768192]
    np.testing.assert_allclose(morans_i(values, neighbour_weights(points)), expected, rtol=1e-9)


def test_neighbours_against_scikit_learn() -> None:
    points = RNG.uniform(size=(60, 2))
    expected = kneighbors_graph(points, 6, include_self=False).toarray() / 6
    np.testing.assert_allclose(neighbour_weights(points).toarray(), expected)


def test_gene_gene_agreement_against_pandas() -> None:
    upper = np.triu_indices(7, 1)
    one, two = (pd.DataFrame(side).corr().to_numpy()[upper] for side in (GUESS, TRUTH))
    assert gene_gene_agreement(GUESS, TRUTH) == pytest.approx(stats.pearsonr(one, two).statistic)


def test_squared_error_against_explained_variance() -> None:
    expected = (1 - r2_score(TRUTH, GUESS, multioutput="raw_values")) * TRUTH.var(axis=0)
    np.testing.assert_allclose(mse_per_gene(GUESS, TRUTH), expected)


def test_bootstrap_interval_against_scipy() -> None:
    gain = RNG.normal(0.05, 0.1, 12)
    names = [f"p{i}" for i in range(12)]
    result = compare_paired(patient_macro(gain, names), patient_macro(np.zeros(12), names))
    expected = stats.bootstrap(
        (gain,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (result.low, result.high) == pytest.approx(tuple(expected), abs=0.004)


def test_pearson_is_stable_far_from_zero() -> None:
    expected = [stats.pearsonr(GUESS[:, g], TRUTH[:, g]).statistic for g in range(7)]
    np.testing.assert_allclose(pearson_per_gene(GUESS + 1e5, TRUTH + 1e5), expected, atol=1e-6)


EXTRA = {
    "auc": lambda rows: (np.median(TRUTH, axis=0),),
    "ssim": lambda rows: (XY[rows],),
    "morans_i_agreement": lambda rows: (XY[rows],),
    "risk_coverage": lambda rows: (np.arange(SIDE**2)[rows].astype(float),),
}
EXPRESSION = (
    "pcc_gene", "pcc_spot", "spearman_gene", "mae", "mse", "rvd", "variance_ratio", "auc", "ssim",
    "morans_i_agreement", "gene_gene_agreement", "risk_coverage",
)  # fmt: skip
ALL = np.arange(SIDE**2)


def score(name: str, guess: np.ndarray, truth: np.ndarray, rows: np.ndarray = ALL) -> np.ndarray:
    extra = EXTRA[name](rows) if name in EXTRA else ()
    return np.atleast_1d(METRICS[name].function(guess[rows], truth[rows], *extra))


@pytest.mark.parametrize("name", EXPRESSION)
def test_order_of_spots_does_not_matter(name: str) -> None:
    rows = RNG.permutation(SIDE**2)
    whole, shuffled = score(name, GUESS, TRUTH), score(name, GUESS, TRUTH, rows)
    expected = whole[rows] if METRICS[name].per is Per.SPOT else whole
    np.testing.assert_allclose(shuffled, expected, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in EXPRESSION if METRICS[n].per is Per.GENE])
def test_genes_are_scored_one_by_one(name: str) -> None:
    """No gene's score depends on another's, or on its place."""
    one = score(name, GUESS, TRUTH)
    order = np.array([4, 2, 0])
    extra = EXTRA[name](ALL) if name in EXTRA else ()
    if name == "auc":
        extra = (extra[0][order],)
    some = METRICS[name].function(GUESS[:, order], TRUTH[:, order], *extra)
    np.testing.assert_allclose(some, one[order], atol=1e-12)


@pytest.mark.parametrize("name", [n for n in EXPRESSION if "left out" in METRICS[n].missing])
@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_missing_values_are_treated_as_declared(name: str, side: str) -> None:
    guess, truth = GUESS.copy(), TRUTH.copy()
    (guess if side == "prediction" else truth)[::4, 3] = np.nan
    scores = score(name, guess, truth)
    others = np.delete(np.arange(7), 3)
    known = np.setdiff1d(ALL, ALL[::4])
    if METRICS[name].missing.startswith("a gene with NaN"):
        if METRICS[name].per is Per.GENE:
            assert np.isnan(scores[3])
            np.testing.assert_allclose(scores[others], score(name, GUESS, TRUTH)[others])
        else:
            expected = score(name, GUESS[:, others], TRUTH[:, others])
            np.testing.assert_allclose(scores, expected, atol=1e-12)
    elif METRICS[name].per is Per.GENE:
        np.testing.assert_allclose(scores[3], score(name, GUESS, TRUTH, known)[3], atol=1e-12)
        np.testing.assert_allclose(scores[others], score(name, GUESS, TRUTH)[others])
    elif METRICS[name].per is Per.SPOT:
        expected = METRICS[name].function(GUESS[::4][:, others], TRUTH[::4][:, others])
        np.testing.assert_allclose(scores[::4], expected, atol=1e-12)
        np.testing.assert_allclose(scores[known], score(name, GUESS, TRUTH)[known])
    else:
        expected = [
            np.mean(
                pearson_per_gene(guess[: int(np.ceil(k * 144))], truth[: int(np.ceil(k * 144))])
            )
            for k in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
        ]
        np.testing.assert_allclose(scores, expected, atol=1e-12)


@pytest.mark.parametrize(
    "name", [n for n, spec in METRICS.items() if spec.missing == "refused" and "label" not in n]
)
def test_missing_embeddings_are_refused(name: str) -> None:
    broken = np.ones((4, 3))
    broken[2, 1] = np.nan
    with pytest.raises(InputError):
        METRICS[name].function(paired_ranks(broken, np.ones((4, 3))), *((1,) * ("recall" in name)))


@pytest.mark.parametrize("name", [n for n in EXPRESSION if METRICS[n].per is Per.GENE])
def test_better_predictions_score_better(name: str) -> None:
    """The declared direction, over four amounts of noise."""
    spec = METRICS[name]
    noise = RNG.normal(size=TRUTH.shape)
    distance = [
        abs(np.nanmean(score(name, TRUTH + amount * noise, TRUTH)) - spec.best)
        for amount in (0.0, 0.2, 0.8, 3.0)
    ]
    assert distance == sorted(distance)
    assert distance[0] == pytest.approx(0, abs=1e-9)


def test_risk_coverage_of_everything_is_the_plain_mean() -> None:
    doubt = RNG.random(SIDE**2)
    whole = risk_coverage(GUESS, TRUTH, doubt, kept=(1.0,))[0]
    assert whole == pytest.approx(pearson_per_gene(GUESS, TRUTH).mean())
