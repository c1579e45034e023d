"""The one scale of expression: log1p of counts per ten thousand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import ShapeError, explain
from stretrieve.keys import CP10K


def log_cp10k(
    counts: sparse.csr_matrix, library_size: npt.ArrayLike | None = None
) -> sparse.csr_matrix:
    """Return ``log1p(counts · 10⁴ / library_size)``.

    Parameters
    ----------
    counts
        ``(n_spots, n_genes)`` raw counts.
    library_size
        ``(n_spots,)`` total counts over *all* measured genes; the row sums of ``counts`` when
        ``None``. Give it when ``counts`` holds only some of the genes.

    Returns
    -------
    sparse.csr_matrix
        ``(n_spots, n_genes)`` float32. A spot without counts stays zero.

    Raises
    ------
    ShapeError
        When ``library_size`` does not have one value a spot.
    """
    matrix = sparse.csr_matrix(counts)
    if library_size is None:
        totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    else:
        totals = np.asarray(library_size, dtype=np.float64)
    if totals.shape != (matrix.shape[0],):
        raise ShapeError(
            explain("library_size", got=totals.shape, expected=f"({matrix.shape[0]},)")
        )
    scale = np.divide(CP10K, totals, out=np.zeros_like(totals), where=totals > 0)
    values = matrix.data * np.repeat(scale, np.diff(matrix.indptr))
    return sparse.csr_matrix(
        (np.log1p(values).astype(np.float32), matrix.indices.copy(), matrix.indptr.copy()),
        shape=matrix.shape,
    )
