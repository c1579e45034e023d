"""The samplesheet: one measured section a row, every fault reported at once.

Section names are keys. They are never used as paths, and a name that looks like one (``../../x``) is
refused, because other tools that read our outputs may be less careful.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stretrieve.errors import InputNotFoundError, MppError, SectionError, SheetError, explain
from stretrieve.spots.formats import AUTO, READERS, split_format
from stretrieve.spots.row import (
    UNKNOWN_PATIENT,
    SheetRow,
    canonical_species,
    check_section_name,
    parse_mpp,
)
from stretrieve.spots.validate import check_names
from stretrieve.units import PixelSize

COLUMNS: Final = (
    "section",
    "patient",
    "organ",
    "species",
    "platform",
    "disease",
    "image",
    "counts",
    "spots",
    "format",
    "mpp",
    "labels",
)
REQUIRED: Final = ("section", "counts")

_PATHS: Final = ("image", "counts", "spots", "labels")
_TEXTS: Final = ("organ", "platform", "disease")
_MAX_BYTES: Final = 16 << 20
_MAX_FAULTS: Final = 20


def read_sheet(path: Path | str) -> tuple[SheetRow, ...]:
    """Read a samplesheet (CSV; comma, semicolon or tab), paths relative to the sheet.

    Parameters
    ----------
    path
        The sheet. Columns: ``section`` and ``counts`` are required, the others of
        :data:`COLUMNS` optional.

    Raises
    ------
    InputNotFoundError
        When there is no such sheet.
    SheetError
        With every fault of the sheet in one line.
    """
    path = Path(path)
    header, records = _load(path)
    faults = _header_faults(header)
    if faults:
        raise _sheet_error(path, faults)
    rows: list[SheetRow] = []
    for line, record in records:
        if not any(cell.strip() for cell in record):
            continue
        row, row_faults = _parse_row(header, record, path.parent)
        faults += [f"line {line}: {fault}" for fault in row_faults]
        if row is not None:
            rows.append(row)
    faults += _duplicates([row.section for row in rows])
    if not rows and not faults:
        faults.append("no section is listed")
    if faults:
        raise _sheet_error(path, faults)
    return tuple(rows)


def _load(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    if not path.is_file():
        raise InputNotFoundError(explain("samplesheet", got=f"no file {path}"))
    if path.stat().st_size > _MAX_BYTES:
        raise SheetError(
            explain(f"samplesheet {path.name}", got="over 16 MB", expected="a small CSV")
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(
            explain(f"samplesheet {path.name}", got=str(error), expected="a CSV text file in UTF-8")
        ) from error
    if not lines:
        raise SheetError(explain(f"samplesheet {path.name}", got="an empty file"))
    header = [cell.strip().lower() for cell in lines[0][1]]
    return header, lines[1:]


def _header_faults(header: Sequence[str]) -> list[str]:
    faults = [
        explain("column", got="twice", expected="once").replace("column", f"column {name!r}", 1)
        for name in sorted({name for name in header if header.count(name) > 1})
    ]
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COLUMNS)}"
            faults.append(f"unknown column {name!r}; {hint}")
    faults += [f"column {name!r} is missing" for name in REQUIRED if name not in header]
    return faults


def _parse_row(
    header: Sequence[str], record: Sequence[str], folder: Path
) -> tuple[SheetRow | None, list[str]]:
    if len(record) > len(header):
        return None, [explain("cells", got=len(record), expected=f"{len(header)} as in the header")]
    cells = {name: cell.strip() for name, cell in zip(header, record, strict=False)}
    faults: list[str] = []
    try:
        check_section_name(cells["section"])
    except SheetError as error:
        faults.append(str(error))
    faults += _label_faults(cells)
    if not cells.get("counts"):
        faults.append("counts is empty")
    paths = {name: _path(name, cells.get(name, ""), folder, faults) for name in _PATHS}
    size = _mpp(cells.get("mpp", ""), faults)
    form = cells.get("format", "").lower() or AUTO
    faults += _format_faults(form)
    counts = paths["counts"]
    if faults or counts is None:
        return None, faults
    texts = {name: cells.get(name, "").lower() for name in _TEXTS}
    row = SheetRow(
        section=cells["section"],
        counts=counts,
        patient=cells.get("patient", "") or UNKNOWN_PATIENT,
        species=canonical_species(cells.get("species", "")),
        image=paths["image"],
        spots=paths["spots"],
        labels=paths["labels"],
        format=form,
        mpp=size,
        **texts,
    )
    return row, faults


def _label_faults(cells: Mapping[str, str]) -> list[str]:
    """Find path-like labels: they are never paths here, but other tools may be less careful."""
    faults = []
    for name in ("patient", "species", *_TEXTS):
        try:
            check_names(name, [cells[name]] if cells.get(name) else [])
        except SectionError as error:
            faults.append(str(error))
    return faults


def _format_faults(form: str) -> list[str]:
    try:
        name = split_format(form)[0]
    except SheetError as error:
        return [str(error)]
    if name == AUTO or name in READERS:
        return []
    near = difflib.get_close_matches(name, [AUTO, *READERS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    return [explain("format", got=repr(form), expected=", ".join([AUTO, *READERS]), remedy=hint)]


def _path(name: str, cell: str, folder: Path, faults: list[str]) -> Path | None:
    if not cell:
        return None
    if "\0" in cell:
        faults.append(f"{name} holds a NUL character")
        return None
    path = folder / Path(cell).expanduser()
    try:
        found = path.exists()
    except OSError:
        found = False
    if not found:
        faults.append(f"{name}: no file {path}")
    return path


def _mpp(cell: str, faults: list[str]) -> PixelSize | None:
    if not cell:
        return None
    try:
        return parse_mpp(cell)
    except MppError as error:
        faults.append(str(error))
    return None


def _duplicates(names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"section {name!r} is listed {names.count(name)} times" for name in twice]


def _sheet_error(path: Path, faults: Sequence[str]) -> SheetError:
    shown = "; ".join(faults[:_MAX_FAULTS])
    more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
    count = f"{len(faults)} faults: " if len(faults) > 1 else ""
    return SheetError(" ".join(f"{path.name}: {count}{shown}{more}".split()))
