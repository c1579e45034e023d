"""Small pools of measured spots in memory."""

from __future__ import annotations

import numpy as np

from stretrieve.query import ArrayPool

GENES = [f"G{i}" for i in range(12)]


def make_pool(seed=0, patients="AABC", n_spots=30, dim=6, *, masked=False):
    """Sections of several patients whose expression follows their embeddings."""
    rng = np.random.default_rng(seed)
    sections = np.repeat([f"s{i}" for i in range(len(patients))], n_spots)
    donors = np.repeat(list(patients), n_spots)
    latent = rng.normal(size=(len(sections), dim))
    image = latent + 0.3 * rng.normal(size=latent.shape)
    values = np.maximum(latent @ rng.normal(size=(dim, len(GENES))) + 1, 0)
    measured = None
    if masked:
        measured = np.ones((len(patients), len(GENES)), dtype=bool)
        measured[0, :3] = measured[2, 2:5] = False
        values[~measured[np.repeat(np.arange(len(patients)), n_spots)]] = 0
    return ArrayPool.build(
        {"image": image, "expression": latent}, values, GENES,
        sections=list(sections), patients=list(donors), measured=measured,
    )  # fmt: skip


def queries(n=17, dim=6, seed=9):
    """Embeddings of patches."""
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
