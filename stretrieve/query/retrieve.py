"""From embeddings to weighted neighbours in a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.errors import InputError, explain
from stretrieve.query.settings import QuerySettings
from stretrieve.query.weights import (
    WeightScheme,
    bleep_weights,
    inverse_weights,
    softmax_weights,
    squared_distances,
    uniform_weights,
)
from stretrieve.reference import Reference

_BLOCK = 256


@dataclass(frozen=True)
class Neighbours:
    """Reference spots found for each patch, best first.

    Parameters
    ----------
    indices
        ``(n_patches, top_k)`` positions in ``reference.spots``, −1 for none.
    weights
        ``(n_patches, top_k)``, rows summing to 1.
    similarity
        ``(n_patches, top_k)`` cosine similarity, −inf for none.
    """

    indices: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    similarity: npt.NDArray[np.float64]


def allowed_spots(
    reference: Reference, *, patient: str | None, filters: Mapping[str, str]
) -> npt.NDArray[np.bool_]:
    """Return which reference spots may be used, ``(n_spots,)``.

    Parameters
    ----------
    reference
        The reference.
    patient
        The query's donor, whose own spots are left out; ``None`` when unknown.
    filters
        Metadata column to the value it must have, for example ``{"organ": "breast"}``.

    Raises
    ------
    InputError
        When no spot is left.
    """
    spots = reference.spots
    allowed = np.ones(len(spots), dtype=np.bool_)
    if patient is not None:
        allowed &= (spots[keys.PATIENT] != patient).to_numpy()
    for column, value in filters.items():
        allowed &= (spots[column] == value).to_numpy()
    if not allowed.any():
        asked = [f"{column} {value!r}" for column, value in filters.items()]
        if patient is not None:
            asked.append(f"patients other than {patient!r}")
        raise InputError(
            explain(
                "reference spots for this query",
                got=f"none with {' and '.join(asked)}",
                remedy="see what the reference holds with `stretrieve ref info`",
            )
        )
    return allowed


def centre_embeddings(
    reference: Reference, embeddings: Embeddings, *, allowed: npt.NDArray[np.bool_]
) -> Embeddings:
    """Move the mean of a slide's embeddings onto that of the reference's image embeddings.

    Parameters
    ----------
    reference
        The reference; each of its sections weighs the same.
    embeddings
        ``(n_patches, dim)`` of one slide.
    allowed
        ``(n_spots,)`` reference spots that may be used.
    """
    stored = reference.embeddings("image")
    sections = reference.section_index
    means = [
        stored[(sections == section) & allowed].mean(axis=0, dtype=np.float64)
        for section in np.unique(sections[allowed])
    ]
    shift = np.mean(means, axis=0) - embeddings.mean(axis=0, dtype=np.float64)
    return np.asarray(embeddings + shift, dtype=np.float32)


def retrieve(
    reference: Reference,
    embeddings: Embeddings,
    *,
    settings: QuerySettings,
    allowed: npt.NDArray[np.bool_],
) -> Neighbours:
    """Search the nearest reference spots of each patch and weight them."""
    found = reference.search(
        embeddings, settings.top_k, modality=settings.modality.value, allowed=allowed
    )
    if settings.weights.needs_distances:
        distances = _distances(reference, embeddings, found.indices, settings)
        scheme = bleep_weights if settings.weights is WeightScheme.BLEEP else inverse_weights
        weights = scheme(distances, found.indices)
    elif settings.weights is WeightScheme.SOFTMAX:
        weights = softmax_weights(found.scores, found.indices, temperature=settings.temperature)
    else:
        weights = uniform_weights(found.indices)
    return Neighbours(found.indices, weights, found.scores)


def _distances(
    reference: Reference,
    embeddings: Embeddings,
    indices: npt.NDArray[np.int64],
    settings: QuerySettings,
) -> npt.NDArray[np.float64]:
    stored = reference.embeddings(settings.modality.value)
    distances = np.empty(indices.shape)
    for start in range(0, len(indices), _BLOCK):
        part = slice(start, start + _BLOCK)
        distances[part] = squared_distances(embeddings[part], stored[indices[part]])
    return distances
