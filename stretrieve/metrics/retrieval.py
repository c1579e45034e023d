"""Does the search find the right spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import digamma

from stretrieve.errors import InputError, ShapeError, explain
from stretrieve.metrics._arrays import Array, dense

_CHUNK = 1024
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class PairedRanks:
    """Where each query's own partner stands among all keys.

    Parameters
    ----------
    better
        ``(n_query,)`` keys that score higher than the partner.
    ties
        ``(n_query,)`` other keys that score the same.
    n_keys
        Number of keys.
    """

    better: npt.NDArray[np.int64]
    ties: npt.NDArray[np.int64]
    n_keys: int


def paired_ranks(query: npt.ArrayLike, keys: npt.ArrayLike) -> PairedRanks:
    """Rank the partner of each query by cosine: row i of ``query`` belongs to row i of ``keys``.

    Parameters
    ----------
    query, keys
        ``(n, dim)``, for example image and expression embeddings of the same spots.

    Raises
    ------
    ShapeError
        When the shapes differ.
    InputError
        When either holds NaN or infinities.
    """
    left, right = dense(query, "query embeddings"), dense(keys, "key embeddings")
    if left.shape != right.shape or left.ndim != 2:
        raise ShapeError(
            explain(
                "paired embeddings", got=f"{left.shape} and {right.shape}", expected="one shape"
            )
        )
    if np.isnan(left).any() or np.isnan(right).any():
        raise InputError(explain("paired embeddings", got="NaN", expected="finite numbers"))
    left, right = _unit(left), _unit(right)
    own = np.einsum("ij,ij->i", left, right)[:, None]
    better, ties = [], []
    for start in range(0, len(left), _CHUNK):
        rows = slice(start, start + _CHUNK)
        scores = left[rows] @ right.T
        better.append((scores > own[rows] + _TIE).sum(axis=1))
        ties.append((np.abs(scores - own[rows]) <= _TIE).sum(axis=1) - 1)
    empty = [np.zeros(0, dtype=np.int64)]
    return PairedRanks(np.concatenate(better or empty), np.concatenate(ties or empty), len(right))


def _unit(vectors: Array) -> Array:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0))


def recall_at_k(ranks: PairedRanks, k: int) -> float:
    """Return the share of queries whose partner is among their ``k`` best keys.

    Ties are broken at random, in expectation: embeddings that have collapsed to one point score
    exactly chance, neither 0 nor 1.

    Parameters
    ----------
    ranks
        From :func:`paired_ranks`.
    k
        Neighbours looked at, 1 or more.
    """
    if k < 1:
        raise InputError(explain("k", got=k, expected="1 or more"))
    if not len(ranks.better):
        return float("nan")
    return float(np.clip((k - ranks.better) / (ranks.ties + 1), 0.0, 1.0).mean())


def chance_recall(k: int, n_keys: int) -> float:
    """Return the recall at ``k`` of random embeddings, ``k / n_keys``; print it beside the figure."""
    return min(1.0, k / n_keys)


def mean_reciprocal_rank(ranks: PairedRanks) -> float:
    """Return the mean of 1/rank of the partner, ties broken at random in expectation.

    Parameters
    ----------
    ranks
        From :func:`paired_ranks`.
    """
    if not len(ranks.better):
        return float("nan")
    total = digamma(ranks.better + ranks.ties + 2) - digamma(ranks.better + 1)
    return float((total / (ranks.ties + 1)).mean())


def chance_mrr(n_keys: int) -> float:
    """Return the mean reciprocal rank of random embeddings, the harmonic number over ``n_keys``."""
    return float((digamma(n_keys + 1) - digamma(1)) / n_keys)


def label_recall(
    neighbours: npt.ArrayLike, query_labels: npt.ArrayLike, key_labels: npt.ArrayLike
) -> float:
    """Return the share of queries with at least one neighbour of their own label.

    Parameters
    ----------
    neighbours
        ``(n_query, k)`` positions of keys; −1 for "none".
    query_labels, key_labels
        ``(n_query,)`` and ``(n_keys,)`` labels of region or cell type.
    """
    return float(_same_label(neighbours, query_labels, key_labels).any(axis=1).mean())


def label_precision(
    neighbours: npt.ArrayLike, query_labels: npt.ArrayLike, key_labels: npt.ArrayLike
) -> float:
    """Return the mean share of neighbours that have the query's label; "none" counts as wrong.

    Parameters
    ----------
    neighbours
        ``(n_query, k)`` positions of keys; −1 for "none".
    query_labels, key_labels
        ``(n_query,)`` and ``(n_keys,)`` labels.
    """
    return float(_same_label(neighbours, query_labels, key_labels).mean())


def _same_label(
    neighbours: npt.ArrayLike, query_labels: npt.ArrayLike, key_labels: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    found, wanted, labels = map(np.asarray, (neighbours, query_labels, key_labels))
    if found.ndim != 2 or len(found) != len(wanted) or found.size == 0:
        raise ShapeError(
            explain("neighbours", got=found.shape, expected=f"({len(wanted)}, k) with k above 0")
        )
    if found.max() >= len(labels):
        raise ShapeError(
            explain("neighbours", got=int(found.max()), expected=f"below {len(labels)}")
        )
    return np.asarray((labels[found] == wanted[:, None]) & (found >= 0))


def neighbour_overlap(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the mean share of ``k`` neighbours that two searches have in common.

    Parameters
    ----------
    first, second
        ``(n_query, k)`` positions without repeats, for example of an image search and of the
        molecular oracle; −1 for "none" never counts.
    """
    left, right = np.asarray(first), np.asarray(second)
    if left.shape != right.shape or left.ndim != 2 or left.size == 0:
        raise ShapeError(
            explain("neighbours", got=f"{left.shape} and {right.shape}", expected="one (n, k)")
        )
    shared = (left[:, :, None] == right[:, None, :]) & (left[:, :, None] >= 0)
    return float(shared.any(axis=2).mean())
