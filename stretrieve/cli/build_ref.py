"""``stretrieve build-ref``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stretrieve.cli._options import BatchSize, Json, Quiet, Sheet, Workers

if TYPE_CHECKING:
    from stretrieve.reference import Reference


def build_ref(
    sheet: Sheet,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new reference.")],
    embedder: Annotated[
        str | None, typer.Option(help="Embedder; see `stretrieve embedders`. Default: bleep.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Image tower: a timm name, or open_clip:MODEL@TAG.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="none, pretrained, a .safetensors file or folder, or hf-hub:ORG/NAME."),
    ] = None,
    patch_um: Annotated[float | None, typer.Option(help="Side of a patch in µm.")] = None,
    patch_px: Annotated[int | None, typer.Option(help="Side of a patch in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with build settings; options win over it.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, for example train.epochs=5. Repeatable."),
    ] = None,
    workers: Workers = 1,
    batch_size: BatchSize = 64,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted build.")
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate", help="Choose query settings on held-out patients."
        ),
    ] = True,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Build a reference from measured sections, and calibrate it where it has three patients."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.cli._settings import load_settings, put
    from stretrieve.config import settings_from_dict
    from stretrieve.query import calibrate_built
    from stretrieve.reference import BuildSettings, assist_build, build_reference
    from stretrieve.training import is_first_process

    data = load_settings(config, assignments=assignments or ())
    given: dict[str, Any] = {
        "embedder": embedder,
        "embedder_config.encoder.backbone": backbone,
        "embedder_config.encoder.weights": weights,
        "embedder_config.side_um": patch_um,
        "embedder_config.patch_px": patch_px,
        "train.epochs": epochs,
        "seed": seed,
        "workers": workers,
        "batch_size": batch_size,
    }
    for path, value in given.items():
        if value is not None:
            put(data, path, value)
    settings = settings_from_dict(BuildSettings, data)
    if not is_first_process():
        assist_build(sheet, out, settings=settings)
        return
    reference = build_reference(
        sheet,
        out,
        settings=settings,
        resume=resume,
        finish=calibrate_built if calibrate else None,
        progress=make_progress(quiet=quiet),
    )
    _show(reference, out, as_json=json)


def _show(reference: Reference, out: Path, *, as_json: bool) -> None:
    from stretrieve.cli._output import emit_json, emit_pairs, emit_text

    summary = reference.describe()
    if as_json:
        emit_json({"output": str(out), **summary})
        return
    emit_pairs({"reference": out, **summary})
    emit_text(f"next: stretrieve query SLIDE --ref {out} --out SLIDE.h5ad")
