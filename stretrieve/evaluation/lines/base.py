"""What a line of the table is: it learns from training sections and predicts blind ones."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve._progress import SILENT, Progress
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.gene_sets import GeneSets
from stretrieve.evaluation.inputs import Inputs, Kind
from stretrieve.evaluation.settings import EvaluationSettings
from stretrieve.evaluation.training_data import Matrix, TrainingData


class Family(StrEnum):
    """What a line is for."""

    BASELINE = "baseline"
    RETRIEVAL = "retrieval"
    EMBEDDER = "embedder"
    ENGINE = "engine"
    ORACLE = "oracle"
    """Sees what a new slide does not have; a reference line, no rival."""
    CONTROL = "control"
    """Must sit at chance."""


@dataclass(frozen=True)
class Training:
    """What a line may learn from: training sections only.

    Parameters
    ----------
    samples
        Training sections.
    sets
        Gene sets frozen on them.
    inputs
        Gives features and patches.
    settings
        Settings of the evaluation.
    progress
        Told of long steps.
    """

    samples: tuple[Sample, ...]
    sets: GeneSets
    inputs: Inputs
    settings: EvaluationSettings
    progress: Progress = SILENT

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes to predict."""
        return self.sets.panel

    @functools.cached_property
    def truth(self) -> tuple[Matrix, ...]:
        """Log1p CP10k ``(n_spots, n_genes)`` of each section."""
        return tuple(sample.truth(self.genes) for sample in self.samples)

    @functools.cached_property
    def names(self) -> npt.NDArray[np.str_]:
        """``(n_spots,)`` section of each training spot."""
        return _repeated([s.name for s in self.samples], self.samples)

    @functools.cached_property
    def patients(self) -> npt.NDArray[np.str_]:
        """``(n_spots,)`` donor of each training spot."""
        return _repeated([s.patient for s in self.samples], self.samples)

    @functools.cached_property
    def labels(self) -> npt.NDArray[np.str_]:
        """``(n_spots,)`` label of each training spot, empty where there is none."""
        parts = [
            np.full(s.section.n_spots, "") if s.labels is None else s.labels for s in self.samples
        ]
        return np.concatenate(parts)

    def data(self, kind: Kind = Kind.QUERY) -> TrainingData:
        """Return features and expression of all training spots; patients are the groups."""
        return TrainingData.build(
            np.concatenate([self.inputs.features(s, kind) for s in self.samples]),
            np.concatenate(self.truth),
            self.names,
            groups=self.patients if len(set(self.patients)) > 1 else None,
        )


def _repeated(names: Sequence[str], samples: Sequence[Sample]) -> npt.NDArray[np.str_]:
    return np.repeat(np.asarray(names, dtype=np.str_), [s.section.n_spots for s in samples])


@dataclass(frozen=True)
class Prediction:
    """What a line says about one section.

    Parameters
    ----------
    mean
        ``(n_spots, n_genes)`` log1p CP10k.
    intervals
        Lower and upper ends ``(n_spots, n_genes)`` by nominal level.
    doubt
        ``(n_spots,)`` the line's own uncertainty, higher = less certain.
    neighbours
        ``(n_spots, k)`` training spots it looked at, best first; −1 for none.
    embedding
        ``(n_spots, dim)`` of the query in the joint space.
    """

    mean: Matrix
    intervals: Mapping[float, tuple[Matrix, Matrix]] = field(default_factory=dict)
    doubt: Matrix | None = None
    neighbours: npt.NDArray[np.int64] | None = None
    embedding: Matrix | None = None


class Fitted(ABC):
    """A line that has learnt."""

    @abstractmethod
    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Predict a section whose measurements are hidden.

        Parameters
        ----------
        sample
            The section, blind unless the line is an oracle.
        inputs
            Gives features and patches of it.
        """

    def embed_expression(self, sample: Sample) -> Matrix | None:
        """Return measured expression in the joint space, ``(n_spots, dim)``; ``None`` without one.

        Called after :meth:`predict`, to ask whether patches find their own expression.
        """
        del sample
        return None

    def facts(self) -> dict[str, Any]:
        """Return what was chosen in fitting, as plain JSON data."""
        return {}


class Line(ABC):
    """A line of the table.

    Parameters
    ----------
    name
        Short, unique, safe as a file name.
    title
        As printed.
    family
        What it is for.
    stochastic
        Whether the seed matters; a line without chance runs once.
    sees_truth
        Whether it is shown the measurements of the test section.
    """

    name: str
    title: str
    family: Family
    stochastic: bool = False
    sees_truth: bool = False

    @abstractmethod
    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Learn from training sections."""
