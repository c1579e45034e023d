"""``stretrieve query``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stretrieve.cli._options import BatchSize, Json, Quiet, Ref, Workers, split_tag

if TYPE_CHECKING:
    from stretrieve.query import QueryResult, SpotPositions


def query(
    slide: Annotated[Path, typer.Argument(help="H&E slide: SVS, NDPI, TIFF, JPEG, PNG, …")],
    ref: Ref,
    out: Annotated[Path, typer.Option("--out", "-o", help="AnnData file to write (.h5ad).")],
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel, where the file does not say.")
    ] = None,
    spots: Annotated[
        Path | None, typer.Option(help="Predict at the positions of this spot file.")
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Donor of the slide; the donor's own spots are left out.")
    ] = None,
    organ: Annotated[
        str | None, typer.Option(help="Use reference spots of this organ only.")
    ] = None,
    species: Annotated[
        str | None, typer.Option(help="Use reference spots of this species only.")
    ] = None,
    genes: Annotated[
        str | None, typer.Option(help="Comma-separated genes to impute; all by default.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Reference spots averaged.")] = 50,
    weights: Annotated[str, typer.Option(help="uniform, bleep, softmax or inverse.")] = "uniform",
    modality: Annotated[
        str, typer.Option(help="Search the reference's expression or image embeddings.")
    ] = "expression",
    centring: Annotated[
        str,
        typer.Option(help="Offsets to remove: none, section (between reference sections), both."),
    ] = "none",
    stride_um: Annotated[
        float | None, typer.Option(help="Step of the patch grid in µm; the patch side by default.")
    ] = None,
    min_tissue: Annotated[float, typer.Option(help="Least share of tissue in a patch.")] = 0.25,
    batch_size: BatchSize = 64,
    workers: Workers = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Predict expression on a slide and write it as AnnData."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.config import settings_from_dict
    from stretrieve.query import QueryEngine, QuerySettings
    from stretrieve.reference import Reference

    settings = settings_from_dict(
        QuerySettings,
        {
            "top_k": top_k,
            "weights": weights,
            "modality": modality,
            "centring": centring,
            "stride_um": stride_um,
            "min_tissue": min_tissue,
            "batch_size": batch_size,
            "workers": workers,
        },
    )
    _check_output(out, overwrite=overwrite)
    uri, tag = split_tag(ref)
    result = QueryEngine(Reference.open(uri, tag=tag), settings=settings).query(
        slide,
        mpp=mpp,
        patient=patient,
        organ=organ,
        species=species,
        spots=_positions(spots),
        genes=[g.strip() for g in genes.split(",") if g.strip()] if genes else None,
        progress=make_progress(quiet=quiet),
    )
    result.to_h5ad(out, overwrite=overwrite)
    _show(result, out, as_json=json)


def _check_output(out: Path, *, overwrite: bool) -> None:
    from stretrieve.errors import InputError, OutputExistsError, explain

    if out.suffix != ".h5ad":
        raise InputError(explain("--out", got=str(out), expected="a name ending in .h5ad"))
    if out.exists() and not overwrite:
        raise OutputExistsError(
            explain("output", got=f"{out} exists", remedy="choose another name or --overwrite")
        )


def _positions(path: Path | None) -> SpotPositions | None:
    if path is None:
        return None
    from stretrieve.query import SpotPositions
    from stretrieve.spots import read_spot_positions

    names, xy = read_spot_positions(path)
    return SpotPositions(names, xy)


def _show(result: QueryResult, out: Path, *, as_json: bool) -> None:
    from stretrieve.cli._output import emit_json, emit_pairs, emit_text

    summary = result.summary()
    if as_json:
        emit_json({"output": str(out), **summary})
        return
    emit_pairs({"output": out, **{k: v for k, v in summary.items() if k != "warnings"}})
    for warning in result.warnings:
        emit_text(f"warning: {warning}")
    emit_text(result.disclaimer)
