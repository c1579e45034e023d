"""Refusals that every embedder shares."""

from __future__ import annotations

import numpy as np

from stretrieve.embedders.base import Embeddings, SectionPatches
from stretrieve.errors import ConfigError, EmbedderMismatchError, explain
from stretrieve.slides.types import PatchBatch, PatchStatus
from stretrieve.specs import PatchSpec


def check_batch(batch: PatchBatch, spec: PatchSpec, *, name: str) -> None:
    """Refuse patches of another size or number of views than ``spec`` asks for.

    Raises
    ------
    EmbedderMismatchError
        When they differ.
    """
    wanted = [(view.patch_px, view.patch_px, 3) for view in spec.views]
    got = [view.shape[1:] for view in batch.views]
    if got != wanted or any(view.dtype != np.uint8 for view in batch.views):
        raise EmbedderMismatchError(
            explain(
                f"patches for embedder {name!r}",
                got=" + ".join(f"{shape}" for shape in got),
                expected=" + ".join(f"{shape}" for shape in wanted) + " uint8",
                remedy="read them with the embedder's own patch spec",
            )
        )


def check_features(features: Embeddings, width: int, *, name: str) -> None:
    """Refuse features of another width than the embedder was fitted on.

    Raises
    ------
    EmbedderMismatchError
        When they differ.
    """
    if features.ndim != 2 or features.shape[1] != width:
        raise EmbedderMismatchError(
            explain(f"features for embedder {name!r}", got=features.shape, expected=f"(n, {width})")
        )


def not_fitted(name: str) -> ConfigError:
    """Return the error for using an embedder that has learned nothing yet."""
    return ConfigError(
        explain(f"embedder {name!r}", got="not fitted", remedy="call fit() or load a saved one")
    )


def batch_of(patches: SectionPatches, rows: slice) -> PatchBatch:
    """Return some rows of a section's patches as a batch."""
    section = patches.section
    indices = np.arange(section.n_spots, dtype=np.int64)[rows]
    return PatchBatch(
        views=tuple(np.asarray(view[rows]) for view in patches.views),
        xy=section.xy[rows],
        xy_um=section.xy_um[rows],
        indices=indices,
        status=np.full(len(indices), PatchStatus.OK, dtype=np.uint8),
    )
