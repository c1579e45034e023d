"""Elements of an AnnData file, HDF5 or zarr, read one by one and only as far as they are needed.

Follows the on-disk specification of AnnData (encoding-type attributes). Nothing is decoded that a
section does not need, so hostile ``uns`` entries are never touched.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.spots.compressed import checked_csr
from stretrieve.spots.hdf5 import load

_MAX_DENSE: Final = 4 << 30
_BLOCK_ROWS: Final = 1024


def read_matrix(element: Any, what: str) -> sparse.csr_matrix:
    """Return a matrix element, sparse either way or dense, as ``(n_obs, n_var)`` CSR.

    Raises
    ------
    ValueError
        When it is no matrix.
    """
    if is_group(element):
        kind = attribute(element, "encoding-type")
        shape = tuple(int(n) for n in np.asarray(element.attrs["shape"]).ravel())
        if len(shape) != 2 or kind not in {"csr_matrix", "csc_matrix"}:
            raise ValueError(f"{what} is of kind {kind!r}")
        parts = tuple(load(element[part]) for part in ("data", "indices", "indptr"))
        if kind == "csr_matrix":
            return checked_csr(what, *parts, shape=(shape[0], shape[1]))
        turned = checked_csr(what, *parts, shape=(shape[1], shape[0]))
        return sparse.csr_matrix(turned.T)
    return _dense(element, what)


def _dense(element: Any, what: str) -> sparse.csr_matrix:
    if len(element.shape) != 2 or np.dtype(element.dtype).kind not in "biuf":
        raise ValueError(f"{what} is no matrix of numbers")
    if int(np.prod(element.shape, dtype=object)) * element.dtype.itemsize > _MAX_DENSE:
        raise ValueError(f"{what} is a dense matrix of over 4 GiB")
    blocks = [
        sparse.csr_matrix(np.asarray(element[start : start + _BLOCK_ROWS]))
        for start in range(0, element.shape[0], _BLOCK_ROWS)
    ]
    return sparse.csr_matrix(sparse.vstack(blocks)) if blocks else sparse.csr_matrix(element.shape)


def read_index(frame: Any) -> list[str]:
    """Return the index of a data frame element (``obs`` or ``var``)."""
    return read_names(frame[attribute(frame, "_index") or "_index"])


def read_names(element: Any) -> list[str]:
    """Return a column of text: plain, categorical or nullable.

    Raises
    ------
    ValueError
        When it holds something else.
    """
    if is_group(element):
        if "codes" in element and "categories" in element:
            return _categorical(element)
        if "values" in element:
            return read_names(element["values"])
        raise ValueError(f"{element.name} is no column of names")
    values = load(element)
    if values.ndim != 1:
        raise ValueError(f"{element.name} is no column")
    if values.dtype.kind == "S":
        return [bytes(value).decode("utf-8") for value in values]
    if values.dtype.kind in "OUT":
        return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]
    if values.dtype.kind in "biu":
        return [str(value) for value in values]
    raise ValueError(f"{element.name} holds {values.dtype}, not names")


def _categorical(element: Any) -> list[str]:
    names = read_names(element["categories"])
    codes = load(element["codes"]).astype(np.int64)
    if codes.ndim != 1 or (len(codes) and (codes.min() < -1 or codes.max() >= len(names))):
        raise ValueError(f"{element.name} has codes without a category")
    return [names[code] if code >= 0 else "" for code in codes]


def read_numbers(element: Any) -> npt.NDArray[np.float64]:
    """Return a numeric column or array as float64; text and categories that hold numbers as well.

    Raises
    ------
    ValueError
        When it holds something else, or values that are missing or infinite.
    """
    if is_group(element) and "codes" in element:
        values = np.array([float(name) for name in _categorical(element)])
    elif is_group(element):
        values = load(element["values"]).astype(np.float64)
        if "mask" in element and np.any(load(element["mask"])):
            raise ValueError(f"{element.name} has missing values")
    else:
        values = load(element).astype(np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{element.name} has missing or infinite values")
    return values


def is_group(element: Any) -> bool:
    """Say whether an element of HDF5 or zarr is a group rather than an array."""
    return not hasattr(element, "shape")


def attribute(element: Any, name: str) -> str:
    """Return a text attribute, ``""`` when there is none."""
    value = element.attrs.get(name, "")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def looks_like_counts(values: sparse.csr_matrix) -> bool:
    """Say whether all values are finite whole numbers from 0."""
    data = values.data
    if data.dtype.kind in "biu":
        return bool(np.all(data >= 0)) if data.dtype.kind == "i" else True
    return bool(np.all(np.isfinite(data)) and np.all(data >= 0) and np.all(data == np.floor(data)))
