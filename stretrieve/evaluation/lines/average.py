"""Reduced-rank ridge averaged with ridge-embedded retrieval, as it is and smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from stretrieve import metrics
from stretrieve.evaluation.baselines import LinearPredictor, fit_reduced_rank_ridge
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import Inputs
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.lines.joint import FittedJoint, JointLine, inner_splits
from stretrieve.evaluation.training_data import Matrix
from stretrieve.query.choose import WIDTHS_UM
from stretrieve.query.surroundings import Surroundings


@dataclass(frozen=True)
class FittedAverage(Fitted):
    """Two predictions on one scale per gene, averaged.

    Parameters
    ----------
    linear, joint
        Both predictors.
    scales
        ``(2, n_genes)`` what each is divided by: the standard deviation of its predictions of
        held-out training sections.
    """

    linear: LinearPredictor
    joint: FittedJoint
    scales: Matrix

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Average both."""
        first = self.linear.predict(inputs.features(sample)) - self.joint.profile
        second = self.joint.predict(sample, inputs)
        mixed = _mix(first, second.mean - self.joint.profile, self.scales)
        return replace(second, mean=self.joint.profile + mixed)

    def embed_expression(self, sample: Sample) -> Matrix:
        """Return the section's expression in the joint space."""
        return self.joint.embed_expression(sample)


class AverageLine(Line):
    """Reduced-rank ridge averaged with ridge-embedded retrieval, each standardised per gene."""

    name = "average"
    title = "average of reduced-rank ridge and retrieval"
    family = Family.RETRIEVAL

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Fit both; their scales come from training sections that were held out in turn."""
        return _fit_average(training, _held_out(training, seed=seed), seed=seed)


@dataclass(frozen=True)
class FittedSmoothed(Fitted):
    """The average of two predictions, averaged over nearby patches as the engine's are.

    Parameters
    ----------
    average
        Before smoothing.
    width_um
        Standard deviation of the Gaussian; 0 for none.
    """

    average: FittedAverage
    width_um: float

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Predict, then smooth."""
        plain = self.average.predict(sample, inputs)
        return replace(plain, mean=_smooth(plain.mean, sample, self.width_um))

    def embed_expression(self, sample: Sample) -> Matrix:
        """Return the section's expression in the joint space."""
        return self.average.embed_expression(sample)

    def facts(self) -> dict[str, Any]:
        """Return the width that was chosen."""
        return {"smoothing_um": self.width_um}


class SmoothedAverageLine(Line):
    """The average, smoothed as much as suits held-out training sections: the engine's closest rival."""

    name = "average-smoothed"
    title = "average of both, smoothed"
    family = Family.RETRIEVAL

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Fit both, and choose the width on training sections that were held out in turn."""
        held = _held_out(training, seed=seed)
        average = _fit_average(training, held, seed=seed)
        scores = {
            width: _score(training, held, average.scales, width) for width in (0.0, *WIDTHS_UM)
        }
        return FittedSmoothed(average, max(scores, key=scores.__getitem__))


class _HeldOut(NamedTuple):
    """Both predictions ``(n_spots, n_genes)`` of a section that was held out, minus the profile."""

    sample: Sample
    linear: Matrix
    joint: Matrix


def _held_out(training: Training, *, seed: int) -> list[_HeldOut]:
    """Predict every training section by what is learnt without it."""
    held = []
    for inner, out in inner_splits(training):
        linear, joint = fit_reduced_rank_ridge(inner.data()), JointLine().fit(inner, seed=seed)
        for sample in out:
            first = linear.predict(inner.inputs.features(sample)) - linear.profile
            second = joint.predict(sample, inner.inputs).mean - joint.profile
            held.append(_HeldOut(sample, first, second))
    return held


def _fit_average(training: Training, held: Sequence[_HeldOut], *, seed: int) -> FittedAverage:
    sides = [part.linear for part in held], [part.joint for part in held]
    scales = np.stack([np.concatenate(side).std(axis=0) for side in sides])
    linear = fit_reduced_rank_ridge(training.data())
    return FittedAverage(linear, JointLine().fit(training, seed=seed), scales)


def _mix(linear: Matrix, joint: Matrix, scales: Matrix) -> Matrix:
    """Average two predictions, minus the profile, on one scale per gene."""
    safe = np.where(scales > 0, scales, np.inf)
    return np.asarray((linear / safe[0] + joint / safe[1]) / 2 * scales.mean(axis=0))


def _smooth(mean: Matrix, sample: Sample, width_um: float) -> Matrix:
    """Average predictions over the patches around, as the engine does with neighbours' weights."""
    if width_um == 0:
        return mean
    _, shares = Surroundings(sample.section.xy_um, width_um).of(slice(None))
    return np.asarray(shares @ mean)


def _score(training: Training, held: Sequence[_HeldOut], scales: Matrix, width_um: float) -> float:
    """Return the correlation with held-out sections: mean over variable genes, then sections."""
    genes = training.sets.hvg200
    columns = [training.genes.index(gene) for gene in genes]
    scores = []
    for sample, linear, joint in held:
        mixed = _smooth(_mix(linear, joint, scales)[:, columns], sample, width_um)
        per_gene = metrics.pearson_per_gene(mixed, sample.truth(genes))
        scores.append(metrics.mean_over_genes(per_gene).mean)
    return float(np.nanmean(scores))
