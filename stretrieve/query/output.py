"""The output contract: one plain AnnData that opens everywhere (schema in docs/output.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve.config import settings_to_dict
from stretrieve.query.impute import Imputed
from stretrieve.query.retrieve import Neighbours
from stretrieve.query.settings import QuerySettings
from stretrieve.reference import Reference
from stretrieve.slides import Slide
from stretrieve.slides.types import PatchStatus

SCHEMA_VERSION = 1
DISCLAIMER = "predicted expression, research use only; not measured"
HIRES_PX = 2000
LOWRES_PX = 600


@dataclass(frozen=True)
class Predictions:
    """Everything a query found out about a slide's patches, before it becomes AnnData.

    Parameters
    ----------
    names, xy, tissue_fraction, status
        One value or row a patch; ``xy`` in level-0 px.
    embeddings
        ``(n_patches, dim)``.
    neighbours
        Reference spots behind each patch.
    ood
        ``(n_patches,)`` out-of-distribution score.
    imputed
        ``(n_patches, n_genes)`` arrays.
    genes
        Gene keys, in the order of ``imputed``.
    n_failed
        Patches that could not be read and are not among the rows.
    """

    names: npt.NDArray[np.str_]
    xy: npt.NDArray[np.float64]
    tissue_fraction: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint8]
    embeddings: npt.NDArray[np.float32]
    neighbours: Neighbours
    ood: npt.NDArray[np.float64]
    imputed: Imputed
    genes: list[str]
    n_failed: int


def assemble(
    predictions: Predictions,
    *,
    slide: Slide,
    reference: Reference,
    settings: QuerySettings,
    context: Mapping[str, Any],
) -> ad.AnnData:
    """Return predictions as AnnData with every key of the output contract.

    Parameters
    ----------
    predictions
        What the query found.
    slide
        The slide, still open.
    reference
        The reference that was searched.
    settings
        How it was searched.
    context
        Facts about this query (patient, filters, warnings) for ``uns["stretrieve"]``.
    """
    neighbours = predictions.neighbours
    used, local = _local_neighbours(neighbours.indices)
    adata = ad.AnnData(
        X=predictions.imputed.mean.astype(np.float32),
        obs=_obs(predictions, slide),
        var=_var(predictions, reference),
        layers={
            keys.SPREAD: predictions.imputed.spread.astype(np.float32),
            keys.N_EFFECTIVE: predictions.imputed.n_effective.astype(np.float32),
        },
        obsm={
            keys.SPATIAL: predictions.xy,
            keys.JOINT: predictions.embeddings.astype(np.float32),
            keys.NEIGHBOURS: local,
            keys.WEIGHTS: neighbours.weights,
        },
    )
    adata.uns[keys.SPATIAL] = _spatial(slide, reference)
    adata.uns[keys.UNS] = _without_none(
        {
            "schema_version": SCHEMA_VERSION,
            "disclaimer": DISCLAIMER,
            "unit": keys.NORMALISATION,
            "reference": reference.identity,
            "settings": settings_to_dict(settings),
            "slide": {
                "name": slide.path.name,
                "mpp_x": float(slide.pixel_size.x),
                "mpp_y": float(slide.pixel_size.y),
                "mpp_source": slide.pixel_size.source.value,
            },
            "patches": {"predicted": len(predictions.names), "failed": predictions.n_failed},
            "neighbour_spot_uid": reference.spots[keys.SPOT_UID].to_numpy(dtype=object)[used],
            **context,
        }
    )
    return adata


def _local_neighbours(
    indices: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    used = np.unique(indices[indices >= 0])
    local = np.where(indices >= 0, np.searchsorted(used, indices), -1)
    return used, local.astype(np.int32)


def _obs(predictions: Predictions, slide: Slide) -> pd.DataFrame:
    xy_um = slide.pixel_size.to_um(predictions.xy)
    similarity = predictions.neighbours.similarity
    known = np.isfinite(similarity)
    total = np.where(known, similarity, 0.0).sum(axis=1)
    return pd.DataFrame(
        {
            keys.X_UM: xy_um[:, 0],
            keys.Y_UM: xy_um[:, 1],
            keys.TISSUE_FRACTION: predictions.tissue_fraction,
            keys.TOP1_SIMILARITY: similarity[:, 0],
            keys.MEAN_SIMILARITY: total / np.maximum(known.sum(axis=1), 1),
            keys.OOD_SCORE: predictions.ood,
            keys.STATUS: pd.Categorical(
                [PatchStatus(value).name.lower() for value in predictions.status]
            ),
        },
        index=pd.Index(predictions.names.astype(str).tolist(), name="patch"),
    )


def _var(predictions: Predictions, reference: Reference) -> pd.DataFrame:
    genes = reference.genes.loc[predictions.genes]
    columns = reference.genes.index.get_indexer(predictions.genes)
    per_section = np.bincount(reference.section_index, minlength=len(reference.measured))
    coverage = per_section @ reference.measured[:, columns] / per_section.sum()
    return pd.DataFrame(
        {
            keys.GENE_ID: genes[keys.GENE_ID].astype(str).to_numpy(dtype=object),
            keys.GENE_SYMBOL: genes[keys.GENE_SYMBOL].astype(str).to_numpy(dtype=object),
            keys.REFERENCE_COVERAGE: coverage.astype(np.float32),
            keys.EXPECTED_PCC: np.full(len(genes), np.nan, dtype=np.float32),
        },
        index=pd.Index([str(name) for name in genes.index], name="gene"),
    )


def _spatial(slide: Slide, reference: Reference) -> dict[str, Any]:
    images = {"hires": slide.thumbnail(HIRES_PX), "lowres": slide.thumbnail(LOWRES_PX)}
    width = slide.dimensions[0]
    diameter_px = reference.embedder.spec.primary.side_um / slide.pixel_size.mean
    return {
        slide.path.stem: {
            "images": {name: image.astype(np.uint8) for name, image in images.items()},
            "scalefactors": {
                "tissue_hires_scalef": images["hires"].shape[1] / width,
                "tissue_lowres_scalef": images["lowres"].shape[1] / width,
                "spot_diameter_fullres": float(diameter_px),
            },
            "metadata": {"source_image_name": slide.path.name},
        }
    }


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }
