"""Expression of the spots that a query uses, read from the store once and kept within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve.embedders.base import Embeddings
from stretrieve.indexes import SearchResult
from stretrieve.query.impute import StoredRows
from stretrieve.query.pool import Mask, Pool, Positions, consecutive

MAX_SPOTS: Final = 4096
"""Spots whose expression is kept; a batch of patches should use no more."""


class CachedPool:
    """A pool of which the last spots asked for stay in memory, for some of the genes only.

    Consecutive blocks of genes ask for the same spots, and neighbouring patches for many of the same.

    Parameters
    ----------
    pool
        The spots.
    genes
        Genes that will be asked for; of others nothing is kept.
    """

    def __init__(self, pool: Pool, genes: Sequence[str]) -> None:
        self._pool = pool
        everything = len(genes) == len(pool.genes)
        self._genes = None if everything else list(genes)
        self._index = pool.genes.index if everything else pd.Index(list(genes))
        self._kept: Positions = np.empty(0, dtype=np.int64)
        self._rows = sparse.csr_matrix((0, len(self._index)), dtype=np.float32)

    @property
    def spots(self) -> pd.DataFrame:
        """One row a spot."""
        return self._pool.spots

    @property
    def section_index(self) -> Positions:
        """``(n_spots,)`` section of each spot."""
        return self._pool.section_index

    @property
    def genes(self) -> pd.DataFrame:
        """Index = gene key."""
        return self._pool.genes

    @property
    def measured(self) -> Mask:
        """``(n_sections, n_genes)`` which section measures which gene."""
        return self._pool.measured

    @property
    def dataset(self) -> str:
        """Name of the collection."""
        return self._pool.dataset

    def embeddings(self, modality: str, positions: Positions | None = None) -> Embeddings:
        """Return embeddings ``(n, dim)`` of some spots, or of all."""
        return self._pool.embeddings(modality, positions)

    def search(
        self,
        vectors: npt.ArrayLike,
        k: int,
        *,
        modality: str = "expression",
        allowed: Mask | None = None,
    ) -> SearchResult:
        """Return the nearest spots by cosine similarity, scored exactly in float64."""
        return self._pool.search(vectors, k, modality=modality, allowed=allowed)

    def log_expression(
        self, positions: Positions, genes: Sequence[str] | None = None
    ) -> sparse.csr_matrix:
        """Return log1p CP10k ``(n_positions, n_genes)`` float32."""
        wanted = [str(name) for name in self.genes.index] if genes is None else list(genes)
        positions = np.asarray(positions, dtype=np.int64)
        columns = self._index.get_indexer(wanted)
        if (columns < 0).any() or not _may_be_kept(positions):
            return self._pool.log_expression(positions, genes)
        return self._rows[self._load(positions)][:, columns]

    def stored_rows(self, positions: Positions, genes: Sequence[str]) -> StoredRows:
        """Return log1p CP10k of some spots and genes where it lies, if the genes follow each other."""
        span = consecutive(self._index.get_indexer(list(genes)))
        if span is None or not _may_be_kept(positions):
            return StoredRows.of(self.log_expression(positions, genes))
        rows = self._load(positions)
        return StoredRows.of(self._rows, rows, span)

    def _load(self, positions: Positions) -> Positions:
        """Return the rows of ascending positions, reading those that are not kept."""
        new = np.setdiff1d(positions, self._kept, assume_unique=True)
        if len(new):
            fresh = self._pool.log_expression(new, self._genes)
            self._keep(positions, new, fresh)
        return np.searchsorted(self._kept, positions)

    def _keep(self, positions: Positions, new: Positions, fresh: sparse.csr_matrix) -> None:
        stay = np.ones(len(self._kept), dtype=bool)
        if len(self._kept) + len(new) > MAX_SPOTS:
            stay = np.isin(self._kept, positions, assume_unique=True)
        together = np.concatenate([self._kept[stay], new])
        order = np.argsort(together)
        self._rows = sparse.vstack([self._rows[stay], fresh], format="csr")[order]
        self._rows.sort_indices()
        self._kept = together[order]


def _may_be_kept(positions: Positions) -> bool:
    ascending = len(positions) > 0 and bool((np.diff(positions) > 0).all())
    return ascending and len(positions) <= 2 * MAX_SPOTS
