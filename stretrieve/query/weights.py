"""From scores or distances of neighbours to weights that sum to one. Pure functions on arrays.

A neighbour that does not exist has index −1 and gets weight 0; a query without any neighbour has a row
of zeros.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ConfigError, ShapeError, explain

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_STGCHB_TEMPERATURE = 20.0
_ROUNDING = 1e-12


class WeightScheme(StrEnum):
    """How the neighbours of a query are weighted."""

    UNIFORM = "uniform"
    """Plain mean (BLEEP ``average``)."""
    BLEEP = "bleep"
    """Exponential of squared Euclidean distance (BLEEP ``weighted_average``)."""
    SOFTMAX = "softmax"
    """Softmax of the similarity over a temperature."""
    INVERSE = "inverse"
    """Reciprocal of squared Euclidean distance (mclSTExp)."""
    STGCHB = "stgchb"
    """Softmax of minus the score over 20 (ST-GCHB): its sign favours the worst neighbours."""


def _normalised(raw: Floats, indices: Indices) -> Floats:
    if raw.shape != indices.shape:
        raise ShapeError(explain("weights", got=raw.shape, expected=f"{indices.shape}"))
    raw = np.where(indices >= 0, raw, 0.0)
    total = raw.sum(axis=1, keepdims=True)
    weights: Floats = np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)
    return weights


def uniform_weights(indices: Indices) -> Floats:
    """Return equal weights ``(n_query, k)`` (BLEEP, *average*)."""
    return _normalised(np.ones(indices.shape), indices)


def softmax_weights(scores: Floats, indices: Indices, *, temperature: float) -> Floats:
    """Return ``softmax(score / temperature)`` over the neighbours, ``(n_query, k)``.

    Parameters
    ----------
    scores
        ``(n_query, k)`` similarities, higher is nearer.
    indices
        ``(n_query, k)`` neighbours, −1 for none.
    temperature
        Above 0, in units of the score.
    """
    if temperature <= 0:
        raise ConfigError(explain("temperature", got=temperature, expected="a number above 0"))
    known = np.where(indices >= 0, scores, -np.inf)
    best = np.max(known, axis=1, keepdims=True, initial=-np.inf)
    shifted = np.where(indices >= 0, known - np.where(np.isfinite(best), best, 0.0), 0.0)
    return _normalised(np.exp(shifted / temperature), indices)


def stgchb_weights(scores: Floats, indices: Indices) -> Floats:
    """Return ST-GCHB's ``softmax(-score / 20)``, ``(n_query, k)``; only for comparison with it.

    Source: ST-GCHB, inference notebook, method *weighted*; the sign is an error of the published code.
    """
    return softmax_weights(-scores, indices, temperature=_STGCHB_TEMPERATURE)


def keep_mass(weights: Floats, *, top_p: float, k_min: int) -> Floats:
    """Return weights of the fewest neighbours that reach a share of all weight, summing to 1.

    Parameters
    ----------
    weights
        ``(n_query, k)``, best neighbour first, rows summing to 1 (or 0).
    top_p
        Share to reach, above 0, at most 1.
    k_min
        Least number of neighbours.
    """
    before = np.cumsum(weights, axis=1) - weights
    ranks = np.arange(weights.shape[1])
    kept = np.where((ranks < k_min) | (before < top_p - _ROUNDING), weights, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    result: Floats = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    return result


def bleep_weights(squared_distances: Floats, indices: Indices) -> Floats:
    """Return BLEEP's ``exp(-(d - d_1 + 1))`` weights, ``(n_query, k)``.

    Parameters
    ----------
    squared_distances
        ``(n_query, k)`` squared Euclidean distances between embeddings as the encoder gives them,
        not normalised.
    indices
        ``(n_query, k)`` neighbours, best (by cosine) first, −1 for none.

    Notes
    -----
    The published code takes ``d_1``, the distance of the neighbour with the highest cosine, which need
    not be the smallest distance. After normalisation the weights do not depend on that constant, so the
    smallest distance is subtracted here: the same weights, without overflow. Source: BLEEP,
    ``BLEEP_inference.ipynb``, method *weighted_average*.
    """
    known = np.where(indices >= 0, squared_distances, np.inf)
    least = np.min(known, axis=1, keepdims=True, initial=np.inf)
    shifted = np.where(indices >= 0, known - np.where(np.isfinite(least), least, 0.0), 0.0)
    return _normalised(np.exp(-(shifted + 1.0)), indices)


def inverse_weights(squared_distances: Floats, indices: Indices) -> Floats:
    """Return mclSTExp's ``1 / d`` weights with ``d`` the squared distance, ``(n_query, k)``.

    A query that coincides with neighbours gives all weight to those, equally.
    """
    distances = np.where(indices >= 0, squared_distances, np.inf)
    exact = (distances <= 0).any(axis=1, keepdims=True)
    safe = np.where(distances > 0, distances, 1.0)
    raw = np.where(exact, (distances <= 0).astype(np.float64), 1.0 / safe)
    return _normalised(raw, indices)


def squared_distances(
    query: npt.NDArray[np.floating], neighbours: npt.NDArray[np.floating]
) -> Floats:
    """Return squared Euclidean distances ``(n_query, k)``.

    Parameters
    ----------
    query
        ``(n_query, dim)`` embeddings.
    neighbours
        ``(n_query, k, dim)`` embeddings of each query's neighbours.
    """
    difference = neighbours.astype(np.float64) - query.astype(np.float64)[:, None, :]
    squares: Floats = np.einsum("qkd,qkd->qk", difference, difference)
    return squares
