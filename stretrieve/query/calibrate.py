"""Calibrating a reference on its own patients, each predicted from all the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve import __version__, keys
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.errors import InputError, explain
from stretrieve.metrics.correlation import pearson_per_gene
from stretrieve.query.calibration import Calibration, digest_genes
from stretrieve.query.choose import Answer, HeldOut, Judge, answers, choose, variable_genes
from stretrieve.query.conformal import (
    LEVELS,
    coverage,
    held_out_ratios,
    inflation,
    nonconformity,
    quantiles,
)
from stretrieve.query.pool import ArrayPool, Pool
from stretrieve.query.retriever import GENES_PER_BLOCK, PoolFacts
from stretrieve.query.scale import gene_blocks, make_folds, sample_spots
from stretrieve.query.settings import RetrievalSettings

MIN_PATIENTS: Final = 3
MAX_SPOTS: Final = 8_000
"""Spots that a calibration looks at; a fixed sample of larger references."""

_RATIO_GENES = 1000
_DETECTED = 0.1

Matrix = npt.NDArray[np.float64]


def calibration_pool(pool: Pool) -> ArrayPool:
    """Return the spots that a calibration looks at, in memory.

    Raises
    ------
    InputError
        When the pool has fewer than :data:`MIN_PATIENTS` patients.
    """
    n_patients = pool.spots[keys.PATIENT].nunique()
    if n_patients < MIN_PATIENTS:
        raise InputError(
            explain(
                "patients to calibrate on",
                got=n_patients,
                expected=f"{MIN_PATIENTS} or more",
                remedy="queries use the default settings and give no intervals",
            )
        )
    everything = np.ones(len(pool.section_index), dtype=np.bool_)
    return ArrayPool.of(pool, np.flatnonzero(sample_spots(pool, everything, MAX_SPOTS)))


def in_sample_folds(pool: ArrayPool) -> list[HeldOut]:
    """Return one fold a patient, with the embeddings as they are stored."""
    everything = np.ones(len(pool.spots), dtype=np.bool_)
    folds = make_folds(pool, everything)
    return [HeldOut(fold.name, pool, fold.members, fold.others) for fold in folds]


def calibrate(
    folds: Sequence[HeldOut], *, refitted: bool, progress: Progress = SILENT
) -> Calibration:
    """Choose settings and measure intervals and correlations on held-out patients.

    Parameters
    ----------
    folds
        The held-out patients.
    refitted
        Whether each fold's embedder was fitted without its patient.
    progress
        Told of every step.

    Notes
    -----
    The expected correlation of a patient comes from settings that were chosen without that patient.
    Interval widths come from the errors of all held-out patients under the final settings, each
    patient weighing the same, and are inflated until each patient is covered, on average, by the
    widths of the others.
    """
    genes = variable_genes(folds[0].pool)
    judge = Judge(folds, genes)
    with progress.task("choosing settings", len(folds) + 1) as task:
        settings = choose(judge)
        task.advance()
        nested = []
        for place in range(len(folds)):
            rest = np.arange(len(folds)) != place
            nested.append(choose(judge, rest))
            task.advance()
    pccs = np.array([judge.scores(own)[i] for i, own in enumerate(nested)])
    widths, facts = _measure(folds, settings, nested, progress)
    return Calibration(
        settings,
        {level: widths.quantiles[level] for level in LEVELS},
        widths.expected_pcc,
        digest_genes([str(gene) for gene in folds[0].pool.genes.index]),
        {
            "stretrieve": __version__,
            "embedder_refitted": refitted,
            "patients": [fold.name for fold in folds],
            "spots": sum(len(fold.members) for fold in folds),
            "scored_genes": len(genes),
            "nested_pcc": _rounded(pccs),
            "nested_pcc_mean": round(float(pccs.mean()), 4),
            "candidates": _candidates(judge),
            **facts,
        },
    )


def _candidates(judge: Judge) -> list[dict[str, Any]]:
    """Return every candidate by what it changes, with the score of each patient."""
    defaults = settings_to_dict(RetrievalSettings())
    ranked = sorted(judge.seen.items(), key=lambda item: -float(item[1].mean()))
    return [
        {
            "changes": {k: v for k, v in settings_to_dict(s).items() if v != defaults[k]},
            "mean": round(float(scores.mean()), 4),
            "patients": _rounded(scores),
        }
        for s, scores in ranked
    ]


@dataclass(frozen=True)
class _Widths:
    quantiles: dict[int, Matrix]
    expected_pcc: Matrix


def _measure(
    folds: Sequence[HeldOut],
    settings: RetrievalSettings,
    nested: Sequence[RetrievalSettings],
    progress: Progress,
) -> tuple[_Widths, dict[str, Any]]:
    """Go through all genes, block by block."""
    facts = [PoolFacts(fold.pool) for fold in folds]
    final = [answers(fold, settings, fact) for fold, fact in zip(folds, facts, strict=True)]
    own = [
        done if chosen == settings else answers(fold, chosen, PoolFacts(fold.pool))
        for fold, chosen, done in zip(folds, nested, final, strict=True)
    ]
    n_genes = len(folds[0].pool.genes)
    found = _Widths({level: np.full(n_genes, np.nan) for level in LEVELS}, np.full(n_genes, np.nan))
    ratios: dict[int, list[list[Matrix]]] = {level: [[] for _ in folds] for level in LEVELS}
    step = max(1, n_genes // _RATIO_GENES)
    with progress.task("calibrating genes", n_genes) as task:
        for columns, genes in gene_blocks(folds[0].pool, GENES_PER_BLOCK):
            scores = [np.concatenate(list(_scores(part, genes))) for part in final]
            for level, values in quantiles(scores).items():
                found.quantiles[level][columns] = values
            found.expected_pcc[columns] = _expected(own, genes)
            some = _informative(folds, genes)[::step]
            for level, parts in held_out_ratios([part[:, some] for part in scores]).items():
                for place, part in enumerate(parts):
                    ratios[level][place].append(part.ravel())
            task.advance(len(genes))
    joined = {level: [np.concatenate(p) for p in ratios[level]] for level in LEVELS}
    factors = {level: inflation(joined[level], level) for level in LEVELS}
    for level in LEVELS:
        found.quantiles[level] *= factors[level]
    return found, {
        "inflation": {str(level): round(factor, 4) for level, factor in factors.items()},
        "coverage_before_inflation": {
            str(level): round(coverage(joined[level]), 4) for level in LEVELS
        },
        "coverage": {
            str(level): {
                fold.name: round(coverage([part], factors[level]), 4)
                for fold, part in zip(folds, joined[level], strict=True)
            }
            for level in LEVELS
        },
    }


def _scores(part: Sequence[Answer], genes: Sequence[str]) -> Iterator[Matrix]:
    for answer in part:
        yield nonconformity(*answer.compare(genes))


def _expected(own: Sequence[Sequence[Answer]], genes: Sequence[str]) -> Matrix:
    """Return the mean over patients of the mean over sections of Pearson's r, ``(n_genes,)``."""
    patients = []
    for part in own:
        rows = []
        for answer in part:
            truth, mean, _ = answer.compare(genes)
            rows.append(pearson_per_gene(mean, truth))
        patients.append(_nanmean(np.array(rows)))
    return _nanmean(np.array(patients))


def _nanmean(values: Matrix) -> Matrix:
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.asarray(
        np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
    )


def _informative(folds: Sequence[HeldOut], genes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the genes that a tenth of the spots or more show; zeros are covered too easily."""
    pool = folds[0].pool
    everywhere = np.arange(len(pool.spots))
    detected = pool.log_expression(everywhere, genes).getnnz(axis=0) / len(everywhere)
    return np.flatnonzero(detected >= _DETECTED)


def _rounded(values: Matrix) -> list[float]:
    return [round(float(value), 4) for value in values]
