"""The sections of an evaluation, and how they are split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve._progress import SILENT, Progress
from stretrieve.errors import InputError, explain
from stretrieve.evaluation.settings import LeaveOut, Query
from stretrieve.spots import log_cp10k, read_section, read_sheet
from stretrieve.spots.labels import read_labels
from stretrieve.spots.section import Section

MIN_SPOTS = 10
"""Fewer spots than this cannot be correlated with anything."""


@dataclass(frozen=True)
class Sample:
    """A section with its labels.

    Parameters
    ----------
    section
        The measurements.
    labels
        ``(n_spots,)`` label of each spot, empty where there is none; ``None`` without a table.
    """

    section: Section
    labels: npt.NDArray[np.str_] | None = None

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.section.meta.section

    @property
    def patient(self) -> str:
        """Name of the donor."""
        return self.section.meta.patient

    def truth(self, genes: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return log1p CP10k ``(n_spots, len(genes))`` of raw counts, all genes in the denominator.

        Genes that the section does not measure are NaN.
        """
        columns = self.section.genes.index.get_indexer(list(genes))
        found = columns >= 0
        counts = self.section.counts[:, columns[found]]
        values = np.full((self.section.n_spots, len(genes)), np.nan)
        values[:, found] = log_cp10k(counts, library_size=self.section.library_size).toarray()
        return values

    def blind(self, genes: Sequence[str] = ()) -> Sample:
        """Return the same spots without their measurements and labels, as a new slide would come.

        Parameters
        ----------
        genes
            Genes whose counts are kept, for expression queries.
        """
        section = self.section
        columns = section.genes.index.get_indexer(list(genes))
        columns = columns[columns >= 0]
        counts = sparse.csr_matrix(section.counts[:, columns], dtype=section.counts.dtype)
        return Sample(replace(section, counts=counts, genes=section.genes.iloc[columns]))


@dataclass(frozen=True)
class Fold:
    """One part of a split.

    Parameters
    ----------
    name
        What is held out.
    train, test
        Positions of sections in the cohort.
    """

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def read_cohort(
    sheet: Path | str, *, query: Query = Query.IMAGE, progress: Progress = SILENT
) -> tuple[Sample, ...]:
    """Read every section of a samplesheet.

    Raises
    ------
    InputError
        When the sheet or a section cannot be used, a section has no image though images are the
        query, or it has too few spots.
    """
    rows = read_sheet(sheet)
    samples = []
    with progress.task("read sections", len(rows)) as task:
        for row in rows:
            section = read_section(row)
            if query is Query.IMAGE and section.image is None:
                raise InputError(
                    explain(
                        f"section {row.section!r}",
                        got="no image",
                        expected="an H&E image",
                        remedy="add it to the sheet, or ask with --query expression",
                    )
                )
            if section.n_spots < MIN_SPOTS:
                raise InputError(
                    explain(
                        f"section {row.section!r}",
                        got=f"{section.n_spots} spots",
                        expected=f"{MIN_SPOTS} or more",
                    )
                )
            labels = None if row.labels is None else read_labels(row.labels, section)
            samples.append(Sample(section, labels))
            task.advance(note=row.section)
    return tuple(samples)


def make_folds(samples: Sequence[Sample], leave_out: LeaveOut) -> tuple[Fold, ...]:
    """Hold out each patient (or section) once.

    Raises
    ------
    InputError
        When there is only one patient (or section), so that nothing would be left to learn from.
    """
    by_patient = leave_out is LeaveOut.PATIENT
    names = [s.patient if by_patient else s.name for s in samples]
    distinct = sorted(set(names))
    if len(distinct) < 2:
        raise InputError(
            explain(
                f"{leave_out.value}s of the sheet",
                got=", ".join(distinct) or "none",
                expected="two or more, so that one can be held out",
                remedy="name the donors in the patient column; sections without one count as one"
                + ("; --leave-out section tests within a patient" if by_patient else ""),
            )
        )
    folds = []
    for name in distinct:
        test = tuple(i for i, other in enumerate(names) if other == name)
        folds.append(Fold(name, tuple(i for i in range(len(samples)) if i not in test), test))
    return tuple(folds)
