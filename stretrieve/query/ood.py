"""How far a patch lies from everything the reference holds, measured across patients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from stretrieve.embedders.base import Embeddings
from stretrieve.models.look import LEVELS, Looks
from stretrieve.query.look import looks_of_images
from stretrieve.query.pool import Mask, PicturedPool, Pool, Positions
from stretrieve.query.scale import make_folds, sample_spots

_USUAL = 0.99
_LEAST_DISTANCE = 1e-6
_DECIMALS = 9
_LOOKED_AT = 2000
"""Spots whose thumbnails are looked at."""

Scores = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Vectors = Embeddings | Looks


@dataclass(frozen=True)
class Scatter:
    """How the scatter of vectors around the means of their sections is measured.

    Parameters
    ----------
    shrinkage
        Share of the mean variance that is added to the variance in every direction.
    least_spread
        Each number is divided by its own standard deviation, or by this if that is larger, since
        their units differ; ``None`` where all numbers have one unit.
    """

    shrinkage: float = 0.01
    least_spread: float | None = None


OF_LOOKS = Scatter(shrinkage=0.03, least_spread=1 / LEVELS)


@dataclass(frozen=True)
class Appearance:
    """Where looks or image embeddings lie: a Gaussian around each section's mean, all of one shape.

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
    def fit(cls, vectors: Vectors, sections: Positions, how: Scatter = Scatter()) -> Self:
        """Learn from vectors ``(n, dim)`` of spots and the section of each."""
        known, index = np.unique(sections, return_inverse=True)
        wide = vectors.astype(np.float64)
        means = np.stack([wide[index == i].mean(axis=0) for i in range(len(known))])
        residuals = wide - means[index]
        units = np.ones(wide.shape[1])
        if how.least_spread is not None:
            units = np.maximum(residuals.std(axis=0), how.least_spread)
            residuals /= units
        scatter = residuals.T @ residuals / len(wide)
        values, directions = np.linalg.eigh(scatter)
        floor = how.shrinkage * max(float(values.mean()), _LEAST_DISTANCE)
        whitening = directions / np.sqrt(np.maximum(values, 0.0) + floor) / units[:, None]
        return cls(means @ whitening, whitening)

    def distance(self, vectors: Vectors) -> Scores:
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
    points the same way as anything. A distance can (Lee et al., NeurIPS 2018, with sections in place
    of classes), best of what patches look like: a joint space keeps what tells tissues of the
    reference apart and throws away most of what tells tissue from anything else.
    """

    appearance: Appearance
    usual: Scores

    @classmethod
    def of_embeddings(cls, pool: Pool, allowed: Mask) -> Self:
        """Learn from the image embeddings of the spots that may be used ``(n_spots,)``."""
        sample = sample_spots(pool, allowed)
        return cls._fit(pool, sample, pool.embeddings("image", np.flatnonzero(sample)), Scatter())

    @classmethod
    def of_looks(cls, pool: PicturedPool, allowed: Mask) -> Self:
        """Learn from the thumbnails of a sample of the spots that may be used ``(n_spots,)``."""
        sample = sample_spots(pool, allowed, _LOOKED_AT, in_pieces=False)
        looks = looks_of_images(pool.thumbnails(np.flatnonzero(sample)))
        return cls._fit(pool, sample, looks, OF_LOOKS)

    @classmethod
    def _fit(cls, pool: Pool, sample: Mask, vectors: Vectors, how: Scatter) -> Self:
        """Learn from the vectors ``(n_sampled, dim)`` of the spots in a sample ``(n_spots,)``."""
        spots, sections = np.flatnonzero(sample), pool.section_index
        appearance = Appearance.fit(vectors, sections[sample], how)
        usual = []
        for fold in make_folds(pool, sample):
            there = np.isin(np.unique(sections[sample]), sections[fold.others])
            near = replace(appearance, centres=appearance.centres[there])
            usual.append(near.distance(vectors[np.searchsorted(spots, fold.members)]))
        if not usual:  # a single spot
            usual.append(appearance.distance(vectors))
        return cls(appearance, np.sort(np.concatenate(usual)))

    def unlikeness(self, vectors: Vectors) -> Unlikeness:
        """Compare patches ``(n, dim)`` with the reference, by what it was learnt from."""
        distance = self.appearance.distance(vectors)
        limit = max(float(np.quantile(self.usual, _USUAL)), _LEAST_DISTANCE)
        nearer = np.searchsorted(self.usual, distance, side="left")
        return Unlikeness(nearer / len(self.usual), distance / limit)
