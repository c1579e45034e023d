"""From embeddings to weighted neighbours in a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.errors import InputError, explain
from stretrieve.indexes import SearchResult
from stretrieve.query.pool import Pool
from stretrieve.query.settings import RetrievalSettings
from stretrieve.query.similarity import SpotSearch
from stretrieve.query.weights import (
    WeightScheme,
    bleep_weights,
    inverse_weights,
    keep_mass,
    softmax_weights,
    squared_distances,
    stgchb_weights,
    uniform_weights,
)

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
        ``(n_patches, top_k)`` scores, −inf for none: cosine, or what the settings ask for.
    """

    indices: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    similarity: npt.NDArray[np.float64]


def allowed_spots(
    pool: Pool,
    *,
    patient: str | None = None,
    section: str | None = None,
    filters: Mapping[str, str] | None = None,
) -> npt.NDArray[np.bool_]:
    """Return which reference spots may be used, ``(n_spots,)``.

    Parameters
    ----------
    pool
        The spots.
    patient
        The query's donor, whose own spots are left out; ``None`` when unknown.
    section
        The reference section that is on the query slide, if any; its spots are left out.
    filters
        Metadata column to the value it must have, for example ``{"organ": "breast"}``.

    Raises
    ------
    InputError
        When no spot is left.
    """
    spots = pool.spots
    filters = filters or {}
    own = {keys.PATIENT: patient, keys.SECTION: section}
    allowed = np.ones(len(spots), dtype=np.bool_)
    for column, value in own.items():
        if value is not None:
            allowed &= (spots[column] != value).to_numpy()
    for column, value in filters.items():
        allowed &= (spots[column] == value).to_numpy()
    if not allowed.any():
        asked = [f"{column} {value!r}" for column, value in filters.items()]
        asked += [f"{column}s other than {v!r}" for column, v in own.items() if v is not None]
        raise InputError(
            explain(
                "reference spots for this query",
                got=f"none with {' and '.join(asked)}",
                remedy="see what the reference holds with `stretrieve ref info`",
            )
        )
    return allowed


def slide_shift(
    pool: Pool, slide_mean: npt.NDArray[np.floating], *, allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return what moves a slide's mean embedding onto that of the pool's images, ``(dim,)``.

    Parameters
    ----------
    pool
        The spots; each section weighs the same.
    slide_mean
        ``(dim,)`` mean embedding of the slide's patches.
    allowed
        ``(n_spots,)`` spots that may be used.
    """
    stored = pool.embeddings("image")
    sections = pool.section_index
    means = [
        stored[(sections == section) & allowed].mean(axis=0, dtype=np.float64)
        for section in np.unique(sections[allowed])
    ]
    return np.asarray(np.mean(means, axis=0) - np.asarray(slide_mean, dtype=np.float64))


def retrieve(
    search: SpotSearch,
    pool: Pool,
    embeddings: Embeddings,
    *,
    settings: RetrievalSettings,
    allowed: npt.NDArray[np.bool_],
) -> Neighbours:
    """Search the nearest spots of each patch and weight them.

    Parameters
    ----------
    search
        The search that ``settings`` ask for.
    pool
        The spots.
    embeddings
        ``(n_patches, dim)``.
    settings
        How neighbours are weighted.
    allowed
        ``(n_spots,)`` spots that may be used.
    """
    found = search.search(embeddings, allowed=allowed)
    weights = weigh(found, pool, embeddings, settings)
    indices, scores = found.indices, found.scores
    if settings.top_p is not None:
        weights = keep_mass(weights, top_p=settings.top_p, k_min=settings.k_min)
        indices = np.where(weights > 0, indices, -1)
        scores = np.where(weights > 0, scores, -np.inf)
    return Neighbours(indices, weights, scores)


def weigh(
    found: SearchResult, pool: Pool, embeddings: Embeddings, settings: RetrievalSettings
) -> npt.NDArray[np.float64]:
    """Return the weights ``(n_patches, k)`` of the neighbours that were found."""
    indices = found.indices
    match settings.weights:
        case WeightScheme.BLEEP:
            return bleep_weights(_distances(pool, embeddings, indices, settings), indices)
        case WeightScheme.INVERSE:
            return inverse_weights(_distances(pool, embeddings, indices, settings), indices)
        case WeightScheme.SOFTMAX:
            return softmax_weights(found.scores, indices, temperature=settings.temperature)
        case WeightScheme.STGCHB:
            return stgchb_weights(found.scores, indices)
        case WeightScheme.UNIFORM:
            return uniform_weights(indices)


def _distances(
    pool: Pool,
    embeddings: Embeddings,
    indices: npt.NDArray[np.int64],
    settings: RetrievalSettings,
) -> npt.NDArray[np.float64]:
    """Return squared distances ``(n_patches, k)``, those to both embeddings weighted like scores."""
    distances = np.zeros(indices.shape)
    for modality, share in settings.sides().items():
        stored = pool.embeddings(modality.value)
        for start in range(0, len(indices), _BLOCK):
            part = slice(start, start + _BLOCK)
            distances[part] += share * squared_distances(embeddings[part], stored[indices[part]])
    return distances
