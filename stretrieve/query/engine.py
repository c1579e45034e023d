"""The query engine: a slide in, imputed expression out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stretrieve import keys
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders import Embedder, load_embedder
from stretrieve.query.calibrate_reference import stored_calibration
from stretrieve.query.calibration import recommended_settings
from stretrieve.query.companion import Head
from stretrieve.query.encode import check_failures
from stretrieve.query.groups import Grouping, RowStatus
from stretrieve.query.guards import query_warnings
from stretrieve.query.locate import SpotPositions, locate
from stretrieve.query.look import comparable_px
from stretrieve.query.output import Facts, Pictures, assemble
from stretrieve.query.predictor import PoolFacts, Predictor
from stretrieve.query.question import Question, find_genes
from stretrieve.query.result import QueryResult
from stretrieve.query.retrieve import allowed_spots
from stretrieve.query.settings import CompanionKind, QuerySettings
from stretrieve.query.spotcache import CachedPool
from stretrieve.query.stream import Job, MemoryShelf, run
from stretrieve.query.written import OutputSettings, WrittenQuery, finished, write_query
from stretrieve.reference import Reference
from stretrieve.slides import open_slide
from stretrieve.units import PixelSize


@dataclass(frozen=True)
class OpenQuery:
    """A question whose slide is open and whose patches are located.

    Parameters
    ----------
    job
        What to compute.
    facts
        What is known about it.
    """

    job: Job
    facts: Facts


class QueryEngine:
    """Imputes expression for slides from one reference.

    Parameters
    ----------
    reference
        Where neighbours come from.
    settings
        How they are found and averaged; what the reference was calibrated to when ``None``, or the
        documented defaults where it was not.
    devices
        Devices that the embedder runs on, such as ``("cuda:0", "cuda:1")``; batches take turns. The
        processor when empty.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        settings: QuerySettings | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        self.reference = reference
        self.calibration = stored_calibration(reference)
        self.settings = (settings or recommended_settings(self.calibration)).resolved()
        self._devices = tuple(devices)
        self._facts = PoolFacts(reference)

    @cached_property
    def _embedders(self) -> tuple[Embedder, ...]:
        checked = self.reference.embedder
        if not self._devices:
            return (checked,)
        folder = self.reference.layout.embedder_of(self.reference.opened_for)
        return tuple(load_embedder(folder, device=device) for device in self._devices)

    @cached_property
    def _head(self) -> Head | None:
        asked = self.settings.companion_kind is CompanionKind.HEAD and self.settings.companion
        return Head.of(self._embedders[0], self.reference) if asked else None

    def query(
        self,
        slide: Path | str,
        *,
        mpp: float | PixelSize | None = None,
        patient: str | None = None,
        section: str | None = None,
        organ: str | None = None,
        species: str | None = None,
        spots: SpotPositions | None = None,
        regions: Path | str | None = None,
        genes: Sequence[str] | None = None,
        progress: Progress = SILENT,
    ) -> QueryResult:
        """Predict expression on a slide, in memory; :meth:`query_to` is for slides of any size.

        Parameters
        ----------
        slide
            Image file.
        mpp
            Microns per level-0 pixel, where the file does not say or says it wrongly.
        patient
            Donor of the slide; reference spots of the same donor are left out.
        section
            The section of the reference that is on this slide, if any; it is left out.
        organ, species
            When given, only reference spots of that organ or species are used.
        spots
            Positions to predict at; a grid over the tissue when ``None``.
        regions
            GeoJSON, for example from QuPath, with polygons in level-0 px: the grid covers these in
            place of the tissue that is found.
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
        question = Question(
            Path(slide),
            mpp=mpp,
            patient=patient,
            section=section,
            organ=organ,
            species=species,
            spots=spots,
            regions=None if regions is None else Path(regions),
            genes=genes,
        )
        shelf = MemoryShelf()
        with self.open(question) as opened:
            run(opened.job, shelf, meanwhile=opened.facts.pictures.read, progress=progress)
            groups = list(shelf.stored())
            failed = sum(
                int((group.columns[keys.STATUS] == RowStatus.FAILED.value).sum())
                for group in groups
            )  # fmt: skip
            total = len(opened.job.positions)
            check_failures(opened.job.slide, failed, total, self.settings.max_failed)
            adata = assemble(opened.facts, groups)
        warnings = tuple(str(warning) for warning in opened.facts.context["warnings"])
        return QueryResult(adata, warnings, opened.job.predictor)

    def query_to(
        self,
        out: Path | str,
        question: Question,
        *,
        output: OutputSettings | None = None,
        overwrite: bool = False,
        skip_finished: bool = False,
        progress: Progress = SILENT,
    ) -> WrittenQuery:
        """Predict expression on a slide into a file, in memory that does not grow with the slide.

        Finished parts are kept beside the output, so that an interrupted query goes on where it was;
        the result is the same.

        Parameters
        ----------
        out
            The file or folder to write.
        question
            The slide and what is known about it.
        output
            Format and storage.
        overwrite
            Replace what is there.
        skip_finished
            When the answer to the same question is there already, return it.
        progress
            Receiver of progress.

        Raises
        ------
        OutputExistsError
            When something is at ``out`` and neither option covers it.
        SlideError, MppError, TissueError, GenePanelError, InputError
            As :meth:`query`.
        BusyError
            When another process writes the same output.
        ResourceError
            When memory or disk is exhausted.
        """
        out, output = Path(out), output or OutputSettings()
        digest = output.digest(self._digest(question))
        done = finished(out, digest, overwrite=overwrite, skip=skip_finished)
        if done is not None:
            return done
        with self.open(question) as opened:
            facts = replace(opened.facts, digest=digest)
            return write_query(out, opened.job, facts, output, progress=progress)

    @contextlib.contextmanager
    def open(self, question: Question) -> Iterator[OpenQuery]:
        """Open the slide of a question and locate its patches."""
        genes = find_genes(self.reference.genes, question.genes)
        filters = question.filters
        allowed = allowed_spots(
            self.reference, patient=question.patient, section=question.section, filters=filters
        )
        warnings = query_warnings(
            self.reference,
            self.settings,
            allowed=allowed,
            calibration=self.calibration,
            patient=question.patient,
        )
        with open_slide(question.slide, pixel_size=question.pixel_size) as slide:
            positions = locate(
                slide,
                self.reference.embedder.spec,
                settings=self.settings,
                spots=question.spots,
                regions=question.regions,
            )
            job = Job(
                slide=slide,
                positions=positions,
                grouping=Grouping.of(len(positions), len(genes)),
                predictor=Predictor(
                    CachedPool(self.reference, genes),
                    self.settings,
                    allowed=allowed,
                    calibration=self.calibration,
                    facts=self._facts,
                    abstain=self.settings.abstain,
                    head=self._head,
                ),
                genes=genes,
                embedders=self._embedders,
                settings=self.settings,
                thumbnail_px=comparable_px(self.reference, self._embedders[0].spec.primary),
            )
            context: dict[str, Any] = {
                "patient": question.patient,
                "section": question.section,
                "filters": filters or None,
                "warnings": np.array(warnings, dtype=object),
            }
            facts = Facts(
                slide=slide,
                pictures=Pictures(slide),
                positions=positions,
                reference=self.reference,
                settings=self.settings,
                genes=genes,
                digest=self._digest(question),
                calibration=job.predictor.calibration,
                context=context,
            )
            yield OpenQuery(job, facts)

    def _digest(self, question: Question) -> str:
        genes = find_genes(self.reference.genes, question.genes)
        return question.digest(self.reference.identity, self.settings, genes)
