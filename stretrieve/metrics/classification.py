"""Is a gene on or off: area under the receiver operating curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from stretrieve.errors import ShapeError, explain
from stretrieve.metrics._arrays import Array, dense, paired

MIN_PER_CLASS = 20
"""Spots that each class needs before its area is reported."""


def expression_thresholds(train_truth: npt.ArrayLike) -> Array:
    """Return the median over expressing training spots ``(n_genes,)``: above it a gene counts as on.

    Parameters
    ----------
    train_truth
        ``(n_spots, n_genes)`` log1p CP10k of training spots. A gene that none of them expresses gets
        0, so that any expression counts.
    """
    values = dense(train_truth, "training expression")
    expressed = np.where(values > 0, values, np.nan)
    thresholds = np.zeros(values.shape[1])
    some = np.isfinite(expressed).any(axis=0)
    thresholds[some] = np.nanmedian(expressed[:, some], axis=0)
    return thresholds


def auc_per_gene(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    *,
    min_per_class: int = MIN_PER_CLASS,
) -> Array:
    """Return the ROC-AUC ``(n_genes,)`` of finding the spots where a gene is on.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k; NaN pairs are left out.
    thresholds
        ``(n_genes,)`` from :func:`expression_thresholds` on training spots; ``truth`` above it is on.
    min_per_class
        Fewer spots on or off give NaN.

    Returns
    -------
    Array
        0…1, chance 0.5; a constant prediction scores 0.5 (ties count one half).

    Raises
    ------
    ShapeError
        When ``thresholds`` does not have one number a gene.
    """
    left, right = paired(predicted, truth)
    limit = dense(thresholds, "thresholds")
    if limit.shape != (left.shape[1],):
        raise ShapeError(
            explain("thresholds", got=limit.shape, expected=f"({left.shape[1]},), one a gene")
        )
    known = ~np.isnan(right)
    on = known & (right > limit)
    n_on, n_off = on.sum(axis=0), (known & ~on).sum(axis=0)
    ranks = np.asarray(stats.rankdata(left, axis=0, nan_policy="omit"))
    rank_sum = np.where(on, ranks, 0.0).sum(axis=0)
    wins = rank_sum - n_on * (n_on + 1) / 2
    area = np.full(left.shape[1], np.nan)
    enough = (n_on >= max(min_per_class, 1)) & (n_off >= max(min_per_class, 1))
    np.divide(wins, n_on * n_off, out=area, where=enough)
    return area
