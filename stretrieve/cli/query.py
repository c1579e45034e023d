"""``stretrieve query``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stretrieve.cli._options import BatchSize, Json, Quiet, Ref, Workers, split_tag

if TYPE_CHECKING:
    from stretrieve._progress import Progress
    from stretrieve.query import OutputSettings, QueryEngine, Question, WrittenQuery
    from stretrieve.query.sheet import SlideOutcome

_SHEETS = (".csv", ".tsv")


def query(
    slide: Annotated[
        Path,
        typer.Argument(help="H&E slide (SVS, NDPI, TIFF, JPEG, PNG, …), or a CSV sheet of slides."),
    ],
    ref: Ref,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="File to write (.h5ad, .zarr); a folder with a sheet."),
    ],
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel, where the file does not say.")
    ] = None,
    spots: Annotated[
        Path | None, typer.Option(help="Predict at the positions of this spot file.")
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="Predict inside these polygons (GeoJSON, as from QuPath), not by tissue."
        ),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Donor of the slide; the donor's own spots are left out.")
    ] = None,
    section: Annotated[
        str | None, typer.Option(help="Section of the reference that is on this slide; left out.")
    ] = None,
    organ: Annotated[
        str | None, typer.Option(help="Use reference spots of this organ only.")
    ] = None,
    species: Annotated[
        str | None, typer.Option(help="Use reference spots of this species only.")
    ] = None,
    embedder: Annotated[
        str, typer.Option(help="Embedder that was added to the reference; its own by default.")
    ] = "",
    genes: Annotated[
        str | None,
        typer.Option(help="Genes to impute: comma-separated, or a file, one a line. Default: all."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Reference spots averaged. Default: calibrated, or 50."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="uniform, bleep, softmax or inverse. Default: calibrated, or uniform."),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            help="Compare with expression, image or fused embeddings. Default: calibrated, or "
            "expression."
        ),
    ] = None,
    centring: Annotated[
        str | None,
        typer.Option(
            help="Offsets to remove: none, section (between reference sections), both. Default: "
            "calibrated, or none."
        ),
    ] = None,
    compat: Annotated[
        str | None,
        typer.Option(
            help="Published inference: bleep, bleep-simple, bleep-weighted, stgchb, "
            "stgchb-weighted, mclstexp."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any query setting, for example companion=0.5. Repeatable."),
    ] = None,
    stride_um: Annotated[
        float | None, typer.Option(help="Step of the patch grid in µm; the patch side by default.")
    ] = None,
    min_tissue: Annotated[
        float | None, typer.Option(help="Least share of tissue in a patch. Default: 0.25.")
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="h5ad, zarr or spatialdata. Default: by the ending of --out."
        ),
    ] = None,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Store values that are not zero only.")
    ] = False,
    geojson: Annotated[
        Path | None,
        typer.Option(help="Write QuPath detections as well; with a sheet a folder."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Device of the embedder, for example cuda:0. Repeatable: they take turns."
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would take and write nothing.")
    ] = False,
    batch_size: BatchSize = 64,
    workers: Workers = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Predict expression on a slide, or on every slide of a sheet."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.query.question import read_genes

    given = {
        "top_k": top_k,
        "weights": weights,
        "modality": modality,
        "centring": centring,
        "compat": compat,
        "stride_um": stride_um,
        "min_tissue": min_tissue,
        "batch_size": batch_size,
        "workers": workers,
    }
    wanted = None if genes is None else read_genes(genes)
    about = {
        "mpp": mpp,
        "spots": spots,
        "regions": regions,
        "patient": patient,
        "section": section,
        "organ": organ,
        "species": species,
    }
    is_sheet = slide.suffix.lower() in _SHEETS
    output = _output_settings(out, output_format, sparse=sparse, is_sheet=is_sheet)
    if is_sheet:
        _refuse_beside_sheet(about)
    ask = _Ask(
        engine=_engine(ref, given, assignments or (), device or (), embedder=embedder),
        output=output,
        genes=wanted,
        geojson=geojson,
        overwrite=overwrite,
        as_json=json,
        progress=make_progress(quiet=quiet),
    )
    if is_sheet:
        _plan_sheet(ask, slide) if plan else _answer_sheet(ask, slide, out)
        return
    question = _question(slide, about, wanted)
    _plan_slide(ask, question) if plan else _answer_slide(ask, question, out)


@dataclass(frozen=True)
class _Ask:
    """What all slides of a command share."""

    engine: QueryEngine
    output: OutputSettings
    genes: list[str] | None
    geojson: Path | None
    overwrite: bool
    as_json: bool
    progress: Progress


def _engine(
    ref: str,
    given: dict[str, Any],
    assignments: Sequence[str],
    devices: Sequence[str],
    *,
    embedder: str,
) -> QueryEngine:
    """Return the engine with what the reference was calibrated to, changed by what was given."""
    from stretrieve.cli._settings import load_settings
    from stretrieve.config import settings_from_dict
    from stretrieve.query import (
        QueryEngine,
        QuerySettings,
        recommended_settings,
        stored_calibration,
    )
    from stretrieve.reference import Reference

    overrides = load_settings(None, assignments=assignments)
    overrides |= {name: value for name, value in given.items() if value is not None}
    settings_from_dict(QuerySettings, overrides)  # faults before anything is opened
    uri, tag = split_tag(ref)
    reference = Reference.open(uri, tag=tag, embedder=embedder)
    settings = recommended_settings(stored_calibration(reference), overrides)
    return QueryEngine(reference, settings=settings, devices=devices)


def _output_settings(
    out: Path, name: str | None, *, sparse: bool, is_sheet: bool
) -> OutputSettings:
    from stretrieve.errors import ConfigError, InputError, explain
    from stretrieve.query import OutputFormat, OutputSettings

    known = [member.value for member in OutputFormat]
    if name is not None and name not in known:
        raise ConfigError(explain("--format", got=repr(name), expected=", ".join(known)))
    by_ending = OutputFormat.ZARR if out.suffix == ".zarr" else OutputFormat.H5AD
    form = by_ending if name is None else OutputFormat(name)
    if not is_sheet and out.suffix != form.suffix:
        endings = form.suffix if name else ".h5ad or .zarr"
        raise InputError(explain("--out", got=str(out), expected=f"a name ending in {endings}"))
    if is_sheet and out.is_file():
        raise InputError(explain("--out", got=f"the file {out}", expected="a folder with a sheet"))
    return OutputSettings(form, sparse)


def _refuse_beside_sheet(about: dict[str, Any]) -> None:
    from stretrieve.errors import ConfigError, explain

    given = [f"--{name}" for name, value in about.items() if value is not None]
    if given:
        raise ConfigError(
            explain(" ".join(given), got="a sheet", remedy="give these as columns of the sheet")
        )


def _question(slide: Path, about: dict[str, Any], genes: list[str] | None) -> Question:
    from stretrieve.query import Question, SpotPositions
    from stretrieve.spots import read_spot_positions

    path = about["spots"]
    spots = None if path is None else SpotPositions(*read_spot_positions(path))
    return Question(slide, **{**about, "spots": spots}, genes=genes)


def _answer_slide(ask: _Ask, question: Question, out: Path) -> None:
    from stretrieve.cli._output import emit_json, emit_pairs, emit_text
    from stretrieve.cli._warnings import held_warnings
    from stretrieve.query.output import DISCLAIMER

    if ask.geojson is not None:
        _check_free(ask.geojson, overwrite=ask.overwrite)
    with held_warnings():
        written = ask.engine.query_to(
            out, question, output=ask.output, overwrite=ask.overwrite, progress=ask.progress
        )
    if ask.geojson is not None:
        _export(written, ask.geojson, ask.genes)
    if ask.as_json:
        emit_json({"output": str(out), **written.summary})
        return
    emit_pairs({"output": out, **{k: v for k, v in written.summary.items() if k != "warnings"}})
    for warning in written.summary["warnings"]:
        emit_text(f"warning: {warning}")
    emit_text(DISCLAIMER)


def _check_free(path: Path, *, overwrite: bool) -> None:
    from stretrieve.errors import OutputExistsError, explain

    if path.exists() and not overwrite:
        raise OutputExistsError(
            explain("output", got=f"{path} exists", remedy="choose another name or --overwrite")
        )


def _export(written: WrittenQuery, path: Path, genes: list[str] | None) -> None:
    from stretrieve.query.export import export_geojson, open_answer

    with open_answer(written.path) as answer:
        export_geojson(answer, path, genes=genes)


def _answer_sheet(ask: _Ask, sheet: Path, folder: Path) -> None:
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.query.sheet import Outcome, query_sheet, read_slide_sheet

    def after(written: WrittenQuery) -> None:
        if ask.geojson is not None:
            _export(written, ask.geojson / f"{written.path.stem}.geojson", ask.genes)

    outcomes = query_sheet(
        ask.engine,
        read_slide_sheet(sheet),
        folder,
        genes=ask.genes,
        output=ask.output,
        overwrite=ask.overwrite,
        progress=ask.progress,
        after=after,
    )
    counts = {o.value: sum(item.outcome is o for item in outcomes) for o in Outcome}
    if ask.as_json:
        emit_json({**counts, "slides": [outcome.to_dict() for outcome in outcomes]})
    else:
        emit_table(
            [_row(outcome) for outcome in outcomes], columns=("slide", "outcome", "patches", "")
        )
        emit_text(", ".join(f"{number} {name}" for name, number in counts.items()))
    _complain(counts[Outcome.FAILED.value], len(outcomes))


def _row(outcome: SlideOutcome) -> tuple[str, ...]:
    where = "" if outcome.output is None else str(outcome.output)
    note = outcome.reason or (f"{where} (finished before)" if outcome.was_there else where)
    return outcome.name, outcome.outcome.value, str(outcome.summary.get("patches", "")), note


def _plan_slide(ask: _Ask, question: Question) -> None:
    from stretrieve.cli._output import emit_json, emit_pairs
    from stretrieve.query.plan import plan_query

    plan = plan_query(ask.engine, question, output=ask.output)
    if ask.as_json:
        emit_json(plan.to_dict())
    else:
        emit_pairs(_readable(plan.to_dict()))


def _plan_sheet(ask: _Ask, sheet: Path) -> None:
    from stretrieve.cli._output import emit_json, emit_table
    from stretrieve.query.sheet import plan_sheet, read_slide_sheet

    plans = plan_sheet(ask.engine, read_slide_sheet(sheet), genes=ask.genes, output=ask.output)
    if ask.as_json:
        emit_json({"slides": plans})
    else:
        columns = ("name", "outcome", "reason", "patches", "seconds", "memory", "output", "work")
        rows = [[_readable(plan).get(column, "") for column in columns] for plan in plans]
        emit_table(rows, columns=columns)
    _complain(sum(plan["outcome"] == "failed" for plan in plans), len(plans))


def _complain(n_failed: int, n_slides: int) -> None:
    from stretrieve.errors import PartialFailureError, explain

    if n_failed:
        raise PartialFailureError(
            explain(
                "slides",
                got=f"{n_failed} of {n_slides} failed",
                remedy="see the reasons; the others are done and are not computed again",
            )
        )


def _readable(plan: dict[str, Any]) -> dict[str, Any]:
    """Return a plan with sizes in megabytes."""
    sizes = {"memory_bytes": "memory", "output_bytes": "output", "work_bytes": "work"}
    return {
        sizes.get(name, name): f"{value / 1e6:.1f} MB" if name in sizes else value
        for name, value in plan.items()
    }
