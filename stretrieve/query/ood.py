"""How far a patch lies from everything the reference holds, measured across patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.reference import Reference

MAX_CALIBRATION_SPOTS = 2000
_SEED = 0

Scores = npt.NDArray[np.float64]


def _groups(reference: Reference) -> npt.NDArray[np.object_]:
    for column in (keys.PATIENT, keys.SECTION, keys.SPOT_UID):
        values: npt.NDArray[np.object_] = reference.spots[column].to_numpy(dtype=object)
        if len(np.unique(values.astype(str))) > 1:
            return values
    return values


def reference_similarity(reference: Reference) -> Scores:
    """Return how near reference spots come to spots of *other* patients, sorted.

    Parameters
    ----------
    reference
        The reference. With a single patient, other sections take the place of other patients; with a
        single section, other spots do.

    Returns
    -------
    Scores
        ``(n_sample,)`` best image-to-image cosine similarity of a fixed sample of spots.
    """
    groups = _groups(reference)
    sample = np.sort(np.random.default_rng(_SEED).permutation(len(groups))[:MAX_CALIBRATION_SPOTS])
    best: list[Scores] = []
    embeddings = reference.embeddings("image")
    for group in sorted({str(g) for g in groups[sample]}):
        members = sample[groups[sample].astype(str) == group]
        others = groups.astype(str) != group
        if others.any():
            found = reference.search(embeddings[members], 1, modality="image", allowed=others)
            best.append(found.scores[:, 0])
    return np.sort(np.concatenate(best)) if best else np.empty(0)


def ood_score(
    reference: Reference,
    embeddings: Embeddings,
    *,
    allowed: npt.NDArray[np.bool_],
    calibration: Scores,
) -> Scores:
    """Return the share of reference spots that have a nearer match in another patient, ``(n,)``.

    Near 0 for a patch that looks like the reference, 1 for one that is farther away than any
    reference spot is from the other patients. NaN when the reference cannot tell.
    """
    if len(calibration) == 0:
        return np.full(len(embeddings), np.nan)
    nearest = reference.search(embeddings, 1, modality="image", allowed=allowed).scores[:, 0]
    above = len(calibration) - np.searchsorted(calibration, nearest, side="right")
    share: Scores = above / len(calibration)
    return share
