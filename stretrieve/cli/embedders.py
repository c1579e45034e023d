"""``stretrieve embedders``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from stretrieve.cli._options import Json

_PRESET_COLUMNS: Final = (
    "name", "hub_id", "patch_px", "mpp", "dim", "pooling", "licence", "gated", "loadable", "note",
)  # fmt: skip


def embedders(
    presets: Annotated[
        bool, typer.Option("--presets", help="List the image models that `frozen` knows by name.")
    ] = False,
    json: Json = False,
) -> None:
    """List the embedders that are installed and what each needs."""
    if presets:
        _list_presets(json=json)
        return
    from stretrieve.cli._output import emit_json, emit_table
    from stretrieve.embedders import EMBEDDERS

    rows = [_describe(name) for name in EMBEDDERS.names()]
    if json:
        keys = ("name", "description", "needs")
        emit_json({"embedders": [dict(zip(keys, row, strict=True)) for row in rows]})
    else:
        emit_table(rows, columns=("embedder", "what it is", "what it needs"))


def _list_presets(*, json: bool) -> None:
    from stretrieve.cli._output import emit_json, emit_table
    from stretrieve.embedders.presets import presets_table

    rows = presets_table()
    if json:
        emit_json({"presets": rows})
        return
    cells = [{**row, "mpp": f"{row['mpp']:.3g}"} for row in rows]
    emit_table([[str(row[c]) for c in _PRESET_COLUMNS] for row in cells], columns=_PRESET_COLUMNS)


def _describe(name: str) -> tuple[str, str, str]:
    """Return name, description and needs; a package that cannot be imported says so in its row."""
    from stretrieve.embedders import EMBEDDERS

    try:
        embedder = EMBEDDERS.get(name)
    except (ImportError, AttributeError) as error:
        return name, f"cannot be loaded: {error}", ""
    return name, _first_line(embedder.__doc__), embedder.needs


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
