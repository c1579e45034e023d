"""From embeddings of patches to expression, batch by batch; needs no slide and no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.errors import ConfigError, explain
from stretrieve.models.look import Looks
from stretrieve.query.blend import Blend, fit_blend
from stretrieve.query.calibration import Calibration, Interval
from stretrieve.query.companion import Head
from stretrieve.query.conformal import WRITTEN_LEVELS
from stretrieve.query.impute import NEGLIGIBLE
from stretrieve.query.pool import Mask, Pool, gene_columns
from stretrieve.query.retriever import GENES_PER_BLOCK, Found, PoolFacts, Retriever
from stretrieve.query.settings import CompanionKind, RetrievalSettings

__all__ = ["COMPANION_ROW", "GENES_PER_BLOCK", "Found", "PoolFacts", "Prediction", "Predictor"]

COMPANION_ROW = "(regression)"
"""``spot_uid`` of the regression's row in an explanation."""


@dataclass(frozen=True)
class Prediction:
    """Expression predicted for a batch of patches.

    Parameters
    ----------
    genes
        Gene keys of the columns.
    mean
        ``(n_patches, n_genes)`` log1p CP10k; NaN where no neighbour measured the gene.
    spread
        ``(n_patches, n_genes)`` weighted standard deviation of the neighbours' values.
    n_effective, coverage
        ``(n_patches, n_genes)``; see :class:`~stretrieve.query.impute.Imputed`.
    found
        Neighbours and scores behind it.
    companion_share
        Weight of the regression in ``mean``.
    intervals
        Nominal coverage in percent to interval; empty without a calibration for these settings.
    """

    genes: tuple[str, ...]
    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    n_effective: npt.NDArray[np.float64]
    coverage: npt.NDArray[np.float64]
    found: Found
    companion_share: float = 0.0
    intervals: Mapping[int, Interval] = field(default_factory=dict)

    def interval_layers(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return ``lower_80``, ``upper_80``, ``lower_90``, ``upper_90``; empty without intervals."""
        return {
            f"{side}_{level}": values
            for level, interval in self.intervals.items()
            for side, values in ((keys.LOWER, interval.lower), (keys.UPPER, interval.upper))
        }


class Predictor:
    """Predicts expression from embeddings of patches, by retrieval from a pool of measured spots.

    Parameters
    ----------
    pool
        The spots, for instance a :class:`~stretrieve.reference.Reference` or an
        :class:`~stretrieve.query.pool.ArrayPool`.
    settings
        How neighbours are found and averaged.
    allowed
        ``(n_spots,)`` spots that may be used (:func:`~stretrieve.query.retrieve.allowed_spots`); all
        when ``None``. Spots that may not be used have no influence on any result.
    calibration
        Gives intervals to predictions with the settings it was made for; no others get any.
    facts
        Shared by predictors of the same pool.
    score_ood
        Whether :meth:`find` scores how unlike the pool a patch is.
    abstain
        Distance beyond which a patch gets no values; see
        :class:`~stretrieve.query.settings.QuerySettings`. Needs ``score_ood``.
    head
        The embedder's own regression, for ``companion_kind = head``.

    Notes
    -----
    A slide of any size: ``shift = predictor.prepare(mean embedding)``, then for each batch of patches
    ``found = predictor.find(batch, shift=shift)``, then for each block of genes
    ``predictor.impute(found, genes)``. Batches and blocks do not change any value. With smoothing,
    ``predictor.retriever.smooth`` comes between the two.
    """

    def __init__(
        self,
        pool: Pool,
        settings: RetrievalSettings | None = None,
        *,
        allowed: Mask | None = None,
        calibration: Calibration | None = None,
        facts: PoolFacts | None = None,
        score_ood: bool = True,
        abstain: float | None = None,
        head: Head | None = None,
    ) -> None:
        self.retriever = Retriever(
            pool, settings, allowed=allowed, facts=facts, score_ood=score_ood, abstain=abstain
        )
        self.pool = pool
        self.settings = self.retriever.settings
        self._head = _wanted(head, self.settings)
        self.allowed = self.retriever.allowed
        self.facts = self.retriever.facts
        fits = calibration is not None and calibration.applies_to(self.settings)
        self.calibration = calibration if fits else None

    @cached_property
    def blend(self) -> Blend:
        """The regression beside retrieval and the scale of predictions, fitted on allowed spots."""
        return self.facts.keep(
            "blend",
            self.allowed,
            self.settings,
            lambda: fit_blend(self.facts.pool, self.settings, self.allowed, head=self._head),
        )

    @property
    def needs_slide(self) -> bool:
        """Whether a whole slide has to be seen before any patch is predicted."""
        return self.retriever.needs_slide

    @property
    def smooths_regression(self) -> bool:
        """Whether a regression reads other embeddings than those that are searched with."""
        return self.settings.smoothing_um > 0 and self.settings.companion > 0

    def prepare(self, embeddings: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
        """Return the shift that removes a slide's offset, for :meth:`find`; ``None`` for none.

        Parameters
        ----------
        embeddings
            ``(n_patches, dim)`` of the whole slide, or their mean ``(dim,)``.
        """
        return self.retriever.prepare(embeddings)

    def find(
        self,
        embeddings: Embeddings,
        *,
        shift: npt.NDArray[np.float64] | None = None,
        looks: Looks | None = None,
    ) -> Found:
        """Find and weight the neighbours of a batch of patches.

        Parameters
        ----------
        embeddings
            ``(n_patches, dim)`` of the joint space.
        shift
            From :meth:`prepare`, seeing the whole slide.
        looks
            ``(n_patches, 29)`` what the patches look like, if it is known; see
            :meth:`~stretrieve.query.retriever.Retriever.find`.
        """
        return self.retriever.find(embeddings, shift=shift, looks=looks)

    def find_slide(
        self,
        embeddings: Embeddings,
        xy_um: npt.NDArray[np.floating] | None = None,
        *,
        looks: Looks | None = None,
    ) -> Found:
        """Find all patches of a slide; see :meth:`~stretrieve.query.retriever.Retriever.find_slide`."""
        return self.retriever.find_slide(embeddings, xy_um, looks=looks)

    def impute(self, found: Found, genes: Sequence[str] | None = None) -> Prediction:
        """Predict some genes, or all, from what was found."""
        names = [str(g) for g in self.pool.genes.index] if genes is None else list(genes)
        mean, spread, n_effective, coverage = self._average(found, names)
        intervals = {}
        if self.calibration is not None:
            columns = gene_columns(self.pool, names)
            intervals = self.calibration.intervals(mean, spread, columns, levels=WRITTEN_LEVELS)
        return Prediction(
            tuple(names),
            mean,
            spread,
            n_effective,
            coverage,
            found,
            companion_share=self.blend.share,
            intervals=intervals,
        )

    def _average(self, found: Found, genes: Sequence[str]) -> tuple[npt.NDArray[np.float64], ...]:
        averaged = self.retriever.average(found, genes)
        columns = gene_columns(self.pool, genes)
        mean = self.blend.average(averaged.mean, found.smoothed, columns)
        spread = self.blend.stretch(averaged.spread, columns)
        return mean, spread, averaged.n_effective, averaged.coverage

    def predict(
        self,
        embeddings: Embeddings,
        genes: Sequence[str] | None = None,
        *,
        xy_um: npt.NDArray[np.floating] | None = None,
    ) -> Prediction:
        """Predict a whole slide at once: :meth:`find_slide` and :meth:`impute`."""
        return self.impute(self.find_slide(embeddings, xy_um), genes)

    def explain(
        self,
        gene: str,
        positions: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float64],
        *,
        embedding: npt.NDArray[np.floating],
        smoothed: npt.NDArray[np.floating] | None = None,
    ) -> pd.DataFrame:
        """Return the measured spots behind one predicted value.

        Parameters
        ----------
        gene
            Gene key.
        positions, weights
            ``(top_k,)`` neighbours of the patch in the pool, −1 for none, and their weights.
        embedding
            ``(dim,)`` of the patch, as in :attr:`Found.embeddings`.
        smoothed
            ``(dim,)`` as in :attr:`Found.smoothed`, where that differs.

        Returns
        -------
        DataFrame
            Columns ``spot_uid, section, patient, dataset, weight, value, similarity``, best neighbour
            first. ``sum(weight * value)`` is the prediction. ``value`` is the spot's log1p CP10k as it
            enters the average: freed of its section's offset and stretched where the settings say so.
            Neighbours that did not measure the gene are left out. A regression's share is the last
            row, whose ``spot_uid`` is :data:`COMPANION_ROW`. ``similarity`` is the search's score.
        """
        known = (positions >= 0) & (weights > NEGLIGIBLE)
        positions, weights = positions[known], weights[known]
        values, measured = self.retriever.source.values(positions, [gene])
        votes = measured[:, 0]
        positions, weights = positions[votes], weights[votes]
        columns = gene_columns(self.pool, [gene])
        read = embedding if smoothed is None else smoothed
        regression = self.blend.regression(read[None], columns)
        beside = regression is not None and bool(np.isfinite(regression).all())
        share = self.blend.share if beside else 0.0
        spots = self.pool.spots.iloc[positions]
        named = (keys.SPOT_UID, keys.SECTION, keys.PATIENT)
        table = pd.DataFrame(
            {
                **{name: spots[name].to_numpy(dtype=object) for name in named},
                "dataset": self.pool.dataset,
                "weight": (1 - share) * weights / weights.sum(),
                "value": self.blend.match(values[votes], columns)[:, 0],
                "similarity": self.retriever.similarity(embedding, positions),
            }
        )
        if regression is not None and share and len(table):
            row = [share, regression[0, 0], np.nan]
            table.loc[len(table)] = [COMPANION_ROW, "", "", self.pool.dataset, *row]
        return table


def _wanted(head: Head | None, settings: RetrievalSettings) -> Head | None:
    """Return the head when the settings ask for it."""
    if settings.companion_kind is not CompanionKind.HEAD or not settings.companion:
        return None
    if head is None:
        raise ConfigError(
            explain("companion_kind", got="'head' without an embedder", remedy="use 'ridge'")
        )
    return head
