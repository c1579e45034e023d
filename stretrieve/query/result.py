"""What a query returns: predictions, and the measured spots behind every one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.errors import InputError, OutputExistsError, explain
from stretrieve.query.expression import ExpressionSource
from stretrieve.query.impute import NEGLIGIBLE
from stretrieve.query.output import DISCLAIMER
from stretrieve.reference import Reference

OOD_LIMIT = 0.95
"""Patches above this out-of-distribution score are counted as such in summaries."""


@dataclass(frozen=True)
class QueryResult:
    """Imputed expression of one slide.

    Parameters
    ----------
    adata
        Predictions in the form of the output contract.
    warnings
        What the reader of these predictions should know.
    """

    adata: ad.AnnData
    warnings: tuple[str, ...]
    _reference: Reference = field(repr=False)
    _source: ExpressionSource = field(repr=False)

    def explain(self, patch: int | str, gene: str) -> pd.DataFrame:
        """Return the reference spots behind one predicted value.

        Parameters
        ----------
        patch
            Row number or name of the patch.
        gene
            Gene key or symbol.

        Returns
        -------
        DataFrame
            Columns ``spot_uid, section, patient, weight, value, similarity``, best neighbour first.
            ``sum(weight * value)`` is the prediction. Neighbours that did not measure the gene are
            left out and the others' weights sum to 1. ``similarity`` is the cosine.

        Raises
        ------
        InputError
            When the patch or gene is not part of this result.
        """
        row = self._row(patch)
        column = self._column(gene)
        local = np.asarray(self.adata.obsm[keys.NEIGHBOURS])[row]
        weights = np.asarray(self.adata.obsm[keys.WEIGHTS])[row]
        uids = np.asarray(self.adata.uns[keys.UNS]["neighbour_spot_uid"], dtype=object)[local]
        positions = self._reference.spots.index[
            pd.Index(self._reference.spots[keys.SPOT_UID]).get_indexer(uids)
        ].to_numpy()
        values, measured = self._source.values(positions, [self.adata.var_names[column]])
        votes = (local >= 0) & measured[:, 0] & (weights > NEGLIGIBLE)
        spots = self._reference.spots.iloc[positions[votes]]
        embedding = np.asarray(self.adata.obsm[keys.JOINT])[row]
        return pd.DataFrame(
            {
                keys.SPOT_UID: uids[votes],
                keys.SECTION: spots[keys.SECTION].to_numpy(),
                keys.PATIENT: spots[keys.PATIENT].to_numpy(),
                "weight": weights[votes] / weights[votes].sum(),
                "value": values[votes, 0],
                "similarity": self._similarity(embedding, positions[votes]),
            }
        )

    @property
    def disclaimer(self) -> str:
        """What every reader must know about predicted values."""
        return DISCLAIMER

    def summary(self) -> dict[str, Any]:
        """Return the key facts of this result as plain data."""
        uns = self.adata.uns[keys.UNS]
        ood = self.adata.obs[keys.OOD_SCORE].to_numpy()
        return {
            "slide": uns["slide"]["name"],
            "mpp": round(float(np.sqrt(uns["slide"]["mpp_x"] * uns["slide"]["mpp_y"])), 4),
            "mpp_source": uns["slide"]["mpp_source"],
            "patches": int(self.adata.n_obs),
            "patches_failed": int(uns["patches"]["failed"]),
            "genes": int(self.adata.n_vars),
            "top1_similarity": round(float(self.adata.obs[keys.TOP1_SIMILARITY].mean()), 4),
            "out_of_distribution": int((ood > OOD_LIMIT).sum()),
            "warnings": list(self.warnings),
        }

    def to_h5ad(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the predictions as ``.h5ad``, completely or not at all.

        Raises
        ------
        OutputExistsError
            When the file exists and ``overwrite`` is false.
        """
        final = Path(path)
        if final.exists() and not overwrite:
            raise OutputExistsError(
                explain(
                    "output", got=f"{final} exists", remedy="choose another name or --overwrite"
                )
            )
        with atomic_path(final) as temporary:
            self.adata.write_h5ad(temporary, compression="gzip")
        return final

    def _similarity(self, embedding: np.ndarray, positions: np.ndarray) -> np.ndarray:
        modality = self.adata.uns[keys.UNS]["settings"]["modality"]
        stored = self._reference.embeddings(modality, positions).astype(np.float64)
        query = embedding.astype(np.float64)
        norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(query)
        return np.asarray(stored @ query / np.where(norms > 0, norms, 1.0))

    def _row(self, patch: int | str) -> int:
        names = self.adata.obs_names
        row = patch if isinstance(patch, int) else int(names.get_indexer([patch])[0])
        if not 0 <= row < self.adata.n_obs:
            raise InputError(
                explain("patch", got=repr(patch), expected=f"0 to {self.adata.n_obs - 1} or a name")
            )
        return row

    def _column(self, gene: str) -> int:
        column = int(self.adata.var_names.get_indexer([gene])[0])
        if column < 0:
            symbols = self.adata.var[keys.GENE_SYMBOL].to_numpy()
            matches = np.flatnonzero(symbols == gene)
            if len(matches) != 1:
                raise InputError(
                    explain("gene", got=repr(gene), expected="one of the predicted genes")
                )
            column = int(matches[0])
        return column
