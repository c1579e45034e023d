"""Writes predictions as AnnData on disk, one row group in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.query.output import Frame
from stretrieve.query.parts import COMPRESSION_LEVEL, Form, PackedGroup, unpack_dense
from stretrieve.query.rows import X

_ENTRIES_PER_CHUNK: Final = 1 << 16
_DICT: Final = {"encoding-type": "dict", "encoding-version": "0.1.0"}
_ANNDATA: Final = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
_ARRAY: Final = {"encoding-type": "array", "encoding-version": "0.2.0"}
_CSR: Final = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}

Groups = Callable[[], Iterator[PackedGroup]]


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


def write_anndata(
    out: Path, frame: Frame, groups: Groups, form: Form, *, output_format: OutputFormat
) -> None:
    """Write ``.h5ad`` or ``.zarr``, completely or not at all.

    Parameters
    ----------
    out
        The file or folder; must not exist.
    frame
        Tables and facts.
    groups
        Returns all row groups in order; called more than once.
    form
        Shape and storage of the matrices.
    output_format
        ``h5ad`` or ``zarr``.
    """
    with atomic_path(out) as temporary:
        if output_format is OutputFormat.H5AD:
            _write_h5ad(temporary, frame, groups, form)
        else:
            _write_zarr(temporary, frame, groups, form)


def _write_h5ad(path: Path, frame: Frame, groups: Groups, form: Form) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        _write(file, _H5Arrays(), frame, groups, form)


def _write_zarr(path: Path, frame: Frame, groups: Groups, form: Form) -> None:
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=2)
    _write(root, _ZarrArrays(), frame, groups, form)
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


def _write(
    root: Any, arrays: _H5Arrays | _ZarrArrays, frame: Frame, groups: Groups, form: Form
) -> None:
    import anndata as ad

    root.attrs.update(_ANNDATA)
    ad.io.write_elem(root, "obs", frame.obs)
    ad.io.write_elem(root, "var", frame.var)
    ad.io.write_elem(root, "uns", frame.uns)
    for name in ("layers", "obsm", "varm", "obsp", "varp"):
        root.create_group(name).attrs.update(_DICT)
    ad.io.write_elem(root["obsm"], keys.SPATIAL, frame.xy)
    start = 0
    for group in groups():
        _write_rows(root["obsm"], arrays, frame, group, form, start=start)
        _write_dense(root, arrays, group, form, start=start)
        start += len(group)
    for name in group.rows:
        _write_sparse(_parent(root, name), arrays, name, groups, form)


def _parent(root: Any, name: str) -> Any:
    return root if name == X else root["layers"]


def _write_rows(
    obsm: Any,
    arrays: _H5Arrays | _ZarrArrays,
    frame: Frame,
    group: PackedGroup,
    form: Form,
    *,
    start: int,
) -> None:
    """Write embeddings, neighbours and weights of a group, whose first row is ``start``."""
    for name, part in group.arrays.items():
        values: npt.NDArray[Any] = frame.local(part) if name == keys.NEIGHBOURS else part
        if start == 0:
            width = values.shape[1]
            chunks = (form.chunk[0], width)
            target = arrays.create(obsm, name, (form.n_rows, width), values.dtype, chunks)
            target.attrs.update(_ARRAY)
        obsm[name][start : start + len(group)] = values


def _write_dense(
    root: Any, arrays: _H5Arrays | _ZarrArrays, group: PackedGroup, form: Form, *, start: int
) -> None:
    """Write the dense matrices of a group."""
    for name in group.chunks:
        parent = _parent(root, name)
        if start == 0:
            shape = (form.n_rows, form.n_genes)
            arrays.create(parent, name, shape, "<f4", form.chunk).attrs.update(_ARRAY)
        arrays.put_chunks(parent[name], group, name, start, form)


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
