"""Retrieval averaged with a regression, and predictions brought to the variance of measured values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stretrieve.query.companion import Companion, Head, fit_companion
from stretrieve.query.pool import ArrayPool, Mask, Pool, Positions, spot_positions
from stretrieve.query.retriever import GENES_PER_BLOCK, Retriever
from stretrieve.query.scale import (
    Affine,
    Fold,
    Moments,
    by_section,
    gene_blocks,
    make_folds,
    sample_spots,
)
from stretrieve.query.settings import RetrievalSettings

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blend:
    """What is done to the neighbours' average; nothing by default.

    Parameters
    ----------
    share
        Weight of the regression, 0 to 1.
    companion
        The regression; ``None`` without a share.
    aligned
        From the regression's scale to that of retrieval.
    matched
        From the prediction to the variance of measured expression; ``None`` to leave it.
    """

    share: float = 0.0
    companion: Companion | Head | None = None
    aligned: Affine | None = None
    matched: Affine | None = None

    def regression(self, embeddings: npt.NDArray[np.floating], columns: Positions) -> Matrix | None:
        """Return the regression's values ``(n_patches, n_columns)`` as they enter the average.

        NaN for genes that it does not predict; retrieval stands alone there.
        """
        if self.companion is None or self.aligned is None:
            return None
        values = self.companion.predict(embeddings, columns)
        return self.match(self.aligned.apply(values, columns), columns)

    def average(
        self, mean: Matrix, embeddings: npt.NDArray[np.floating], columns: Positions
    ) -> Matrix:
        """Return retrieval's values ``(n_patches, n_columns)``, averaged with the regression."""
        mean, regression = self.match(mean, columns), self.regression(embeddings, columns)
        if regression is None:
            return mean
        averaged = (1 - self.share) * mean + self.share * regression
        return np.where(np.isnan(regression), mean, averaged)

    def match(self, values: Matrix, columns: Positions) -> Matrix:
        """Return values ``(n, n_columns)`` with the variance of measured expression, if asked for."""
        return values if self.matched is None else self.matched.apply(values, columns)

    def stretch(self, spread: Matrix, columns: Positions) -> Matrix:
        """Return standard deviations ``(n, n_columns)`` of values that were matched."""
        return spread if self.matched is None else spread * self.matched.slope[columns]


def fit_blend(
    pool: Pool, settings: RetrievalSettings, allowed: Mask, *, head: Head | None = None
) -> Blend:
    """Learn what ``settings`` ask for from the spots that may be used, and from no others.

    Parameters
    ----------
    pool
        The spots.
    settings
        ``companion`` and ``variance_match`` say what is needed.
    allowed
        ``(n_spots,)`` spots that may be used.
    head
        The embedder's regression, in place of one that is fitted.

    Notes
    -----
    Scales are those of predictions of reference patients from the other patients: the variance that
    averaging takes away is measured where truth is known, and needs nothing of the query slide.
    """
    if not settings.companion and not settings.variance_match:
        return Blend()
    sample = np.flatnonzero(sample_spots(pool, allowed))
    local = ArrayPool.of(pool, sample)
    everything = np.ones(len(sample), dtype=np.bool_)
    scales = _Scales(len(local.genes), head)
    for fold in make_folds(local, everything):
        scales.measure(local, settings, fold)
    aligned = Affine.between(scales.companion, scales.retrieval) if settings.companion else None
    companion = (head or fit_companion(local, everything)) if settings.companion else None
    matched = scales.to_truth(settings.companion, aligned) if settings.variance_match else None
    return Blend(settings.companion, companion, aligned, matched)


class _Scales:
    """Scales of held-out predictions and of the truth."""

    def __init__(self, n_genes: int, head: Head | None) -> None:
        self._head = head
        self.retrieval, self.companion, self.truth = (Moments(n_genes) for _ in range(3))
        self.sum, self.difference = Moments(n_genes), Moments(n_genes)

    def measure(self, pool: ArrayPool, settings: RetrievalSettings, fold: Fold) -> None:
        """Predict one fold from the others and take in what was predicted."""
        plain = replace(settings, companion=0.0, variance_match=False)
        retriever = Retriever(pool, plain, allowed=fold.others, score_ood=False)
        companion = (self._head or fit_companion(pool, fold.others)) if settings.companion else None
        for members in by_section(pool, fold.members):
            vectors = pool.embeddings("image", members)
            found = retriever.find_slide(vectors, spot_positions(pool, members))
            section = pool.section_index[members[0]]
            for columns, genes in gene_blocks(pool, GENES_PER_BLOCK):
                mean = retriever.average(found, genes).mean
                truth = pool.log_expression(members, genes).toarray().astype(np.float64)
                known = np.isfinite(mean) & pool.measured[section, columns]
                self.truth.add(np.where(known, truth, np.nan), columns)
                mean = np.where(known, mean, np.nan)
                self.retrieval.add(mean, columns)
                if companion is not None:
                    other = np.where(known, companion.predict(found.smoothed, columns), np.nan)
                    self.companion.add(other, columns)
                    self.sum.add(mean + other, columns)
                    self.difference.add(mean - other, columns)

    def to_truth(self, companion: float, aligned: Affine | None) -> Affine:
        """Return what gives predictions the deviation of measured values, around their own mean."""
        variance = self.retrieval.deviation**2
        if aligned is not None:
            share = np.where(self.companion.is_known, companion, 0.0)
            covariance = (self.sum.deviation**2 - self.difference.deviation**2) / 4
            own = (1 - share) ** 2 * variance
            shared = 2 * share * (1 - share) * aligned.slope * covariance
            variance = own + shared + (share * aligned.slope * self.companion.deviation) ** 2
        deviation = np.sqrt(np.maximum(variance, 0.0))
        slope = np.divide(
            self.truth.deviation, deviation, out=np.ones(len(deviation)), where=deviation > 1e-9
        )
        centre = self.retrieval.mean
        return Affine(centre - slope * centre, slope)
