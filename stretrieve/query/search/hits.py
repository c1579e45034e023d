"""Answers of a search: spots with scores, as a table and as AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import __version__, keys
from stretrieve.query.search.pool import Indices, ReferencePool
from stretrieve.query.search.queries import SpotQuery
from stretrieve.query.search.sides import Side
from stretrieve.query.search.spotdata import spots_to_anndata

if TYPE_CHECKING:
    import anndata as ad

SCHEMA_VERSION = 1
QUERY, RANK, SCORE = "query", "rank", "score"


@dataclass(frozen=True)
class Hits:
    """Reference spots found for each query, best first.

    Parameters
    ----------
    pool
        The references that were searched.
    query
        What was asked with.
    target
        Which embeddings were compared with.
    source, positions
        ``(n_query, top_k)`` number of the reference and position in it, −1 for none.
    scores
        ``(n_query, top_k)`` cosine similarity, −inf for none.
    notes
        What the reader of the answers should know.
    """

    pool: ReferencePool
    query: SpotQuery
    target: Side
    source: Indices
    positions: Indices
    scores: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def direction(self) -> str:
        """For example ``image->expression``."""
        return f"{self.query.modality.value}->{self.target.value}"

    def to_frame(self, *, thumbnails: bool = False) -> pd.DataFrame:
        """Return one row an answer: query, rank from 1, score, then what is known of the spot.

        Parameters
        ----------
        thumbnails
            Add a column with the JPEG image of every spot.
        """
        rows, columns = np.nonzero(self.positions >= 0)
        source, positions = self.source[rows, columns], self.positions[rows, columns]
        table = self.pool.metadata(source, positions).reset_index(drop=True)
        table.insert(0, QUERY, self.query.names[rows])
        table.insert(1, RANK, columns + 1)
        table.insert(2, SCORE, self.scores[rows, columns])
        if thumbnails:
            table[keys.THUMBNAIL] = self.pool.thumbnails(source, positions)
        return table

    def to_anndata(self, *, genes: Sequence[str] | None = None) -> ad.AnnData:
        """Return every spot that was found, once, with its measured expression.

        Parameters
        ----------
        genes
            Gene keys or symbols; all genes of the references when ``None``.

        Returns
        -------
        AnnData
            ``X`` log1p CP10k, NaN where a spot's section did not measure the gene;
            ``obs["n_queries"]`` and ``obs["best_score"]``; ``obsm["spatial"]`` level-0 px;
            ``obsm["X_stretrieve"]`` the embeddings compared with; ``uns["stretrieve"]["hits"]`` the
            table of query, rank, score and spot.
        """
        table = self.to_frame()
        found = self.positions >= 0
        pairs = np.stack([self.source[found], self.positions[found]], axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        source, positions = unique[:, 0], unique[:, 1]
        adata = spots_to_anndata(self.pool, source, positions, genes=genes)
        inverse = inverse.ravel()
        adata.obs["n_queries"] = np.bincount(inverse, minlength=len(unique))
        best = np.full(len(unique), -np.inf)
        np.maximum.at(best, inverse, self.scores[found])
        adata.obs["best_score"] = best
        adata.obsm[keys.JOINT] = self.pool.embeddings(self.target.value, source, positions)
        hits = table[[QUERY, RANK, SCORE]].assign(spot=adata.obs_names.to_numpy()[inverse])
        adata.uns[keys.UNS] = {**self.facts(), "hits": hits}
        return adata

    def facts(self) -> dict[str, Any]:
        """Return how the answers came about, as plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "direction": self.direction,
            "unit": keys.NORMALISATION,
            "references": self.pool.identities,
            "notes": np.array(self.notes, dtype=object),
        }
