"""Correlation of predicted and measured expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from stretrieve.errors import ShapeError, explain
from stretrieve.metrics._arrays import Array, column_pearson, dense, is_constant, paired


def pearson_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return Pearson's r of each gene over the spots of one section.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k. Pairs with NaN on either side are left out.

    Returns
    -------
    Array
        ``(n_genes,)`` in −1…1. A constant prediction scores 0; a constant truth gives NaN, which
        aggregation drops and counts.

    Raises
    ------
    ShapeError
        When the shapes differ.
    InputError
        When either holds infinities.
    """
    return column_pearson(*paired(predicted, truth))


def pearson_per_spot(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return Pearson's r ``(n_spots,)`` of each spot across genes.

    A profile that is the same everywhere already scores high here; always report
    :func:`constant_profile_per_spot` and the difference beside it.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k; NaN and constants as in :func:`pearson_per_gene`.
    """
    left, right = paired(predicted, truth)
    return column_pearson(left.T, right.T)


def constant_profile_per_spot(profile: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return what one fixed profile scores per spot: the baseline of :func:`pearson_per_spot`.

    Parameters
    ----------
    profile
        ``(n_genes,)`` mean expression of the *training* sections.
    truth
        ``(n_spots, n_genes)`` log1p CP10k of the test section.

    Raises
    ------
    ShapeError
        When ``profile`` does not have one number a gene.
    """
    mean, target = dense(profile, "profile"), dense(truth, "truth")
    if mean.ndim != 1 or target.ndim != 2 or len(mean) != target.shape[1]:
        raise ShapeError(
            explain("profile", got=f"{mean.shape} for truth {target.shape}", expected="(n_genes,)")
        )
    return pearson_per_spot(np.broadcast_to(mean, target.shape), target)


def spearman_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return Spearman's ρ ``(n_genes,)`` over spots, ties by mean rank.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)``; NaN and constants as in :func:`pearson_per_gene`.
    """
    left, right = paired(predicted, truth)
    flat = is_constant(left)
    ranks = [stats.rankdata(side, axis=0, nan_policy="omit") for side in (left, right)]
    rho = column_pearson(np.asarray(ranks[0]), np.asarray(ranks[1]))
    rho[flat & ~np.isnan(rho)] = 0.0
    rho[is_constant(right)] = np.nan
    return rho


@dataclass(frozen=True, slots=True)
class GeneMean:
    """Mean of a per-gene score, with what went into it.

    Parameters
    ----------
    mean
        Mean over genes with a score; NaN when there is none.
    n_valid
        Genes in the mean.
    n_dropped
        Genes left out because their truth is constant or missing.
    n_zeroed
        Genes in the mean whose score is exactly 0 because their prediction is constant.
    """

    mean: float
    n_valid: int
    n_dropped: int
    n_zeroed: int


def mean_over_genes(scores: npt.ArrayLike) -> GeneMean:
    """Return the mean of per-gene scores ``(n_genes,)`` and how many genes it stands for."""
    values = dense(scores, "scores").ravel()
    valid = values[~np.isnan(values)]
    return GeneMean(
        mean=float(valid.mean()) if valid.size else float("nan"),
        n_valid=int(valid.size),
        n_dropped=int(values.size - valid.size),
        n_zeroed=int((valid == 0.0).sum()),
    )
