"""``stretrieve demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stretrieve.cli._options import Json, Quiet


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for everything.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the simulated tissue.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Simulate tissue, build a reference from two donors and predict the third. Needs no data."""
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.cli._progress import make_progress
    from stretrieve.report.demo import run_demo

    result = run_demo(out, seed=seed, overwrite=overwrite, progress=make_progress(quiet=quiet))
    if json:
        emit_json(result.to_dict())
        return
    emit_table(result.rows(), columns=result.columns, title=result.title)
    emit_text(result.text)
