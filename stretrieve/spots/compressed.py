"""Sparse matrices from arrays that nobody vouches for."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stretrieve.errors import SectionError, explain


def checked_csr(
    what: str, data: Any, indices: Any, indptr: Any, *, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Build a CSR matrix after checks that SciPy leaves out and its C++ code relies on.

    Parameters
    ----------
    what
        The file, for messages.
    data, indices, indptr
        ``(nnz,)``, ``(nnz,)`` and ``(n_rows + 1,)`` arrays of the compressed rows.
    shape
        (n_rows, n_columns).

    Raises
    ------
    SectionError
        When the three arrays do not describe a matrix of that shape, or a cell is stored twice.
    """
    data, indices, indptr = np.asarray(data), np.asarray(indices), np.asarray(indptr)
    if any(a.ndim != 1 for a in (data, indices, indptr)) or min(shape) < 0:
        raise _malformed(what, "arrays that are not one-dimensional")
    if (
        indices.dtype.kind not in "iu"
        or indptr.dtype.kind not in "iu"
        or data.dtype.kind not in "biuf"
    ):
        raise _malformed(what, f"types {data.dtype}, {indices.dtype}, {indptr.dtype}")
    if len(indptr) != shape[0] + 1 or len(indices) != len(data):
        raise _malformed(
            what, f"{len(indptr)} pointers, {len(indices)} indices, {len(data)} values"
        )
    pointers = indptr.astype(np.int64)
    if pointers[0] != 0 or pointers[-1] != len(data) or np.any(np.diff(pointers) < 0):
        raise _malformed(what, "row pointers out of order")
    columns = indices.astype(np.int64)
    if len(columns) and (columns.min() < 0 or columns.max() >= shape[1]):
        raise _malformed(what, f"a column {columns.min()} or {columns.max()} outside {shape[1]}")
    matrix = sparse.csr_matrix((data, columns, pointers), shape=shape)
    matrix.sum_duplicates()
    if matrix.nnz != len(data):
        raise _malformed(what, f"{len(data) - matrix.nnz} cells stored twice")
    return matrix


def _malformed(what: str, got: str) -> SectionError:
    return SectionError(explain(f"sparse matrix in {what}", got=got, expected="an intact matrix"))
