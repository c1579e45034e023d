"""Are stated intervals and confidences true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from stretrieve.errors import InputError, ShapeError, explain
from stretrieve.metrics._arrays import Array, dense, is_constant, paired
from stretrieve.metrics.correlation import mean_over_genes, pearson_per_gene


def interval_coverage(truth: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Array:
    """Return the share ``(n_genes,)`` of spots whose truth lies in its interval, ends included.

    Parameters
    ----------
    truth, low, high
        ``(n_spots, n_genes)``. Where any is NaN the spot is left out; a gene without spots is NaN.

    Raises
    ------
    ShapeError
        When the shapes differ.
    """
    value, bottom = paired(truth, low)
    value, top = paired(value, high)
    known = ~np.isnan(value) & ~np.isnan(bottom) & ~np.isnan(top)
    inside = known & (value >= bottom) & (value <= top)
    count = known.sum(axis=0)
    result = np.full(value.shape[1], np.nan)
    np.divide(inside.sum(axis=0), count, out=result, where=count > 0)
    return result


def interval_width(low: npt.ArrayLike, high: npt.ArrayLike) -> Array:
    """Return the mean width ``(n_genes,)`` of intervals over spots, NaN left out.

    Parameters
    ----------
    low, high
        ``(n_spots, n_genes)``.
    """
    bottom, top = paired(low, high)
    count = np.isfinite(bottom).sum(axis=0)
    total = np.nansum(top - bottom, axis=0)
    return np.asarray(
        np.divide(total, count, out=np.full(bottom.shape[1], np.nan), where=count > 0)
    )


def width_error_agreement(
    uncertainty: npt.ArrayLike, error: npt.ArrayLike, *, across: str = "spots"
) -> float:
    """Return Spearman's ρ between stated uncertainty and absolute error.

    Parameters
    ----------
    uncertainty, error
        ``(n_spots, n_genes)``; the absolute value of ``error`` counts.
    across
        ``"spots"``: mean over genes of ρ across spots; ``"genes"``: ρ of the genes' means.
    """
    stated, actual = paired(uncertainty, np.abs(dense(error, "error")))
    if across == "spots":
        return mean_over_genes(_column_spearman(stated, actual)).mean
    if across != "genes":
        raise InputError(explain("across", got=repr(across), expected="'spots' or 'genes'"))
    means = [np.nanmean(side, axis=0)[:, None] for side in (stated, actual)]
    return float(_column_spearman(means[0], means[1])[0])


def _column_spearman(left: Array, right: Array) -> Array:
    flat = is_constant(left)
    ranks = [np.asarray(stats.rankdata(side, axis=0, nan_policy="omit")) for side in (left, right)]
    rho = pearson_per_gene(ranks[0], ranks[1])
    rho[flat & ~np.isnan(rho)] = 0.0
    return rho


def risk_coverage(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    spot_uncertainty: npt.ArrayLike,
    *,
    kept: Sequence[float] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
) -> Array:
    """Return the mean per-gene Pearson r when only the most certain spots are kept.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k.
    spot_uncertainty
        ``(n_spots,)``, higher = less certain; ties in the order of the spots.
    kept
        Shares of spots to keep, each above 0 and at most 1.

    Returns
    -------
    Array
        ``(len(kept),)`` mean r; useful uncertainty makes it rise as fewer spots are kept.

    Raises
    ------
    ShapeError
        When ``spot_uncertainty`` does not have one finite number a spot.
    InputError
        When a share is out of range.
    """
    left, right = paired(predicted, truth)
    doubt = dense(spot_uncertainty, "spot uncertainty")
    if doubt.shape != (len(left),) or np.isnan(doubt).any():
        raise ShapeError(
            explain("spot uncertainty", got=doubt.shape, expected=f"{len(left)} finite numbers")
        )
    if not all(0.0 < share <= 1.0 for share in kept):
        raise InputError(explain("kept shares", got=list(kept), expected="above 0, at most 1"))
    order = np.argsort(doubt, kind="stable")
    scores = []
    for share in kept:
        rows = order[: max(1, int(np.ceil(share * len(order))))]
        scores.append(mean_over_genes(pearson_per_gene(left[rows], right[rows])).mean)
    return np.asarray(scores)
