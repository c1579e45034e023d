"""``stretrieve check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stretrieve.cli._options import Json, Quiet, Sheet

if TYPE_CHECKING:
    from stretrieve.errors import StretrieveError
    from stretrieve.reference.check import CheckReport


def check(
    sheet: Sheet,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the overlay pictures.")
    ] = Path("check"),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Read every section of a samplesheet, show what is in it and whether the spots fit the tissue."""
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference.check import check_sheet

    report = check_sheet(sheet, out, progress=make_progress(quiet=quiet))
    if json:
        emit_json(report.to_dict())
    else:
        emit_table(report.rows(), columns=report.columns)
        for warning in report.warnings:
            emit_text(f"warning: {warning}")
        emit_text(f"overlays: {out}")
    if report.failed:
        raise _failure(report)


def _failure(report: CheckReport) -> StretrieveError:
    from stretrieve.errors import InputError, PartialFailureError, explain

    total = len(report.sections)
    family = InputError if len(report.failed) == total else PartialFailureError
    what = f"{len(report.failed)} of {total} sections unusable"
    return family(explain(what, got="; ".join(report.failed)))
