"""``stretrieve genes``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stretrieve.cli._options import Json

if TYPE_CHECKING:
    from stretrieve.spots import GeneOverlap

app = typer.Typer(help="Gene identity.", no_args_is_help=True)
_SHOWN = 5


@app.callback()
def genes() -> None:
    """Look into gene names before anything is built on them."""


@app.command()
def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="Count tables, Space Ranger folders, .h5ad or lists, two or more."),
    ],
    species: Annotated[
        str, typer.Option(help="Species of all of them; their names tell it by default.")
    ] = "",
    json: Json = False,
) -> None:
    """Compare the genes of every pair of files: mapped, ambiguous and lost."""
    from stretrieve.cli._output import emit_json, emit_table
    from stretrieve.spots import check_overlap, compare_gene_files

    pairs = compare_gene_files(files, species=species)
    if json:
        emit_json({"pairs": [_plain(pair) for pair in pairs]})
    else:
        columns = ("A", "B", "mapped", "overlap", "ambiguous", "only in A", "only in B")
        emit_table([_row(pair) for pair in pairs], columns=columns)
    for pair in pairs:
        check_overlap(pair)


def _row(pair: GeneOverlap) -> tuple[object, ...]:
    return (
        pair.name_a,
        pair.name_b,
        len(pair.mapped),
        f"{pair.fraction:.0%}",
        len(pair.ambiguous),
        _some(pair.lost_a),
        _some(pair.lost_b),
    )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{len(names)}: {shown}{', …' if len(names) > _SHOWN else ''}" if names else "0"


def _plain(pair: GeneOverlap) -> dict[str, object]:
    return {
        "a": pair.name_a,
        "b": pair.name_b,
        "mapped": len(pair.mapped),
        "overlap": pair.fraction,
        "ambiguous": list(pair.ambiguous),
        "lost_a": list(pair.lost_a),
        "lost_b": list(pair.lost_b),
    }
