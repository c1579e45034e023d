"""Quality of cross-modal retrieval on held-out sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stretrieve.embedders.base import Embeddings, SectionPatches
from stretrieve.embedders.trainable import TrainableEmbedder

_BLOCK: Final = 1024


@dataclass(frozen=True)
class RetrievalQuality:
    """How well patches find their own expression among that of their section.

    Parameters
    ----------
    recall
        Share of spots whose own expression is among the ``k`` nearest.
    chance
        The same for random embeddings, ``k / n_spots``.
    rank
        Mean share of the other spots that rank below the own expression; one half by chance.
    """

    recall: float
    chance: float
    rank: float


def retrieval_quality(image: Embeddings, expression: Embeddings, *, k: int) -> RetrievalQuality:
    """Score paired embeddings of one section by cosine similarity.

    Parameters
    ----------
    image, expression
        ``(n_spots, dim)``; row ``i`` of both belongs to the same spot.
    k
        Neighbours that recall looks at; at most a fifth of the spots.

    Notes
    -----
    Ties count half, so that constant embeddings score chance.
    """
    n_spots = len(image)
    k = max(1, min(k, n_spots // 5))
    queries, keys = _directions(image), _directions(expression)
    better = np.empty(n_spots)
    for start in range(0, n_spots, _BLOCK):
        rows = slice(start, start + _BLOCK)
        similarity = queries[rows] @ keys.T
        own = np.take_along_axis(similarity, np.arange(n_spots)[rows, None], axis=1)
        tied = (similarity == own).sum(axis=1) - 1
        better[rows] = (similarity > own).sum(axis=1) + tied / 2
    return RetrievalQuality(
        recall=float((better < k).mean()),
        chance=k / n_spots,
        rank=float(1 - better.mean() / max(n_spots - 1, 1)),
    )


def validate(
    embedder: TrainableEmbedder, sections: Sequence[SectionPatches], *, k: int
) -> RetrievalQuality:
    """Return the mean quality over sections."""
    scores = []
    for patches in sections:
        section = patches.section
        image = embedder.project_patches(embedder.section_features(patches), section.xy_um)
        expression = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
        scores.append(retrieval_quality(image, expression, k=k))
    return RetrievalQuality(
        recall=float(np.mean([s.recall for s in scores])),
        chance=float(np.mean([s.chance for s in scores])),
        rank=float(np.mean([s.rank for s in scores])),
    )


def _directions(embeddings: Embeddings) -> Embeddings:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.where(norms > 0, norms, 1), dtype=np.float32)
