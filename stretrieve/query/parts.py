"""Row groups on disk: matrices packed into the very chunks that the output file will hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from scipy import sparse

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path
from stretrieve.query.groups import EncodedGroup, Grouping, RowGroup
from stretrieve.query.predictor import GENES_PER_BLOCK
from stretrieve.query.rows import X

COMPRESSION_LEVEL: Final = 1
"""Of what zlib compresses."""
_QUICK_LEVEL: Final = 2
"""Of ISA-L, whose streams are zlib's: about as small as level 1 of zlib, in less time."""
SPARSE_MATRICES: Final = (X, keys.SPREAD)
"""Matrices that are stored by their non-zero values on request; the others compress to nothing."""


@dataclass(frozen=True, slots=True)
class Form:
    """Shape and storage of the matrices of an output.

    Parameters
    ----------
    n_rows, n_genes
        Shape.
    group_rows
        Rows of a group, and of a chunk.
    is_sparse
        Whether ``X`` and ``spread`` are stored as CSR.
    """

    n_rows: int
    n_genes: int
    group_rows: int
    is_sparse: bool = False

    @classmethod
    def of(cls, grouping: Grouping, n_genes: int, *, is_sparse: bool) -> Form:
        """Return the form for a slide."""
        return cls(grouping.n_rows, n_genes, grouping.rows, is_sparse)

    @property
    def chunk(self) -> tuple[int, int]:
        """(rows, genes) of a chunk."""
        return min(self.group_rows, self.n_rows), min(GENES_PER_BLOCK, self.n_genes)

    def stores_sparse(self, name: str) -> bool:
        """Return whether a matrix is stored as CSR."""
        return self.is_sparse and name in SPARSE_MATRICES


@dataclass(frozen=True)
class PackedGroup:
    """A row group as it lies on disk.

    Parameters
    ----------
    number
        Which group.
    chunks
        Compressed chunks of each dense matrix, from the first gene to the last.
    rows
        CSR matrices.
    columns, arrays
        ``obs`` columns; embeddings, neighbours and weights.
    """

    number: int
    chunks: Mapping[str, Sequence[npt.NDArray[np.uint8]]]
    rows: Mapping[str, sparse.csr_matrix]
    columns: Mapping[str, npt.NDArray[Any]]
    arrays: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.arrays[keys.NEIGHBOURS])


def pack(group: RowGroup, form: Form) -> PackedGroup:
    """Return a row group with its matrices compressed."""
    dense = {n: m for n, m in group.matrices.items() if not form.stores_sparse(n)}
    return PackedGroup(
        group.number,
        {name: _pack_dense(matrix, form.chunk) for name, matrix in dense.items()},
        {n: sparse.csr_matrix(m) for n, m in group.matrices.items() if form.stores_sparse(n)},
        group.columns,
        group.arrays,
    )


def _pack_dense(
    matrix: npt.NDArray[np.float32], chunk: tuple[int, int]
) -> list[npt.NDArray[np.uint8]]:
    """Compress chunk by chunk; those at the edges are filled up with zeros, as HDF5 wants them."""
    packed = []
    for start in range(0, matrix.shape[1], chunk[1]):
        piece = np.zeros(chunk, dtype="<f4")
        part = matrix[:, start : start + chunk[1]]
        piece[: part.shape[0], : part.shape[1]] = part
        packed.append(np.frombuffer(compress(piece.data), dtype=np.uint8))
    return packed


def compress(values: memoryview) -> bytes:
    """Return a zlib stream of contiguous values."""
    return isal_zlib.compress(values, _QUICK_LEVEL)


def unpack_dense(
    chunks: Sequence[npt.NDArray[np.uint8]], form: Form, n_rows: int
) -> npt.NDArray[np.float32]:
    """Return the matrix ``(n_rows, n_genes)`` that was packed."""
    height, width = form.chunk
    out = np.empty((height, width * len(chunks)), dtype=np.float32)
    for i, packed in enumerate(chunks):
        piece = np.frombuffer(isal_zlib.decompress(packed.data), dtype="<f4").reshape(form.chunk)
        out[:, i * width : (i + 1) * width] = piece
    return out[:n_rows, : form.n_genes]


def write_part(path: Path, group: PackedGroup) -> None:
    """Write a row group, completely or not at all."""
    data: dict[str, npt.NDArray[Any]] = {}
    for name, chunks in group.chunks.items():
        data[f"chunk/{name}/bytes"] = np.concatenate(chunks)
        data[f"chunk/{name}/ends"] = np.cumsum([len(chunk) for chunk in chunks])
    for name, rows in group.rows.items():
        for field in ("data", "indices", "indptr"):
            data[f"rows/{name}/{field}"] = getattr(rows, field)
    data |= {f"column/{name}": values for name, values in group.columns.items()}
    data |= {f"array/{name}": values for name, values in group.arrays.items()}
    _write(path, data)


def _write(path: Path, data: Mapping[str, npt.NDArray[Any]]) -> None:
    crash_point(f"write {path.name}")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **data)
    crash_point(f"wrote {path.name}")


def read_part(path: Path, form: Form, *, matrices: bool = True) -> PackedGroup:
    """Read a row group back.

    Parameters
    ----------
    path
        The file.
    form
        Shape of the output.
    matrices
        Whether matrices are read as well.
    """
    pieces: dict[str, dict[str, dict[str, npt.NDArray[Any]]]] = {"chunk": {}, "rows": {}}
    columns: dict[str, npt.NDArray[Any]] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            kind, name, *rest = key.split("/")
            if kind == "column":
                columns[name] = stored[key]
            elif kind == "array":
                arrays[name] = stored[key]
            elif matrices:
                pieces[kind].setdefault(name, {})[rest[0]] = stored[key]
    n_rows = len(arrays[keys.NEIGHBOURS])
    chunks = {
        name: np.split(part["bytes"], part["ends"][:-1]) for name, part in pieces["chunk"].items()
    }
    rows = {
        name: sparse.csr_matrix(
            (part["data"], part["indices"], part["indptr"]), shape=(n_rows, form.n_genes)
        )
        for name, part in pieces["rows"].items()
    }
    return PackedGroup(int(path.stem), chunks, rows, columns, arrays)


def write_encoded(path: Path, group: EncodedGroup) -> None:
    """Write what the network made of a group, completely or not at all."""
    looks = {} if group.looks is None else {"looks": group.looks}
    _write(path, {"values": group.values, "status": group.status, **looks})


def read_encoded(path: Path) -> EncodedGroup:
    """Read :func:`write_encoded`'s file."""
    with np.load(path, allow_pickle=False) as stored:
        looks = stored["looks"] if "looks" in stored.files else None
        return EncodedGroup(int(path.stem), stored["values"], stored["status"], looks)
