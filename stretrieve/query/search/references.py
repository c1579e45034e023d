"""One object to search references with: open it once, ask in any direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from stretrieve._progress import SILENT, Progress
from stretrieve.query.locate import SpotPositions
from stretrieve.query.search.hits import Hits
from stretrieve.query.search.neighbours import search_spots
from stretrieve.query.search.pool import ReferencePool
from stretrieve.query.search.queries import (
    SpotQuery,
    query_patches,
    query_section,
    query_stored,
    query_stored_section,
    query_vectors,
)
from stretrieve.query.search.sections import MatchSettings, SectionMatches, match_sections
from stretrieve.query.search.sides import Exclusion, Side
from stretrieve.query.search.signature import (
    SignatureScores,
    SignatureSettings,
    score_signature,
)
from stretrieve.query.settings import QuerySettings
from stretrieve.reference import Reference
from stretrieve.spots import Section
from stretrieve.store import Filter
from stretrieve.units import PixelSize

if TYPE_CHECKING:
    import anndata as ad


class ReferenceSearch:
    """Searches one or several references that share an embedder.

    Parameters
    ----------
    references
        Open references, or folders (their newest version).

    Raises
    ------
    ReferenceNotFoundError
        When there is no reference at a place.
    EmbedderMismatchError
        When two references were made with different embedders.

    Examples
    --------
    >>> retriever = ReferenceSearch("REF")  # doctest: +SKIP
    >>> query = retriever.patches("slide.svs", patient="P2")  # doctest: +SKIP
    >>> retriever.search(query, target="expression").to_frame()  # doctest: +SKIP
    """

    def __init__(self, *references: Reference | Path | str) -> None:
        self.pool = ReferencePool(
            tuple(r if isinstance(r, Reference) else Reference.open(r) for r in references)
        )

    # what to ask with --------------------------------------------------------------------------

    def patches(
        self,
        slide: Path | str,
        *,
        mpp: float | PixelSize | None = None,
        spots: SpotPositions | None = None,
        patient: str | None = None,
        settings: QuerySettings | None = None,
        thumbnails: bool = False,
        progress: Progress = SILENT,
    ) -> SpotQuery:
        """Ask with patches of a slide; see :func:`~stretrieve.query.search.queries.query_patches`."""
        return query_patches(
            self.pool.embedder,
            slide,
            mpp=mpp,
            spots=spots,
            patient=patient,
            settings=settings,
            thumbnails=thumbnails,
            progress=progress,
        )

    def stored(
        self, spot_uids: Sequence[str], *, modality: Side | str, thumbnails: bool = False
    ) -> SpotQuery:
        """Ask with stored spots; see :func:`~stretrieve.query.search.queries.query_stored`."""
        return query_stored(self.pool, spot_uids, modality=modality, thumbnails=thumbnails)

    def stored_section(self, section: str, *, modality: Side | str) -> SpotQuery:
        """Ask with a stored section, all of its spots."""
        return query_stored_section(self.pool, section, modality=modality)

    def section(self, section: Section | ad.AnnData, *, mpp: float | None = None) -> SpotQuery:
        """Ask with measured expression; see :func:`~stretrieve.query.search.queries.query_section`."""
        return query_section(self.pool.embedder, section, mpp=mpp)

    def vectors(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Side | str,
        names: Sequence[str] | None = None,
        patient: str | None = None,
    ) -> SpotQuery:
        """Ask with embeddings; see :func:`~stretrieve.query.search.queries.query_vectors`."""
        dim = int(self.pool.references[0].manifest.embedder["dim"])
        return query_vectors(vectors, modality=modality, dim=dim, names=names, patient=patient)

    # what is answered --------------------------------------------------------------------------

    def search(
        self,
        query: SpotQuery,
        *,
        target: Side | str,
        top_k: int = 10,
        where: Filter | None = None,
        exclude: Exclusion | str = Exclusion.PATIENT,
        progress: Progress = SILENT,
    ) -> Hits:
        """Find the nearest spots; see :func:`~stretrieve.query.search.neighbours.search_spots`."""
        return search_spots(
            self.pool,
            query,
            target=target,
            top_k=top_k,
            where=where,
            exclude=exclude,
            progress=progress,
        )

    def signature(
        self,
        signature: Mapping[str, float],
        *,
        where: Filter | None = None,
        ignore_unknown: bool = False,
        settings: SignatureSettings | None = None,
        progress: Progress = SILENT,
    ) -> SignatureScores:
        """Score a gene set; see :func:`~stretrieve.query.search.signature.score_signature`."""
        return score_signature(
            self.pool,
            signature,
            where=where,
            ignore_unknown=ignore_unknown,
            settings=settings,
            progress=progress,
        )

    def match(
        self,
        query: SpotQuery,
        *,
        target: Side | str | None = None,
        where: Filter | None = None,
        exclude: Exclusion | str = Exclusion.PATIENT,
        settings: MatchSettings | None = None,
        progress: Progress = SILENT,
    ) -> SectionMatches:
        """Find similar sections; see :func:`~stretrieve.query.search.sections.match_sections`."""
        return match_sections(
            self.pool,
            query,
            target=target,
            where=where,
            exclude=exclude,
            settings=settings,
            progress=progress,
        )
