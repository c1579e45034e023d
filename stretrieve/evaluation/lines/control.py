"""Negative controls: a line robbed of what it could know, which must then sit at chance."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import ImageInputs, Inputs, NoiseInputs, ShuffledInputs
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training


class Control(StrEnum):
    """What is taken away."""

    SHUFFLED = "shuffled"
    """Patches and spots of the training sections are paired at random."""
    NOISE = "noise"
    """Patches of the test section are white noise."""
    GENES = "permuted-genes"
    """Each gene is given the prediction of another one."""


_TITLES = {
    Control.SHUFFLED: "shuffled training pairs",
    Control.NOISE: "noise for patches",
    Control.GENES: "permuted genes",
}


@dataclass(frozen=True)
class FittedControl(Fitted):
    """A fitted line whose queries or answers are spoilt."""

    base: Fitted
    control: Control
    order: npt.NDArray[np.int64]
    seed: int

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Predict, spoilt."""
        if self.control is Control.NOISE and isinstance(inputs, ImageInputs):
            inputs = NoiseInputs(inputs, seed=self.seed)
        prediction = self.base.predict(sample, inputs)
        if self.control is not Control.GENES:
            return Prediction(prediction.mean)
        return Prediction(prediction.mean[:, self.order])


class ControlLine(Line):
    """A negative control of some line.

    Parameters
    ----------
    control
        What is taken away.
    base
        The line it is taken away from.
    """

    family = Family.CONTROL
    stochastic = True

    def __init__(self, control: Control, base: Line) -> None:
        self.control = control
        self.base = base
        self.name = f"control-{control.value}"
        self.title = f"control: {_TITLES[control]} ({base.title})"
        self.sees_truth = base.sees_truth

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Fit the line, on shuffled pairs where that is the control."""
        n_genes = len(training.genes)
        if self.control is Control.SHUFFLED:
            inputs = ShuffledInputs(training.inputs, seed=seed)
            training = dataclasses.replace(training, inputs=inputs)
        order = derangement(n_genes, seed=seed)
        return FittedControl(self.base.fit(training, seed=seed), self.control, order, seed)


def derangement(n: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Return a random order of ``n`` in which nothing stays in its place (as far as ``n`` > 1)."""
    order = np.random.default_rng(seed).permutation(n)
    result = np.empty(n, dtype=np.int64)
    result[order] = np.roll(order, 1)
    return result
