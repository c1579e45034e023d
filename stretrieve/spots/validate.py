"""The policy for everything that can be wrong with counts and names, in one place.

=========================  ==========================================================================
what                       policy
=========================  ==========================================================================
NaN, infinite, negative    error
not whole numbers          error: normalised values cannot be turned back into counts
above 2³¹ − 1              error
duplicate barcodes         error: nobody can say which row is right
empty or path-like names   error
pixel coordinates          error when missing, infinite or beyond 10⁸
duplicate genes            summed; counted in ``repairs``
spots without any count    dropped; counted in ``repairs``
genes without any count    kept: they were measured
=========================  ==========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.spots.raw import RawMatrix

_MAX_COUNT: Final = np.iinfo(np.int32).max
_MAX_NAME: Final = 256
_MAX_COORDINATE: Final = 1e8
_BAD_NAME: Final = re.compile(r"[\x00-\x1f\x7f]|^\s*$|^[/\\]|(^|[/\\])\.\.([/\\]|$)")


def clean_counts(what: str, values: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return counts as CSR int32 without stored zeros, or say what is wrong with them.

    Parameters
    ----------
    what
        The section, for messages.
    values
        ``(n_spots, n_genes)`` of any numeric type.

    Raises
    ------
    SectionError
        When a value is not a count.
    """
    matrix = sparse.csr_matrix(values)
    matrix.sum_duplicates()
    data = matrix.data
    if not (np.issubdtype(data.dtype, np.number) or data.dtype == np.bool_):
        raise _bad_values(what, f"values of type {data.dtype}")
    if np.issubdtype(data.dtype, np.complexfloating):
        raise _bad_values(what, "complex values")
    _check_values(what, data)
    counts = sparse.csr_matrix(
        (data.astype(np.int32), matrix.indices, matrix.indptr), shape=matrix.shape
    )
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts


def _check_values(what: str, data: npt.NDArray[Any]) -> None:
    if not np.all(np.isfinite(data)):
        raise _bad_values(what, f"{int(np.sum(~np.isfinite(data)))} missing or infinite values")
    if np.any(data < 0):
        raise _bad_values(what, f"{int(np.sum(data < 0))} negative values")
    if np.any(data > _MAX_COUNT):
        raise _bad_values(what, f"a count of {float(data.max()):.3g}")
    if np.issubdtype(data.dtype, np.floating):
        fractional = data != np.floor(data)
        if np.any(fractional):
            share = float(np.mean(fractional))
            example = float(data[fractional][0])
            raise _bad_values(
                what, f"{share:.0%} of the stored values not whole, such as {example:.4g}"
            )


def _bad_values(what: str, got: str) -> SectionError:
    return SectionError(
        explain(
            f"counts of {what}",
            got=got,
            expected="raw counts, whole numbers from 0",
            remedy="give the matrix before normalisation",
        )
    )


def check_names(what: str, names: Sequence[str]) -> None:
    """Refuse empty, overlong and path-like names.

    Raises
    ------
    SectionError
        With the first offender.
    """
    for name in names:
        if len(name) > _MAX_NAME or _BAD_NAME.search(name):
            raise SectionError(
                explain(
                    what,
                    got=repr(name[:60]),
                    expected="plain names, no paths or control characters",
                )
            )


def check_coordinates(
    what: str, xy: npt.NDArray[np.float64], array_xy: npt.NDArray[np.float64]
) -> None:
    """Refuse positions that no slide has.

    Parameters
    ----------
    what
        The section, for messages.
    xy
        ``(n_spots, 2)`` centres in level-0 px.
    array_xy
        ``(n_spots, 2)`` array positions; NaN where there are none.

    Raises
    ------
    SectionError
        When a position is missing, infinite or out of all reason.
    """
    bad = ~(np.abs(xy) <= _MAX_COORDINATE) | (np.abs(array_xy) > _MAX_COORDINATE)
    if bad.any():
        raise SectionError(
            explain(
                f"positions of {what}",
                got=f"{int(bad.any(axis=1).sum())} missing, infinite or beyond {_MAX_COORDINATE:.0e}",
                expected="pixels of the image",
            )
        )


def drop_empty_spots(counts: sparse.csr_matrix) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Return which spots have any count, ``(n_spots,)``, and the account of those that have not."""
    keep = np.asarray(np.diff(counts.indptr) > 0, dtype=bool)
    n_empty = int((~keep).sum())
    return keep, (f"{n_empty} spots without any count dropped",) if n_empty else ()


def check_not_empty(what: str, raw: RawMatrix) -> None:
    """Refuse a matrix without spots or genes.

    Raises
    ------
    SectionError
        When there is nothing to read.
    """
    if 0 in raw.values.shape:
        raise SectionError(
            explain(
                f"counts of {what}",
                got=f"{raw.values.shape[0]} spots x {raw.values.shape[1]} genes",
            )
        )
