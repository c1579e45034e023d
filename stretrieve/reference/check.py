"""A look at every section of a samplesheet before anything is built from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from stretrieve._progress import SILENT, Progress
from stretrieve.errors import InputError
from stretrieve.reference.alignment import SPOT_UM, Alignment, measure_alignment, spot_pitch_px
from stretrieve.reference.overlay import write_overlay
from stretrieve.slides import open_slide, tissue_mask
from stretrieve.spots import Section, SheetRow, compare_genes, read_section, read_sheet
from stretrieve.spots.assemble import check_inside
from stretrieve.spots.gene_overlap import MIN_OVERLAP
from stretrieve.spots.genes import GeneIdentity, identify_genes
from stretrieve.spots.row import UNKNOWN_PATIENT

_THUMBNAIL_PX: Final = 1600
_SHALLOW: Final = 100.0


@dataclass(frozen=True)
class SectionCheck:
    """What was found out about one section.

    Parameters
    ----------
    section, patient, species
        As in the sheet, completed from the files.
    n_spots, n_genes
        Size of the section; 0 when it could not be read.
    median_counts
        Median total counts of a spot.
    mpp, mpp_source
        Microns per pixel (mean of both axes) and where the figure comes from.
    gene_overlap
        Smallest share of genes in common with another section of its species; NaN when it is alone.
    alignment
        How spots and tissue fit; ``None`` without an image.
    repairs
        What was mended while reading.
    warnings
        What a person should look at.
    error
        Why the section could not be read; empty when it could.
    overlay
        The picture of its spots over its tissue; ``None`` without an image.
    """

    section: str
    patient: str
    species: str = ""
    n_spots: int = 0
    n_genes: int = 0
    median_counts: float = float("nan")
    mpp: float = float("nan")
    mpp_source: str = ""
    gene_overlap: float = float("nan")
    alignment: Alignment | None = None
    repairs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    overlay: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain JSON data; figures that do not exist are ``None``."""
        data = dataclasses.asdict(self)
        data["overlay"] = str(self.overlay) if self.overlay else None
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in data.items()}


@dataclass(frozen=True)
class CheckReport:
    """What was found out about a sheet.

    Parameters
    ----------
    sections
        One entry a row of the sheet, in its order.
    """

    sections: tuple[SectionCheck, ...]

    columns = (
        "section",
        "patient",
        "spots",
        "genes",
        "median counts",
        "µm/px",
        "from",
        "gene overlap",
        "on tissue",
        "shift",
        "state",
    )

    def rows(self) -> list[tuple[object, ...]]:
        """Return the table, one tuple of :attr:`columns` a section."""
        return [_table_row(check) for check in self.sections]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, each with the name of its section, and those about the sheet as a whole."""
        single = tuple(f"{c.section}: {text}" for c in self.sections for text in c.warnings)
        species = sorted({c.species for c in self.sections if c.species})
        if len(species) < 2:
            return single
        return (*single, f"the sheet mixes {' and '.join(species)}: their genes do not meet")

    @property
    def failed(self) -> tuple[str, ...]:
        """One line for each section that could not be read."""
        return tuple(f"{c.section}: {c.error}" for c in self.sections if c.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as plain JSON data."""
        return {
            "sections": [check.to_dict() for check in self.sections],
            "warnings": list(self.warnings),
            "failed": list(self.failed),
        }


def check_sheet(
    path: Path | str, out_dir: Path | str, *, progress: Progress = SILENT
) -> CheckReport:
    """Read every section of a sheet and see whether its spots fit its tissue.

    Parameters
    ----------
    path
        The samplesheet.
    out_dir
        Folder for one overlay picture a section (``section_001.png``, in the order of the sheet).
    progress
        Receiver of progress.

    Returns
    -------
    CheckReport
        A section that cannot be read is reported, and the others are still checked.

    Raises
    ------
    SheetError
        When the sheet itself is malformed.
    """
    rows = read_sheet(path)
    checks: list[SectionCheck] = []
    genes: list[GeneIdentity | None] = []
    with progress.task("checking sections", len(rows)) as task:
        for number, row in enumerate(rows, start=1):
            overlay = Path(out_dir) / f"section_{number:03d}.png"
            check, identity = _check_row(row, overlay)
            checks.append(check)
            genes.append(identity)
            task.advance(note=row.section)
    return CheckReport(tuple(_with_overlap(checks, genes)))


def check_section(section: Section, overlay: Path) -> SectionCheck:
    """Check one section and draw its overlay.

    Parameters
    ----------
    section
        The section; its image is opened when it has one.
    overlay
        PNG to write.

    Raises
    ------
    InputError
        When the image cannot be read or the spots lie outside of it.
    """
    fit = _look_at_image(section, overlay) if section.image is not None else None
    median = float(np.median(section.library_size))
    return SectionCheck(
        section=section.meta.section,
        patient=section.meta.patient,
        species=section.meta.species,
        n_spots=section.n_spots,
        n_genes=section.n_genes,
        median_counts=median,
        mpp=float(section.pixel_size.mean),
        mpp_source=section.pixel_size.source.value,
        alignment=fit,
        repairs=section.repairs,
        warnings=tuple(_warnings(section, fit, median)),
        overlay=overlay if fit is not None else None,
    )


def _check_row(row: SheetRow, overlay: Path) -> tuple[SectionCheck, GeneIdentity | None]:
    try:
        section = read_section(row)
        check = check_section(section, overlay)
    except InputError as error:
        return SectionCheck(row.section, row.patient, row.species, error=str(error)), None
    symbols = [str(symbol) for symbol in section.genes["gene_symbol"]]
    return check, identify_genes(section.gene_names, symbols, species=section.meta.species)


def _look_at_image(section: Section, overlay: Path) -> Alignment | None:
    if section.image is None:
        return None
    with open_slide(section.image, pixel_size=section.pixel_size) as slide:
        what = f"section {section.meta.section!r}"
        check_inside(what, section.xy, size=slide.dimensions, image=section.image.name)
        mask = tissue_mask(slide)
        thumbnail = slide.thumbnail(_THUMBNAIL_PX)
        write_overlay(
            overlay,
            thumbnail,
            section.xy,
            mask.fraction(section.xy, SPOT_UM) >= 0.5,
            dimensions=slide.dimensions,
            radius_px=_radius_px(section),
        )
        return measure_alignment(section.xy, section.library_size, mask, thumbnail)


def _radius_px(section: Section) -> float:
    """Return half the size of a spot, or of the pitch where spots are bins smaller than that."""
    spot_px = SPOT_UM / section.pixel_size.mean
    return min(spot_px, float(spot_pitch_px(section.xy)[0])) / 2


def _warnings(section: Section, fit: Alignment | None, median: float) -> list[str]:
    found = []
    if fit is not None and fit.is_shifted:
        found.append(
            f"spots do not fit the image: moved by ({fit.shift[0]:+.1f}, {fit.shift[1]:+.1f}) spot "
            f"pitches, {fit.best_on_tissue:.0%} of their area lies on tissue, as they are "
            f"{fit.on_tissue:.0%}; see the overlay, do not train on it"
        )
    elif fit is not None and fit.is_off_tissue:
        found.append(f"only {fit.on_tissue:.0%} of the spots' area lies on tissue; see the overlay")
    if section.image is None:
        found.append("no image: the section can be searched by expression only")
    if section.meta.patient == UNKNOWN_PATIENT:
        found.append("patient unknown: all such sections count as one patient")
    if not section.meta.species:
        found.append("species unknown: filters by species do not apply")
    if median < _SHALLOW:
        found.append(f"shallow: median of {median:.0f} counts a spot")
    return found


def _with_overlap(
    checks: Sequence[SectionCheck], genes: Sequence[GeneIdentity | None]
) -> list[SectionCheck]:
    """Add the smallest gene overlap of each section with another, and warn when it is low."""
    completed = []
    for i, (check, own) in enumerate(zip(checks, genes, strict=True)):
        overlaps = [
            compare_genes(own, other, name_a=check.section, name_b=checks[j].section)
            for j, other in enumerate(genes)
            if own is not None and other is not None and i != j
            if not own.species or not other.species or own.species == other.species
        ]
        if not overlaps:
            completed.append(check)
            continue
        worst = min(overlaps, key=lambda overlap: overlap.fraction)
        warnings = check.warnings
        if worst.fraction < MIN_OVERLAP:
            text = f"{worst.fraction:.0%} of genes in common with {worst.name_b}: {worst.remedy}"
            warnings = (*warnings, text)
        completed.append(dataclasses.replace(check, gene_overlap=worst.fraction, warnings=warnings))
    return completed


def _table_row(check: SectionCheck) -> tuple[object, ...]:
    fit = check.alignment
    state = (
        "failed" if check.error else f"{len(check.warnings)} warnings" if check.warnings else "ok"
    )
    return (
        check.section,
        check.patient,
        check.n_spots,
        check.n_genes,
        check.median_counts,
        check.mpp,
        check.mpp_source,
        "" if np.isnan(check.gene_overlap) else f"{check.gene_overlap:.0%}",
        f"{fit.on_tissue:.0%}" if fit else "",
        f"{fit.shift[0]:+.1f}, {fit.shift[1]:+.1f}" if fit and fit.is_shifted else "",
        state,
    )
