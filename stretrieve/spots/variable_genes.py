"""Choice of variable genes on raw counts, frozen on the sections that are given.

Per section the variance of each gene is compared with what its mean predicts (local quadratic
regression of log10 variance on log10 mean, span 0.3), counts are clipped at √n standard deviations, and
genes are ranked by the variance of the standardised, clipped counts (Stuart et al., Cell 2019, the
"v3" form). Over sections the median rank decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve.errors import ConfigError, GenePanelError, SectionError, explain
from stretrieve.spots.section import Section

_SPAN: Final = 0.3
_KNOTS: Final = 200


def highly_variable_genes(sections: Sequence[Section], n_genes: int) -> list[str]:
    """Return the most variable genes among those that every section measures.

    Parameters
    ----------
    sections
        The sections that the choice may see: the training sections, never the test section.
    n_genes
        How many; fewer come back when the sections share fewer.

    Returns
    -------
    list of str
        Gene keys, most variable first; ties go by key.

    Raises
    ------
    ConfigError
        When ``n_genes`` is below one.
    SectionError
        When no section is given.
    GenePanelError
        When the sections share no gene.
    """
    if n_genes < 1:
        raise ConfigError(explain("n_genes", got=n_genes, expected="1 or more"))
    if not sections:
        raise SectionError(explain("variable genes", got="no section", expected="one or more"))
    shared = reduce(lambda kept, other: kept & other, (set(s.gene_names) for s in sections))
    if not shared:
        raise GenePanelError(
            explain(
                "variable genes",
                got=f"no gene in common among {len(sections)} sections",
                remedy="compare their gene names with: stretrieve genes check",
            )
        )
    genes = sorted(shared)
    ranks = np.empty((len(sections), len(genes)))
    for i, section in enumerate(sections):
        columns = section.genes.index.get_indexer(pd.Index(genes))
        ranks[i] = _ranks(normalised_variance(section.counts[:, columns]))
    order = np.lexsort((np.arange(len(genes)), np.median(ranks, axis=0)))
    return [genes[j] for j in order[:n_genes]]


def normalised_variance(counts: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """Return the variance of standardised, clipped counts of every gene.

    Parameters
    ----------
    counts
        ``(n_spots, n_genes)`` raw counts.

    Returns
    -------
    ndarray
        ``(n_genes,)``; zero for genes that do not vary.
    """
    matrix = sparse.csc_matrix(counts, dtype=np.float64)
    n_spots = matrix.shape[0]
    if n_spots < 2:
        return np.zeros(matrix.shape[1])
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    square = np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()
    variance = np.maximum(square - n_spots * mean**2, 0) / (n_spots - 1)
    varies = variance > 1e-12
    if not varies.any():
        return np.zeros(matrix.shape[1])
    expected = np.ones(matrix.shape[1])
    fitted = _local_quadratic(np.log10(mean[varies]), np.log10(variance[varies]))
    expected[varies] = np.sqrt(10**fitted)
    limit = expected * np.sqrt(n_spots) + mean
    clipped = matrix.copy()
    clipped.data = np.minimum(matrix.data, np.repeat(limit, np.diff(matrix.indptr)))
    total = np.asarray(clipped.sum(axis=0)).ravel()
    squares = np.asarray(clipped.multiply(clipped).sum(axis=0)).ravel()
    spread = n_spots * mean**2 + squares - 2 * total * mean
    return np.where(varies, spread / ((n_spots - 1) * expected**2), 0.0)


def _ranks(score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank from 0 (largest); equal scores share their mean rank, so their order cannot matter."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-score, method="average"), dtype=np.float64)


def _local_quadratic(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Smooth ``y`` over ``x`` by tricube-weighted quadratics at knots, linear in between."""
    order = np.argsort(x, kind="stable")
    xs, ys = x[order], y[order]
    window = min(max(int(np.ceil(_SPAN * len(xs))), 4), len(xs))
    knots = np.unique(xs[np.linspace(0, len(xs) - 1, min(_KNOTS, len(xs))).astype(int)])
    values = np.array([_fit_at(knot, xs, ys, window) for knot in knots])
    return np.asarray(np.interp(x, knots, values), dtype=np.float64)


def _fit_at(
    knot: float, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64], window: int
) -> float:
    centre = int(np.searchsorted(xs, knot))
    low, high = max(0, centre - window), min(len(xs), centre + window)
    distance = np.abs(xs[low:high] - knot)
    reach = float(np.partition(distance, window - 1)[window - 1])
    near = distance <= reach
    offset = xs[low:high][near] - knot
    weight = (1 - (distance[near] / (reach * 1.0001 + 1e-12)) ** 3) ** 1.5
    degree = min(2, len(np.unique(offset)) - 1)
    design = np.vander(offset, degree + 1, increasing=True)
    solution = np.linalg.lstsq(design * weight[:, None], ys[low:high][near] * weight, rcond=None)[0]
    return float(solution[0])
