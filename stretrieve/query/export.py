"""Turns an answer, in memory or on disk, into QuPath objects or SpatialData."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve._optional import require
from stretrieve.query.qupath import choose_genes, measurement_names, write_detections

_ROWS: Final = 512


@contextlib.contextmanager
def open_answer(path: Path) -> Iterator[ad.AnnData]:
    """Open an ``.h5ad`` or zarr answer of which matrices are read on demand only."""
    if path.is_dir():
        yield ad.read_zarr(path)
        return
    answer = ad.read_h5ad(path, backed="r")
    try:
        yield answer
    finally:
        answer.file.close()


def export_geojson(
    answer: ad.AnnData,
    path: Path,
    *,
    genes: Sequence[str] | None = None,
    objects: str = "detection",
) -> None:
    """Write the patches of an answer as QuPath objects, with the values of some genes.

    Parameters
    ----------
    answer
        Predictions in the form of the output contract; may be backed by its file.
    path
        GeoJSON file to write.
    genes
        Gene keys or symbols; the 20 whose predictions vary most when ``None``.
    objects
        ``"detection"`` or ``"annotation"``.

    Raises
    ------
    GenePanelError
        When a gene is not among the predicted ones.
    """
    variance = _variance(answer) if genes is None else np.empty(0)
    columns = choose_genes(answer.var, variance, genes)
    values = _columns(answer.X, columns)
    spread = _columns(answer.layers[keys.SPREAD], columns)
    matrices: dict[str, npt.NDArray[Any]] = {}
    for i, name in enumerate(measurement_names(answer.var, columns)):
        matrices[name] = values[:, i]
        matrices[f"{name} {keys.SPREAD}"] = spread[:, i]
    write_detections(
        path,
        answer.obs,
        np.asarray(answer.obsm[keys.SPATIAL]),
        matrices,
        side_px=_side_px(answer),
        objects=objects,
    )


def _side_px(answer: ad.AnnData) -> tuple[float, float]:
    facts = answer.uns[keys.UNS]
    side, slide = float(facts["patch_side_um"]), facts["slide"]
    return side / float(slide["mpp_x"]), side / float(slide["mpp_y"])


def _blocks(matrix: Any) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the rows of a matrix, dense, some at a time."""
    for start in range(0, matrix.shape[0], _ROWS):
        part = matrix[start : start + _ROWS]
        yield part.toarray() if hasattr(part, "toarray") else np.asarray(part)


def _columns(matrix: Any, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    parts = [block[:, columns] for block in _blocks(matrix)]
    return np.concatenate(parts) if parts else np.empty((0, len(columns)), np.float32)


def _variance(answer: ad.AnnData) -> npt.NDArray[np.float64]:
    total = squares = count = np.zeros(answer.n_vars)
    for block in _blocks(answer.X):
        known = np.isfinite(block)
        values = np.where(known, block, 0.0).astype(np.float64)
        total = total + values.sum(axis=0)
        squares = squares + (values**2).sum(axis=0)
        count = count + known.sum(axis=0)
    mean = total / np.maximum(count, 1)
    return np.asarray(squares / np.maximum(count, 1) - mean**2)


def to_spatialdata(answer: ad.AnnData) -> Any:
    """Return an answer as ``SpatialData``: image, square patches and the table that annotates them.

    Coordinates are level-0 px; the image is the thumbnail, scaled to them.

    Raises
    ------
    MissingDependencyError
        Without the ``spatial`` extra.
    """
    spatialdata = require("spatialdata", extra="spatial")
    models = require("spatialdata.models", extra="spatial")
    transformations = require("spatialdata.transformations", extra="spatial")
    name, library = next(iter(answer.uns[keys.SPATIAL].items()))
    factor = 1 / float(library["scalefactors"]["tissue_hires_scalef"])
    image = models.Image2DModel.parse(
        np.moveaxis(np.asarray(library["images"]["hires"]), 2, 0),
        dims=("c", "y", "x"),
        c_coords=("r", "g", "b"),
        transformations={"global": transformations.Scale([factor, factor], axes=("x", "y"))},
    )
    squares = models.ShapesModel.parse(_squares(answer))
    table = answer.copy()
    del table.uns[keys.SPATIAL]
    region = _element_name(str(name))
    table.obs["region"] = f"{region}_patches"
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance_id"] = np.arange(table.n_obs)
    table = models.TableModel.parse(
        table, region=f"{region}_patches", region_key="region", instance_key="instance_id"
    )
    return spatialdata.SpatialData(
        images={f"{region}_image": image},
        shapes={f"{region}_patches": squares},
        tables={"predictions": table},
    )


def _squares(answer: ad.AnnData) -> Any:
    import shapely

    geopandas = require("geopandas", extra="spatial")
    half = np.asarray(_side_px(answer)) / 2
    xy = np.asarray(answer.obsm[keys.SPATIAL])
    boxes = shapely.box(*(xy - half).T, *(xy + half).T)
    return geopandas.GeoDataFrame(geometry=boxes, index=np.arange(len(xy)))


def _element_name(name: str) -> str:
    """Return a name that SpatialData accepts."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in name) or "q"


def write_spatialdata(source: Path, out: Path) -> None:
    """Write the answer at ``source`` (``.h5ad``) as a SpatialData folder.

    Raises
    ------
    MissingDependencyError
        Without the ``spatial`` extra.
    """
    data = to_spatialdata(ad.read_h5ad(source))
    with atomic_path(out) as temporary:
        data.write(temporary)
