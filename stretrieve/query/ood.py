"""How far a patch lies from everything the reference holds, measured across patients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from stretrieve.embedders.base import Embeddings
from stretrieve.query.pool import Mask, Pool, Positions
from stretrieve.query.scale import make_folds, sample_spots

_USUAL = 0.99
_LEAST_DISTANCE = 1e-6
_SHRINKAGE = 0.01
_DECIMALS = 9

Scores = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Appearance:
    """Where image embeddings lie: a Gaussian around each section's mean, of one shape for all.

    Parameters
    ----------
    centres
        ``(n_sections, dim)`` means, whitened.
    whitening
        ``(dim, dim)`` that makes the scatter within sections round.
    """

    centres: Matrix
    whitening: Matrix

    @classmethod
    def fit(cls, vectors: Embeddings, sections: Positions) -> Self:
        """Learn from embeddings ``(n, dim)`` of spots and the section of each."""
        known, index = np.unique(sections, return_inverse=True)
        wide = vectors.astype(np.float64)
        means = np.stack([wide[index == i].mean(axis=0) for i in range(len(known))])
        residuals = wide - means[index]
        scatter = residuals.T @ residuals / len(wide)
        values, directions = np.linalg.eigh(scatter)
        floor = _SHRINKAGE * max(float(values.mean()), _LEAST_DISTANCE)
        whitening = directions / np.sqrt(np.maximum(values, 0.0) + floor)
        return cls(means @ whitening, whitening)

    def distance(self, vectors: Embeddings) -> Scores:
        """Return the Mahalanobis distance ``(n,)`` to the nearest section's mean.

        Rows do not depend on each other, not even in their last bits; nor, rounded, on threads.
        """
        white = np.einsum("nd,dk->nk", vectors.astype(np.float64), self.whitening)
        squares = np.full(len(white), np.inf)
        for centre in self.centres:
            squares = np.minimum(squares, np.einsum("nk,nk->n", white - centre, white - centre))
        return np.asarray(np.round(np.sqrt(squares), _DECIMALS))


@dataclass(frozen=True)
class Unlikeness:
    """How unlike the reference patches are.

    Parameters
    ----------
    score
        ``(n,)`` share of reference spots that lie nearer to the other patients. Near 0 for a patch
        that looks like the reference, 1 for one that is farther away than any reference spot is
        from the other patients.
    excess
        ``(n,)`` distance in units of that which 99 % of reference spots keep to the other patients.
    """

    score: Scores
    excess: Scores


@dataclass(frozen=True)
class Familiarity:
    """What a reference looks like, and how far its own patients lie from each other.

    Parameters
    ----------
    appearance
        Of all spots in use.
    usual
        Sorted distances of reference spots to the spots of *other* patients; to other sections with
        a single patient, to the section itself with a single section.

    Notes
    -----
    Cosine similarity, which retrieval goes by, cannot tell: in a joint space of few components some spot
    points the same way as anything. The distance does (Lee et al., NeurIPS 2018, with sections in
    place of classes).
    """

    appearance: Appearance
    usual: Scores

    @classmethod
    def fit(cls, pool: Pool, allowed: Mask) -> Self:
        """Learn from the spots that may be used ``(n_spots,)``."""
        sample = sample_spots(pool, allowed)
        sections, vectors = pool.section_index, pool.embeddings("image", np.flatnonzero(sample))
        appearance = Appearance.fit(vectors, sections[sample])
        usual = []
        for fold in make_folds(pool, sample):
            there = np.isin(np.unique(sections[sample]), sections[fold.others])
            near = replace(appearance, centres=appearance.centres[there])
            usual.append(near.distance(pool.embeddings("image", fold.members)))
        if not usual:  # a single spot
            usual.append(appearance.distance(vectors))
        return cls(appearance, np.sort(np.concatenate(usual)))

    def unlikeness(self, vectors: Embeddings) -> Unlikeness:
        """Compare patches ``(n, dim)`` with the reference."""
        distance = self.appearance.distance(vectors)
        limit = max(float(np.quantile(self.usual, _USUAL)), _LEAST_DISTANCE)
        nearer = np.searchsorted(self.usual, distance, side="left")
        return Unlikeness(nearer / len(self.usual), distance / limit)
