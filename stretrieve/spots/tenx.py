"""Count matrices of 10x Genomics: the HDF5 file and the folder of three text files."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.spots.compressed import checked_csr
from stretrieve.spots.hdf5 import HOSTILE_ERRORS, damaged, load, open_checked, read_text
from stretrieve.spots.raw import RawMatrix
from stretrieve.spots.textio import MAX_TEXT_BYTES, read_lines

GENE_EXPRESSION: Final = "Gene Expression"
_SIDES: Final = {"features": ("features.tsv", "genes.tsv"), "barcodes": ("barcodes.tsv",)}


def read_10x_h5(path: Path) -> tuple[RawMatrix, tuple[str, ...]]:
    """Read ``*_feature_bc_matrix.h5`` (Cell/Space Ranger 3 and later, Xenium).

    Returns
    -------
    matrix : RawMatrix
        Barcodes x genes; features of other kinds (antibodies, controls) are left out.
    repairs : tuple of str
        What was left out, with counts.

    Raises
    ------
    SectionError
        When the file is damaged, hostile or of another layout.
    """
    with open_checked(path) as file:
        if "matrix" not in file or "features" not in file["matrix"]:
            raise SectionError(
                explain(
                    path.name, got="no group matrix/features", expected="a 10x matrix, version 3"
                )
            )
        group = file["matrix"]
        barcodes = read_text(group["barcodes"])
        features = group["features"]
        ids, names = read_text(features["id"]), read_text(features["name"])
        kinds = read_text(features["feature_type"]) if "feature_type" in features else None
        shape = tuple(int(n) for n in load(group["shape"]).ravel())
        if shape != (len(ids), len(barcodes)) or len(names) != len(ids):
            raise SectionError(
                explain(path.name, got=f"shape {shape}", expected=f"({len(ids)}, {len(barcodes)})")
            )
        values = checked_csr(
            path.name,
            load(group["data"]),
            load(group["indices"]),
            load(group["indptr"]),
            shape=(len(barcodes), len(ids)),
        )
    return only_genes(path, RawMatrix(values, barcodes, ids, names), kinds)


def only_genes(
    path: Path, matrix: RawMatrix, kinds: list[str] | None
) -> tuple[RawMatrix, tuple[str, ...]]:
    """Leave out features that are not genes.

    Raises
    ------
    SectionError
        When ``kinds`` does not have one entry a feature, or none is a gene.
    """
    if kinds is None:
        return matrix, ()
    if len(kinds) != len(matrix.gene_ids):
        raise SectionError(explain(path.name, got=f"{len(kinds)} feature types"))
    keep = np.array([kind == GENE_EXPRESSION for kind in kinds])
    if keep.all():
        return matrix, ()
    if not keep.any():
        raise SectionError(
            explain(path.name, got=f"features of type {kinds[0][:40]!r}", expected=GENE_EXPRESSION)
        )
    picked = RawMatrix(
        sparse.csr_matrix(matrix.values[:, keep]),
        matrix.spot_ids,
        [name for name, kept in zip(matrix.gene_ids, keep, strict=True) if kept],
        [name for name, kept in zip(matrix.gene_symbols, keep, strict=True) if kept],
    )
    return picked, (f"{int((~keep).sum())} features that are not genes left out",)


def read_10x_mtx(matrix_file: Path) -> tuple[RawMatrix, tuple[str, ...]]:
    """Read ``matrix.mtx(.gz)`` with the features and barcodes beside it, prefixed or not.

    Raises
    ------
    SectionError
        As :func:`read_10x_h5`.
    """
    features = [line.split("\t") for line in read_lines(_beside(matrix_file, "features")) if line]
    barcodes = [
        line.split("\t")[0] for line in read_lines(_beside(matrix_file, "barcodes")) if line
    ]
    if not features or not barcodes or any(len(row) < 1 or not row[0] for row in features):
        raise SectionError(explain(matrix_file.name, got="no features or barcodes beside it"))
    ids = [row[0] for row in features]
    names = [row[1] if len(row) > 1 else "" for row in features]
    kinds = [row[2] for row in features] if all(len(row) > 2 for row in features) else None
    values = _read_mtx(matrix_file, shape=(len(ids), len(barcodes)))
    return only_genes(matrix_file, RawMatrix(values, barcodes, ids, names), kinds)


def _beside(matrix_file: Path, side: str) -> Path:
    prefix = matrix_file.name.partition("matrix.mtx")[0]
    for stem in _SIDES[side]:
        for suffix in ("", ".gz"):
            path = matrix_file.with_name(prefix + stem + suffix)
            if path.is_file():
                return path
    raise SectionError(
        explain(f"{side} of {matrix_file.name}", got=f"no {prefix}{_SIDES[side][0]} beside it")
    )


def _read_mtx(path: Path, *, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return the transpose (barcodes x features) of a Matrix Market file of known shape."""
    text = _read_bytes(path)
    n_values = _check_header(path, text, shape)
    from scipy.io import mmread

    try:
        entries: Any = mmread(io.BytesIO(text))
        rows, columns = np.asarray(entries.row), np.asarray(entries.col)
        values = _to_csr(entries.data, columns, rows, shape=(shape[1], shape[0]))
    except HOSTILE_ERRORS as error:
        raise damaged(path, error) from error
    if values.nnz != n_values:
        raise SectionError(
            explain(path.name, got=f"{values.nnz} cells", expected=f"{n_values}, each once")
        )
    return values


def _to_csr(
    data: Any, rows: npt.NDArray[Any], columns: npt.NDArray[Any], *, shape: tuple[int, int]
) -> sparse.csr_matrix:
    if len(rows) and (rows.min() < 0 or columns.min() < 0):
        raise ValueError("a negative index")
    matrix = sparse.coo_matrix((data, (rows, columns)), shape=shape).tocsr()
    matrix.sum_duplicates()
    return sparse.csr_matrix(matrix)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            text = stream.read(MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    if len(text) > MAX_TEXT_BYTES:
        raise SectionError(explain(path.name, got="over 4 GiB of text"))
    return bytes(text)


def _check_header(path: Path, text: bytes, shape: tuple[int, int]) -> int:
    banner, _, rest = text.partition(b"\n")
    words = banner.lower().split()
    good = len(words) == 5 and words[:3] == [b"%%matrixmarket", b"matrix", b"coordinate"]
    if not good or words[3] not in {b"integer", b"real"} or words[4] != b"general":
        raise SectionError(
            explain(
                path.name,
                got=repr(banner[:60].decode("latin-1")),
                expected="%%MatrixMarket matrix coordinate integer general",
            )
        )
    while rest.startswith(b"%"):
        rest = rest.partition(b"\n")[2]
    size = rest.partition(b"\n")[0].split()
    if len(size) != 3 or not all(word.isdigit() and len(word) < 16 for word in size):
        raise SectionError(
            explain(path.name, got="no line of sizes", expected="rows columns values")
        )
    n_rows, n_columns, n_values = (int(word) for word in size)
    if (n_rows, n_columns) != shape:
        raise SectionError(
            explain(
                path.name,
                got=f"{n_rows} x {n_columns}",
                expected=f"{shape[0]} x {shape[1]} as named",
            )
        )
    if n_values * 6 > len(rest) + 6:
        raise SectionError(explain(path.name, got=f"{n_values} values in {len(rest)} bytes"))
    return n_values
