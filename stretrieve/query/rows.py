"""From the embeddings of one group of patches to its rows of the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.query.groups import EncodedGroup, RowGroup, RowStatus
from stretrieve.query.predictor import GENES_PER_BLOCK, Found, Prediction, Predictor
from stretrieve.query.retrieve import Neighbours
from stretrieve.query.spotcache import MAX_SPOTS
from stretrieve.slides.types import PatchStatus

OOD_LIMIT = 0.99
"""Patches above this out-of-distribution score are marked as such."""
X = "X"
_VALUES_PER_BLOCK = 1 << 19


def predict_group(
    predictor: Predictor,
    group: EncodedGroup,
    found: Found,
    genes: Sequence[str],
) -> RowGroup:
    """Impute one group.

    Parameters
    ----------
    predictor
        Of the reference.
    group
        Which patches could be read.
    found
        Neighbours of those.
    genes
        Gene keys to impute.
    """
    neighbours = found.neighbours
    readable = group.readable
    return RowGroup(
        number=group.number,
        matrices={
            name: _spread_out(values, readable, np.nan)
            for name, values in _impute(predictor, found, genes).items()
        },
        columns={
            keys.TOP1_SIMILARITY: _spread_out(_top1(neighbours), readable, np.nan),
            keys.MEAN_SIMILARITY: _spread_out(_mean_similarity(neighbours), readable, np.nan),
            keys.OOD_SCORE: _spread_out(found.ood, readable, np.nan),
            keys.STATUS: _status(group.status, _spread_out(found.ood, readable, np.nan)),
        },
        embeddings=_spread_out(found.embeddings, readable, np.nan),
        smoothed=(
            _spread_out(found.smoothed, readable, np.nan) if predictor.smooths_regression else None
        ),
        neighbours=_spread_out(neighbours.indices, readable, -1),
        weights=_spread_out(neighbours.weights, readable, 0.0),
    )


def layers_of(prediction: Prediction) -> dict[str, npt.NDArray[Any]]:
    """Return ``X`` and the layers of the output contract."""
    return {
        X: prediction.mean,
        keys.SPREAD: prediction.spread,
        keys.N_EFFECTIVE: prediction.n_effective,
        **prediction.interval_layers(),
    }


def _impute(
    predictor: Predictor, found: Found, genes: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Impute block by block into float32, so that memory is a few blocks of float64."""
    out: dict[str, npt.NDArray[np.float32]] = {}
    for rows in _affordable(found.neighbours.indices, 0, len(found)) or [slice(0, 0)]:
        part = found.rows(rows)
        block_genes = max(GENES_PER_BLOCK, _VALUES_PER_BLOCK // max(len(part), 1))
        for start in range(0, len(genes), block_genes):
            columns = slice(start, min(start + block_genes, len(genes)))
            block = layers_of(predictor.impute(part, genes[columns]))
            for name, values in block.items():
                shape = (len(found), len(genes))
                out.setdefault(name, np.empty(shape, np.float32))[rows, columns] = values
    return out


def _affordable(indices: npt.NDArray[np.int64], start: int, stop: int) -> list[slice]:
    """Cut rows into pieces that use no more than ``MAX_SPOTS`` different spots, where that can be."""
    if stop - start > 1 and len(np.unique(indices[start:stop])) > MAX_SPOTS:
        middle = (start + stop) // 2
        return _affordable(indices, start, middle) + _affordable(indices, middle, stop)
    return [slice(start, stop)] if stop > start else []


def _spread_out(
    values: npt.NDArray[Any], readable: npt.NDArray[np.bool_], missing: float
) -> npt.NDArray[Any]:
    """Return one row a patch, ``missing`` where the patch could not be read."""
    if readable.all():
        return values
    out = np.full((len(readable), *values.shape[1:]), missing, dtype=values.dtype)
    out[readable] = values
    return out


def _top1(neighbours: Neighbours) -> npt.NDArray[np.float64]:
    return np.asarray(neighbours.similarity[:, 0])


def _mean_similarity(neighbours: Neighbours) -> npt.NDArray[np.float64]:
    known = np.isfinite(neighbours.similarity)
    total = np.where(known, neighbours.similarity, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(known.sum(axis=1), 1))


def _status(
    status: npt.NDArray[np.uint8], ood: npt.NDArray[np.float64]
) -> npt.NDArray[np.str_]:  # fmt: skip
    return np.select(
        [status == PatchStatus.FAILED, ood > OOD_LIMIT, status == PatchStatus.PADDED],
        [RowStatus.FAILED.value, RowStatus.OOD.value, RowStatus.PADDED.value],
        default=RowStatus.OK.value,
    )
