"""M2OST's own regression head: no retrieval, the network's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stretrieve.embedders import Embedder
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import Inputs
from stretrieve.evaluation.lines.base import Fitted, Prediction, Training
from stretrieve.evaluation.lines.embedder import (
    COMPAT,
    REGRESSION,
    EmbedderLine,
    embed_expression,
    encode,
)
from stretrieve.evaluation.settings import EvaluationSettings
from stretrieve.evaluation.training_data import Matrix


class _Regressor(Protocol):
    @property
    def gene_names(self) -> tuple[str, ...]: ...
    def predict_expression(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class FittedRegression(Fitted):
    """A network that predicts expression itself.

    Parameters
    ----------
    embedder
        Fitted.
    genes
        Genes to predict.
    profile
        ``(n_genes,)`` mean of the training sections, for genes that the network does not predict.
    shift
        ``(n_predicted,)`` added to the network's values: from its own scale's mean over the training
        sections to that of log1p CP10k.
    epochs
        Passes over the training spots.
    """

    embedder: Any
    genes: tuple[str, ...]
    profile: Matrix
    shift: Matrix
    epochs: int

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Return the network's answer."""
        regressor: _Regressor = self.embedder
        values = regressor.predict_expression(encode(self.embedder, sample, inputs))
        known, columns = _shared(self.genes, regressor.gene_names)
        mean = np.tile(self.profile, (sample.section.n_spots, 1))
        mean[:, known] = values[:, columns] + self.shift
        return Prediction(mean)

    def facts(self) -> dict[str, Any]:
        """Return how long was trained and how many genes the network predicts."""
        return {"epochs": self.epochs, "genes": len(self.embedder.gene_names)}


class RegressionLine(EmbedderLine):
    """The regression head of an embedder that has one (M2OST), published or in our form."""

    def __init__(self, embedder: str, settings: EvaluationSettings, *, form: str) -> None:
        super().__init__(embedder, settings, form=form)
        self.title = f"{embedder}, regression head, " + (
            "as published" if form == COMPAT else "our form"
        )

    def configuration(self, *, seed: int) -> dict[str, Any]:
        """Return the configuration, with regression as objective."""
        config = super().configuration(seed=seed)
        if self.form == REGRESSION:
            config.setdefault("objective", REGRESSION)
        return config

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Train the network."""
        embedder, report = self.fit_embedder(training, seed=seed)
        profile = np.mean([t.mean(axis=0) for t in training.truth], axis=0)
        known, columns = _shared(training.genes, embedder.gene_names)
        shift = np.zeros(len(columns))
        if self.form == COMPAT:  # the published scale is embed_expression's, per million of a panel
            own = [embed_expression(embedder, s.section).mean(axis=0) for s in training.samples]
            shift = profile[known] - np.mean(own, axis=0)[columns]
        return FittedRegression(
            embedder=embedder,
            genes=training.genes,
            profile=profile,
            shift=shift,
            epochs=report.epochs,
        )


def _shared(
    genes: Sequence[str], own: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return positions of the genes that both have: among ``genes``, and among the network's."""
    where = {gene: i for i, gene in enumerate(own)}
    known = [i for i, gene in enumerate(genes) if gene in where]
    return np.array(known, dtype=np.int64), np.array(
        [where[genes[i]] for i in known], dtype=np.int64
    )


def has_regression(embedder: type[Embedder]) -> bool:
    """Return whether an embedder predicts expression by itself."""
    return hasattr(embedder, "predict_expression")
