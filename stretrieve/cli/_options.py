"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Ref = Annotated[str, typer.Option("--ref", help="The reference: a folder, or folder@tag.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that decode patches.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Patches embedded at a time.")]
Sheet = Annotated[Path, typer.Argument(help="Samplesheet (CSV), one section a row.")]


def split_tag(ref: str) -> tuple[str, str | None]:
    """Split ``folder@tag`` into its parts; the tag is ``None`` when not given."""
    head, at, tag = ref.rpartition("@")
    if at and head and tag and not any(mark in tag for mark in "/\\:"):
        return head, tag
    return ref, None
