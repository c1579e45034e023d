"""How far a patch lies from everything the reference holds, measured across patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.query.pool import Mask, Pool

MAX_CALIBRATION_SPOTS = 2000
_SEED = 0
_USUAL = 0.99
_LEAST_DISTANCE = 1e-6

Scores = npt.NDArray[np.float64]


def _groups(pool: Pool, members: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    values: npt.NDArray[np.str_] = np.empty(0, dtype=np.str_)
    for column in (keys.PATIENT, keys.SECTION, keys.SPOT_UID):
        values = np.asarray(pool.spots[column].to_numpy(dtype=object)[members], dtype=np.str_)
        if len(np.unique(values)) > 1:
            return values
    return values


def reference_similarity(pool: Pool, allowed: Mask) -> Scores:
    """Return how near the spots in use come to spots of *other* patients, sorted.

    Parameters
    ----------
    pool
        The spots. With a single patient, other sections take the place of other patients; with a
        single section, other spots do.
    allowed
        ``(n_spots,)`` spots in use.

    Returns
    -------
    Scores
        ``(n_sample,)`` best image-to-image cosine similarity of a fixed sample of spots.
    """
    members = np.flatnonzero(allowed)
    groups = _groups(pool, members)
    shuffled = np.random.default_rng(_SEED).permutation(len(members))
    sample = np.sort(shuffled[:MAX_CALIBRATION_SPOTS])
    best: list[Scores] = []
    for group in np.unique(groups[sample]):
        asking = members[sample[groups[sample] == group]]
        others = np.zeros(len(allowed), dtype=np.bool_)
        others[members[groups != group]] = True
        if others.any():
            vectors = pool.embeddings("image", asking)
            best.append(pool.search(vectors, 1, modality="image", allowed=others).scores[:, 0])
    return np.sort(np.concatenate(best)) if best else np.empty(0)


@dataclass(frozen=True)
class Unlikeness:
    """How unlike the reference patches are.

    Parameters
    ----------
    score
        ``(n,)`` share of reference spots that have a nearer match in another patient. Near 0 for a
        patch that looks like the reference, 1 for one that is farther away than any reference spot is
        from the other patients. NaN when the reference cannot tell.
    excess
        ``(n,)`` cosine distance to the nearest spot, in units of the distance that 99 % of reference
        spots keep to the other patients.
    """

    score: Scores
    excess: Scores


def unlikeness(
    pool: Pool, embeddings: Embeddings, *, allowed: Mask, calibration: Scores
) -> Unlikeness:
    """Compare patches ``(n, dim)`` with the spots in use; see :func:`reference_similarity`."""
    if len(calibration) == 0:
        unknown = np.full(len(embeddings), np.nan)
        return Unlikeness(unknown, unknown)
    nearest = pool.search(embeddings, 1, modality="image", allowed=allowed).scores[:, 0]
    above = len(calibration) - np.searchsorted(calibration, nearest, side="right")
    usual = 1 - float(np.quantile(calibration, 1 - _USUAL))
    return Unlikeness(above / len(calibration), (1 - nearest) / max(usual, _LEAST_DISTANCE))
