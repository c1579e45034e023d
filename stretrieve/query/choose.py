"""Choosing how to retrieve: every candidate is judged on patients that it may not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve.metrics.correlation import mean_over_genes, pearson_per_gene
from stretrieve.query.pool import ArrayPool, Mask, Positions, spot_positions
from stretrieve.query.predictor import Predictor
from stretrieve.query.retriever import Found, PoolFacts
from stretrieve.query.scale import by_section
from stretrieve.query.settings import Balance, Centring, Modality, RetrievalSettings
from stretrieve.query.weights import WeightScheme

MARGIN: Final = 0.002
"""A candidate has to be better than what stands by this much correlation."""

WIDTHS_UM: Final = (75.0, 150.0, 300.0)
"""Widths of smoothing over neighbouring patches."""

_SOFT: Final = {"weights": WeightScheme.SOFTMAX, "top_k": 200}

STAGES: Final[tuple[tuple[Mapping[str, Any], ...], ...]] = (
    tuple(
        {"modality": modality, "centring": centring}
        for modality in Modality
        for centring in Centring
    ),
    (
        {"top_k": 20},
        {"top_k": 100},
        {**_SOFT, "temperature": 0.05},
        {**_SOFT, "temperature": 0.1},
        {**_SOFT, "temperature": 0.2},
    ),
    ({"fusion": 0.25}, {"fusion": 0.75}),
    ({"balance": Balance.EQUAL},),
    tuple({"smoothing_um": width} for width in WIDTHS_UM),
    ({"companion": 0.25}, {"companion": 0.5}, {"companion": 0.75}),
)
"""Candidates of each stage, as changes to the best settings of the stage before."""


@dataclass(frozen=True)
class HeldOut:
    """One patient, and the pool that predicts the patient's spots.

    Parameters
    ----------
    name
        The patient; several where there are many.
    pool
        All spots, embedded by an embedder that has not seen the patient where it could be refitted.
    members
        The patient's spots.
    others
        ``(n_spots,)`` spots of everybody else.
    """

    name: str
    pool: ArrayPool
    members: Positions
    others: Mask


@dataclass(frozen=True)
class Answer:
    """A held-out section with what was found for it.

    Parameters
    ----------
    members
        Its spots.
    predictor, found
        What predicts them, without the patient.
    """

    members: Positions
    predictor: Predictor
    found: Found

    def compare(
        self, genes: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return truth, prediction and spread ``(n_spots, n_genes)``, NaN where not measured."""
        pool = self.predictor.pool
        predicted = self.predictor.impute(self.found, genes)
        truth = pool.log_expression(self.members, genes).toarray().astype(np.float64)
        columns = pool.genes.index.get_indexer(list(genes))
        measured = pool.measured[pool.section_index[self.members[0]], columns]
        truth = np.where(measured, truth, np.nan)
        return truth, predicted.mean, predicted.spread


def answers(fold: HeldOut, settings: RetrievalSettings, facts: PoolFacts) -> list[Answer]:
    """Search for the neighbours of each section of a held-out patient."""
    predictor = Predictor(fold.pool, settings, allowed=fold.others, facts=facts, score_ood=False)
    found = []
    for members in by_section(fold.pool, fold.members):
        vectors = fold.pool.embeddings("image", members)
        near = spot_positions(fold.pool, members)
        found.append(Answer(members, predictor, predictor.find_slide(vectors, near)))
    return found


class Judge:
    """Scores settings on held-out patients: mean Pearson r per gene, then per section, then per fold.

    Parameters
    ----------
    folds
        The held-out patients.
    genes
        Genes that count.
    """

    def __init__(self, folds: Sequence[HeldOut], genes: Sequence[str]) -> None:
        self._folds = [replace(fold, pool=fold.pool.with_genes(genes)) for fold in folds]
        self._facts = [PoolFacts(fold.pool) for fold in self._folds]
        self._genes = list(genes)
        self.seen: dict[RetrievalSettings, npt.NDArray[np.float64]] = {}

    @property
    def knows_positions(self) -> bool:
        """Whether the spots' positions on their sections are known."""
        return all(spot_positions(f.pool, f.members) is not None for f in self._folds)

    def scores(self, settings: RetrievalSettings) -> npt.NDArray[np.float64]:
        """Return the score of each fold ``(n_folds,)``."""
        if settings not in self.seen:
            both = zip(self._folds, self._facts, strict=True)
            self.seen[settings] = np.array([self._score(f, settings, facts) for f, facts in both])
        return self.seen[settings]

    def _score(self, fold: HeldOut, settings: RetrievalSettings, facts: PoolFacts) -> float:
        means = []
        for answer in answers(fold, settings, facts):
            truth, mean, _ = answer.compare(self._genes)
            means.append(mean_over_genes(pearson_per_gene(mean, truth)).mean)
        known = [mean for mean in means if np.isfinite(mean)]
        return float(np.mean(known)) if known else 0.0


def choose(judge: Judge, folds: Mask | None = None) -> RetrievalSettings:
    """Return the best settings over some folds, found stage by stage from the defaults.

    Parameters
    ----------
    judge
        What scores them.
    folds
        ``(n_folds,)`` folds that count; all when ``None``.
    """
    best = RetrievalSettings()
    for stage in STAGES:
        if "fusion" in stage[0] and best.modality is not Modality.FUSED:
            continue
        if "smoothing_um" in stage[0] and not judge.knows_positions:
            continue
        standing = _mean(judge.scores(best), folds)
        trials = [replace(best, **change) for change in stage]
        scores = [_mean(judge.scores(trial), folds) for trial in trials]
        if max(scores) > standing + MARGIN:
            best = trials[int(np.argmax(scores))]
    return best


def _mean(scores: npt.NDArray[np.float64], folds: Mask | None) -> float:
    return float(np.mean(scores if folds is None else scores[folds]))


def variable_genes(pool: ArrayPool, *, n_genes: int = 200) -> list[str]:
    """Return the genes, measured by every section, that vary most within sections.

    Parameters
    ----------
    pool
        The reference spots; the query has no part in the choice.
    n_genes
        How many.
    """
    variance = np.zeros(len(pool.genes))
    sections = np.unique(pool.section_index)
    for section in sections:
        values = pool.log_expression(np.flatnonzero(pool.section_index == section))
        mean = np.asarray(values.mean(axis=0, dtype=np.float64)).ravel()
        squares = np.asarray(values.power(2).mean(axis=0, dtype=np.float64)).ravel()
        variance += np.maximum(squares - mean**2, 0.0) / len(sections)
    common = pool.measured.all(axis=0)
    usable = common if common.any() else pool.measured.any(axis=0)
    order = np.argsort(-np.where(usable, variance, -1.0), kind="stable")[:n_genes]
    kept = np.sort(order[variance[order] > 0])
    return [str(pool.genes.index[i]) for i in kept]
