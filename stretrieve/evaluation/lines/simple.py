"""Baselines as lines: regressions, image neighbours, depth, chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stretrieve.evaluation.baselines import (
    Predictor,
    fit_knn,
    fit_mean_profile,
    fit_reduced_rank_ridge,
    fit_ridge,
)
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import Inputs, Kind
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.lines.search import Found, average
from stretrieve.evaluation.training_data import Matrix, TrainingData


@dataclass(frozen=True)
class FittedBaseline(Fitted):
    """A fitted baseline on one kind of features."""

    predictor: Predictor
    kind: Kind

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Predict from features."""
        return Prediction(self.predictor.predict(inputs.features(sample, self.kind)))

    def facts(self) -> dict[str, float]:
        """Return the ridge penalty that was chosen."""
        alpha = getattr(self.predictor, "alpha", None)
        return {} if alpha is None else {"alpha": float(alpha)}


class BaselineLine(Line):
    """A baseline of :mod:`stretrieve.evaluation.baselines`.

    Parameters
    ----------
    name, title
        As in :class:`~stretrieve.evaluation.lines.base.Line`.
    fit
        Learns from training data.
    kind
        Features it reads.
    """

    family = Family.BASELINE

    def __init__(
        self,
        name: str,
        title: str,
        fit: Callable[[TrainingData], Predictor],
        *,
        kind: Kind = Kind.QUERY,
    ) -> None:
        self.name, self.title = name, title
        self._fit = fit
        self.kind = kind

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Learn from features of the training sections."""
        del seed
        return FittedBaseline(self._fit(training.data(self.kind)), self.kind)


@dataclass(frozen=True)
class FittedDepth(Fitted):
    """A straight line in log depth for every gene."""

    profile: Matrix
    slope: Matrix
    centre: float

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Predict from the number of counts of each spot."""
        del inputs
        depth = _log_depth(sample) - self.centre
        return Prediction(self.profile + depth[:, None] * self.slope)


class DepthLine(Line):
    """Knows only how many counts a spot has: what a score owes to depth and not to biology."""

    name = "depth"
    title = "depth only (sees the spot's total counts)"
    family = Family.ORACLE
    sees_truth = True

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Regress centred expression on centred log depth."""
        del seed
        depth = np.concatenate([_log_depth(s) - _log_depth(s).mean() for s in training.samples])
        centred = np.concatenate([t - t.mean(axis=0) for t in training.truth])
        slope = depth @ centred / max(float(depth @ depth), 1e-12)
        profile = np.mean([t.mean(axis=0) for t in training.truth], axis=0)
        centre = float(np.mean([_log_depth(s).mean() for s in training.samples]))
        return FittedDepth(profile, slope, centre)


def _log_depth(sample: Sample) -> Matrix:
    return np.log1p(sample.section.library_size.astype(np.float64))


@dataclass(frozen=True)
class FittedRandom(Fitted):
    """Training spots drawn at random."""

    values: Matrix
    k: int
    seed: int

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Average random training spots for every spot."""
        del inputs
        n = sample.section.n_spots
        rng = np.random.default_rng([self.seed, n])
        k = min(self.k, len(self.values))
        rows = np.stack([rng.choice(len(self.values), k, replace=False) for _ in range(n)])
        mean, spread = average(Found(rows, np.zeros(rows.shape)), self.values)
        return Prediction(mean, doubt=spread.mean(axis=1), neighbours=rows)


class RandomLine(Line):
    """As many neighbours as retrieval takes, drawn at random: chance with the same averaging."""

    name = "random"
    title = "random neighbours"
    family = Family.BASELINE
    stochastic = True

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Keep the training spots."""
        return FittedRandom(np.concatenate(training.truth), training.settings.top_k, seed)


def mean_profile() -> Line:
    """Return the constant profile; its per-gene correlation is 0."""
    return BaselineLine("mean-profile", "mean profile", fit_mean_profile)


def colour_ridge() -> Line:
    """Return the ridge on colour statistics."""
    return BaselineLine("colour-ridge", "colour ridge", fit_ridge, kind=Kind.COLOUR)


def query_ridge() -> Line:
    """Return the ridge on the backbone's features."""
    return BaselineLine("ridge", "image ridge", fit_ridge)


def query_knn() -> Line:
    """Return neighbours in the backbone's features."""
    return BaselineLine("knn", "image kNN", fit_knn)


def reduced_rank_ridge() -> Line:
    """Return the reduced-rank ridge, the strongest linear rival."""
    return BaselineLine("rrr", "reduced-rank ridge", fit_reduced_rank_ridge)
