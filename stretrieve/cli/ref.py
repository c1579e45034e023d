"""``stretrieve ref``: look into a reference, change it, check it, share it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stretrieve.cli._options import Json, Quiet, Sheet, split_tag

if TYPE_CHECKING:
    from stretrieve.reference import Manifest

app = typer.Typer(
    help="Look into a reference, change it, check it, share it.", no_args_is_help=True
)

Tagged = Annotated[
    str, typer.Argument(metavar="REF[@TAG]", help="A reference, newest or at a tag.")
]
Root = Annotated[Path, typer.Argument(metavar="REF", help="A reference folder.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another writer.")]


@app.callback()
def ref() -> None:
    """Look into a reference, change it, check it, share it."""


@app.command()
def info(reference: Tagged, json: Json = False) -> None:
    """Show what a reference holds, how it was made, and how well its indexes do."""
    from stretrieve.cli._output import emit_json, emit_pairs
    from stretrieve.reference import Reference

    root, tag = split_tag(reference)
    said = Reference.open(root, tag=tag).describe()
    if json:
        emit_json(said)
    else:
        emit_pairs(_flat(said))


@app.command("list")
def list_(
    reference: Tagged,
    versions: Annotated[
        bool, typer.Option("--versions", help="Versions and tags instead of sections.")
    ] = False,
    json: Json = False,
) -> None:
    """List the sections of a reference, or its versions and tags."""
    from stretrieve.cli._output import emit_json, emit_table
    from stretrieve.reference import Reference, list_versions

    root, tag = split_tag(reference)
    if versions:
        rows = [version.to_dict() for version in list_versions(root)]
    else:
        table = Reference.open(root, tag=tag).sections().reset_index()
        rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    if json:
        emit_json({"versions" if versions else "sections": rows})
    else:
        emit_table([[_short(v) for v in row.values()] for row in rows], columns=list(rows[0]))


@app.command()
def add(
    reference: Root, sheet: Sheet, wait: Wait = 0.0, quiet: Quiet = False, json: Json = False
) -> None:
    """Embed the sections of a sheet with the reference's own embedder and append them."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import add_sections

    done = add_sections(reference, sheet, wait_s=wait, progress=make_progress(quiet=quiet))
    _show_version(done, as_json=json)


@app.command()
def remove(
    reference: Root,
    section: Annotated[list[str] | None, typer.Option(help="Section; repeatable.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="Patient; repeatable.")] = None,
    wait: Wait = 0.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Delete sections or whole patients; `ref compact` then erases them from old versions."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import remove_sections

    done = remove_sections(
        reference, sections=section or (), patients=patient or (), wait_s=wait,
        progress=make_progress(quiet=quiet),
    )  # fmt: skip
    _show_version(done.manifest, as_json=json, removed=list(done.sections))


@app.command("add-embedder")
def add_embedder(
    reference: Root,
    sheet: Sheet,
    embedder: Annotated[str, typer.Option(help="Embedder; see `stretrieve embedders`.")],
    label: Annotated[
        str, typer.Option(help="What to call it; the embedder's name when left out.")
    ] = "",
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; options win over it.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, for example train.epochs=5. Repeatable."),
    ] = None,
    wait: Wait = 0.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fit another embedder on a reference's sections and store its embeddings beside the first."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.cli._settings import load_settings
    from stretrieve.config import settings_from_dict
    from stretrieve.reference import FurtherSettings
    from stretrieve.reference import add_embedder as add_one

    data = {**load_settings(config, assignments=assignments or ()), "embedder": embedder}
    settings = settings_from_dict(FurtherSettings, data)
    progress = make_progress(quiet=quiet)
    done = add_one(reference, sheet, settings, label=label, wait_s=wait, progress=progress)
    _show_version(done, as_json=json, embedders=sorted(done.embedders))


@app.command("remove-embedder")
def remove_embedder(
    reference: Root,
    label: Annotated[str, typer.Argument(help="What the embedder is called.")],
    wait: Wait = 0.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Drop an embedder that was added, and its embeddings."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import remove_embedder as remove_one

    done = remove_one(reference, label, wait_s=wait, progress=make_progress(quiet=quiet))
    _show_version(done, as_json=json, embedders=sorted(done.embedders))


@app.command()
def tag(
    reference: Tagged,
    name: Annotated[str, typer.Argument(help="The name to give.")],
    move: Annotated[
        bool, typer.Option("--move", help="Take the name from another version.")
    ] = False,
    json: Json = False,
) -> None:
    """Name a version, so that queries can pin it and compaction keeps it."""
    from stretrieve.reference import tag_version

    root, version = split_tag(reference)
    done = tag_version(root, name, version=version, move=move)
    _show_version(done, as_json=json, tag=name)


@app.command()
def verify(reference: Tagged, quiet: Quiet = False, json: Json = False) -> None:
    """Recompute every checksum and compare store, indexes and manifest with each other."""
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import verify_reference

    root, version = split_tag(reference)
    done = verify_reference(root, tag=version, progress=make_progress(quiet=quiet))
    if json:
        emit_json(done.to_dict())
    elif done.ok:
        emit_text(f"sound: version {done.version}, content digest {done.content_digest}")
    else:
        rows = [(fault.part, fault.problem, fault.repair) for fault in done.faults]
        emit_table(rows, columns=("part", "problem", "repair"))
    done.raise_if_damaged()


@app.command()
def calibrate(
    reference: Root,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Samplesheet it was built from, to fit embedders without a patient."),
    ] = None,
    wait: Wait = 0.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Choose query settings, interval widths and expected correlations on held-out patients."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.query import calibrate_reference

    done = calibrate_reference(
        reference, sections=sheet, wait_s=wait, progress=make_progress(quiet=quiet)
    )
    said = dict(done.calibration or {})
    shown = ("embedder_refitted", "nested_pcc_mean", "coverage_before_inflation", "inflation")
    _show_version(
        done, as_json=json, settings=said["settings"], **{name: said[name] for name in shown}
    )


@app.command("rebuild-indexes")
def rebuild_indexes(
    reference: Root,
    recipe: Annotated[str | None, typer.Option(help="Index recipe from now on.")] = None,
    wait: Wait = 0.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Derive the indexes again from the stored vectors."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import rebuild_indexes as rebuild

    progress = make_progress(quiet=quiet)
    done = rebuild(reference, recipe=recipe, wait_s=wait, progress=progress)
    chosen = {modality: entry.recipe for modality, entry in done.indexes.items()}
    _show_version(done, as_json=json, indexes=chosen)


@app.command()
def compact(
    reference: Root,
    drop_tags: Annotated[
        bool, typer.Option("--drop-tags", help="Drop the tags of old versions, so that these go.")
    ] = False,
    wait: Wait = 0.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Rewrite the store in order and erase old versions, and with them what was removed."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import compact_reference

    done = compact_reference(
        reference, drop_tags=drop_tags, wait_s=wait, progress=make_progress(quiet=quiet)
    )
    kept = {str(number): why for number, why in done.kept.items()}
    _show_version(done.manifest, as_json=json, forgotten=list(done.forgotten), kept=kept)


@app.command()
def export(
    reference: Tagged,
    out: Annotated[Path, typer.Option("--out", "-o", help="The new file.")],
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write one version of a reference to one file, with checksums, for sharing."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import export_reference

    root, version = split_tag(reference)
    done = export_reference(root, out, tag=version, progress=make_progress(quiet=quiet))
    _show({"output": str(done), "bytes": done.stat().st_size}, as_json=json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File written by `ref export`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new reference.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted import.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a reference from an exported file, every checksum verified."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.reference import import_reference

    progress = make_progress(quiet=quiet)
    done = import_reference(file, out, resume=resume, progress=progress)
    _show({"output": str(out), **done.identity}, as_json=json)


def _show_version(manifest: Manifest, *, as_json: bool, **more: object) -> None:
    facts = {
        "version": f"v{manifest.version:06d}",
        "change": manifest.change,
        "sections": len(manifest.sections),
        "spots": manifest.n_spots,
        "content_digest": manifest.content_digest,
    }
    _show({**facts, **more}, as_json=as_json)


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    from stretrieve.cli._output import emit_json, emit_pairs

    if as_json:
        emit_json(facts)
    else:
        emit_pairs(_flat(facts))


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _short(value)
    return flat


def _short(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return value
