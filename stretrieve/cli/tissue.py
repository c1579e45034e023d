"""``stretrieve tissue``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stretrieve.cli._options import Json, Quiet

if TYPE_CHECKING:
    from stretrieve.errors import StretrieveError
    from stretrieve.slides.look import SlideLook


def tissue(
    slides: Annotated[list[Path], typer.Argument(help="H&E slides.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the pictures and outlines.")
    ] = Path("tissue"),
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel, where the files do not say.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Look at slides: resolution, levels and tissue, with its outlines as a picture and for QuPath."""
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.cli._progress import make_progress
    from stretrieve.slides.look import SlideLook, look_at_slides
    from stretrieve.units import MppSource, PixelSize

    given = None if mpp is None else PixelSize.square(mpp, MppSource.GIVEN)
    looks = look_at_slides(slides, out, pixel_size=given, progress=make_progress(quiet=quiet))
    if json:
        emit_json({"slides": [look.to_dict() for look in looks]})
    else:
        emit_table([look.row() for look in looks], columns=SlideLook.columns)
        emit_text(f"pictures and outlines: {out}")
    failed = [look for look in looks if look.error]
    if failed:
        raise _failure(failed, len(looks))


def _failure(failed: list[SlideLook], total: int) -> StretrieveError:
    from stretrieve.errors import InputError, PartialFailureError, explain

    family = InputError if len(failed) == total else PartialFailureError
    what = f"{len(failed)} of {total} slides unusable"
    return family(explain(what, got="; ".join(look.error for look in failed)))
