"""Ridge-embedded retrieval, and who is held out among training patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import Inputs, Kind
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.lines.search import average, nearest, unit
from stretrieve.evaluation.training_data import Matrix
from stretrieve.models.joint import JointSettings, JointSpace, fit_joint_space

MAX_INNER_FOLDS: Final = 5
"""More training patients than this are held out in that many groups."""


@dataclass(frozen=True)
class FittedJoint(Fitted):
    """A joint space with the training spots in it.

    Parameters
    ----------
    space
        Maps features and centred expression.
    genes
        Genes of the expression side.
    keys
        ``(n_spots, dim)`` unit vectors of the training spots' expression.
    values
        ``(n_spots, n_genes)`` their expression, centred on its section.
    profile
        ``(n_genes,)`` added to every prediction.
    k
        Neighbours that are averaged.
    """

    space: JointSpace
    genes: tuple[str, ...]
    keys: Matrix
    values: Matrix
    profile: Matrix
    k: int

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Average the nearest training spots."""
        embedding = self.space.embed_features(inputs.features(sample)).astype(np.float64)
        found = nearest(unit(embedding), self.keys, self.k)
        mean, spread = average(found, self.values)
        return Prediction(
            mean + self.profile,
            doubt=spread.mean(axis=1),
            neighbours=found.indices,
            embedding=embedding,
        )

    def embed_expression(self, sample: Sample) -> Matrix:
        """Return the section's expression, centred on itself, in the joint space."""
        truth = np.nan_to_num(sample.truth(self.genes))
        return self.space.embed_expression(truth - truth.mean(axis=0)).astype(np.float64)

    def facts(self) -> dict[str, Any]:
        """Return the penalty that was chosen."""
        return {"alpha": self.space.alpha}


class JointLine(Line):
    """Ridge from features into 16 expression components; the nearest spots there are averaged.

    Parameters
    ----------
    joint
        Another closed form in place of the ridge.
    """

    name = "ridge-retrieval"
    title = "ridge-embedded retrieval"
    family = Family.RETRIEVAL

    def __init__(self, joint: JointSettings | None = None) -> None:
        self._joint = joint or JointSettings()

    def fit(self, training: Training, *, seed: int) -> FittedJoint:
        """Fit the joint space; its penalty is chosen on held-out training patients."""
        del seed
        centred = [t - t.mean(axis=0) for t in training.truth]
        space = fit_joint_space(
            [training.inputs.features(s, Kind.QUERY) for s in training.samples],
            centred,
            groups=[s.patient for s in training.samples],
            settings=self._joint,
        )
        values = np.concatenate(centred)
        return FittedJoint(
            space,
            training.genes,
            unit(space.embed_expression(values)),
            values,
            np.mean([t.mean(axis=0) for t in training.truth], axis=0),
            training.settings.top_k,
        )


def inner_splits(training: Training) -> Iterator[tuple[Training, tuple[Sample, ...]]]:
    """Hold out each training patient once; sections where there is one patient, else nothing.

    More than :data:`MAX_INNER_FOLDS` patients are dealt out to that many groups, in the order of
    their names.

    Yields
    ------
    tuple
        What is left to learn from, and the sections that were held out. With a single section both
        are that section.
    """
    samples = training.samples
    names = [s.patient for s in samples]
    if len(set(names)) == 1:
        names = [s.name for s in samples]
    if len(set(names)) == 1:
        yield training, samples
        return
    groups = {name: i % MAX_INNER_FOLDS for i, name in enumerate(sorted(set(names)))}
    for group in sorted(set(groups.values())):
        kept = tuple(s for s, n in zip(samples, names, strict=True) if groups[n] != group)
        out = tuple(s for s, n in zip(samples, names, strict=True) if groups[n] == group)
        yield replace(training, samples=kept), out
