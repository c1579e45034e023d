"""``stretrieve check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stretrieve.cli._options import Json, Quiet, Sheet


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
        return
    emit_table(report.rows(), columns=report.columns)
    for warning in report.warnings:
        emit_text(f"warning: {warning}")
