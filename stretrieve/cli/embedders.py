"""``stretrieve embedders``."""

from __future__ import annotations

from stretrieve.cli._options import Json


def embedders(json: Json = False) -> None:
    """List the embedders that are installed and what each needs."""
    from stretrieve.cli._output import emit_json, emit_table
    from stretrieve.embedders import EMBEDDERS

    rows = [(name, _first_line(EMBEDDERS.get(name).__doc__)) for name in EMBEDDERS.names()]
    if json:
        emit_json({"embedders": [{"name": name, "description": text} for name, text in rows]})
    else:
        emit_table(rows, columns=("embedder", "what it is"))


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
