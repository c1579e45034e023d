"""Plain AnnData, ``.h5ad`` or ``.zarr``: counts, ``obsm["spatial"]`` in level-0 pixels, array grid.

Counts are taken from ``layers["counts"]``, else from ``X``, else (when ``X`` is not whole numbers) from
``raw``. The size of a pixel comes from ``uns["spatial"]`` (``microns_per_pixel``), else from the array
grid when the platform is known: the sheet says ``visium`` or ``st``, or a Space Ranger reader left its
scale factors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.spots.anndata_parts import (
    is_group,
    looks_like_counts,
    read_index,
    read_matrix,
    read_names,
    read_numbers,
)
from stretrieve.spots.genes import is_ensembl
from stretrieve.spots.hdf5 import open_checked
from stretrieve.spots.lattice import VISIUM, Lattice, square_lattice, st_lattice
from stretrieve.spots.positions import read_positions
from stretrieve.spots.raw import JoinPolicy, RawMatrix, RawSection, SpotTable
from stretrieve.spots.row import SheetRow
from stretrieve.spots.zarrsafe import open_checked_zarr
from stretrieve.units import MppSource, PixelSize

_IDS: Final = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ENSEMBL", "feature_id")
_SYMBOLS: Final = ("gene_symbols", "gene_symbol", "gene_name", "feature_name", "symbol", "SYMBOL")
_ARRAYS: Final = (("array_col", "array_row"), ("array_x", "array_y"))
_IN_TISSUE: Final = "in_tissue"


class AnnDataReader:
    """Reader of one AnnData file."""

    isolated = True

    def detect(self, row: SheetRow) -> bool:
        """Say whether this is AnnData and not a richer layout around one."""
        path = row.counts
        if path.is_file() and path.suffix == ".h5ad":
            return not is_hest(path)
        return path.is_dir() and (path / "obs").is_dir() and (path / "var").is_dir()

    def read(self, row: SheetRow) -> RawSection:
        """Read counts, positions and scale factors.

        Raises
        ------
        SectionError
            When the file is damaged, hostile or lacks a part.
        """
        with open_anndata(row.counts) as root:
            return read_anndata(root, row)


def is_hest(path: Path) -> bool:
    """Say whether an h5ad lies in the folders of HEST-1k."""
    return (
        path.parent.name == "st"
        and (path.parent.parent / "metadata" / f"{path.stem}.json").is_file()
    )


@contextlib.contextmanager
def open_anndata(path: Path) -> Iterator[Any]:
    """Open the root group of an AnnData file after the checks of its container.

    Raises
    ------
    SectionError
        When the container is damaged or hostile.
    """
    opener = open_checked_zarr if path.is_dir() else open_checked
    with opener(path) as root:
        yield root


def read_anndata(root: Any, row: SheetRow) -> RawSection:
    """Read a section from the root group of an AnnData file.

    Parameters
    ----------
    root
        Open HDF5 file or zarr group.
    row
        The sheet's row; its spots file, when given, goes before ``obsm["spatial"]``.

    Raises
    ------
    SectionError
        When a part is missing.
    """
    what = row.counts.name
    matrix, repairs = read_anndata_counts(root, what)
    table = (
        _positions(root, matrix.spot_ids, what) if row.spots is None else read_positions(row.spots)
    )
    scales = _scales(root)
    mpp = scales.get("microns_per_pixel")
    partial = not bool(table.under_tissue.all())
    return RawSection(
        matrix=matrix,
        spots=table,
        join=JoinPolicy.MATRIX_IS_RAW if partial or row.spots is not None else JoinPolicy.STRICT,
        lattice=known_lattice(row.platform, scales, table.array_xy),
        pixel_size=PixelSize.square(mpp, MppSource.METADATA) if mpp else None,
        repairs=repairs,
    )


def read_anndata_counts(root: Any, what: str) -> tuple[RawMatrix, tuple[str, ...]]:
    """Read names and counts from the root group of an AnnData file.

    Raises
    ------
    SectionError
        When a part is missing.
    """
    for part in ("obs", "var"):
        if part not in root or not is_group(root[part]):
            raise SectionError(explain(what, got=f"no {part}", expected="an AnnData file"))
    values, var, repairs = _counts(root, what)
    return RawMatrix(values, read_index(root["obs"]), *read_gene_names(var)), repairs


def _counts(root: Any, what: str) -> tuple[sparse.csr_matrix, Any, tuple[str, ...]]:
    if "layers" in root and is_group(root["layers"]) and "counts" in root["layers"]:
        return read_matrix(root["layers"]["counts"], what), root["var"], ()
    raw = root["raw"] if "raw" in root and is_group(root["raw"]) else None
    values = read_matrix(root["X"], what) if "X" in root else None
    if values is not None and (raw is None or "X" not in raw or looks_like_counts(values)):
        return values, root["var"], ()
    if raw is None or "X" not in raw:
        raise SectionError(explain(what, got="no X", expected="counts in X or layers['counts']"))
    return (
        read_matrix(raw["X"], what),
        raw["var"],
        ("counts taken from raw, because X holds no whole numbers",),
    )


def read_gene_names(var: Any) -> tuple[list[str], list[str]]:
    """Return ids (or names where there are none) and symbols of a ``var`` element."""
    names = read_index(var)
    ids = _first_column(var, _IDS)
    symbols = _first_column(var, _SYMBOLS)
    if ids is not None and not any(is_ensembl(name) for name in ids):
        ids = None
    if ids is None:
        return names, symbols or [""] * len(names)
    if any(is_ensembl(name) for name in names):
        return names, symbols or [""] * len(names)
    return [gene_id or name for gene_id, name in zip(ids, names, strict=True)], symbols or names


def _first_column(frame: Any, names: Sequence[str]) -> list[str] | None:
    for name in names:
        if name in frame:
            return read_names(frame[name])
    return None


def _positions(root: Any, barcodes: list[str], what: str) -> SpotTable:
    obsm = root.get("obsm", {})
    if "spatial" not in obsm or is_group(obsm["spatial"]):
        raise SectionError(
            explain(
                what,
                got="no array obsm['spatial']",
                expected="(x, y) in level-0 pixels",
                remedy="name a file with positions in the spots column",
            )
        )
    xy = read_numbers(obsm["spatial"])
    if xy.shape != (len(barcodes), 2):
        raise SectionError(
            explain(f"{what}, obsm['spatial']", got=xy.shape, expected=f"({len(barcodes)}, 2)")
        )
    obs = root["obs"]
    under = np.ones(len(barcodes), dtype=bool)
    if _IN_TISSUE in obs:
        under = read_numbers(obs[_IN_TISSUE]) != 0
    return SpotTable(barcodes, xy, read_array_coordinates(obs, len(barcodes)), under)


def read_array_coordinates(obs: Any, n_spots: int) -> npt.NDArray[np.float64]:
    """Return ``(n_spots, 2)`` array positions, (column, row); NaN where ``obs`` has none."""
    for column, line in _ARRAYS:
        if column in obs and line in obs:
            return np.column_stack([read_numbers(obs[column]), read_numbers(obs[line])])
    return np.full((n_spots, 2), np.nan)


def _scales(root: Any) -> dict[str, float]:
    """Return the scale factors of the one library in ``uns["spatial"]``."""
    uns = root.get("uns", {})
    spatial = uns["spatial"] if "spatial" in uns and is_group(uns["spatial"]) else {}
    libraries = list(spatial)
    if len(libraries) != 1 or not is_group(spatial[libraries[0]]):
        return {}
    library = spatial[libraries[0]]
    if "scalefactors" not in library or not is_group(library["scalefactors"]):
        return {}
    factors = library["scalefactors"]
    found = {}
    for name in ("microns_per_pixel", "bin_size_um", "spot_diameter_fullres"):
        if name in factors and not is_group(factors[name]) and factors[name].shape == ():
            found[name] = float(np.asarray(factors[name][...]))
    return {name: value for name, value in found.items() if np.isfinite(value) and value > 0}


def known_lattice(
    platform: str, scales: dict[str, float], array_xy: npt.NDArray[np.float64]
) -> Lattice | None:
    """Return the layout of the array as far as platform and scale factors tell it.

    Parameters
    ----------
    platform
        The sheet's platform, lower case.
    scales
        Scale factors that Space Ranger readers leave.
    array_xy
        ``(n_spots, 2)`` positions on the array.
    """
    if not np.all(np.isfinite(array_xy)) or not len(array_xy):
        return None
    if "bin_size_um" in scales:
        return square_lattice(scales["bin_size_um"])
    words = platform.replace("-", " ").replace("_", " ").split()
    if "visium" in words and "hd" not in words:
        return VISIUM
    if platform in {"st", "legacy st", "legacy spatial transcriptomics", "spatial transcriptomics"}:
        return st_lattice(array_xy)
    return VISIUM if "spot_diameter_fullres" in scales else None


READER: Final = AnnDataReader()
