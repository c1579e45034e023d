"""A fixed patch and the features it must give: catches weights that are silently not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import EmbedderMismatchError, explain

MIN_COSINE: Final = 0.9999
_DIGITS: Final = 7


def known_patch(patch_px: int) -> npt.NDArray[np.uint8]:
    """Return a fixed patch ``(1, patch_px, patch_px, 3)`` with structure at several scales."""
    generator = np.random.Generator(np.random.PCG64(20240607))
    total = np.zeros((patch_px, patch_px, 3))
    for cells in (2, 5, 11, 29):
        coarse = generator.random((cells, cells, 3))
        rows = np.arange(patch_px) * cells // patch_px
        total += coarse[rows][:, rows]
    return np.round(total / 4 * 255).astype(np.uint8)[None]


def known_answer(features: npt.NDArray[np.float32]) -> list[float]:
    """Return features ``(1, feature_dim)`` of the fixed patch as plain numbers."""
    return [float(f"{value:.{_DIGITS}g}") for value in np.asarray(features, np.float64).ravel()]


def check_known_answer(
    features: npt.NDArray[np.float32], stored: Sequence[float], *, name: str
) -> None:
    """Refuse an encoder whose features of the fixed patch differ from the stored ones.

    Raises
    ------
    EmbedderMismatchError
        When their cosine is below :data:`MIN_COSINE`.
    """
    got = np.asarray(features, dtype=np.float64).ravel()
    expected = np.asarray(stored, dtype=np.float64)
    if got.shape != expected.shape:
        raise _mismatch(name, f"{len(got)} features", f"{len(expected)} features")
    norm = float(np.linalg.norm(got) * np.linalg.norm(expected))
    cosine = float(got @ expected) / norm if norm > 0 else float(np.array_equal(got, expected))
    if not cosine >= MIN_COSINE:
        raise _mismatch(name, f"cosine {cosine:.4f}", f"at least {MIN_COSINE}")


def _mismatch(name: str, got: str, expected: str) -> EmbedderMismatchError:
    return EmbedderMismatchError(
        explain(
            f"known answer of embedder {name!r}",
            got=got,
            expected=expected,
            remedy="weights, preprocessing or library differ from those it was fitted with",
        )
    )
