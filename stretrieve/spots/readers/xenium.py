"""Xenium: transcripts (or cells) pooled into square pseudo-spots of a given size.

With transcripts, those of quality 20 or more that belong to a gene of the panel are counted where they
lie; without them, each cell's counts go to the bin of its centroid. Positions are microns of the
morphology image; the H&E image is reached through its alignment matrix, which maps H&E pixels to
pixels of the morphology image. Pseudo-spots outside the H&E image are left out and counted. The side of
a pseudo-spot is given as ``xenium@100``; 55 µm otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.spots.delimited import read_table
from stretrieve.spots.hdf5 import HOSTILE_ERRORS, damaged
from stretrieve.spots.imagesize import image_size
from stretrieve.spots.parquet import numbers, read_parquet_columns
from stretrieve.spots.raw import JoinPolicy, RawMatrix, RawSection, SpotTable
from stretrieve.spots.readers.hest import read_json
from stretrieve.spots.row import SheetRow
from stretrieve.spots.tenx import read_10x_h5
from stretrieve.units import Mpp, MppSource, PixelSize

DEFAULT_SPOT_UM: Final = 55.0
MIN_QUALITY: Final = 20.0
_MATRIX: Final = "cell_feature_matrix.h5"
_EXPERIMENT: Final = "experiment.xenium"
_TRANSCRIPTS: Final = "transcripts.parquet"
_CELLS: Final = "cells.parquet"
_IMAGES: Final = ("*he_image.ome.tif", "*he_image.ome.tiff", "*_he.ome.tif")
_ALIGNMENTS: Final = ("*he_imagealignment.csv", "*imagealignment.csv", "*alignment.csv")
_MAX_BINS: Final = 20_000_000


class XeniumReader:
    """Reader of one Xenium output bundle."""

    isolated = True

    def detect(self, row: SheetRow) -> bool:
        """Say whether the folder is a Xenium bundle."""
        return (row.counts / _EXPERIMENT).is_file() or (row.counts / _MATRIX).is_file()

    def read(self, row: SheetRow) -> RawSection:
        """Pool a bundle into pseudo-spots.

        Raises
        ------
        SectionError
            When a file is missing or damaged, or there is an H&E image but no alignment for it.
        """
        folder = row.counts
        side = row.spot_um or DEFAULT_SPOT_UM
        cells, repairs = read_10x_h5(folder / _MATRIX)
        if (folder / _TRANSCRIPTS).is_file():
            matrix, array = _pool_transcripts(folder / _TRANSCRIPTS, cells, side)
        else:
            matrix, array = _pool_cells(folder / _CELLS, cells, side)
        pixel_um = _pixel_um(folder)
        image = row.image if row.image is not None else _glob(folder, _IMAGES)
        xy = (array + 0.5) * side / pixel_um
        size = PixelSize.square(pixel_um, MppSource.METADATA)
        if image is not None:
            xy, size = _to_image(xy, pixel_um, _alignment(folder, row.spots))
        inside = _inside(xy, image)
        return RawSection(
            matrix=matrix,
            spots=SpotTable(matrix.spot_ids, xy, array, inside),
            join=JoinPolicy.MATRIX_IS_RAW,
            pixel_size=size,
            image=image,
            repairs=repairs,
            known={"platform": "xenium"},
        )


def _pool_cells(
    path: Path, cells: RawMatrix, side: float
) -> tuple[RawMatrix, npt.NDArray[np.float64]]:
    table = read_parquet_columns(path, ("cell_id", "x_centroid", "y_centroid"))
    names = [_text(name) for name in table.column("cell_id").to_pylist()]
    where = {name: at for at, name in enumerate(names)}
    rows = np.array([where.get(name, -1) for name in cells.spot_ids], dtype=np.int64)
    if len(where) != len(names) or np.any(rows < 0):
        raise SectionError(
            explain(
                f"cells of {path.parent.name}",
                got=f"{int(np.sum(rows < 0))} in the matrix without a position",
                expected="the same cells in matrix and cells.parquet",
            )
        )
    xy = np.column_stack([numbers(path, table, "x_centroid"), numbers(path, table, "y_centroid")])
    bins, inverse, array = _bins(path, xy[rows], side)
    gather = sparse.csr_matrix(
        (np.ones(len(inverse), dtype=np.int64), (inverse, np.arange(len(inverse)))),
        shape=(len(bins), len(inverse)),
    )
    return RawMatrix(
        sparse.csr_matrix(gather @ cells.values), bins, cells.gene_ids, cells.gene_symbols
    ), array


def _pool_transcripts(
    path: Path, cells: RawMatrix, side: float
) -> tuple[RawMatrix, npt.NDArray[np.float64]]:
    genes, xy = _transcripts(path, cells.gene_symbols)
    if not len(genes):
        raise SectionError(
            explain(path.name, got="no transcript of a gene of the panel", expected="one or more")
        )
    bins, inverse, array = _bins(path, xy, side)
    counts = sparse.coo_matrix(
        (np.ones(len(genes), dtype=np.int64), (inverse, genes)),
        shape=(len(bins), len(cells.gene_ids)),
    ).tocsr()
    counts.sum_duplicates()
    return RawMatrix(sparse.csr_matrix(counts), bins, cells.gene_ids, cells.gene_symbols), array


def _transcripts(
    path: Path, panel: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return gene (n,) and position (n, 2) in µm of all good transcripts, read batch by batch."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["feature_name", "x_location", "y_location", "qv"]
    names = pa.array(panel, type=pa.string())
    genes, places = [np.empty(0, dtype=np.int64)], [np.empty((0, 2))]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns, use_threads=False):
                batch.validate(full=True)
                which = pc.index_in(batch.column("feature_name").cast(pa.string()), value_set=names)
                index = which.fill_null(-1).to_numpy(zero_copy_only=False)
                quality = batch.column("qv").to_numpy(zero_copy_only=False)
                keep = (index >= 0) & (quality >= MIN_QUALITY)
                xy = [batch.column(c).to_numpy(zero_copy_only=False) for c in columns[1:3]]
                genes.append(index[keep].astype(np.int64))
                places.append(np.column_stack(xy)[keep].astype(np.float64))
    except (pa.ArrowException, *HOSTILE_ERRORS) as error:
        raise damaged(path, error) from error
    return np.concatenate(genes), np.concatenate(places)


def _bins(
    path: Path, xy_um: npt.NDArray[np.float64], side: float
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return names of the occupied bins, the bin of each point (n,), and (column, row) of each bin."""
    if not len(xy_um) or not np.all(np.isfinite(xy_um)):
        raise SectionError(explain(path.name, got="missing or infinite positions"))
    cell = np.floor(xy_um / side)
    if float(np.prod(np.ptp(cell, axis=0) + 1)) > _MAX_BINS:
        raise SectionError(explain(path.name, got="positions over too large an area"))
    unique, inverse = np.unique(cell.astype(np.int64), axis=0, return_inverse=True)
    return [f"{x}x{y}" for x, y in unique], inverse.ravel(), unique.astype(np.float64)


def _pixel_um(folder: Path) -> float:
    value = read_json(folder / _EXPERIMENT).get("pixel_size")
    if not isinstance(value, (int, float)) or not 0 < value < 1000:
        raise SectionError(
            explain(f"pixel_size in {_EXPERIMENT}", got=value, expected="µm per pixel")
        )
    return float(value)


def _alignment(folder: Path, given: Path | None) -> npt.NDArray[np.float64]:
    path = given if given is not None else _glob(folder, _ALIGNMENTS)
    if path is None:
        raise SectionError(
            explain(
                f"H&E image of {folder.name}",
                got="no alignment matrix beside it",
                expected="*_he_imagealignment.csv",
                remedy="name it in the sheet's spots column",
            )
        )
    header, rows = read_table(path)
    try:
        matrix = np.array([header, *rows], dtype=np.float64)
    except ValueError as error:
        raise damaged(path, error) from error
    if matrix.shape != (3, 3) or not np.all(np.isfinite(matrix)):
        raise SectionError(
            explain(path.name, got=f"shape {matrix.shape}", expected="3 x 3 numbers")
        )
    if abs(float(np.linalg.det(matrix[:2, :2]))) < 1e-9 or not np.allclose(matrix[2], (0, 0, 1)):
        raise SectionError(
            explain(path.name, got="a matrix without inverse", expected="an affine one")
        )
    return matrix


def _to_image(
    xy: npt.NDArray[np.float64], pixel_um: float, matrix: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], PixelSize]:
    """Take pixels of the morphology image to pixels of the H&E image."""
    inverse = np.linalg.inv(matrix)
    lengths = np.linalg.norm(matrix[:2, :2], axis=0) * pixel_um
    size = PixelSize(Mpp(float(lengths[0])), Mpp(float(lengths[1])), MppSource.METADATA)
    return xy @ inverse[:2, :2].T + inverse[:2, 2], size


def _inside(xy: npt.NDArray[np.float64], image: Path | None) -> npt.NDArray[np.bool_]:
    """Return which pseudo-spots, (n,), the H&E image shows; it may be smaller than the Xenium area."""
    size = image_size(image) if image is not None else None
    if size is None:
        return np.ones(len(xy), dtype=bool)
    return np.asarray(np.all((xy >= 0) & (xy <= size), axis=1))


def _glob(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


READER: Final = XeniumReader()
