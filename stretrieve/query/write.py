"""Writes predictions as AnnData on disk, row group by row group, while others are predicted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.query.output import Frame
from stretrieve.query.parts import (
    COMPRESSION_LEVEL,
    SPARSE_MATRICES,
    Form,
    PackedGroup,
    unpack_dense,
)
from stretrieve.query.rows import X

_ENTRIES_PER_CHUNK: Final = 1 << 16
_DICT: Final = {"encoding-type": "dict", "encoding-version": "0.1.0"}
_ANNDATA: Final = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
_ARRAY: Final = {"encoding-type": "array", "encoding-version": "0.2.0"}
_CSR: Final = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}


class Groups(Protocol):
    """All row groups in order, from the first at each call."""

    def __call__(self, *, matrices: bool = True) -> Iterator[PackedGroup]:
        """Yield them, without their matrices if those are not needed."""


class OutputFormat(StrEnum):
    """Where predictions go."""

    H5AD = "h5ad"
    """AnnData in one HDF5 file."""
    ZARR = "zarr"
    """AnnData in a zarr (format 2) folder."""
    SPATIALDATA = "spatialdata"
    """SpatialData in a zarr folder: the table, patches as shapes, the thumbnail as image."""

    @property
    def suffix(self) -> str:
        """The ending of output names."""
        return ".h5ad" if self is OutputFormat.H5AD else ".zarr"


@contextlib.contextmanager
def open_output(out: Path, form: Form, *, output_format: OutputFormat) -> Iterator[OutputWriter]:
    """Begin ``.h5ad`` or ``.zarr``; it is there, complete, when the block ends without an error.

    Parameters
    ----------
    out
        The file or folder; must not exist.
    form
        Shape and storage of the matrices.
    output_format
        ``h5ad`` or ``zarr``.
    """
    opened = _opened_h5ad if output_format is OutputFormat.H5AD else _opened_zarr
    with atomic_path(out) as temporary, opened(temporary) as (root, arrays):
        yield OutputWriter(root, arrays, form)


@contextlib.contextmanager
def _opened_h5ad(path: Path) -> Iterator[tuple[Any, _H5Arrays]]:
    import h5py

    file = h5py.File(path, "w")
    try:
        yield file, _H5Arrays()
    except BaseException:
        with contextlib.suppress(OSError, RuntimeError):  # a full disk fails again here
            file.close()
        raise
    file.close()


@contextlib.contextmanager
def _opened_zarr(path: Path) -> Iterator[tuple[Any, _ZarrArrays]]:
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=2)
    yield root, _ZarrArrays()
    zarr.consolidate_metadata(root.store)


class _H5Arrays:
    """Arrays of an HDF5 file; packed chunks are copied as they are."""

    def create(
        self, parent: Any, name: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...]
    ) -> Any:
        if 0 in shape:
            return parent.create_dataset(name, shape=shape, dtype=dtype)
        return parent.create_dataset(
            name,
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            compression="gzip",
            compression_opts=COMPRESSION_LEVEL,
        )

    def put_chunks(self, array: Any, group: PackedGroup, name: str, start: int, form: Form) -> None:
        for i, chunk in enumerate(group.chunks[name]):
            array.id.write_direct_chunk((start, i * form.chunk[1]), chunk.tobytes())


class _ZarrArrays:
    """Arrays of a zarr group."""

    def create(
        self, parent: Any, name: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...]
    ) -> Any:
        import numcodecs

        return parent.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            compressors=numcodecs.Zlib(level=COMPRESSION_LEVEL),
        )

    def put_chunks(self, array: Any, group: PackedGroup, name: str, start: int, form: Form) -> None:
        array[start : start + len(group)] = unpack_dense(group.chunks[name], form, len(group))


class OutputWriter:
    """An AnnData output: its dense matrices as groups are predicted, everything else at the end.

    Parameters
    ----------
    root
        An empty HDF5 file or zarr group.
    arrays
        How arrays are stored in it.
    form
        Shape and storage of the matrices.
    """

    def __init__(self, root: Any, arrays: _H5Arrays | _ZarrArrays, form: Form) -> None:
        self._root, self._arrays, self._form = root, arrays, form
        self._there: set[int] = set()
        root.attrs.update(_ANNDATA)
        for name in ("uns", "layers", "obsm", "varm", "obsp", "varp"):
            root.create_group(name).attrs.update(_DICT)

    def put(self, group: PackedGroup) -> None:
        """Write the dense matrices of a group; groups may come in any order."""
        form = self._form
        for name in group.chunks:
            array = self._array(_parent(self._root, name), name, form.n_genes, "<f4", form.chunk)
            start = group.number * form.group_rows
            self._arrays.put_chunks(array, group, name, start, form)
        self._there.add(group.number)

    def describe(self, var: pd.DataFrame, uns: Mapping[str, Any]) -> None:
        """Write what describes genes and slide, or any part of it that is not there yet."""
        import anndata as ad

        if "var" not in self._root:
            ad.io.write_elem(self._root, "var", var)
        for name in uns.keys() - set(self._root["uns"]):
            ad.io.write_elem(self._root["uns"], name, uns[name])

    def finish(self, frame: Frame, groups: Groups) -> None:
        """Write the tables, and all that was not :meth:`put` or described before.

        Parameters
        ----------
        frame
            Tables and facts.
        groups
            All row groups.
        """
        import anndata as ad

        ad.io.write_elem(self._root, "obs", frame.obs)
        ad.io.write_elem(self._root["obsm"], keys.SPATIAL, frame.xy)
        self.describe(frame.var, frame.uns)
        numbers = set()
        for group in groups(matrices=False):
            self._put_rows(frame, group)
            numbers.add(group.number)
        if numbers > self._there:  # an interrupted run had predicted them
            for group in groups():
                if group.number not in self._there:
                    self.put(group)
        for name in filter(self._form.stores_sparse, SPARSE_MATRICES):
            _write_sparse(_parent(self._root, name), self._arrays, name, groups, self._form)

    def _put_rows(self, frame: Frame, group: PackedGroup) -> None:
        """Write embeddings, neighbours and weights of a group."""
        obsm, form = self._root["obsm"], self._form
        start = group.number * form.group_rows
        for name, part in group.arrays.items():
            values: npt.NDArray[Any] = frame.local(part) if name == keys.NEIGHBOURS else part
            width = values.shape[1]
            array = self._array(obsm, name, width, values.dtype, (form.chunk[0], width))
            array[start : start + len(group)] = values

    def _array(self, parent: Any, name: str, width: int, dtype: Any, chunk: tuple[int, int]) -> Any:
        """Return an array of one row a patch, made when it is first asked for."""
        if name not in parent:
            shape = (self._form.n_rows, width)
            self._arrays.create(parent, name, shape, dtype, chunk).attrs.update(_ARRAY)
        return parent[name]


def _parent(root: Any, name: str) -> Any:
    return root if name == X else root["layers"]


def _write_sparse(
    parent: Any, arrays: _H5Arrays | _ZarrArrays, name: str, groups: Groups, form: Form
) -> None:
    lengths = np.concatenate([np.diff(group.rows[name].indptr) for group in groups()])
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    chunks = (max(1, min(_ENTRIES_PER_CHUNK, int(indptr[-1]))),)
    shape = (int(indptr[-1]),)
    target = parent.create_group(name)
    target.attrs.update({**_CSR, "shape": [form.n_rows, form.n_genes]})
    data = arrays.create(target, "data", shape, "<f4", chunks)
    indices = arrays.create(target, "indices", shape, "<i4", chunks)
    start = 0
    for group in groups():
        rows = group.rows[name]
        data[start : start + rows.nnz] = rows.data
        indices[start : start + rows.nnz] = rows.indices
        start += rows.nnz
    arrays.create(target, "indptr", indptr.shape, "<i8", indptr.shape)[:] = indptr
