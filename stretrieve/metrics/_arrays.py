"""Checks and masked moments that every metric shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputError, ShapeError, explain

Array = npt.NDArray[np.float64]

CONSTANT_RTOL = 1e-7
"""A column counts as constant when its standard deviation is below this share of its mean size."""


def dense(values: Any, what: str) -> Array:
    """Return ``values`` as a float64 array; sparse matrices are filled.

    Raises
    ------
    InputError
        When it holds infinities.
    """
    filled = values if not hasattr(values, "toarray") else values.toarray()
    array = np.asarray(filled, dtype=np.float64)
    if np.isinf(array).any():
        raise InputError(explain(what, got="infinite values", expected="finite numbers or NaN"))
    return array


def paired(predicted: Any, truth: Any, *, ndim: int = 2) -> tuple[Array, Array]:
    """Return prediction and truth as float64 of one shape, NaN wherever either is NaN.

    Raises
    ------
    ShapeError
        When shapes or the number of axes differ.
    InputError
        When either holds infinities.
    """
    left, right = dense(predicted, "prediction"), dense(truth, "truth")
    if left.shape != right.shape or left.ndim != ndim:
        raise ShapeError(
            explain(
                "prediction and truth",
                got=f"{left.shape} and {right.shape}",
                expected=f"one shape with {ndim} axes",
            )
        )
    missing = np.isnan(left) | np.isnan(right)
    if missing.any():
        left, right = np.where(missing, np.nan, left), np.where(missing, np.nan, right)
    return left, right


def is_constant(values: Array) -> npt.NDArray[np.bool_]:
    """Return ``(n_columns,)``: the column does not vary (NaN left out)."""
    mean, spread = _moments(values)
    return np.asarray(spread <= CONSTANT_RTOL * np.maximum(np.abs(mean), 1e-12))


def _moments(values: Array) -> tuple[Array, Array]:
    count = np.maximum(np.isfinite(values).sum(axis=0), 1)
    mean = np.nansum(values, axis=0) / count
    variance = np.nansum((values - mean) ** 2, axis=0) / count
    return mean, np.sqrt(variance)


def variance(values: Array) -> Array:
    """Return the population variance ``(n_columns,)``, NaN left out."""
    return np.asarray(_moments(values)[1] ** 2)


def n_pairs(values: Array) -> npt.NDArray[np.int64]:
    """Return the number ``(n_columns,)`` of rows that are not NaN."""
    return np.asarray(np.isfinite(values).sum(axis=0), dtype=np.int64)


def column_pearson(left: Array, right: Array) -> Array:
    """Return Pearson's r ``(n_columns,)`` of paired arrays: left constant → 0, right constant → NaN.

    Fewer than two pairs give NaN.
    """
    left_mean, left_spread = _moments(left)
    right_mean, right_spread = _moments(right)
    count = np.maximum(n_pairs(left), 1)
    product = np.nansum((left - left_mean) * (right - right_mean), axis=0) / count
    scale = left_spread * right_spread
    flat_left, flat_right = is_constant(left), is_constant(right)
    usable = ~flat_left & ~flat_right & (scale > 0)
    r = np.divide(product, scale, out=np.zeros_like(product), where=usable)
    r = np.clip(r, -1.0, 1.0)
    r[flat_right | (n_pairs(left) < 2)] = np.nan
    return np.asarray(r)
