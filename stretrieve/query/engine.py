"""The query engine: a slide in, imputed expression out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stretrieve import __version__, keys
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import GenePanelError, explain
from stretrieve.query.encode import EncodedSlide, encode_slide
from stretrieve.query.expression import ExpressionSource
from stretrieve.query.impute import Imputed, WeightMatrix, impute
from stretrieve.query.locate import Positions, SpotPositions, locate
from stretrieve.query.ood import Scores, ood_score, reference_similarity
from stretrieve.query.output import Predictions, assemble
from stretrieve.query.result import QueryResult
from stretrieve.query.retrieve import Neighbours, allowed_spots, centre_embeddings, retrieve
from stretrieve.query.settings import Centring, QuerySettings
from stretrieve.reference import Reference
from stretrieve.slides import open_slide
from stretrieve.spots import canonical_species
from stretrieve.units import MppSource, PixelSize

_GENES_PER_BLOCK = 512


class QueryEngine:
    """Imputes expression for slides from one reference.

    Parameters
    ----------
    reference
        Where neighbours come from.
    settings
        How they are found and averaged.
    """

    def __init__(self, reference: Reference, *, settings: QuerySettings | None = None) -> None:
        self.reference = reference
        self.settings = settings or QuerySettings()
        self._source = ExpressionSource(reference, self.settings.centring)

    @functools.cached_property
    def _calibration(self) -> Scores:
        return reference_similarity(self.reference)

    def query(
        self,
        slide: Path | str,
        *,
        mpp: float | PixelSize | None = None,
        patient: str | None = None,
        organ: str | None = None,
        species: str | None = None,
        spots: SpotPositions | None = None,
        genes: Sequence[str] | None = None,
        progress: Progress = SILENT,
    ) -> QueryResult:
        """Predict expression on a slide.

        Parameters
        ----------
        slide
            Image file.
        mpp
            Microns per level-0 pixel, where the file does not say or says it wrongly.
        patient
            Donor of the slide; reference spots of the same donor are left out.
        organ, species
            When given, only reference spots of that organ or species are used.
        spots
            Positions to predict at; a grid over the tissue when ``None``.
        genes
            Gene keys or symbols to impute; all genes of the reference when ``None``.
        progress
            Receiver of progress.

        Raises
        ------
        SlideError
            When the slide cannot be opened or too many patches cannot be read.
        MppError
            When nothing gives the resolution.
        TissueError
            When there is no tissue.
        GenePanelError
            When a gene asked for is not in the reference.
        InputError
            When the filters leave no reference spot.
        """
        wanted = self._genes(genes)
        filters: dict[str, str] = {}
        if organ is not None:
            filters[keys.ORGAN] = organ.lower()
        if species is not None:
            filters[keys.SPECIES] = canonical_species(species)
        allowed = allowed_spots(self.reference, patient=patient, filters=filters)
        size = PixelSize.square(mpp, MppSource.GIVEN) if isinstance(mpp, float | int) else mpp
        with open_slide(slide, pixel_size=size) as opened:
            embedder = self.reference.embedder
            at = locate(opened, embedder.spec, settings=self.settings, spots=spots)
            encoded = encode_slide(opened, at, embedder, settings=self.settings, progress=progress)
            encoded = self._centred(encoded, allowed)
            neighbours = retrieve(
                self.reference, encoded.embeddings, settings=self.settings, allowed=allowed
            )
            predictions = self._predict(at, encoded, neighbours, allowed, wanted, progress)
            warnings = self._warnings(allowed, patient)
            adata = assemble(
                predictions,
                slide=opened,
                reference=self.reference,
                settings=self.settings,
                context={
                    "version": __version__,
                    "patient": patient,
                    "filters": filters or None,
                    "warnings": np.array(warnings, dtype=object),
                },
            )
        return QueryResult(adata, tuple(warnings), self.reference, self._source)

    def _centred(self, encoded: EncodedSlide, allowed: npt.NDArray[np.bool_]) -> EncodedSlide:
        if self.settings.centring is not Centring.BOTH:
            return encoded
        moved = centre_embeddings(self.reference, encoded.embeddings, allowed=allowed)
        return dataclasses.replace(encoded, embeddings=moved)

    def _predict(
        self,
        at: Positions,
        encoded: EncodedSlide,
        neighbours: Neighbours,
        allowed: npt.NDArray[np.bool_],
        genes: list[str],
        progress: Progress,
    ) -> Predictions:
        keep = encoded.keep
        return Predictions(
            names=at.names[keep],
            xy=at.xy[keep],
            tissue_fraction=at.tissue_fraction[keep],
            status=encoded.status,
            embeddings=encoded.embeddings,
            neighbours=neighbours,
            ood=ood_score(
                self.reference, encoded.embeddings, allowed=allowed, calibration=self._calibration
            ),
            imputed=self._impute(neighbours, genes, progress),
            genes=genes,
            n_failed=encoded.n_failed,
        )

    def _impute(self, neighbours: Neighbours, genes: list[str], progress: Progress) -> Imputed:
        matrix = WeightMatrix.build(neighbours.indices, neighbours.weights)
        parts: list[Imputed] = []
        with progress.task("impute genes", len(genes)) as task:
            for start in range(0, len(genes), _GENES_PER_BLOCK):
                block = genes[start : start + _GENES_PER_BLOCK]
                values, measured = self._source.values(matrix.used, block)
                parts.append(_narrow(impute(matrix.matrix, values, measured=measured)))
                task.advance(len(block))
        return Imputed(
            *(
                np.concatenate([getattr(part, name) for part in parts], axis=1)
                for name in ("mean", "spread", "n_effective", "coverage")
            )
        )

    def _genes(self, genes: Sequence[str] | None) -> list[str]:
        table = self.reference.genes
        if genes is None:
            return [str(name) for name in table.index]
        by_symbol = table.index.to_series(index=table[keys.GENE_SYMBOL]).groupby(level=0).first()
        found = [g if g in table.index else by_symbol.get(g) for g in dict.fromkeys(genes)]
        missing = [g for g, key in zip(dict.fromkeys(genes), found, strict=True) if key is None]
        if missing or not found:
            raise GenePanelError(
                explain(
                    "genes asked for",
                    got=f"{', '.join(missing[:5]) or 'none'}{'…' if len(missing) > 5 else ''}",
                    expected="genes of the reference",
                    remedy="use keys or symbols of its gene table",
                )
            )
        return [str(key) for key in dict.fromkeys(found)]

    def _warnings(self, allowed: npt.NDArray[np.bool_], patient: str | None) -> list[str]:
        warnings: list[str] = []
        spots = self.reference.spots[allowed]
        if len(spots) < self.settings.top_k:
            warnings.append(
                f"only {len(spots)} reference spots may be used, fewer than top_k "
                f"{self.settings.top_k}"
            )
        if patient is None:
            warnings.append("patient unknown: spots of the same donor were not excluded")
        if spots[keys.PATIENT].nunique() < 3:
            warnings.append("fewer than three reference patients: expect weak generalisation")
        return warnings


def _narrow(part: Imputed) -> Imputed:
    return Imputed(
        *(
            getattr(part, name).astype(np.float32)
            for name in ("mean", "spread", "n_effective", "coverage")
        )
    )
