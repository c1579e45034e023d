"""``stretrieve retrieve``: find measured spots by image, by expression, by gene set, by section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stretrieve.cli._options import BatchSize, Json, Quiet, Workers

if TYPE_CHECKING:
    from stretrieve.cli._retrieve import Wanted
    from stretrieve.query import SpotPositions
    from stretrieve.query.search import ReferenceSearch, SpotQuery

app = typer.Typer(
    help="Find measured spots by image, by expression, by gene set or by section.",
    no_args_is_help=True,
)

Refs = Annotated[
    list[str], typer.Option("--ref", help="Reference, folder or folder@tag. Repeatable.")
]
To = Annotated[str, typer.Option("--to", help="Side of the reference: image or expression.")]
From = Annotated[str, typer.Option("--from", help="Side of the query: image or expression.")]
TopK = Annotated[int, typer.Option(min=1, help="Answers to each query.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="organ=breast, patient!=P1, section=A1,B2 … Repeatable."),
]
Exclude = Annotated[
    str, typer.Option(help="Leave out the query's own: patient, section, spot or none.")
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Also write .csv, .parquet or .h5ad.")
]
Contact = Annotated[
    Path | None, typer.Option("--contact-sheet", help="Patches side by side: .png or .html.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output.")]
Mpp = Annotated[float | None, typer.Option(help="Microns per pixel, where the file does not say.")]
Spots = Annotated[Path | None, typer.Option(help="File of spot positions.")]
Patient = Annotated[str | None, typer.Option(help="Donor of the query.")]
Format = Annotated[str, typer.Option("--format", help="Section format, as in a samplesheet.")]
Species = Annotated[str, typer.Option(help="Species, where gene symbols do not tell.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


@app.callback()
def retrieve() -> None:
    """Find measured spots by image, by expression, by gene set or by section."""


@app.command()
def patches(
    slide: Annotated[Path, typer.Argument(help="H&E slide.")],
    ref: Refs,
    to: To = "expression",
    top_k: TopK = 10,
    where: Where = None,
    exclude: Exclude = "patient",
    mpp: Mpp = None,
    spots: Spots = None,
    patient: Patient = None,
    batch_size: BatchSize = 64,
    workers: Workers = 1,
    out: Out = None,
    contact_sheet: Contact = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the spots nearest to each patch of a slide."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.cli._retrieve import open_references
    from stretrieve.query import QuerySettings

    wanted = _wanted(out, contact_sheet, overwrite=overwrite, json=json)
    search = open_references(ref)
    query = search.patches(
        slide,
        mpp=mpp,
        spots=_positions(spots),
        patient=patient,
        settings=QuerySettings(batch_size=batch_size, workers=workers),
        thumbnails=contact_sheet is not None,
        progress=make_progress(quiet=quiet),
    )
    _search(search, query, wanted, to=to, top_k=top_k, where=where, exclude=exclude, quiet=quiet)


@app.command()
def spots(
    uids: Annotated[list[str], typer.Argument(help="Stored spots, SECTION/SPOT.")],
    ref: Refs,
    side: From = "image",
    to: To = "image",
    top_k: TopK = 10,
    where: Where = None,
    exclude: Exclude = "patient",
    out: Out = None,
    contact_sheet: Contact = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the spots nearest to stored spots."""
    from stretrieve.cli._retrieve import open_references

    wanted = _wanted(out, contact_sheet, overwrite=overwrite, json=json)
    search = open_references(ref)
    query = search.stored(uids, modality=side, thumbnails=contact_sheet is not None)
    _search(search, query, wanted, to=to, top_k=top_k, where=where, exclude=exclude, quiet=quiet)


@app.command()
def section(
    counts: Annotated[Path, typer.Argument(help="Counts of a measured section.")],
    ref: Refs,
    to: To = "expression",
    top_k: TopK = 10,
    where: Where = None,
    exclude: Exclude = "patient",
    spots: Spots = None,
    format_: Format = "auto",
    species: Species = "",
    mpp: Mpp = None,
    patient: Patient = None,
    out: Out = None,
    contact_sheet: Contact = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the spots nearest to each spot of a measured section, by its expression."""
    from stretrieve.cli._retrieve import open_references

    wanted = _wanted(out, contact_sheet, overwrite=overwrite, json=json)
    search = open_references(ref)
    query = _measured(search, counts, spots, format_, species, mpp, patient)
    _search(search, query, wanted, to=to, top_k=top_k, where=where, exclude=exclude, quiet=quiet)


@app.command()
def vectors(
    file: Annotated[Path, typer.Argument(help="Embeddings, queries in rows (.npy).")],
    ref: Refs,
    side: From = "image",
    to: To = "expression",
    top_k: TopK = 10,
    where: Where = None,
    exclude: Exclude = "patient",
    patient: Patient = None,
    out: Out = None,
    contact_sheet: Contact = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the spots nearest to embeddings that the same embedder has made."""
    from stretrieve.cli._retrieve import open_references, read_vectors

    wanted = _wanted(out, contact_sheet, overwrite=overwrite, json=json)
    search = open_references(ref)
    query = search.vectors(read_vectors(file), modality=side, patient=patient)
    _search(search, query, wanted, to=to, top_k=top_k, where=where, exclude=exclude, quiet=quiet)


@app.command()
def signature(
    genes: Annotated[list[str], typer.Argument(help="GENE or GENE=WEIGHT, such as KRT7 VWF=-1.")],
    ref: Refs,
    top_k: TopK = 10,
    where: Where = None,
    slide: Annotated[
        Path | None, typer.Option(help="Rank the patches of this slide by their neighbours.")
    ] = None,
    neighbours: Annotated[int, typer.Option(min=1, help="Neighbours of a patch.")] = 50,
    mpp: Mpp = None,
    patient: Patient = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out genes that are not there.")
    ] = False,
    n_null: Annotated[int, typer.Option(min=1, help="Control sets.")] = 100,
    seed: Seed = 0,
    out: Out = None,
    contact_sheet: Contact = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the spots, or the patches of a slide, that express a set of genes most."""
    from stretrieve.cli import _retrieve
    from stretrieve.cli._progress import make_progress
    from stretrieve.query.search import SignatureSettings

    wanted = _wanted(out, contact_sheet, overwrite=overwrite, json=json, spots=slide is None)
    weights, asked = _retrieve.parse_signature(genes), _retrieve.parse_where(where or ())
    search, progress = _retrieve.open_references(ref), make_progress(quiet=quiet)
    settings = SignatureSettings(n_null=n_null, seed=seed)
    scores = search.signature(
        weights, where=asked, ignore_unknown=ignore_unknown, settings=settings, progress=progress
    )
    if slide is None:
        _retrieve.show_signature(scores, top_k, wanted)
        return
    query = search.patches(
        slide, mpp=mpp, patient=patient, thumbnails=contact_sheet is not None, progress=progress
    )
    hits = search.search(
        query, target="expression", top_k=neighbours, where=asked, progress=progress
    )
    _retrieve.show_patches(scores, hits, top_k, wanted)


@app.command()
def match(
    ref: Refs,
    counts: Annotated[
        Path | None, typer.Argument(help="Counts of a section; or give --stored or --slide.")
    ] = None,
    stored: Annotated[str | None, typer.Option(help="A section of the references.")] = None,
    slide: Annotated[Path | None, typer.Option(help="A slide.")] = None,
    side: Annotated[str, typer.Option("--by", help="For --stored: image or expression.")] = "image",
    where: Where = None,
    exclude: Exclude = "patient",
    spots: Spots = None,
    format_: Format = "auto",
    species: Species = "",
    mpp: Mpp = None,
    patient: Patient = None,
    max_spots: Annotated[int, typer.Option(min=1, help="Spots drawn from a section.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Draws that are averaged.")] = 3,
    seed: Seed = 0,
    out: Out = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Write the matched spots: .csv or .parquet.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the sections that resemble a whole section most."""
    from stretrieve.cli import _retrieve
    from stretrieve.cli._progress import make_progress
    from stretrieve.errors import ConfigError, explain
    from stretrieve.query.search import MatchSettings

    wanted = _wanted(out, None, overwrite=overwrite, json=json, spots=False)
    _wanted(pairs, None, overwrite=overwrite, json=json, spots=False)
    if [counts, stored, slide].count(None) != 2:
        raise ConfigError(explain("section to match", expected="one of COUNTS, --stored, --slide"))
    search, progress = _retrieve.open_references(ref), make_progress(quiet=quiet)
    if counts is not None:
        query = _measured(search, counts, spots, format_, species, mpp, patient)
    elif slide is not None:
        at = _positions(spots)
        query = search.patches(slide, mpp=mpp, spots=at, patient=patient, progress=progress)
    else:
        query = search.stored_section(stored or "", modality=side)
    asked = _retrieve.parse_where(where or ())
    settings = MatchSettings(max_spots=max_spots, repeats=repeats, seed=seed)
    matches = search.match(
        query, where=asked, exclude=exclude, settings=settings, progress=progress
    )
    _retrieve.show_matches(matches, pairs, wanted)


def _wanted(
    out: Path | None,
    contact_sheet: Path | None,
    *,
    overwrite: bool,
    json: bool,
    spots: bool = True,
) -> Wanted:
    from stretrieve.cli._retrieve import Wanted

    wanted = Wanted(out, contact_sheet, overwrite, json)
    wanted.check(spots=spots)
    return wanted


def _search(
    search: ReferenceSearch,
    query: SpotQuery,
    wanted: Wanted,
    *,
    to: str,
    top_k: int,
    where: list[str] | None,
    exclude: str,
    quiet: bool,
) -> None:
    from stretrieve.cli._progress import make_progress
    from stretrieve.cli._retrieve import parse_where, show_hits

    hits = search.search(
        query,
        target=to,
        top_k=top_k,
        where=parse_where(where or ()),
        exclude=exclude,
        progress=make_progress(quiet=quiet),
    )
    show_hits(hits, wanted)


def _positions(path: Path | None) -> SpotPositions | None:
    if path is None:
        return None
    from stretrieve.query import SpotPositions
    from stretrieve.spots import read_spot_positions

    return SpotPositions(*read_spot_positions(path))


def _measured(
    search: ReferenceSearch,
    counts: Path,
    spots: Path | None,
    section_format: str,
    species: str,
    mpp: float | None,
    patient: str | None,
) -> SpotQuery:
    from stretrieve.spots import SheetRow, canonical_species, read_section
    from stretrieve.spots.row import UNKNOWN_PATIENT
    from stretrieve.units import MppSource, PixelSize

    row = SheetRow(
        counts.stem or counts.parent.name,
        counts,
        patient=patient or UNKNOWN_PATIENT,
        species=canonical_species(species),
        spots=spots,
        format=section_format,
        mpp=None if mpp is None else PixelSize.square(mpp, MppSource.GIVEN),
    )
    return search.section(read_section(row))
