"""Size of errors, and how much of the variance a prediction keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stretrieve.metrics._arrays import Array, is_constant, n_pairs, paired, variance


def mae_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return the mean absolute error ``(n_genes,)`` over spots, in the unit of the input.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k. NaN pairs are left out; a gene without pairs is NaN.
    """
    left, right = paired(predicted, truth)
    return _column_mean(np.abs(left - right))


def mse_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return the mean squared error ``(n_genes,)`` over spots; NaN as in :func:`mae_per_gene`."""
    left, right = paired(predicted, truth)
    return _column_mean((left - right) ** 2)


def rvd_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return the relative variance difference ``(n_genes,)``.

    ``(var_pred − var_true)² / var_true²`` with population variances over spots (the definition of
    Stem; its mean over genes is the published figure). 0 is best; a constant prediction scores 1; a
    constant truth gives NaN.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k; NaN pairs are left out.
    """
    return np.asarray((variance_ratio_per_gene(predicted, truth) - 1.0) ** 2)


def variance_ratio_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Return predicted over true population variance ``(n_genes,)``; averaging shrinks it below 1.

    A constant prediction gives 0, a constant truth NaN. The median over genes is the usual summary.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k; NaN pairs are left out.
    """
    left, right = paired(predicted, truth)
    usable = ~is_constant(right) & (n_pairs(right) > 1)
    ratio = np.full(left.shape[1], np.nan)
    np.divide(variance(left), variance(right), out=ratio, where=usable)
    return ratio


def _column_mean(values: Array) -> Array:
    count = n_pairs(values)
    total = np.nansum(values, axis=0)
    return np.asarray(
        np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
    )
