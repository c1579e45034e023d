"""Interval widths from errors on held-out patients. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

LEVELS: Final = (50, 80, 90)
"""Nominal coverage of the intervals that are calibrated, in percent."""

WRITTEN_LEVELS: Final = (80, 90)
"""Those that a query gives; the others are for judging a calibration."""

EPSILON: Final = 0.1
"""Added to the neighbours' spread, log1p CP10k: neighbours that agree are not certain."""

_LEAST: Final = 1e-3

Matrix = npt.NDArray[np.float64]


def nonconformity(truth: Matrix, mean: Matrix, spread: Matrix) -> Matrix:
    """Return ``|truth − mean| / (spread + EPSILON)``, ``(n_spots, n_genes)``."""
    return np.asarray(np.abs(truth - mean) / (spread + EPSILON))


def weighted_quantile(scores: Matrix, weights: Matrix, level: float) -> Matrix:
    """Return the smallest score ``(n_genes,)`` that a share of the weight does not exceed.

    Parameters
    ----------
    scores
        ``(n_spots, n_genes)``, NaN left out; a gene without scores gives NaN.
    weights
        ``(n_spots,)``, not negative.
    level
        The share, above 0, at most 1.
    """
    order = np.argsort(scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=0)
    mass = np.cumsum(np.where(np.isnan(ordered), 0.0, weights[order]), axis=0)
    rows = np.argmax(mass >= level * mass[-1] - 1e-12, axis=0)
    found = ordered[rows, np.arange(scores.shape[1])]
    return np.asarray(np.where(mass[-1] > 0, found, np.nan))


def patient_weights(sizes: Sequence[int], *, leave_out: int | None = None) -> Matrix:
    """Return the weight of each spot, patients weighing the same.

    Parameters
    ----------
    sizes
        Spots of each patient, in order.
    leave_out
        Patient without weight.
    """
    shares = [0.0 if i == leave_out else 1.0 / max(n, 1) for i, n in enumerate(sizes)]
    return np.repeat(shares, sizes)


def quantiles(scores: Sequence[Matrix], *, leave_out: int | None = None) -> dict[int, Matrix]:
    """Return the quantile ``(n_genes,)`` of each level over patients.

    Parameters
    ----------
    scores
        One array a patient, ``(n_spots, n_genes)``.
    leave_out
        Patient that has no part.
    """
    weights = patient_weights([len(part) for part in scores], leave_out=leave_out)
    stacked = np.concatenate(scores)
    return {level: weighted_quantile(stacked, weights, level / 100) for level in LEVELS}


def held_out_ratios(scores: Sequence[Matrix]) -> dict[int, list[Matrix]]:
    """Return scores of each patient in units of the other patients' quantiles.

    Parameters
    ----------
    scores
        One array a patient, ``(n_spots, n_genes)``.

    Returns
    -------
    dict
        Level to one array a patient. A ratio of at most 1 is covered by the other patients' interval.
    """
    ratios: dict[int, list[Matrix]] = {level: [] for level in LEVELS}
    for place, part in enumerate(scores):
        others = quantiles(scores, leave_out=place)
        for level in LEVELS:
            ratios[level].append(part / np.maximum(others[level], _LEAST))
    return ratios


def coverage(ratios: Sequence[Matrix], inflation: float = 1.0) -> float:
    """Return the share of values inside their interval; patients weigh the same."""
    shares = [
        float(np.mean(part[np.isfinite(part)] <= inflation))
        for part in ratios
        if np.isfinite(part).any()
    ]
    return float(np.mean(shares)) if shares else float("nan")


def inflation(ratios: Sequence[Matrix], level: int) -> float:
    """Return the factor, 1 or more, that makes intervals cover patients that had no part in them."""
    flat = [part[np.isfinite(part)][:, None] for part in ratios]
    if not sum(map(len, flat)):
        return 1.0
    weights = patient_weights([len(part) for part in flat])
    return max(1.0, float(weighted_quantile(np.concatenate(flat), weights, level / 100)[0]))
