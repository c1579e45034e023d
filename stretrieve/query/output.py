"""The output contract: one plain AnnData that opens everywhere (schema in docs/output.md)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import __version__, keys
from stretrieve.config import settings_to_dict
from stretrieve.query.calibration import Calibration
from stretrieve.query.groups import RowGroup, RowStatus
from stretrieve.query.locate import Positions
from stretrieve.query.rows import X
from stretrieve.query.settings import QuerySettings
from stretrieve.reference import Reference
from stretrieve.slides import Slide
from stretrieve.slides.overview import shrink_picture

SCHEMA_VERSION = 2
DISCLAIMER = "predicted expression, research use only; not measured"
HIRES_PX = 2000
LOWRES_PX = 600


class Pictures:
    """The slide in two small pictures, read once, by whichever thread asks first.

    Parameters
    ----------
    slide
        Open while it is read.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._lock = threading.Lock()
        self._read: dict[str, npt.NDArray[np.uint8]] = {}

    def read(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return ``hires`` and ``lowres``, ``(height, width, 3)`` RGB."""
        with self._lock:
            if not self._read:
                hires = self._slide.thumbnail(HIRES_PX)
                self._read = {"hires": hires, "lowres": shrink_picture(hires, LOWRES_PX)}
            return dict(self._read)


@dataclass(frozen=True)
class Facts:
    """What is known about a query beside its predictions.

    Parameters
    ----------
    slide
        The slide, still open.
    pictures
        Of the slide.
    positions
        Patch centres.
    reference
        The reference that was searched.
    settings
        How it was searched.
    genes
        Gene keys of the columns.
    digest
        Of everything that decides the answer.
    calibration
        What was expected of these predictions, if anything.
    context
        Patient, section, filters and warnings.
    """

    slide: Slide
    pictures: Pictures
    positions: Positions
    reference: Reference
    settings: QuerySettings
    genes: Sequence[str]
    digest: str
    calibration: Calibration | None
    context: Mapping[str, Any]


@dataclass(frozen=True)
class Frame:
    """Everything of an output but what grows with patches × genes.

    Parameters
    ----------
    obs, var
        Tables of patches and genes.
    uns
        ``spatial`` and ``stretrieve``.
    xy
        ``(n_patches, 2)`` centres in level-0 px.
    used
        ``(n_used,)`` ascending positions of the reference spots in use.
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    uns: dict[str, Any]
    xy: npt.NDArray[np.float64]
    used: npt.NDArray[np.int64]

    def local(self, neighbours: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return neighbours as rows of ``neighbour_spot_uid``, −1 for none."""
        found = np.searchsorted(self.used, neighbours)
        return np.where(neighbours >= 0, found, -1).astype(np.int32)


def make_frame(
    facts: Facts,
    columns: Mapping[str, npt.NDArray[Any]],
    used: npt.NDArray[np.int64],
) -> Frame:
    """Return the frame of an output.

    Parameters
    ----------
    facts
        What is known about the query.
    columns
        ``obs`` columns that prediction gave, each ``(n_patches,)``.
    used
        Ascending positions of the reference spots in use.
    """
    slide, reference = facts.slide, facts.reference
    failed = int((columns[keys.STATUS] == RowStatus.FAILED.value).sum())
    facts_of_query = {
        "schema_version": SCHEMA_VERSION,
        "disclaimer": DISCLAIMER,
        "unit": keys.NORMALISATION,
        "version": __version__,
        "query_digest": facts.digest,
        "reference": reference.identity,
        "settings": settings_to_dict(facts.settings),
        "slide": {
            "name": slide.path.name,
            "mpp_x": float(slide.pixel_size.x),
            "mpp_y": float(slide.pixel_size.y),
            "mpp_source": slide.pixel_size.source.value,
        },
        "patches": {"predicted": len(facts.positions) - failed, "failed": failed},
        "patch_side_um": float(reference.embedder.spec.primary.side_um),
        "neighbour_spot_uid": reference.spots[keys.SPOT_UID].to_numpy(dtype=object)[used],
        **facts.context,
    }
    return Frame(
        obs=_obs(facts, columns),
        var=gene_table(facts),
        uns={
            keys.SPATIAL: spatial_facts(facts),
            keys.UNS: _without_none(facts_of_query),
        },
        xy=facts.positions.xy,
        used=used,
    )


def used_spots(neighbours: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return the ascending positions of all spots that occur among neighbours."""
    used: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for part in neighbours:
        used = np.union1d(used, part[part >= 0])
    return used


def assemble(facts: Facts, groups: Sequence[RowGroup]) -> ad.AnnData:
    """Return row groups as AnnData with every key of the output contract."""
    columns = {
        name: np.concatenate([group.columns[name] for group in groups])
        for name in groups[0].columns
    }
    frame = make_frame(facts, columns, used_spots(group.neighbours for group in groups))
    matrices = {
        name: np.concatenate([group.matrices[name] for group in groups])
        for name in groups[0].matrices
    }
    arrays = {
        name: np.concatenate([group.arrays[name] for group in groups]) for name in groups[0].arrays
    }
    arrays[keys.NEIGHBOURS] = frame.local(arrays[keys.NEIGHBOURS])
    adata = ad.AnnData(
        X=matrices.pop(X),
        obs=frame.obs,
        var=frame.var,
        layers=matrices,
        obsm={keys.SPATIAL: frame.xy, **arrays},
    )
    adata.uns.update(frame.uns)
    return adata


def _obs(facts: Facts, columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    positions = facts.positions
    xy_um = facts.slide.pixel_size.to_um(positions.xy)
    status = pd.Categorical(columns[keys.STATUS], categories=sorted(s.value for s in RowStatus))
    return pd.DataFrame(
        {
            keys.X_UM: xy_um[:, 0],
            keys.Y_UM: xy_um[:, 1],
            keys.TISSUE_FRACTION: positions.tissue_fraction,
            **{name: values for name, values in columns.items() if name != keys.STATUS},
            keys.STATUS: status,
        },
        index=pd.Index(positions.names.astype(str).tolist(), name="patch"),
    )


def gene_table(facts: Facts) -> pd.DataFrame:
    """Return ``var``; needs no prediction."""
    reference = facts.reference
    genes = reference.genes.loc[list(facts.genes)]
    columns = reference.genes.index.get_indexer(list(facts.genes))
    per_section = np.bincount(reference.section_index, minlength=len(reference.measured))
    coverage = per_section @ reference.measured[:, columns] / per_section.sum()
    expected = np.full(len(genes), np.nan)
    if facts.calibration is not None:
        expected = facts.calibration.expected_pcc[columns]
    return pd.DataFrame(
        {
            keys.GENE_ID: genes[keys.GENE_ID].astype(str).to_numpy(dtype=object),
            keys.GENE_SYMBOL: genes[keys.GENE_SYMBOL].astype(str).to_numpy(dtype=object),
            keys.REFERENCE_COVERAGE: coverage.astype(np.float32),
            keys.EXPECTED_PCC: expected.astype(np.float32),
        },
        index=pd.Index([str(name) for name in genes.index], name="gene"),
    )


def spatial_facts(facts: Facts) -> dict[str, Any]:
    """Return ``uns["spatial"]``, with the pictures; needs no prediction."""
    slide, pictures = facts.slide, facts.pictures.read()
    width = slide.dimensions[0]
    diameter_px = facts.reference.embedder.spec.primary.side_um / slide.pixel_size.mean
    return {
        slide.path.stem: {
            "images": dict(pictures),
            "scalefactors": {
                "tissue_hires_scalef": pictures["hires"].shape[1] / width,
                "tissue_lowres_scalef": pictures["lowres"].shape[1] / width,
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
