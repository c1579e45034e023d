"""Predictions as the GeoJSON objects that QuPath reads: one detection a patch, with measurements."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.errors import GenePanelError, explain
from stretrieve.query.groups import RowStatus

MAX_GENES: Final = 20
"""Genes written when none are named."""

_NAMESPACE: Final = uuid.UUID("1d0f4c54-20d5-4f0b-8f6c-7a3a53c2f0aa")
_COLOURS: Final[Mapping[str, list[int]]] = {
    RowStatus.OK.value: [46, 160, 67],
    RowStatus.PADDED.value: [120, 160, 120],
    RowStatus.OOD.value: [219, 109, 40],
    RowStatus.FAILED.value: [160, 160, 160],
}
_SCORES: Final = (
    keys.TISSUE_FRACTION,
    keys.TOP1_SIMILARITY,
    keys.MEAN_SIMILARITY,
    keys.OOD_SCORE,
)
_DECIMALS: Final = 5


def write_detections(
    path: Path,
    obs: pd.DataFrame,
    xy: npt.NDArray[np.float64],
    matrices: Mapping[str, npt.NDArray[Any]],
    *,
    side_px: tuple[float, float],
    objects: str = "detection",
) -> None:
    """Write one square a patch, completely or not at all.

    Parameters
    ----------
    path
        File to write.
    obs
        ``obs`` of the output contract.
    xy
        ``(n_patches, 2)`` centres in level-0 px.
    matrices
        Measurement name (a gene's symbol) to values ``(n_patches,)``; values that are not finite are
        left out.
    side_px
        (width, height) of a patch in level-0 px.
    objects
        QuPath's type of object: ``"detection"`` or ``"annotation"``.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for i, feature in enumerate(_features(obs, xy, matrices, side_px, objects)):
            stream.write((",\n" if i else "\n") + json.dumps(feature, allow_nan=False))
        stream.write("\n]}\n")


def _features(
    obs: pd.DataFrame,
    xy: npt.NDArray[np.float64],
    matrices: Mapping[str, npt.NDArray[Any]],
    side_px: tuple[float, float],
    objects: str,
) -> Iterator[dict[str, Any]]:
    half = np.asarray(side_px) / 2
    scores = {name: obs[name].to_numpy() for name in _SCORES}
    status = obs[keys.STATUS].astype(str).to_numpy()
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    for row, name in enumerate(obs.index):
        measured = {**matrices, **scores}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, str(name))),
            "geometry": {
                "type": "Polygon",
                "coordinates": [np.round(xy[row] + corners * half, 2).tolist()],
            },
            "properties": {
                "objectType": objects,
                "name": str(name),
                "classification": {"name": status[row], "color": _COLOURS[status[row]]},
                "measurements": {
                    key: round(float(values[row]), _DECIMALS)
                    for key, values in measured.items()
                    if math.isfinite(values[row])
                },
            },
        }


def choose_genes(
    var: pd.DataFrame, variance: npt.NDArray[np.float64], genes: Sequence[str] | None
) -> npt.NDArray[np.int64]:
    """Return the columns of genes to write.

    Parameters
    ----------
    var
        ``var`` of the output contract.
    variance
        ``(n_genes,)`` of the predictions, which decides when ``genes`` is ``None``: the most variable
        genes, at most :data:`MAX_GENES`.
    genes
        Gene keys or symbols.

    Raises
    ------
    GenePanelError
        When a gene is not among the predicted ones.
    """
    if genes is None:
        order = np.argsort(-np.nan_to_num(variance, nan=-1.0), kind="stable")[:MAX_GENES]
        return np.sort(order).astype(np.int64)
    symbols = pd.Index(var[keys.GENE_SYMBOL].astype(str))
    columns = []
    for gene in dict.fromkeys(genes):
        hits = np.flatnonzero((var.index == gene) | (symbols == gene))
        if not len(hits):
            raise GenePanelError(explain("gene", got=repr(gene), expected="a predicted gene"))
        columns.append(int(hits[0]))
    return np.asarray(columns, dtype=np.int64)


def measurement_names(var: pd.DataFrame, columns: npt.NDArray[np.int64]) -> list[str]:
    """Return the symbol of each gene, or its key where symbols are missing or not unique."""
    part = var.iloc[columns]
    symbols = part[keys.GENE_SYMBOL].astype(str)
    twice = symbols.duplicated(keep=False) | (symbols == "")
    return [str(k) if bad else s for k, s, bad in zip(part.index, symbols, twice, strict=True)]
