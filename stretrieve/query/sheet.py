"""A sheet of slides: each one ends done, failed (reason) or excluded (reason); none is lost."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from stretrieve._files import write_json
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import (
    InputNotFoundError,
    MppError,
    SheetError,
    StretrieveError,
    TissueError,
    explain,
)
from stretrieve.query.engine import QueryEngine
from stretrieve.query.locate import SpotPositions
from stretrieve.query.plan import plan_query
from stretrieve.query.question import Question, find_genes
from stretrieve.query.written import OutputSettings, WrittenQuery
from stretrieve.spots import read_spot_positions
from stretrieve.spots.row import check_section_name, parse_mpp
from stretrieve.units import PixelSize

COLUMNS: Final = (
    "slide",
    "name",
    "mpp",
    "patient",
    "section",
    "organ",
    "species",
    "spots",
    "regions",
    "exclude",
)
SUMMARY: Final = "slides.json"
"""File in the output folder that says what became of every slide."""

_MAX_BYTES: Final = 16 << 20
_MAX_FAULTS: Final = 20


class Outcome(StrEnum):
    """How a slide ended."""

    DONE = "done"
    FAILED = "failed"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One row of a sheet.

    Parameters
    ----------
    name
        Unique; names the output.
    slide
        Image file.
    mpp
        Size of a pixel, where given.
    patient, section, organ, species
        See :class:`~stretrieve.query.question.Question`; ``None`` where not given.
    spots, regions
        Files, where given.
    exclude
        Why the slide is left out; empty when it is not.
    """

    name: str
    slide: Path
    mpp: PixelSize | None = None
    patient: str | None = None
    section: str | None = None
    organ: str | None = None
    species: str | None = None
    spots: Path | None = None
    regions: Path | None = None
    exclude: str = ""

    def question(self, genes: Sequence[str] | None) -> Question:
        """Return what the engine is asked; reads the spots file."""
        spots = None if self.spots is None else SpotPositions(*read_spot_positions(self.spots))
        return Question(
            self.slide,
            mpp=self.mpp,
            patient=self.patient,
            section=self.section,
            organ=self.organ,
            species=self.species,
            spots=spots,
            regions=self.regions,
            genes=genes,
        )


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """What became of one slide.

    Parameters
    ----------
    name, slide
        Of the entry.
    outcome
        How it ended.
    reason
        Why it failed or was excluded.
    output
        Where the answer is.
    summary
        Key facts of the answer.
    was_there
        Whether an earlier run had finished it.
    """

    name: str
    slide: Path
    outcome: Outcome
    reason: str = ""
    output: Path | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    was_there: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON data."""
        return {
            "name": self.name,
            "slide": str(self.slide),
            "outcome": self.outcome.value,
            "reason": self.reason,
            "output": "" if self.output is None else str(self.output),
            "was_there": self.was_there,
            "summary": self.summary,
        }


def read_slide_sheet(path: Path | str) -> tuple[SlideEntry, ...]:
    """Read a sheet of slides (CSV; comma, semicolon or tab), paths relative to the sheet.

    Parameters
    ----------
    path
        The sheet. ``slide`` is required, the other :data:`COLUMNS` are optional; ``name`` defaults to
        the slide's file name without its ending. A slide with text under ``exclude`` is left out, and
        the text says why.

    Raises
    ------
    InputNotFoundError
        When there is no such sheet.
    SheetError
        With every fault of the sheet in one line. A slide that is missing is no fault of the sheet: it
        fails alone.
    """
    path = Path(path)
    lines = _lines(path)
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    faults = _header_faults(header)
    entries: list[SlideEntry] = []
    for number, cells in lines[1:] if not faults else ():
        if any(cell.strip() for cell in cells):
            entry = _entry(header, cells, path.parent, f"line {number}", faults)
            entries += [] if entry is None else [entry]
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [f"name {n!r} is listed {names.count(n)} times; add a column 'name'" for n in twice]
    if not entries and not faults:
        faults.append("no slide is listed")
    if faults:
        more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise SheetError(f"{path.name}: {'; '.join(faults[:_MAX_FAULTS])}{more}")
    return tuple(entries)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise InputNotFoundError(explain("sheet of slides", got=f"no file {path}"))
    if path.stat().st_size > _MAX_BYTES:
        raise SheetError(explain(path.name, got="over 16 MB", expected="a small CSV"))
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(
            explain(path.name, got=str(error), expected="a CSV text file in UTF-8")
        ) from error


def _header_faults(header: Sequence[str]) -> list[str]:
    faults = [f"column {name!r} twice" for name in sorted(set(header)) if header.count(name) > 1]
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COLUMNS)}"
            faults.append(f"unknown column {name!r}; {hint}")
    if "slide" not in header:
        faults.append("column 'slide' is missing")
    return faults


def _entry(
    header: Sequence[str], cells: Sequence[str], folder: Path, where: str, faults: list[str]
) -> SlideEntry | None:
    if len(cells) > len(header):
        faults.append(f"{where}: {len(cells)} cells, expected {len(header)} as in the header")
        return None
    if not dict(zip(header, cells, strict=False)).get("slide", "").strip():
        faults.append(f"{where}: slide is empty")
        return None
    row = {key: cell.strip() for key, cell in zip(header, cells, strict=False) if cell.strip()}
    try:
        slide = folder / Path(row["slide"]).expanduser()
        name = row.get("name", slide.stem)
        check_section_name(name)
        mpp = parse_mpp(row["mpp"]) if "mpp" in row else None
    except (SheetError, MppError) as error:
        faults.append(f"{where}: {error}")
        return None
    return SlideEntry(
        name,
        slide,
        mpp=mpp,
        patient=row.get("patient"),
        section=row.get("section"),
        organ=row.get("organ"),
        species=row.get("species"),
        spots=folder / Path(row["spots"]).expanduser() if "spots" in row else None,
        regions=folder / Path(row["regions"]).expanduser() if "regions" in row else None,
        exclude=row.get("exclude", ""),
    )


def query_sheet(
    engine: QueryEngine,
    entries: Sequence[SlideEntry],
    folder: Path,
    *,
    genes: Sequence[str] | None = None,
    output: OutputSettings | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
    after: Callable[[WrittenQuery], None] | None = None,
) -> tuple[SlideOutcome, ...]:
    """Predict expression on every slide of a sheet; what one slide does costs no other slide.

    A slide that an earlier run has finished is not computed again. ``folder/slides.json`` says after
    each slide what became of it.

    Parameters
    ----------
    engine
        The engine.
    entries
        The slides.
    folder
        Where outputs go, each under the name of its entry.
    genes
        Gene keys or symbols to impute; all genes of the reference when ``None``.
    output
        Format and storage.
    overwrite
        Replace outputs of other queries.
    progress
        Receiver of progress.
    after
        Called with each finished answer; an error counts as that slide's.

    Raises
    ------
    GenePanelError
        When a gene asked for is not in the reference, before any slide is touched.
    """
    output = output or OutputSettings()
    find_genes(engine.reference.genes, genes)
    outcomes: list[SlideOutcome] = []
    for entry in entries:
        out = folder / f"{entry.name}{output.format.suffix}"

        def ask(entry: SlideEntry = entry, out: Path = out) -> WrittenQuery:
            written = engine.query_to(
                out,
                entry.question(genes),
                output=output,
                overwrite=overwrite,
                skip_finished=True,
                progress=progress,
            )
            if after is not None:
                after(written)
            return written

        outcomes.append(_outcome(entry, ask))
        write_json(folder / SUMMARY, [outcome.to_dict() for outcome in outcomes])
    return tuple(outcomes)


def plan_sheet(
    engine: QueryEngine,
    entries: Sequence[SlideEntry],
    *,
    genes: Sequence[str] | None = None,
    output: OutputSettings | None = None,
) -> list[dict[str, Any]]:
    """Return what every slide of a sheet would take, writing nothing.

    Parameters
    ----------
    engine
        The engine that would answer.
    entries
        The slides.
    genes
        Gene keys or symbols to impute; all genes of the reference when ``None``.
    output
        Format and storage.

    Returns
    -------
    list
        One mapping a slide: ``name``, ``outcome`` (``planned``, ``failed`` or ``excluded``),
        ``reason``, and the fields of :class:`~stretrieve.query.plan.QueryPlan`.
    """
    find_genes(engine.reference.genes, genes)
    plans: list[dict[str, Any]] = []
    for entry in entries:
        facts: dict[str, Any] = {"name": entry.name, "outcome": "planned", "reason": ""}
        try:
            if entry.exclude:
                facts |= {"outcome": Outcome.EXCLUDED.value, "reason": entry.exclude}
            else:
                facts |= plan_query(engine, entry.question(genes), output=output).to_dict()
        except TissueError as error:
            facts |= {"outcome": Outcome.EXCLUDED.value, "reason": str(error)}
        except StretrieveError as error:
            facts |= {"outcome": Outcome.FAILED.value, "reason": str(error)}
        plans.append(facts)
    return plans


def _outcome(entry: SlideEntry, ask: Callable[[], WrittenQuery]) -> SlideOutcome:
    if entry.exclude:
        return SlideOutcome(entry.name, entry.slide, Outcome.EXCLUDED, entry.exclude)
    try:
        written = ask()
    except TissueError as error:
        return SlideOutcome(entry.name, entry.slide, Outcome.EXCLUDED, str(error))
    except StretrieveError as error:
        return SlideOutcome(entry.name, entry.slide, Outcome.FAILED, str(error))
    except Exception as error:  # noqa: BLE001 (whatever it is, it is this slide's end and no other's)
        return SlideOutcome(
            entry.name, entry.slide, Outcome.FAILED, f"{type(error).__name__}: {error}"
        )
    return SlideOutcome(
        entry.name,
        entry.slide,
        Outcome.DONE,
        output=written.path,
        summary=written.summary,
        was_there=written.was_there,
    )
