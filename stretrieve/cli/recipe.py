"""``stretrieve recipe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stretrieve.cli._options import Json


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="liver, dlpfc, her2st, cscc or stnet; none lists them.")
    ] = None,
    download: Annotated[
        Path | None, typer.Argument(help="Folder of the public download, as it came.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Samplesheet to write.")] = Path(
        "sheet.csv"
    ),
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a download that lacks sections.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the sheet.")] = False,
    json: Json = False,
) -> None:
    """Write the samplesheet of a published data set, and show its protocol beside ours."""
    from stretrieve.cli._output import emit_json, emit_pairs, emit_table
    from stretrieve.errors import ConfigError, explain
    from stretrieve.evaluation.recipes import RECIPES, build_sheet, get_recipe

    if name is None:
        rows = [(known.name, known.title, known.source) for known in RECIPES.values()]
        columns = ("name", "data set", "source")
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        emit_json({"recipes": found}) if json else emit_table(rows, columns=columns)
        return
    wanted = get_recipe(name)
    if download is None:
        raise ConfigError(
            explain("download", got="none", expected=f"the folder of {wanted.source}")
        )
    sheet = build_sheet(wanted, download, out, partial=partial, overwrite=overwrite)
    said = {
        "sheet": str(sheet.path),
        "sections": len(sheet.entries),
        "patients": len({entry.patient for entry in sheet.entries}),
        "missing": list(sheet.missing),
        "published": wanted.published,
        "ours": wanted.ours,
        "next": sheet.command,
    }
    emit_json(said) if json else emit_pairs(said)
