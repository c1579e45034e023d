"""Batches that halve when memory runs out, on the host or on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stretrieve._logging import get_logger
from stretrieve.embedders.base import Embeddings
from stretrieve.errors import ResourceError, explain
from stretrieve.query.groups import MIN_ROWS
from stretrieve.slides.types import PatchBatch

_log = get_logger(__name__)
_SIGNS = ("can't allocate memory", "out of memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of NumPy, of torch or of a device says that memory is exhausted."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


class ThriftyEncoder:
    """Runs a backbone on batches, in halves once memory has run out.

    Batches are filled up to a multiple of 16 patches, below which some libraries switch to kernels
    that round differently; features therefore do not depend on how patches are batched.

    Parameters
    ----------
    encode
        The backbone, row-wise.
    """

    def __init__(self, encode: Callable[[PatchBatch], Embeddings]) -> None:
        self._encode = encode
        self._rows: int | None = None

    def __call__(self, batch: PatchBatch) -> Embeddings:
        """Return features ``(n_patches, feature_dim)``.

        Raises
        ------
        ResourceError
            When there is not memory enough for the smallest batch.
        """
        rows = self._rows or len(batch)
        while True:
            try:
                parts = [
                    self._filled(_rows(batch, slice(start, start + rows)))
                    for start in range(0, len(batch), rows)
                ]
                return np.concatenate(parts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if rows <= MIN_ROWS:
                    raise ResourceError(
                        explain(
                            "memory for the embedder",
                            got=f"not enough for {rows} patches",
                            remedy="close other programs, or use a machine with more memory",
                        )
                    ) from error
            rows = max(MIN_ROWS, rows // 2)
            self._rows = rows
            _log.warning("out of memory: going on with %d patches at a time", rows)

    def _filled(self, batch: PatchBatch) -> Embeddings:
        missing = -len(batch) % MIN_ROWS
        if not missing:
            return self._encode(batch)
        rows = np.minimum(np.arange(len(batch) + missing), len(batch) - 1)
        return self._encode(_rows(batch, rows))[: len(batch)]


def _rows(batch: PatchBatch, rows: slice | np.ndarray) -> PatchBatch:
    return PatchBatch(
        views=tuple(view[rows] for view in batch.views),
        xy=batch.xy[rows],
        xy_um=batch.xy_um[rows],
        indices=batch.indices[rows],
        status=batch.status[rows],
    )
