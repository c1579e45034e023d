"""A perfect and a random predictor at the expected ends of every metric."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stretrieve.errors import ConfigError
from stretrieve.evaluation.judge import OPTIMISTIC, Judge, cross_gene
from stretrieve.evaluation.lines.base import Prediction


@pytest.fixture(scope="module")
def fold(bench):
    return bench.prepare(0)


def _scores(judge, prediction, sample, expression=None):
    frame = judge.score(prediction, sample, expression)
    genes = frame[frame["gene"] != ""].groupby("metric")["value"].mean()
    whole = frame[frame["gene"] == ""].set_index("metric")["value"]
    return genes.to_dict(), whole.to_dict()


def test_a_perfect_prediction_reaches_the_best_end(fold):
    sample = fold.tests[0]
    truth = sample.truth(fold.training.genes)
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(len(truth), 8))
    perfect = Prediction(
        truth, {0.9: (truth - 1, truth + 1)}, np.abs(truth).sum(axis=1), None, embedding
    )
    genes, whole = _scores(fold.judge, perfect, sample, embedding)
    ends = {
        "pcc_gene": 1, "spearman_gene": 1, "mae": 0, "mse": 0, "rvd": 0, "variance_ratio": 1,
        "auc": 1, "ssim": 1, "interval_coverage@0.9": 1, "interval_width@0.9": 2,
    }  # fmt: skip
    for name, end in ends.items():
        assert genes[name] == pytest.approx(end, abs=1e-9), name
    ends = {
        "pcc_spot": 1, "morans_i_agreement": 1, "gene_gene_agreement": 1, "recall@1": 1, "mrr": 1,
        "risk_coverage@1": 1, f"{OPTIMISTIC}HVG50-test": 1, f"{OPTIMISTIC}PCC-10": 1,
    }  # fmt: skip
    for name, end in ends.items():
        assert whole[name] == pytest.approx(end, abs=1e-9), name
    assert whole["recall@1/chance"] == pytest.approx(1 / len(truth))
    assert whole["pcc_spot/delta"] == pytest.approx(1 - whole["pcc_spot/constant-profile"])


def test_a_random_prediction_sits_at_chance(fold):
    sample = fold.tests[0]
    n, rng = sample.section.n_spots, np.random.default_rng(1)
    mean = rng.normal(size=(n, len(fold.training.genes)))
    prediction = Prediction(mean, embedding=rng.normal(size=(n, 64)))
    genes, whole = _scores(fold.judge, prediction, sample, rng.normal(size=(n, 64)))
    assert abs(genes["pcc_gene"]) < 0.06
    assert abs(genes["auc"] - 0.5) < 0.06
    assert abs(whole["recall@50"] - whole["recall@50/chance"]) < 0.15
    assert whole[f"{OPTIMISTIC}PCC-10"] > genes["pcc_gene"] + 0.1, "choosing by the answer flatters"


def test_labels_of_neighbours_against_their_share(fold):
    labels = np.array(["a", "b"] * 32)
    training = dataclasses.replace(
        fold.training,
        samples=tuple(dataclasses.replace(s, labels=labels) for s in fold.training.samples),
    )
    judge = Judge(training, ("label_precision", "label_recall"))
    sample = dataclasses.replace(fold.tests[0], labels=labels)
    n = sample.section.n_spots
    right = np.where(labels == "a", 0, 1)[:, None] + np.array([[0, 2, 4]])
    genes, whole = _scores(
        judge, Prediction(np.zeros((n, len(training.genes))), neighbours=right), sample
    )
    assert whole["label_precision"] == 1
    assert whole["label_precision/chance"] == 0.5
    assert whole["label_recall@3"] == 1
    assert "mae" not in genes
    both = np.eye(2)[(labels == "b").astype(int)] + np.random.default_rng(0).normal(0, 0.01, (n, 2))
    prediction = Prediction(np.zeros((n, len(training.genes))), embedding=both)
    _, within = _scores(judge, prediction, sample, both)
    assert within["label_precision_within@10"] == 1
    assert within["label_precision_within/chance"] == pytest.approx(31 / 63)


def test_correlation_with_other_genes_by_hand():
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    pairs = [
        np.corrcoef(predicted[:, g], truth[:, h])[0, 1] for h in (1, 2) for g in range(4) if g != h
    ]
    assert cross_gene(predicted, truth, np.array([1, 2])) == pytest.approx(np.mean(pairs))
    truth[3, 3] = np.nan
    pairs = [
        np.corrcoef(predicted[:, g], truth[:, h])[0, 1] for h in (1, 2) for g in range(3) if g != h
    ]
    assert cross_gene(predicted, truth, np.array([1, 2, 3])) == pytest.approx(np.mean(pairs))
    depth = rng.normal(size=(30, 1)) + np.zeros((1, 4))
    assert cross_gene(depth, depth, np.array([0])) == pytest.approx(1)


def test_unknown_metrics_are_refused(fold):
    with pytest.raises(ConfigError, match="pcc_gene"):
        Judge(fold.training, ("pearson",))
