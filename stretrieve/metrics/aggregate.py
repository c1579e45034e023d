"""From sections to patients to one figure, and comparison of two methods over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from stretrieve.errors import ShapeError, explain
from stretrieve.metrics._arrays import Array, dense


@dataclass(frozen=True, slots=True)
class PatientMean:
    """A score averaged within patients first, then over patients.

    Parameters
    ----------
    mean
        Mean over patients; NaN when no section has a score.
    patients
        Names, sorted.
    values
        ``(n_patients,)`` mean of each patient's sections.
    n_sections
        Sections with a score.
    """

    mean: float
    patients: tuple[str, ...]
    values: Array
    n_sections: int


def patient_macro(scores: npt.ArrayLike, patients: Sequence[str]) -> PatientMean:
    """Average section scores within each patient, then over patients, so that none weighs more.

    Parameters
    ----------
    scores
        ``(n_sections,)``; NaN sections are left out, and so is a patient without any score.
    patients
        ``(n_sections,)`` patient of each section.

    Raises
    ------
    ShapeError
        When the lengths differ.
    """
    values, names = dense(scores, "scores"), np.asarray([str(p) for p in patients])
    if values.shape != names.shape:
        raise ShapeError(
            explain(
                "section scores", got=values.shape, expected=f"{len(names)}, one a patient name"
            )
        )
    known = ~np.isnan(values)
    kept = tuple(sorted({str(name) for name in names[known]}))
    means = np.asarray([values[known & (names == name)].mean() for name in kept])
    overall = float(means.mean()) if kept else float("nan")
    return PatientMean(overall, kept, means, int(known.sum()))


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Difference of two methods over the same patients.

    Parameters
    ----------
    difference
        Mean over patients of first minus second.
    low, high
        Percentile bootstrap interval over patients (level in ``confidence``).
    confidence
        Level of the interval.
    p_value
        Two-sided Wilcoxon signed-rank test; NaN when all differences are 0 or there are no two.
    n_patients
        Patients that both methods have a score for. The test cannot reach 0.05 below six.
    """

    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    n_patients: int


def compare_paired(
    first: PatientMean,
    second: PatientMean,
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two methods patient by patient; spots and genes are never the unit.

    Parameters
    ----------
    first, second
        Scores of both methods; only patients in both count.
    confidence
        Level of the bootstrap interval.
    n_resamples
        Resamples of patients.
    seed
        Seed of the resampling.
    """
    left = dict(zip(first.patients, first.values.tolist(), strict=True))
    right = dict(zip(second.patients, second.values.tolist(), strict=True))
    shared = sorted(left.keys() & right.keys())
    delta = np.asarray([left[name] - right[name] for name in shared])
    if not shared:
        nan = float("nan")
        return PairedComparison(nan, nan, nan, confidence, nan, 0)
    draws = np.random.default_rng(seed).integers(0, len(delta), (n_resamples, len(delta)))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(delta[draws].mean(axis=1), [tail, 1.0 - tail]).tolist()
    testable = len(delta) > 1 and bool((delta != 0).any())
    p_value = float(stats.wilcoxon(delta).pvalue) if testable else float("nan")
    return PairedComparison(float(delta.mean()), low, high, confidence, p_value, len(delta))
