"""What a query returns: predictions, and the measured spots behind every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.errors import InputError, OutputExistsError, explain
from stretrieve.query.export import export_geojson
from stretrieve.query.groups import RowStatus
from stretrieve.query.output import DISCLAIMER
from stretrieve.query.predictor import Predictor


def summarise(obs: pd.DataFrame, uns: Mapping[str, Any], n_genes: int) -> dict[str, Any]:
    """Return the key facts of a query as plain data.

    Parameters
    ----------
    obs, uns
        Of the output contract; ``uns`` is its own part.
    n_genes
        Genes predicted.
    """
    return {
        "slide": uns["slide"]["name"],
        "mpp": round(float(np.sqrt(uns["slide"]["mpp_x"] * uns["slide"]["mpp_y"])), 4),
        "mpp_source": uns["slide"]["mpp_source"],
        "patches": len(obs),
        "patches_failed": int(uns["patches"]["failed"]),
        "genes": n_genes,
        "top1_similarity": round(float(obs[keys.TOP1_SIMILARITY].mean()), 4),
        "out_of_distribution": int((obs[keys.STATUS] == RowStatus.OOD.value).sum()),
        "warnings": [str(warning) for warning in uns["warnings"]],
    }


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
    _predictor: Predictor = field(repr=False)

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
            Columns ``spot_uid, section, patient, dataset, weight, value, similarity``, best neighbour
            first; see :meth:`~stretrieve.query.predictor.Predictor.explain`.

        Raises
        ------
        InputError
            When the patch or gene is not part of this result.
        """
        row = self._row(patch)
        column = self._column(gene)
        local = np.asarray(self.adata.obsm[keys.NEIGHBOURS])[row]
        weights = np.asarray(self.adata.obsm[keys.WEIGHTS])[row]
        uids = np.asarray(self.adata.uns[keys.UNS]["neighbour_spot_uid"], dtype=object)
        smoothed = self.adata.obsm.get(keys.SMOOTHED)
        named = pd.Index(self._predictor.pool.spots[keys.SPOT_UID]).get_indexer(uids)
        return self._predictor.explain(
            str(self.adata.var_names[column]),
            np.where(local >= 0, named[local], -1),
            weights,
            embedding=np.asarray(self.adata.obsm[keys.JOINT])[row],
            smoothed=None if smoothed is None else np.asarray(smoothed)[row],
        )

    @property
    def disclaimer(self) -> str:
        """What every reader must know about predicted values."""
        return DISCLAIMER

    def summary(self) -> dict[str, Any]:
        """Return the key facts of this result as plain data."""
        return summarise(self.adata.obs, self.adata.uns[keys.UNS], self.adata.n_vars)

    def to_h5ad(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the predictions as ``.h5ad``, completely or not at all.

        Raises
        ------
        OutputExistsError
            When the file exists and ``overwrite`` is false.
        """
        final = Path(path)
        _check_free(final, overwrite=overwrite)
        with atomic_path(final) as temporary:
            self.adata.write_h5ad(temporary, compression="gzip")
        return final

    def to_geojson(
        self,
        path: Path | str,
        *,
        genes: Sequence[str] | None = None,
        objects: str = "detection",
        overwrite: bool = False,
    ) -> Path:
        """Write the patches as QuPath objects, with the values of some genes as measurements.

        Parameters
        ----------
        path
            GeoJSON file to write.
        genes
            Gene keys or symbols; the 20 whose predictions vary most when ``None``.
        objects
            ``"detection"`` or ``"annotation"``.
        overwrite
            Replace the file when it exists.

        Raises
        ------
        OutputExistsError
            When the file exists and ``overwrite`` is false.
        GenePanelError
            When a gene is not among the predicted ones.
        """
        final = Path(path)
        _check_free(final, overwrite=overwrite)
        export_geojson(self.adata, final, genes=genes, objects=objects)
        return final

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


def _check_free(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputExistsError(
            explain("output", got=f"{path} exists", remedy="choose another name or --overwrite")
        )
