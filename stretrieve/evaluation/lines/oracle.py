"""The molecular oracle: how far neighbours get when the query's own expression is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import Inputs, MolecularSpace, query_genes
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.lines.search import Found, average, nearest, unit
from stretrieve.evaluation.training_data import Matrix

_MIN_OUTSIDE = 100


@dataclass(frozen=True)
class Pass:
    """One molecular query and the genes that it may predict.

    Parameters
    ----------
    space
        Components of the query genes.
    keys
        ``(n_spots, n_components)`` unit vectors of the training spots.
    columns
        Genes of the panel that it predicts.
    """

    space: MolecularSpace
    keys: Matrix
    columns: npt.NDArray[np.int64]

    def search(self, sample: Sample, k: int) -> Found:
        """Return the nearest training spots of a section."""
        return nearest(unit(self.space.embed(sample)), self.keys, k)


@dataclass(frozen=True)
class FittedOracle(Fitted):
    """Molecular neighbours."""

    passes: tuple[Pass, ...]
    values: Matrix
    k: int

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Average the molecular neighbours; a gene is never predicted from itself."""
        del inputs
        mean = np.empty((sample.section.n_spots, self.values.shape[1]))
        doubt = np.zeros(len(mean))
        neighbours = None
        for one in self.passes:
            found = one.search(sample, self.k)
            mean[:, one.columns], spread = average(found, self.values[:, one.columns])
            doubt += spread.sum(axis=1)
            neighbours = found.indices if neighbours is None else neighbours
        return Prediction(mean, doubt=doubt, neighbours=neighbours)


class OracleLine(Line):
    """Cosine neighbours in 50 components of genes that are not predicted, raw expression averaged.

    Half of the detected genes outside the scored panel make the query. Where too few are left
    outside, the panel is cut in two and each half is predicted from the other.
    """

    name = "molecular-oracle"
    title = "molecular-oracle kNN (sees the spot's other genes)"
    family = Family.ORACLE
    stochastic = True
    sees_truth = True

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Learn the components of the query genes."""
        passes = tuple(
            self._pass(training, query, columns) for query, columns in _cuts(training, seed)
        )
        return FittedOracle(passes, np.concatenate(training.truth), training.settings.top_k)

    @staticmethod
    def _pass(training: Training, query: tuple[str, ...], columns: npt.NDArray[np.int64]) -> Pass:
        space = MolecularSpace.fit(training.samples, query)
        keys = np.concatenate([space.embed(sample) for sample in training.samples])
        return Pass(space, unit(keys), columns)


def _cuts(training: Training, seed: int) -> list[tuple[tuple[str, ...], npt.NDArray[np.int64]]]:
    genes = training.genes
    shared = set.intersection(*(set(s.section.gene_names) for s in training.samples))
    if len(shared - set(genes)) >= _MIN_OUTSIDE:
        everything = np.arange(len(genes))
        return [(query_genes(training.samples, genes, seed=seed), everything)]
    order = np.random.default_rng(seed).permutation(len(genes))
    halves = [np.sort(half) for half in np.array_split(order, 2)]
    names = [tuple(genes[i] for i in half) for half in halves]
    return [(names[1], halves[0]), (names[0], halves[1])]
